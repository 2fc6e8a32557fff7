"""An album as JSON, for programs (docs/json.md)."""

from collections.abc import Sequence
from typing import Any

from indexer.collection import PhotoRecord
from search.albums.album import Album
from search.albums.known_photos import exists


def album_json(album: Album, records: Sequence[PhotoRecord]) -> dict[str, Any]:
    """An album as JSON-ready values; boxes are in pixels of the upright photo.

    records: of its photos, in their order.
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
                "changed": record.is_changed(),
                "gone": not exists(record.path),
            }
            for photo, record in zip(album.photos, records, strict=True)
        ],
        "threshold": album.threshold,
        "waiting": album.waiting,
        "estimated": album.estimated,
    }
