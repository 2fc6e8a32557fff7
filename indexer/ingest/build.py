"""Indexing photos: the run that lists, decodes, extracts and stores, and picks up where it left."""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.codec.codec import Codec
from indexer.ingest.decode import Decoded, Decoder, Failed, PassedOver, Reused, unstorable
from indexer.ingest.describing import Describer
from indexer.ingest.known import KnownPhotos
from indexer.ingest.progress import IndexReport, Progress, ProgressTeller
from indexer.ingest.sample import SampleCache, choose_sample, is_due, photos_to_fit
from indexer.ingest.sources import Found, Source, Unreadable, list_photos, open_sources
from indexer.ingest.writer import IndexWriter, Pooled
from indexer.protocols import Descriptor, Extractor
from indexer.store.failures import Failure, printable, read_failures, write_failures
from indexer.store.folder import writing
from indexer.store.mapstore import Place
from indexer.store.photos import read_photo_table

# Settled photos wait for the batch before them; this many at most.
_MAX_WAITING = 1024
# So many batches' photos in memory at most, to fill one with those the spool does not hold.
_MOST_SPOOLED = 4

_Item = Decoded | Reused | Failed | PassedOver | Unreadable


def index_photos(
    sources: Sequence[Path],
    index_dir: Path,
    extractor: Extractor,
    *,
    batch_size: int = 8,
    quality: str | None = None,
    descriptors: Sequence[Descriptor] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Bring an index up to date with some sources; make it if there is none.

    sources: folders, photos and lists of photos (`sources.open_sources`). batch_size: photos an
    extraction takes at once; the result does not depend on it. quality: of the codec, one of
    `codec.QUALITIES`; None for the index's own, or the default for a new one. descriptors: what is
    stored of each photo beside its maps; a column for each is added where the index has none.
    Photos that the index knows, that did not change and that lack no descriptor are not opened;
    those beneath the sources that are no longer there
    are deleted. Killed at any instant, the index is as of its last commit and the same call
    finishes the work; on KeyboardInterrupt what is extracted is committed first.

    Raises SourceError before anything is written, FingerprintError, IndexBusyError,
    IndexFormatError, IndexMissingError, IndexDamagedError, IndexWriteError, and whatever the
    extractor raises.
    """
    started = time.monotonic()
    opened = open_sources(sources, index_dir)
    with IndexWriter.open(index_dir, extractor, quality) as writer:
        total = None
        if on_progress is not None:
            total = sum(1 for _ in list_photos(opened, index_dir))
        progress = ProgressTeller(on_progress, total, started)
        run = _Run(opened, writer, extractor, descriptors, batch_size, total, progress)
        return run.run()


class _Run:
    """One call of `index_photos`."""

    def __init__(
        self,
        sources: list[Source],
        writer: IndexWriter,
        extractor: Extractor,
        descriptors: Sequence[Descriptor],
        batch_size: int,
        total: int | None,
        progress: ProgressTeller,
    ) -> None:
        self._sources = sources
        self._writer = writer
        self._extractor = extractor
        self._batch_size = max(1, batch_size)
        self._total = total
        self._progress = progress
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
        self._describer = Describer(descriptors, writer, table)
        self._only_described = 0
        self._decoder = Decoder(
            self._known, writer.maps, extractor.image_size, extractor.grid, self._describer
        )
        # Rows of the table that were found at their path, or have moved from it.
        self._settled = np.zeros(len(table), dtype=bool)
        # Content that this run extracted: a copy found later shares its maps.
        self._fresh: dict[str, Place] = {}
        self._spool = SampleCache(writer.index_dir)
        self._failures = {failure.path: failure for failure in read_failures(writer.index_dir)}
        self._failed_now: set[str] = set()
        self._untouchable: list[str] = []

    def run(self) -> IndexReport:
        try:
            self._fit_codec()
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
        self._spool.clear()
        self._tell(at_once=True)
        return IndexReport(
            self._writer.index_dir,
            **self._counts,
            described=self._describer.described,
            total=total,
            seconds=self._progress.seconds(),
        )

    def _finish(self, gone: list[int]) -> int:
        """Commit everything; returns how many photos the index holds."""
        index_dir = self._writer.index_dir
        if sorted(self._failures.values(), key=lambda f: f.path) != read_failures(index_dir):
            write_failures(index_dir, self._failures.values())
        return self._writer.finish(gone).n_photos

    def _fit_codec(self) -> None:
        """Fit a codec where none fits what is to come; see `codecs`."""
        writer, extractor = self._writer, self._extractor
        shape = extractor.grid, extractor.dim
        listed = self._total
        if not is_due(writer.codec, photos_to_fit(*shape), *shape):
            return  # however many there are
        if listed is None:
            listed = sum(1 for _ in list_photos(self._sources, writer.index_dir))
        if not is_due(writer.codec, listed, *shape):
            return
        entries = list_photos(self._sources, writer.index_dir)
        found = (entry for entry in entries if isinstance(entry, Found))
        chosen = choose_sample(found, photos_to_fit(*shape))
        decoder = Decoder(None, writer.maps, extractor.image_size, extractor.grid)
        sample: dict[str, FeatureMaps] = {}
        with ThreadPoolExecutor(_threads(), thread_name_prefix="decode") as pool:
            for start in range(0, len(chosen), self._batch_size):
                batch = chosen[start : start + self._batch_size]
                decoded = [i.input for i in pool.map(decoder, batch) if isinstance(i, Decoded)]
                inputs = {photo.content_hash: photo for photo in decoded}
                known = self._spooled(inputs)
                extracted = self._extract({c: p for c, p in inputs.items() if c not in known})
                with writing(writer.index_dir):
                    for maps in extracted.values():
                        self._spool.add(maps)
                sample |= known | extracted
                self._progress.tell_of_fit(start + len(batch), len(chosen))
        if sample:
            # in an order that does not depend on what an earlier run left in the spool
            self._use_codec([sample[content] for content in sorted(sample)])

    def _spooled(self, inputs: dict[str, ModelInput]) -> dict[str, FeatureMaps]:
        """Maps by content hash of those photos that were extracted for the codec's sake."""
        found = {c: self._spool.get(c, photo.frame) for c, photo in inputs.items()}
        return {content: maps for content, maps in found.items() if maps is not None}

    def _use_codec(self, sample: list[FeatureMaps]) -> None:
        vocabulary = self._extractor.vocabulary_vectors()
        quality = self._writer.manifest.quality
        self._writer.use_codec(Codec.fit(quality, sample, vocabulary))

    def _extract(self, inputs: dict[str, ModelInput]) -> dict[str, FeatureMaps]:
        """Maps by content hash."""
        if not inputs:
            return {}
        maps = self._extractor.extract(list(inputs.values()))
        if [m.content_hash for m in maps] != list(inputs):
            raise ValueError("the extractor returned maps of other photos, or in another order")
        return {m.content_hash: m for m in maps if np.isfinite(m.pooled()).all()}

    def _settle_all(self) -> None:
        """Take the photos in order of listing, a batch of extractions at a time."""
        waiting: list[_Item] = []
        contents: dict[str, Decoded] = {}
        # Closed here, so that after an interrupt the decoding threads are not left at work.
        with contextlib.closing(self._items()) as items:
            for item in items:
                waiting.append(item)
                if isinstance(item, Decoded) and item.content_hash not in self._fresh:
                    contents.setdefault(item.content_hash, item)
                if isinstance(item, Decoded | Reused):
                    self._describer.collect(item.content_hash, item.views)
                # What the spool holds takes no place in a batch: it is extracted already.
                unseen = sum(content not in self._spool for content in contents)
                work = max(unseen, self._describer.n_waiting)
                full = work == self._batch_size or len(contents) == self._batch_size * _MOST_SPOOLED
                if full or not (contents or work) or len(waiting) >= _MAX_WAITING:
                    self._settle_batch(waiting, contents)
                    waiting, contents = [], {}
        self._settle_batch(waiting, contents)

    def _settle_batch(self, waiting: list[_Item], contents: dict[str, Decoded]) -> None:
        inputs = {content: decoded.input for content, decoded in contents.items()}
        extracted = self._spooled(inputs)
        extracted |= self._extract({c: p for c, p in inputs.items() if c not in extracted})
        encoded: dict[str, NDArray[np.uint8]] = {}
        if extracted:
            if self._writer.codec is None:  # no photo of the sample could be read
                self._use_codec(list(extracted.values()))
            rows = self._writer.encode(list(extracted.values()))
            encoded = dict(zip(extracted, rows, strict=True))
        self._describer.run()
        for item in waiting:
            self._settle(item, extracted, encoded)
            self._done += 1
        self._tell()

    def _items(self) -> Generator[_Item, None, None]:
        """What is to be done with each file, in order of listing, decoded ahead by threads."""
        ahead = 2 * self._batch_size + _threads()
        pool = ThreadPoolExecutor(_threads(), thread_name_prefix="decode")
        queue: deque[Future[_Item] | _Item] = deque()
        try:
            for entry in list_photos(self._sources, self._writer.index_dir):
                if isinstance(entry, Found) and self._is_unchanged(entry):
                    continue
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
        return unstorable(entry) or pool.submit(self._decoder, entry)

    def _is_unchanged(self, found: Found) -> bool:
        """Whether a photo has the size and time on record; it is then done with, unopened."""
        path = found.path
        row = self._known.by_path(path)
        if row is None or not self._known.has_maps[row] or not self._describer.is_complete(row):
            return False
        if not self._known.is_recorded(row, found):
            return False
        self._settled[row] = True
        self._failures.pop(printable(path), None)
        self._counts["unchanged"] += 1
        self._done += 1
        self._tell()
        return True

    def _settle(
        self,
        item: _Item,
        extracted: dict[str, FeatureMaps],
        encoded: dict[str, NDArray[np.uint8]],
    ) -> None:
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
        if isinstance(item, PassedOver):
            self._counts["passed_over"] += 1
            if row is not None:
                self._counts["removed"] += 1
                self._writer.bury(self._known.table.number("id", row))
        elif isinstance(item, Reused) and self._is_stored(item, row):
            self._counts["unchanged"] += 1
            self._only_described += bool(item.views)
            self._describe(item)
        elif isinstance(item, Reused):
            self._describe(item)
            recalled = self._writer.recall_of(item.photo_id)
            pooled = Pooled(*recalled, item.frame, item.content_hash, item.taken_ns)
            self._store(found, row, pooled, item.place)
        else:
            self._settle_decoded(item, row, extracted, encoded)

    def _is_stored(self, item: Reused, row: int | None) -> bool:
        """Whether a photo's row says already what would be written."""
        if row is None or not self._known.is_recorded(row, item.found):
            return False
        table = self._known.table
        content = bytes.fromhex(item.content_hash)
        return table.content_hash(row) == content and table.place(row) == item.place

    def _describe(self, item: Decoded | Reused) -> None:
        """Store the descriptors that were found for a photo, in the commit of its row."""
        for name in self._describer.store(item.content_hash):
            self._fail(item.found.path, f"{name} gave no finite numbers for it", item.found.source)

    def _settle_decoded(
        self,
        item: Decoded,
        row: int | None,
        extracted: dict[str, FeatureMaps],
        encoded: dict[str, NDArray[np.uint8]],
    ) -> None:
        photo, found = item.input, item.found
        content = photo.content_hash
        maps: Place | NDArray[np.uint8]
        if content in self._fresh:
            maps = self._fresh[content]
            recalled = self._writer.recall_of(maps.maps_id)
        elif content in extracted:
            maps = encoded[content]
            recalled = extracted[content].pooled(), self._writer.words_of(extracted[content])
        else:
            self._fail(found.path, "the model gave no finite features for it", found.source)
            return
        self._describe(item)
        self._store(found, row, Pooled(*recalled, photo.frame, content, photo.taken_ns), maps)

    def _store(
        self, found: Found, row: int | None, pooled: Pooled, maps: Place | NDArray[np.uint8]
    ) -> None:
        """Give a photo its row. maps: where its maps lie, or encoded ones that are to be written.

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
            self._fresh[pooled.content_hash] = place

    def _moved_from(self, content: bytes) -> int | None:
        """Row of a photo with this content that is gone from its path, beneath this run's sources
        or elsewhere: a SOURCE may have been renamed itself.
        """
        for row in self._known.by_content(content):
            waits = self._known.table.live[row] and not self._settled[row]
            if waits and _is_gone(self._known.path(row)):
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
        counts, described = self._counts, self._only_described
        new = counts["new"] + counts["changed"] + counts["moved"] + described
        skipped = counts["unchanged"] + counts["passed_over"] - described
        self._progress.tell(self._done, new, skipped, counts["failed"], at_once)


def _threads() -> int:
    return min(8, max(2, os.cpu_count() or 1))


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
