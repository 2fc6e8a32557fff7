"""From a file that was found to what the run does with it; runs in many threads at once."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.errors import NotAPictureError, PhotoError
from features.frame import Frame
from features.photo import ModelInput, Photo, date_taken, load_photo, to_model_input
from indexer.errors import one_line
from indexer.ingest.describing import Describer, Views
from indexer.ingest.known import KnownPhotos
from indexer.ingest.sources import Found
from indexer.store.failures import printable
from indexer.store.mapstore import MapStore, Place


@dataclass(frozen=True)
class Decoded:
    """A photo whose maps have to be extracted, unless a photo before it has the same content.

    views: what descriptors are shown, of those that lack it.
    """

    found: Found
    input: ModelInput
    views: Views = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        return self.input.content_hash


@dataclass(frozen=True)
class Reused:
    """A photo whose content the index has.

    content_hash: SHA-256, hexadecimal. photo_id: of the photo that has it. place: where its maps
    lie. frame: its mapping to source pixels. taken_ns: date taken, nanoseconds since 1970.
    views: as in Decoded.
    """

    found: Found
    content_hash: str
    photo_id: int
    place: Place
    frame: Frame
    taken_ns: int | None
    views: Views = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A photo that could not be read. broken: its content is at fault, not the disk."""

    found: Found
    reason: str
    broken: bool


@dataclass(frozen=True)
class PassedOver:
    """A file that is no picture."""

    found: Found


@dataclass(frozen=True)
class Decoder:
    """Reads photos for one run; safe for threads.

    known, maps: what the index holds; without them no photo's content is known. size, grid: the
    extractor's square and map. describer: says what descriptors want of a photo.
    """

    known: KnownPhotos | None
    maps: MapStore
    size: int
    grid: int
    describer: Describer | None = None

    def __call__(self, found: Found) -> Decoded | Reused | Failed | PassedOver:
        path = Path(found.path)
        try:
            # Photos of an unheard-of size are new: they need not be hashed before being decoded.
            reused = None
            if self.known is not None and self.known.has_size(found.size):
                reused = self._reuse(self.known, found, path)
                if reused is not None and self._is_described(reused.content_hash):
                    return reused
            # One decoding serves both: as many pixels as the maps' model wants.
            photo = load_photo(path, at_least=2 * self.size)
            views = self._views(photo)
            if reused is not None and reused.content_hash == photo.content_hash:
                return replace(reused, views=views)
            return Decoded(found, to_model_input(photo, self.size, self.grid), views)
        except NotAPictureError:
            return PassedOver(found)
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error})"
            return Failed(found, reason, broken=False)
        except PhotoError as error:
            return Failed(found, one_line(error).removeprefix(f"{path}: "), broken=True)
        except Exception as error:
            # Whatever else a decoder trips over must cost one photo, not the run.
            reason = f"broken picture ({type(error).__name__}: {one_line(error)})"
            return Failed(found, reason, broken=True)

    def _is_described(self, content_hash: str) -> bool:
        return self.describer is None or any(
            map(self.describer.is_complete, self._rows(content_hash))
        )

    def _views(self, photo: Photo) -> Views:
        if self.describer is None:
            return {}
        return self.describer.views(photo, self._rows(photo.content_hash))

    def _rows(self, content_hash: str) -> list[int]:
        return [] if self.known is None else self.known.by_content(bytes.fromhex(content_hash))

    def _reuse(self, known: KnownPhotos, found: Found, path: Path) -> Reused | None:
        """The maps that the index has of this content, if it has them sound."""
        with path.open("rb") as file:
            content_hash = hashlib.file_digest(file, "sha256").digest()
        table = known.table
        for row in known.by_content(content_hash):
            place = table.place(row)
            _, damaged = self.maps.read([place])
            if not damaged:
                width, height = table.number("width", row), table.number("height", row)
                return Reused(
                    found,
                    content_hash.hex(),
                    table.number("id", row),
                    place,
                    Frame(width, height, self.size, self.grid),
                    date_taken(path),
                )
        return None


def unstorable(found: Found) -> Failed | None:
    """The failure of a photo whose name the photo table cannot hold, else None."""
    try:
        found.relative.encode("utf-8")
    except UnicodeEncodeError:
        reason = f"its name is not UTF-8 ({printable(found.relative)}); rename it"
        return Failed(found, reason, broken=False)
    return None
