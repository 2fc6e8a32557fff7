"""From a file that was found to what the run does with it; runs in many threads at once."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.errors import NotAPictureError, PhotoError
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput, load_model_input
from indexer.errors import one_line
from indexer.failures import printable
from indexer.known import KnownPhotos
from indexer.mapstore import MapStore, Place
from indexer.sources import Found
from indexer.writer import Pooled, read_maps


@dataclass(frozen=True)
class Decoded:
    """A photo whose maps have to be extracted, unless a photo before it has the same content."""

    found: Found
    input: ModelInput


@dataclass(frozen=True)
class Reused:
    """A photo whose content the index has.

    pooled: what follows from its maps. place: where they lie.
    """

    found: Found
    pooled: Pooled
    place: Place


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

    known, maps: what the index holds. size, grid: the extractor's square and map.
    """

    known: KnownPhotos
    maps: MapStore
    size: int
    grid: int

    def __call__(self, found: Found) -> Decoded | Reused | Failed | PassedOver:
        path = Path(found.path)
        try:
            # Photos of an unheard-of size are new: they need not be hashed before being decoded.
            if self.known.has_size(found.size):
                reused = self._reuse(found, path)
                if reused is not None:
                    return reused
            return Decoded(found, load_model_input(path, self.size, self.grid))
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

    def _reuse(self, found: Found, path: Path) -> Reused | None:
        """The maps that the index has of this content, if it has them sound."""
        with path.open("rb") as file:
            content_hash = hashlib.file_digest(file, "sha256").digest()
        for place, frame in self._places(content_hash):
            arrays = read_maps(self.maps, place, self.grid)
            if arrays is not None:
                maps = FeatureMaps(*arrays, frame, content_hash.hex())
                return Reused(found, Pooled.of(maps), place)
        return None

    def _places(self, content_hash: bytes) -> Iterator[tuple[Place, Frame]]:
        table = self.known.table
        for row in self.known.by_content(content_hash):
            width, height = table.number("width", row), table.number("height", row)
            yield table.place(row), Frame(width, height, self.size, self.grid)


def unstorable(found: Found) -> Failed | None:
    """The failure of a photo whose name the photo table cannot hold, else None."""
    try:
        found.relative.encode("utf-8")
    except UnicodeEncodeError:
        reason = f"its name is not UTF-8 ({printable(found.relative)}); rename it"
        return Failed(found, reason, broken=False)
    return None
