"""Indexing photos: the run that lists, decodes, extracts and stores, and picks up where it left."""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from indexer.decode import Decoded, Decoder, Failed, PassedOver, Reused, unstorable
from indexer.extractor import Extractor
from indexer.failures import Failure, printable, read_failures, write_failures
from indexer.known import KnownPhotos
from indexer.mapstore import Place
from indexer.photos import read_photo_table
from indexer.sources import Found, Source, Unreadable, list_photos, open_sources
from indexer.writer import IndexWriter, Pooled

# Settled photos wait for the batch before them; this many at most.
_MAX_WAITING = 1024
_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    done, total: files looked at, and found by the listing (None while unknown). new: photos
    extracted or given a row. skipped: unchanged photos and files that are no pictures.
    failed: photos that could not be read. seconds: since the run began.
    """

    done: int
    total: int | None
    new: int
    skipped: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class IndexReport:
    """What a run did, in photos.

    new: not known before (copies of known photos too). changed: other content at a known path, or
    maps that were lost and made again. moved: known content at another path. unchanged: left as
    they were. removed: no longer there. failed: could not be read. passed_over: files that are no
    pictures. total: photos in the index now. seconds: the whole run.
    """

    index_dir: Path
    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    passed_over: int = 0
    total: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Unchanged:
    """A photo whose size and time are those on record: not even opened."""

    found: Found


_Item = Decoded | Reused | Failed | PassedOver | _Unchanged | Unreadable


def index_photos(
    sources: Sequence[Path],
    index_dir: Path,
    extractor: Extractor,
    *,
    batch_size: int = 8,
    on_progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Bring an index up to date with some sources; make it if there is none.

    sources: folders, photos and lists of photos (`sources.open_sources`). batch_size: photos an
    extraction takes at once; the result does not depend on it. Photos that the index knows and
    that did not change are not opened; those beneath the sources that are no longer there are
    deleted. Killed at any instant, the index is as of its last commit and the same call finishes
    the work; on KeyboardInterrupt what is extracted is committed first.

    Raises SourceError before anything is written, FingerprintError, IndexBusyError,
    IndexFormatError, IndexMissingError, IndexDamagedError, IndexWriteError, and whatever the
    extractor raises.
    """
    started = time.monotonic()
    opened = open_sources(sources, index_dir)
    with IndexWriter.open(index_dir, extractor) as writer:
        total = None
        if on_progress is not None:
            total = sum(1 for _ in list_photos(opened, index_dir))
        run = _Run(opened, writer, extractor, batch_size, on_progress, total, started)
        return run.run()


class _Run:
    """One call of `index_photos`."""

    def __init__(
        self,
        sources: list[Source],
        writer: IndexWriter,
        extractor: Extractor,
        batch_size: int,
        on_progress: Callable[[Progress], None] | None,
        total: int | None,
        started: float,
    ) -> None:
        self._sources = sources
        self._writer = writer
        self._extractor = extractor
        self._batch_size = max(1, batch_size)
        self._on_progress = on_progress
        self._total = total
        self._started = started
        self._last_report = started
        self._done = 0
        self._counts: Counter[str] = Counter()
        manifest = writer.manifest
        table = read_photo_table(
            [writer.index_dir / file.name for file in manifest.photos],
            np.array(manifest.tombstones, dtype=np.int64),
        )
        self._known = KnownPhotos(
            table, manifest.sources, {file.number for file in manifest.shards}
        )
        self._decoder = Decoder(self._known, writer.maps, extractor.image_size, extractor.grid)
        # Rows of the table that were found at their path, or have moved from it.
        self._settled = np.zeros(len(table), dtype=bool)
        # Content that this run extracted: a copy found later shares its maps.
        self._fresh: dict[str, tuple[Place, Frame]] = {}
        self._failures = {failure.path: failure for failure in read_failures(writer.index_dir)}
        self._failed_now: set[str] = set()
        self._untouchable: list[str] = []

    def run(self) -> IndexReport:
        try:
            self._settle_all()
        except BaseException:
            # Keep what is extracted; where the disk is what failed, the first error says so.
            with contextlib.suppress(WaldoError, OSError):
                self._finish([])
            raise
        gone = self._gone()
        self._counts["removed"] += len(gone)
        for path in [p for p in self._failures if self._is_outdated(self._failures[p])]:
            del self._failures[path]
        total = self._finish([self._known.table.number("id", row) for row in gone])
        self._tell(at_once=True)
        seconds = time.monotonic() - self._started
        return IndexReport(self._writer.index_dir, **self._counts, total=total, seconds=seconds)

    def _finish(self, gone: list[int]) -> int:
        """Commit everything; returns how many photos the index holds."""
        index_dir = self._writer.index_dir
        if sorted(self._failures.values(), key=lambda f: f.path) != read_failures(index_dir):
            write_failures(index_dir, self._failures.values())
        return self._writer.finish(gone).n_photos

    def _settle_all(self) -> None:
        """Take the photos in order of listing, a batch of extractions at a time."""
        waiting: list[_Item] = []
        contents: dict[str, Decoded] = {}
        # Closed here, so that after an interrupt the decoding threads are not left at work.
        with contextlib.closing(self._items()) as items:
            for item in items:
                waiting.append(item)
                if isinstance(item, Decoded) and item.input.content_hash not in self._fresh:
                    contents.setdefault(item.input.content_hash, item)
                full = len(contents) == self._batch_size or len(waiting) >= _MAX_WAITING
                if full or not contents:
                    self._settle_batch(waiting, contents)
                    waiting, contents = [], {}
        self._settle_batch(waiting, contents)

    def _settle_batch(self, waiting: list[_Item], contents: dict[str, Decoded]) -> None:
        inputs = [item.input for item in contents.values()]
        extracted: dict[str, FeatureMaps] = {}
        if inputs:
            maps = self._extractor.extract(inputs)
            if [m.content_hash for m in maps] != list(contents):
                raise ValueError("the extractor returned maps of other photos, or in another order")
            extracted = dict(zip(contents, maps, strict=True))
        for item in waiting:
            self._settle(item, extracted)
            self._done += 1
        self._tell()

    def _items(self) -> Generator[_Item, None, None]:
        """What is to be done with each file, in order of listing, decoded ahead by threads."""
        threads = min(8, max(2, os.cpu_count() or 1))
        ahead = 2 * self._batch_size + threads
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        queue: deque[Future[_Item] | _Item] = deque()
        try:
            for entry in list_photos(self._sources, self._writer.index_dir):
                queue.append(self._begin(entry, pool))
                if len(queue) > ahead:
                    yield _result(queue.popleft())
            while queue:
                yield _result(queue.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, entry: Found | Unreadable, pool: ThreadPoolExecutor) -> Future[_Item] | _Item:
        if isinstance(entry, Unreadable):
            return entry
        row = self._known.by_path(entry.path)
        if row is not None and self._known.has_maps[row]:
            table = self._known.table
            recorded = (table.number("size", row), table.number("mtime_ns", row))
            if recorded == (entry.size, entry.mtime_ns):
                return _Unchanged(entry)
        return unstorable(entry) or pool.submit(self._decoder, entry)

    def _settle(self, item: _Item, extracted: dict[str, FeatureMaps]) -> None:
        """Do with one file what is to be done, now that all before it are settled."""
        if isinstance(item, Unreadable):
            self._fail(item.path, item.reason, item.source)
            if item.may_exist:
                self._untouchable.append(item.path)
            return
        found = item.found
        row = self._known.by_path(found.path)
        if row is not None:
            self._settled[row] = True
        if isinstance(item, Failed):
            self._fail(found.path, item.reason, found.source)
            if item.broken and row is not None:
                self._writer.bury(self._known.table.number("id", row))
            return
        self._failures.pop(printable(found.path), None)
        if isinstance(item, _Unchanged):
            self._counts["unchanged"] += 1
        elif isinstance(item, PassedOver):
            self._counts["passed_over"] += 1
            if row is not None:
                self._counts["removed"] += 1
                self._writer.bury(self._known.table.number("id", row))
        elif isinstance(item, Reused):
            self._store(found, row, item.pooled, item.place)
        else:
            maps, place = self._maps_of(item, extracted)
            pooled = Pooled.of(maps)
            if np.isfinite(pooled.vector).all():
                self._store(found, row, pooled, place or maps)
            else:
                self._fail(found.path, "the model gave no finite features for it", found.source)

    def _maps_of(
        self, item: Decoded, extracted: dict[str, FeatureMaps]
    ) -> tuple[FeatureMaps, Place | None]:
        """A photo's maps, and where they lie if an earlier photo of this run brought them."""
        content = item.input.content_hash
        if content not in self._fresh:
            return extracted[content], None
        place, frame = self._fresh[content]
        return FeatureMaps(*self._writer.maps_at(place), frame, content), place

    def _store(
        self, found: Found, row: int | None, pooled: Pooled, maps: Place | FeatureMaps
    ) -> None:
        """Give a photo its row. maps: where its maps lie, or the maps, if they are to be written.

        row: of the photo that the index knows at this path.
        """
        table, content = self._known.table, bytes.fromhex(pooled.content_hash)
        own_id = buries = None
        if row is not None and table.content_hash(row) == content:
            self._counts["unchanged" if isinstance(maps, Place) else "changed"] += 1
            own_id = table.number("id", row)
        elif row is not None:
            self._counts["changed"] += 1
            buries = table.number("id", row)
        else:
            origin = self._moved_from(content)
            self._counts["new" if origin is None else "moved"] += 1
            own_id = None if origin is None else table.number("id", origin)
        if isinstance(maps, Place):
            self._writer.add_shared(found, pooled, maps, photo_id=own_id, buries=buries)
        else:
            place = self._writer.add(found, maps, pooled, photo_id=own_id, buries=buries)
            self._fresh[pooled.content_hash] = (place, pooled.frame)

    def _moved_from(self, content: bytes) -> int | None:
        """Row of a photo with this content that is gone from its path beneath the sources."""
        for row in self._known.by_content(content):
            if self._known.table.live[row] and not self._settled[row]:
                path = self._known.path(row)
                if self._is_beneath(path) and _is_gone(path):
                    self._settled[row] = True
                    return row
        return None

    def _gone(self) -> list[int]:
        """Rows of live photos that this run should have found and did not."""
        lists = {s.root for s in self._sources if s.kind == "list"}
        roots = [i for i, s in enumerate(self._writer.manifest.sources) if s in lists]
        table = self._known.table
        listed = np.isin(table.numbers["source"], roots)
        gone = []
        for row in np.flatnonzero(table.live & ~self._settled):
            path = self._known.path(int(row))
            if (listed[row] or self._is_beneath(path)) and not self._is_untouchable(path):
                gone.append(int(row))
        return gone

    def _is_beneath(self, path: str) -> bool:
        """Whether a walk of this run's folders comes by a path, were it there."""
        for source in self._sources:
            prefix = str(source.path).rstrip("/") + "/"
            if source.kind == "folder" and path.startswith(prefix):
                # A photo in a hidden folder was given by itself: a walk says nothing of it.
                return not any(p.startswith(".") for p in path[len(prefix) :].split("/"))
        return False

    def _is_untouchable(self, path: str) -> bool:
        return any(path == p or path.startswith(p + "/") for p in self._untouchable)

    def _is_outdated(self, failure: Failure) -> bool:
        """Whether a failure on record is one that this run would have met again."""
        if failure.path in self._failed_now:
            return False
        lists = {str(s.path) for s in self._sources if s.kind == "list"}
        beneath = failure.list_path in lists or self._is_beneath(failure.path)
        return beneath and not self._is_untouchable(failure.path)

    def _fail(self, path: str, reason: str, source: Source) -> None:
        self._counts["failed"] += 1
        path = printable(path)
        list_path = printable(str(source.path)) if source.kind == "list" else None
        self._failures[path] = Failure(path, printable(reason), list_path)
        self._failed_now.add(path)

    def _tell(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None:
            return
        if not at_once and now - self._last_report < _SECONDS_BETWEEN_REPORTS:
            return
        self._last_report = now
        counts = self._counts
        self._on_progress(
            Progress(
                done=self._done,
                total=self._total,
                new=counts["new"] + counts["changed"] + counts["moved"],
                skipped=counts["unchanged"] + counts["passed_over"],
                failed=counts["failed"],
                seconds=now - self._started,
            )
        )


def _result(item: Future[_Item] | _Item) -> _Item:
    return item.result() if isinstance(item, Future) else item


def _is_gone(path: str) -> bool:
    """Whether nothing is at a path, rather than something that cannot be looked at."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
