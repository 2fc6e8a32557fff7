"""The page of an album: each photo that shows the object, with the box around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.errors import WaldoError
from features.photo import load_photo
from indexer.collection import PhotoRecord
from search.albums.album import AlbumPhoto
from search.commands.pages.rendering import Picture, render, write_html
from search.segmentation.overlay import shrunk

# The longer side of a picture, in pixels.
_LONGEST = 480


@dataclass(frozen=True)
class _Card:
    """One photo. picture: None where the photo is gone. changed: since it was indexed."""

    photo: AlbumPhoto
    record: PhotoRecord
    picture: Picture | None
    changed: bool


def write_album_page(
    name: str, photos: Sequence[tuple[AlbumPhoto, PhotoRecord]], path: Path
) -> None:
    """Write the page of an album as one file that needs no other; it links to the photos.

    Raises WaldoError where the file cannot be written.
    """
    write_html(render("album.html", title=name, cards=[_card(*each) for each in photos]), path)


def _card(photo: AlbumPhoto, record: PhotoRecord) -> _Card:
    try:
        loaded = load_photo(record.path, at_least=2 * _LONGEST)
    except (WaldoError, OSError):
        return _Card(photo, record, None, changed=False)
    return _Card(photo, record, Picture.of(shrunk(loaded, _LONGEST)), record.is_changed())
