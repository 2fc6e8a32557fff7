"""Indexing photos: a run lists, decodes, extracts and stores them, and resumes an earlier run."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from features.errors import WaldoError
from features.maps import FeatureMaps
from indexer.codec.encoded_maps import EncodedMaps
from indexer.ingest.decode import Decoded, Decoder, Item, Reused, decode_ahead
from indexer.ingest.describing import Describer
from indexer.ingest.failure_log import FailureLog
from indexer.ingest.known import KnownPhotos
from indexer.ingest.progress import IndexReport, Progress, ProgressReporter
from indexer.ingest.recording import PhotoRecorder
from indexer.ingest.sample import choose_sample, extract_sample, fit_codec, is_due, photos_to_fit
from indexer.ingest.sample_cache import CachedExtraction, SampleCache
from indexer.ingest.sources import (
    Coverage,
    Exclusion,
    Found,
    Source,
    Unreadable,
    count_files,
    list_photos,
    open_sources,
)
from indexer.ingest.writer import IndexWriter
from indexer.protocols import Descriptor, Extractor
from indexer.store.photos import read_photo_table

# A batch is recorded when it holds this many files, however few of them have to be extracted.
_MOST_FILES = 1024
# Photos whose maps are cached take no place in a batch of extractions, but their pixels take
# memory: a batch holds at most this many times the photos of an extraction.
_MOST_EXTRACTIONS = 4
# Photos that are described at a time where none is extracted, and nobody says how many.
_DESCRIBED_AT_ONCE = 8
# Decoded photos that may wait for a batch.
_DECODED_AHEAD = 16


def index_photos(
    sources: Sequence[Path | Source],
    index_dir: Path,
    extractor: Extractor,
    *,
    exclude: Sequence[str] = (),
    batch_size: int | None = None,
    quality: str | None = None,
    descriptors: Sequence[Descriptor] = (),
    on_progress: Callable[[Progress], None] | None = None,
    share: Callable[[], Iterator[Found | Unreadable]] | None = None,
    first_unlisted: int | None = None,
    on_commit: Callable[[], None] | None = None,
) -> IndexReport:
    """Bring an index up to date with some sources; make the index if there is none.

    sources: folders, photos, lists of photos and pipes (`sources.open_sources`). exclude: globs of
    what is left out (`sources.Exclusion`); photos of it that the index has are deleted.
    batch_size: photos per extraction, None for what suits the extractor; the result does not
    depend on it. quality: of the codec, one
    of `quality.QUALITIES`; None for the index's own, or for the default in a new index.
    descriptors: stored for each photo beside its maps; the index gets a column for each that it
    does not have. share: of a part of a fleet (`indexer.fleet`), lists those files of the sources
    that belong to it; the part has its codec, and no other one is fitted. first_unlisted: photos
    with ids from this one on were added by another run since these files were listed; none of them
    is taken for missing. on_commit: as for `IndexWriter.open`.

    Photos that the index knows, that have not changed and that lack no descriptor are not opened.
    Photos beneath the sources that are no longer there are deleted. If the run is killed at any
    instant, the index is in the state of its last commit, and the same call finishes the work. On
    KeyboardInterrupt, what is extracted is committed first.

    Raises SourceError before anything is written, FingerprintError, IndexBusyError,
    IndexFormatError, IndexMissingError, IndexDamagedError, IndexWriteError, and whatever the
    extractor raises.
    """
    started = time.monotonic()
    left_out = Exclusion(exclude)
    opened = open_sources(sources, index_dir, left_out)
    listing = share or partial(list_photos, opened, index_dir, left_out)
    with IndexWriter.open(index_dir, extractor, quality, on_commit) as writer:
        total = None
        if on_progress is not None:
            total = (
                count_files(opened, index_dir, left_out)
                if share is None
                else sum(1 for _ in listing())
            )
        progress = ProgressReporter(on_progress, total, started)
        run = _Run(opened, listing, writer, extractor, descriptors, batch_size, progress)
        return run.run(share is None, first_unlisted)


@dataclass
class _Batch:
    """Files in order of listing that are recorded together.

    items: all of them. to_extract: the first photo of each content whose maps are not stored yet,
    by content hash.
    """

    items: list[Item] = field(default_factory=list)
    to_extract: dict[str, Decoded] = field(default_factory=dict)


@dataclass(frozen=True)
class _Counts:
    """How far a run is after it has settled a batch, in the terms of `Progress`."""

    done: int = 0
    new: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Unsettled:
    """A batch whose extraction has begun, and what comes of it."""

    batch: _Batch
    counts: Future[_Counts]


class _Run:
    """One call of `index_photos`.

    The thread that calls it gathers batches and has them extracted. Then they are settled, one
    after the other: their maps are encoded, unless the extractor does it, and their files recorded.
    Where a GPU or other processes extract, another thread does this meanwhile.
    """

    def __init__(
        self,
        sources: list[Source],
        listing: Callable[[], Iterator[Found | Unreadable]],
        writer: IndexWriter,
        extractor: Extractor,
        descriptors: Sequence[Descriptor],
        batch_size: int | None,
        progress: ProgressReporter,
    ) -> None:
        self._list = listing
        self._writer = writer
        self._extractor = extractor
        self._given_batch_size = batch_size
        self._progress = progress
        manifest = writer.manifest
        table = read_photo_table(writer.index_dir, manifest)
        self._known = KnownPhotos(
            table, manifest.sources, {file.number for file in manifest.shards}
        )
        self._describer = Describer(descriptors, writer, table)
        self._coverage = Coverage(sources)
        self._failures = FailureLog(writer.index_dir)
        self._recorder = PhotoRecorder(
            writer, self._known, self._describer, self._coverage, self._failures
        )
        self._cache = SampleCache(writer.index_dir)
        self._extraction = CachedExtraction(extractor, self._cache)
        # Contents of the codec's sample that are not settled yet.
        self._sampled: set[str] = set()
        self._unsettled: deque[_Unsettled] = deque()
        self._settled = _Counts()

    @cached_property
    def _batch_size(self) -> int:
        """Photos per extraction; not asked for before there is a photo to extract."""
        return max(1, self._given_batch_size or self._extractor.batch_size)

    def run(self, fits_codec: bool, first_unlisted: int | None) -> IndexReport:
        with ThreadPoolExecutor(1, thread_name_prefix="settle") as settler:
            try:
                if fits_codec:
                    self._fit_codec_if_due()
                self._record_all(settler)
            except BaseException:
                # Keep what is extracted. If the disk failed, the first error already says so.
                with contextlib.suppress(WaldoError, OSError):
                    settler.shutdown()
                    self._commit([])
                raise
        gone = self._recorder.missing_ids(first_unlisted)
        self._recorder.counts["removed"] += len(gone)
        self._recorder.counts["unchanged"] += self._recorder.n_unopened
        self._failures.forget_outdated(self._coverage)
        total = self._commit(gone)
        self._cache.clear()
        self._report_progress(at_once=True)
        return IndexReport(
            self._writer.index_dir,
            **self._recorder.counts,
            failed=self._failures.count,
            described=self._describer.described,
            total=total,
            seconds=self._progress.seconds(),
        )

    def _commit(self, gone: list[int]) -> int:
        """Commit everything, and delete the ids in `gone`; returns how many photos there are."""
        self._failures.write()
        return self._writer.finish(gone).n_photos

    def _fit_codec_if_due(self) -> None:
        """Fit a codec if the index has none that suits what will be added; see `sample`."""
        extractor, codec = self._extractor, self._writer.codec
        shape = extractor.grid, extractor.dim
        wanted = photos_to_fit(*shape)
        if not is_due(codec, wanted, *shape):
            return  # not even for a very long listing
        listed = self._progress.total
        if listed is None:
            listed = sum(1 for _ in self._list())
        if not is_due(codec, listed, *shape):
            return
        chosen = choose_sample(
            (entry for entry in self._list() if isinstance(entry, Found)), wanted
        )
        decoder = Decoder(None, self._writer.maps, extractor.image_size, extractor.grid)
        sample = extract_sample(
            chosen, decoder, self._extraction, self._batch_size, self._progress.report_fit
        )
        self._sampled = {maps.content_hash for maps in sample}
        if sample:
            self._use_codec(sample)

    def _use_codec(self, sample: list[FeatureMaps]) -> None:
        quality = self._writer.manifest.quality
        self._writer.use_codec(fit_codec(quality, sample, self._extractor))

    def _record_all(self, settler: ThreadPoolExecutor) -> None:
        """Record every file in order of listing, a batch of extractions at a time."""
        decoder = Decoder(
            self._known,
            self._writer.maps,
            self._extractor.image_size,
            self._extractor.grid,
            self._describer,
        )
        batch = _Batch()
        items = decode_ahead(self._list_changed(), decoder, _DECODED_AHEAD)
        # Closed here, so that no decoding thread is at work after an interrupt.
        with contextlib.closing(items):
            for item in items:
                self._add(item, batch)
                if self._is_full(batch):
                    self._extract(batch, settler)
                    batch = _Batch()
        self._extract(batch, settler)
        self._settle_until(0)

    def _list_changed(self) -> Iterator[Found | Unreadable]:
        """The files that have to be opened; the others are recorded as unchanged."""
        for entry in self._list():
            if isinstance(entry, Found) and self._recorder.record_if_unchanged(entry):
                self._report_progress()
            else:
                yield entry

    def _add(self, item: Item, batch: _Batch) -> None:
        batch.items.append(item)
        if isinstance(item, Decoded) and not self._is_extracted(item.content_hash):
            batch.to_extract.setdefault(item.content_hash, item)
        if isinstance(item, Decoded | Reused):
            self._describer.collect(item.content_hash, item.views)

    def _is_extracted(self, content_hash: str) -> bool:
        """Whether this run has begun to extract a content, or has it."""
        is_begun = any(content_hash in each.batch.to_extract for each in self._unsettled)
        return is_begun or self._recorder.is_stored_now(content_hash)

    def _is_full(self, batch: _Batch) -> bool:
        """Whether a batch fills an extraction or the memory, or waits for no extraction at all."""
        described = self._describer.n_waiting
        if not batch.to_extract:  # the extractor's batch size would be asked for in vain
            most = self._given_batch_size or _DESCRIBED_AT_ONCE
            return described in (0, most) or len(batch.items) >= _MOST_FILES
        to_extract = sum(not self._extraction.is_cached(content) for content in batch.to_extract)
        return (
            max(to_extract, described) >= self._batch_size
            or len(batch.to_extract) >= self._batch_size * _MOST_EXTRACTIONS
            or len(batch.items) >= _MOST_FILES
        )

    def _extract(self, batch: _Batch, settler: ThreadPoolExecutor) -> None:
        """Begin to extract a batch, and to settle it when its maps are there."""
        photos = [decoded.input for decoded in batch.to_extract.values()]
        if self._writer.codec is None:  # no photo of the sample could be read
            sample = self._extraction.begin(photos, keep=True)()
            if sample:
                self._use_codec(list(sample.values()))
        codec = self._writer.codec
        maps = dict if codec is None else self._extraction.begin_encoded(photos, codec)
        self._describer.run()
        earlier = self._unsettled
        if earlier or (batch.to_extract and self._extraction.n_overlapping):
            before = earlier[-1].counts if earlier else None
            counts = settler.submit(self._settle, batch, maps, before)
            earlier.append(_Unsettled(batch, counts))
            # One batch is settled, while others are extracted.
            self._settle_until(self._extraction.n_overlapping + 1)
        else:
            # A thread would only be in the way of the next extraction, which takes all cores.
            self._finish(batch, self._settle(batch, maps))

    def _settle_until(self, most: int) -> None:
        """Wait until at most so many batches are not settled; raises what settling raised."""
        unsettled = self._unsettled
        while unsettled and (len(unsettled) > most or unsettled[0].counts.done()):
            counts = unsettled[0].counts.result()
            self._finish(unsettled.popleft().batch, counts)

    def _settle(
        self,
        batch: _Batch,
        maps: Callable[[], dict[str, EncodedMaps]],
        before: Future[_Counts] | None = None,
    ) -> _Counts:
        """Record the files of a batch with their maps, unless the batch before it failed."""
        done = self._settled.done if before is None else before.result().done
        new_maps = maps()
        for item in batch.items:
            self._recorder.record(item, new_maps)
        recorder = self._recorder
        done += len(batch.items)
        return _Counts(done, recorder.n_new, recorder.n_skipped, self._failures.count)

    def _finish(self, batch: _Batch, counts: _Counts) -> None:
        self._settled = counts
        self._sampled -= batch.to_extract.keys()
        self._report_progress()

    def _report_progress(self, at_once: bool = False) -> None:
        settled, unopened = self._settled, self._recorder.n_unopened
        self._progress.report(
            *(settled.done + unopened, settled.new, settled.skipped + unopened, settled.failed),
            waiting=len(self._sampled),
            at_once=at_once,
        )
