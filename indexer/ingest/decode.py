"""Decoding files in threads: from a file that was found to what the run has to do with it."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from features.errors import NotAPictureError, PhotoError, UnreadableError
from features.frame import Frame
from features.photo import (
    ModelInput,
    Photo,
    date_taken,
    is_raw_name,
    load_photo,
    to_model_input,
)
from indexer.bucket.object_path import ObjectPath, refusal_behind
from indexer.bucket.object_store import BucketError
from indexer.errors import one_line
from indexer.ingest.describing import Describer, Views
from indexer.ingest.known import KnownPhotos
from indexer.ingest.sources import Found, Unreadable
from indexer.store.failures import printable
from indexer.store.mapstore import MapStore, Place


@dataclass(frozen=True)
class Decoded:
    """A photo whose maps have to be extracted, unless a photo before it has the same content.

    views: the inputs of the descriptors that it lacks.
    """

    found: Found
    input: ModelInput
    views: Views = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        return self.input.content_hash


@dataclass(frozen=True)
class Reused:
    """A photo whose content the index holds.

    content_hash: SHA-256, hexadecimal. photo_id: of the photo that has this content. place: where
    the maps lie. frame: the mapping to source pixels. taken_ns: date taken, nanoseconds since 1970.
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
    """A photo that could not be read. broken: because of its content, not because of the disk."""

    found: Found
    reason: str
    broken: bool


@dataclass(frozen=True)
class PassedOver:
    """A file that is no picture. kind: as in NotAPictureError."""

    found: Found
    kind: Literal["video", "raw file"] | None


# What a run has to do with a file.
Item = Decoded | Reused | Failed | PassedOver | Unreadable


@dataclass(frozen=True)
class Decoder:
    """Reads the photos of one run; safe for threads.

    known: what the index holds; None to decode every photo. maps: of the index. size, grid: sides
    of the extractor's square input in pixels, and of its map in cells. describer: makes the inputs
    of the descriptors that photos lack.
    """

    known: KnownPhotos | None
    maps: MapStore
    size: int
    grid: int
    describer: Describer | None = None

    def __call__(self, found: Found) -> Decoded | Reused | Failed | PassedOver:
        """Raises BucketError where the store of a photo, or of the index, refuses or is not
        reached: others would fail too.
        """
        path = found.file
        try:
            reused = None
            # An object costs more to fetch twice than to decode in vain.
            is_hashed_first = self._may_be_known(found) and not isinstance(path, ObjectPath)
            if is_hashed_first:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                reused = self._reuse(found, content, partial(date_taken, path))
                if reused is not None and self._is_described(reused.content_hash):
                    return reused
            # The photo is decoded once, for maps and descriptors: with the pixels that maps need.
            photo = load_photo(path, at_least=2 * self.size)
            if self._may_be_known(found) and not is_hashed_first:
                reused = self._reuse(found, photo.content_hash, lambda: photo.taken_ns)
            views = self._views(photo)
            if reused is not None and reused.content_hash == photo.content_hash:
                return replace(reused, views=views)
            return Decoded(found, to_model_input(photo, self.size, self.grid), views)
        except BucketError:
            raise  # nothing is said of the photo
        except NotAPictureError as error:
            return PassedOver(found, error.kind)
        except OSError as error:
            if refusal := refusal_behind(error):
                raise refusal from None
            reason = f"cannot be read ({error.strerror or error})"
            return Failed(found, reason, broken=False)
        except PhotoError as error:
            if refusal := refusal_behind(error):
                raise refusal from None
            reason = one_line(error).removeprefix(f"{path}: ")
            return Failed(found, reason, broken=not isinstance(error, UnreadableError))
        except Exception as error:
            # Any other error of a decoder must cost one photo, not the run.
            reason = f"broken picture ({type(error).__name__}: {one_line(error)})"
            return Failed(found, reason, broken=True)

    def _may_be_known(self, found: Found) -> bool:
        """Whether some photo of the index may have this content: one has this size.

        An earlier version of Waldo may have indexed the thumbnail of a raw file.
        """
        known = self.known
        return known is not None and known.has_size(found.size) and not is_raw_name(found.relative)

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

    def _reuse(
        self, found: Found, content_hash: str, taken_ns: Callable[[], int | None]
    ) -> Reused | None:
        """The maps that the index has of a content, if they are not damaged."""
        assert self.known is not None
        table = self.known.table
        for row in self._rows(content_hash):
            place = table.place(row)
            _, damaged = self.maps.read([place])
            if not damaged:
                width, height = table.number("width", row), table.number("height", row)
                return Reused(
                    found,
                    content_hash,
                    table.number("id", row),
                    place,
                    Frame(width, height, self.size, self.grid),
                    taken_ns(),
                )
        return None


def decoding_threads() -> ThreadPoolExecutor:
    """Threads that decode photos; a context manager."""
    return ThreadPoolExecutor(_thread_count(), thread_name_prefix="decode")


def decode_ahead(
    entries: Iterable[Found | Unreadable], decoder: Decoder, ahead: int
) -> Generator[Item, None, None]:
    """What is to be done with each file, in order, while threads decode the next ones.

    ahead: how many decoded photos may wait, beside one per thread. Close the generator to stop the
    threads.
    """
    threads = decoding_threads()
    queue: deque[Future[Item] | Item] = deque()
    try:
        for entry in entries:
            if isinstance(entry, Unreadable):
                queue.append(entry)
            else:
                queue.append(_unstorable(entry) or threads.submit(decoder, entry))
            if len(queue) > ahead + _thread_count():
                yield _result(queue.popleft())
        while queue:
            yield _result(queue.popleft())
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _thread_count() -> int:
    return min(8, max(2, os.cpu_count() or 1))


def _result(item: Future[Item] | Item) -> Item:
    return item.result() if isinstance(item, Future) else item


def _unstorable(found: Found) -> Failed | None:
    """The failure of a photo whose name the photo table cannot hold; None for other names."""
    try:
        found.relative.encode("utf-8")
    except UnicodeEncodeError:
        reason = f"its name is not UTF-8 ({printable(found.relative)}); rename it"
        return Failed(found, reason, broken=False)
    return None
