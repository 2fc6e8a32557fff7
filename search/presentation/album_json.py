"""An album as JSON, for programs (docs/json.md)."""

from collections.abc import Sequence
from typing import Any

from indexer.reader import PhotoRecord
from search.albums.album import Album, AlbumPhoto


def album_json(album: Album, records: Sequence[PhotoRecord]) -> dict[str, Any]:
    """An album as JSON-ready values; boxes are in pixels of the upright photo.

    records: of the photos that the album tells, `told_photos`.
    """
    return {
        "name": album.name,
        "photos": [
            {
                "id": photo.id,
                "path": str(record.path),
                "probability": photo.probability,
                "score": photo.score,
                "box": photo.box,
                "said": photo.said,
                "shown": photo.shown,
                "rivals": list(photo.rivals),
                "lost_to": photo.lost_to,
            }
            for photo, record in zip(told_photos(album), records, strict=True)
        ],
        "threshold": album.threshold,
        "waiting": album.waiting,
    }


def told_photos(album: Album) -> list[AlbumPhoto]:
    """The photos that an album shows, and those that it lost to a likelier name, best first."""
    return [photo for photo in album.photos if photo.shown or photo.lost_to is not None]
