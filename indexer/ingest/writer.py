"""Writing to an index: rows gather in memory, and reach the disk one commit at a time."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.remote_index import shard_opener
from indexer.codec.codec import Codec, codec_name, load_codec
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.ingest.commit import NewRow, PendingCommit, PhotoContent, store_file, write_files
from indexer.ingest.sources import Found
from indexer.protocols import Descriptor, Extractor
from indexer.recall.descriptor_vectors import FOLDER, refresh_descriptors
from indexer.recall.inverted_file import refresh_word_recall
from indexer.recall.vectors import refresh_recall
from indexer.store.files import sync_folder, writing
from indexer.store.folder import make_folder, remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import (
    MANIFEST_NAME,
    DescriptorColumn,
    Manifest,
    SourceRoot,
    check_descriptor,
    check_fingerprint,
    check_quality,
    read_manifest,
    without_lost_files,
    write_manifest,
)
from indexer.store.mapstore import MapStore, Place
from indexer.store.photos import PhotoRow, StoredRows, count_photos
from indexer.store.shards import rows_per_shard


class IndexWriter:
    """The one writer of an index; open it with `IndexWriter.open`.

    Only one thread may add rows. An interrupt between two rows loses neither of them: `finish`
    commits every row that was added.
    """

    def __init__(
        self, index_dir: Path, manifest: Manifest, on_commit: Callable[[], None] | None = None
    ) -> None:
        self.index_dir = index_dir
        self._on_commit = on_commit
        self._committed = manifest
        self._manifest = without_lost_files(index_dir, manifest)
        self._sources = list(manifest.sources)
        self._next_id = manifest.next_id
        self._capacity = rows_per_shard(manifest.photo_bytes)
        self._codec = self._newest_codec()
        self._pending = self._new_pending(manifest.generation + 1)
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._running_commit: Future[None] | None = None
        self.maps = MapStore(
            *(index_dir, self._manifest.shards, manifest.photo_bytes), shard_opener(index_dir)
        )
        self._stored = StoredRows(index_dir, self._manifest)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        index_dir: Path,
        extractor: Extractor,
        quality: str | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> Iterator["IndexWriter"]:
        """Open an index for writing, or make it, and hold its lock until the context ends.

        quality: of the codec; None for the index's own, or for `quality.DEFAULT_QUALITY` in a new
        index. on_commit: called after each commit, perhaps in another thread; what it raises ends
        the writing.

        Raises IndexBusyError, IndexMissingError for a folder that holds other things,
        IndexFormatError, FingerprintError, IndexDamagedError, IndexWriteError; and ModelError where
        the extractor of a new index cannot be loaded.
        """
        make_folder(index_dir)
        with writer_lock(index_dir):
            with writing(index_dir):
                manifest = _prepare(index_dir, extractor, quality)
            writer = cls(index_dir, manifest, on_commit)
            try:
                yield writer
            finally:
                writer._commit_thread.shutdown(wait=True)
                writer.maps.close()

    @property
    def manifest(self) -> Manifest:
        """The state of the last finished commit, without files that were found to be lost."""
        return self._manifest

    @property
    def codec(self) -> Codec | None:
        """What encodes the maps of new photos; None in a new index until `use_codec`."""
        return self._codec

    def use_codec(self, codec: Codec) -> None:
        """Store a codec and encode with it from now on; to be called before any photo is added."""
        number = self._pending.number
        with writing(self.index_dir):
            name = codec_name(number)
            file = store_file(self.index_dir, name, number, codec.fitted_on, codec.save)
            codecs = (*self._manifest.codecs, file)
            self._publish(replace(self._manifest, generation=number, codecs=codecs))
        self._codec = codec
        self._pending = self._new_pending(number + 1)

    def use_descriptor(self, descriptor: Descriptor) -> None:
        """Have a column for the vectors of a descriptor, from the next commit on.

        Raises FingerprintError if the index has a column of this name by another version, and
        ModelError where a new descriptor cannot be loaded.
        """
        column = self._manifest.descriptor(descriptor.name)
        fingerprint = dict(descriptor.fingerprint())
        if column is not None:
            check_descriptor(self.index_dir, column, fingerprint)
            return
        descriptor.get_ready()
        with writing(self.index_dir):
            (self.index_dir / FOLDER).mkdir(exist_ok=True)
            sync_folder(self.index_dir)
        column = DescriptorColumn(descriptor.name, fingerprint, descriptor.dim)
        columns = (*self._manifest.descriptors, column)
        self._manifest = replace(self._manifest, descriptors=columns)

    def add(
        self,
        found: Found,
        encoded: NDArray[np.uint8],
        content: PhotoContent,
        *,
        photo_id: int | None = None,
        replaces: int | None = None,
    ) -> Place:
        """Add a photo with maps of its own; returns where they will lie.

        encoded: (photo_bytes,) uint8, by `codec`. photo_id: of the photo whose row this one
        updates; None for a new photo. replaces: an id to delete in the same commit. May wait for
        the commit before, and raises what that raised.
        """
        pending = self._pending
        at = pending.n_maps
        pending.encoded[at] = encoded
        own_id = self._next_id if photo_id is None else photo_id
        place = Place(pending.number, at, own_id)
        row = self._row(own_id, found, content, place)
        # The row counts from here on: a single append, so that no interrupt finds it half added.
        pending.new_rows.append(NewRow(row, has_maps=True, replaces=replaces))
        pending.n_maps += 1
        self._next_id = max(self._next_id, own_id + 1)
        self._commit_if_full()
        return place

    def add_shared(
        self,
        found: Found,
        content: PhotoContent,
        place: Place,
        *,
        photo_id: int | None = None,
        replaces: int | None = None,
    ) -> None:
        """Add a photo whose maps already lie in the index, at `place`; otherwise like `add`."""
        own_id = self._next_id if photo_id is None else photo_id
        row = self._row(own_id, found, content, place)
        self._pending.new_rows.append(NewRow(row, has_maps=False, replaces=replaces))
        self._next_id = max(self._next_id, own_id + 1)
        self._commit_if_full()

    def describe(self, content_hash: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store descriptors of a content: (dim,) float32 by the name of each.

        They are in the same commit as the photo that is added next. May wait for the commit before,
        and raises what that raised.
        """
        self._commit_if_full()
        for name, vector in vectors.items():
            self._pending.vectors.setdefault(name, {})[bytes.fromhex(content_hash)] = vector

    def delete(self, photo_id: int) -> None:
        """Delete a photo in the next commit."""
        self._pending.deleted.append(photo_id)

    def pooled_and_words(self, photo_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Pooled vector (2 d,) and words of a photo in the index, or added by this run.

        To be called from the thread that adds. Raises KeyError, IndexDamagedError.
        """
        for new in reversed(self._pending.new_rows):
            if new.row.id == photo_id:
                return new.row.pooled, new.row.words
        self._wait()
        self._stored.include([file.name for file in self._manifest.photos])
        return self._stored.of(photo_id)

    def finish(self, gone: Iterable[int]) -> Manifest:
        """Commit what was added, delete the ids in `gone`, and bring recall up to date."""
        self._wait()
        pending = self._pending
        pending.deleted.extend(gone)
        with writing(self.index_dir):
            manifest = self._write_files(pending)
            if manifest.photos:
                manifest = replace(
                    manifest,
                    recall=refresh_recall(self.index_dir, manifest, pending.number),
                    words=refresh_word_recall(self.index_dir, manifest, pending.number),
                    descriptors=refresh_descriptors(self.index_dir, manifest, pending.number),
                    n_photos=count_photos(self.index_dir, manifest),
                )
            if manifest != self._committed:
                self._publish(replace(manifest, generation=pending.number))
        self._pending = self._new_pending(self._manifest.generation + 1)
        remove_leftovers(self.index_dir, self._manifest)
        return self._manifest

    def _row(self, photo_id: int, found: Found, content: PhotoContent, place: Place) -> PhotoRow:
        return PhotoRow(
            id=photo_id,
            source=self._source(found.source.root),
            path=found.relative,
            content_hash=bytes.fromhex(content.content_hash),
            size=found.size,
            mtime_ns=found.mtime_ns,
            width=content.frame.width,
            height=content.frame.height,
            place=place,
            pooled=content.pooled,
            words=content.words,
            taken_ns=content.taken_ns,
        )

    def _source(self, root: SourceRoot) -> int:
        if root not in self._sources:
            self._sources.append(root)
        return self._sources.index(root)

    def _new_pending(self, number: int) -> PendingCommit:
        shape = (self._capacity, self._manifest.photo_bytes)
        return PendingCommit(number, np.empty(shape, np.uint8))

    def _newest_codec(self) -> Codec | None:
        codecs = self._manifest.codecs
        return load_codec(self.index_dir / codecs[-1].name) if codecs else None

    def _commit_if_full(self) -> None:
        pending = self._pending
        if not pending.is_full:
            return
        self._wait()
        # Replaced before it is handed over: an interrupt between the two loses the work of one
        # commit. In the other order, it would be committed twice.
        self._pending = self._new_pending(pending.number + 1)
        self._running_commit = self._commit_thread.submit(self._commit, pending)

    def _wait(self) -> None:
        if self._running_commit is not None:
            self._running_commit.result()
            self._running_commit = None

    def _commit(self, pending: PendingCommit) -> None:
        with writing(self.index_dir):
            self._publish(self._write_files(pending))

    def _write_files(self, pending: PendingCommit) -> Manifest:
        return write_files(self.index_dir, self._manifest, pending, self._sources)

    def _publish(self, manifest: Manifest) -> None:
        write_manifest(self.index_dir, manifest)
        self._committed = self._manifest = manifest
        self.maps.include(manifest.shards)
        if self._on_commit is not None:
            self._on_commit()


def _prepare(index_dir: Path, extractor: Extractor, quality: str | None) -> Manifest:
    """Make an empty index if there is none, and check that the extractor fits the one there is."""
    if not (index_dir / MANIFEST_NAME).exists():
        extractor.get_ready()
        fresh = Manifest(
            dict(extractor.fingerprint()),
            extractor.image_size,
            extractor.grid,
            extractor.dim,
            quality or DEFAULT_QUALITY,
        )
        write_manifest(index_dir, fresh)
    manifest = read_manifest(index_dir)
    check_fingerprint(index_dir, manifest, extractor.fingerprint())
    check_quality(index_dir, manifest, quality)
    for name in ("shards", "photos"):
        (index_dir / name).mkdir(exist_ok=True)
    sync_folder(index_dir)
    remove_leftovers(index_dir, manifest)
    return manifest
