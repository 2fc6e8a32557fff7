"""Writing to an index: rows gather in memory, and reach the disk a shard and a commit at a time."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec.codec import Codec, codec_name, load_codec
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.ingest.sources import Found
from indexer.protocols import Descriptor, Extractor
from indexer.recall.descriptor_vectors import (
    FOLDER,
    refresh_descriptors,
    vectors_name,
    write_vectors,
)
from indexer.recall.inverted_file import refresh_word_recall
from indexer.recall.vectors import refresh_recall
from indexer.store.files import StoredFile, describe_file, sync_folder, write_atomically
from indexer.store.folder import make_folder, remove_leftovers, writing
from indexer.store.lock import writer_lock
from indexer.store.manifest import (
    MANIFEST_NAME,
    DescriptorColumn,
    Manifest,
    MapShard,
    SourceRoot,
    check_descriptor,
    check_fingerprint,
    check_quality,
    read_manifest,
    without_lost_files,
    write_manifest,
)
from indexer.store.mapstore import MapStore, Place, shard_name
from indexer.store.photos import PhotoRow, PhotoTable, photos_name, read_photo_table, write_photos
from indexer.store.shards import rows_per_shard, write_shard
from indexer.store.stored_rows import StoredRows

# Photos that share maps with others fill no shard; their rows are committed at this many.
_MAX_ROWS = 20_000
# So do photos that only get descriptors: as many as some minutes' work of a large model.
_MAX_DESCRIBED = 1000


@dataclass(frozen=True)
class Pooled:
    """What the photo table keeps of a photo's content.

    vector: (2 d,) float32, see `FeatureMaps.pooled`. words: (m,) uint16, rising, visual words in
    those of the codec that encoded the maps. frame, content_hash: as in FeatureMaps. taken_ns: date
    taken, nanoseconds since 1970, None where unknown.
    """

    vector: NDArray[np.float32]
    words: NDArray[np.uint16]
    frame: Frame
    content_hash: str
    taken_ns: int | None


@dataclass(frozen=True)
class _Entry:
    """One row to commit. has_maps: it brings maps of its own. buried: the id it replaces."""

    row: PhotoRow
    has_maps: bool
    buried: int | None


@dataclass
class _Pending:
    """What the next commit will write.

    number: its generation. encoded: (capacity, photo_bytes) uint8; as many rows are filled as
    entries have maps. described: vectors by descriptor and content hash. buried: ids to delete
    beside those of the entries.
    """

    number: int
    encoded: NDArray[np.uint8]
    entries: list[_Entry] = field(default_factory=list)
    maps: int = 0
    described: dict[str, dict[bytes, NDArray[np.float32]]] = field(default_factory=dict)
    buried: list[int] = field(default_factory=list)

    @property
    def most_described(self) -> int:
        return max((len(vectors) for vectors in self.described.values()), default=0)


class IndexWriter:
    """The one writer of an index; open it with `IndexWriter.open`.

    Rows may be added from one thread only. An interrupt between two rows loses neither: `finish`
    then commits what was added whole.
    """

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        self.index_dir = index_dir
        self._committed = manifest
        self._manifest = without_lost_files(index_dir, manifest)
        self._sources = list(manifest.sources)
        self._next_id = manifest.next_id
        self._capacity = rows_per_shard(manifest.photo_bytes)
        self._codec = self._newest_codec()
        self._pending = self._new_pending(manifest.generation + 1)
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: Future[None] | None = None
        self._names = {file.number: file.name for file in self._manifest.shards}
        self.maps = MapStore(index_dir, self._names, manifest.photo_bytes)
        self._stored = StoredRows(index_dir, self._manifest)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, index_dir: Path, extractor: Extractor, quality: str | None = None
    ) -> Iterator["IndexWriter"]:
        """Open an index for writing, or make it, and hold its lock meanwhile.

        quality: the codec's; None for the index's own, or `quality.DEFAULT_QUALITY` for a new one.

        Raises IndexBusyError, IndexMissingError for a folder that holds other things,
        IndexFormatError, FingerprintError, IndexDamagedError, IndexWriteError.
        """
        make_folder(index_dir)
        with writer_lock(index_dir):
            with writing(index_dir):
                manifest = _prepare(index_dir, extractor, quality)
            writer = cls(index_dir, manifest)
            try:
                yield writer
            finally:
                writer._commit_thread.shutdown(wait=True)
                writer.maps.close()

    @property
    def manifest(self) -> Manifest:
        """The state as of the last commit that is done, without files that were found lost."""
        return self._manifest

    @property
    def codec(self) -> Codec | None:
        """What encodes new photos' maps; None until `use_codec` for an index without any."""
        return self._codec

    def use_codec(self, codec: Codec) -> None:
        """Store a codec and encode with it from here on; before any photo is added."""
        number = self._pending.number
        with writing(self.index_dir):
            file = self._write(codec_name(number), number, codec.fitted_on, codec.save)
            codecs = (*self._manifest.codecs, file)
            self._publish(replace(self._manifest, generation=number, codecs=codecs))
        self._codec = codec
        self._pending = self._new_pending(number + 1)

    def use_descriptor(self, descriptor: Descriptor) -> None:
        """Have a column for a descriptor's vectors, from the next commit on.

        Raises FingerprintError where the index has another version's of that name.
        """
        column = self._manifest.descriptor(descriptor.name)
        fingerprint = dict(descriptor.fingerprint())
        if column is not None:
            check_descriptor(self.index_dir, column, fingerprint)
            return
        with writing(self.index_dir):
            (self.index_dir / FOLDER).mkdir(exist_ok=True)
            sync_folder(self.index_dir)
        column = DescriptorColumn(descriptor.name, fingerprint, descriptor.dim)
        columns = (*self._manifest.descriptors, column)
        self._manifest = replace(self._manifest, descriptors=columns)

    def encode(self, maps: Sequence[FeatureMaps]) -> NDArray[np.uint8]:
        """(n, photo_bytes) uint8 of n photos' maps, for `add`."""
        if self._codec is None:
            raise ValueError("no codec yet")
        return self._codec.encode(
            np.stack([m.appearance for m in maps]), np.stack([m.semantic for m in maps])
        )

    def add(
        self,
        found: Found,
        encoded: NDArray[np.uint8],
        pooled: Pooled,
        *,
        photo_id: int | None = None,
        buries: int | None = None,
    ) -> Place:
        """Add a photo with its own maps; returns where they will lie.

        encoded: (photo_bytes,) uint8, see `encode`. photo_id: of the photo whose row this one
        replaces, else a new one is given. buries: id to delete in the same commit. May wait for the
        commit of the last shard; raises what that raised.
        """
        pending = self._pending
        at = pending.maps
        pending.encoded[at] = encoded
        own_id = self._next_id if photo_id is None else photo_id
        place = Place(pending.number, at, own_id)
        row = self._row(own_id, found, pooled, place)
        # From here on the row counts: one append, so that no interrupt finds it half done.
        pending.entries.append(_Entry(row, has_maps=True, buried=buries))
        pending.maps += 1
        self._next_id = max(self._next_id, own_id + 1)
        self._commit_if_full()
        return place

    def add_shared(
        self,
        found: Found,
        pooled: Pooled,
        place: Place,
        *,
        photo_id: int | None = None,
        buries: int | None = None,
    ) -> None:
        """Add a photo whose maps lie in the index already, at `place`; else like `add`."""
        own_id = self._next_id if photo_id is None else photo_id
        row = self._row(own_id, found, pooled, place)
        self._pending.entries.append(_Entry(row, has_maps=False, buried=buries))
        self._next_id = max(self._next_id, own_id + 1)
        self._commit_if_full()

    def describe(self, content_hash: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store a content's descriptors: (dim,) float32 by the name of each.

        In the same commit as the photo that is added next. May wait for the last commit; raises
        what that raised.
        """
        self._commit_if_full()
        for name, vector in vectors.items():
            self._pending.described.setdefault(name, {})[bytes.fromhex(content_hash)] = vector

    def bury(self, photo_id: int) -> None:
        """Delete a photo in the next commit."""
        self._pending.buried.append(photo_id)

    def words_of(self, maps: FeatureMaps) -> NDArray[np.uint16]:
        """The visual words of a photo that `encode` has encoded."""
        if self._codec is None or self._codec.words is None:
            return np.empty(0, np.uint16)
        return self._codec.words.of_photo(maps)

    def recall_of(self, photo_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Pooled vector (2 d,) and words of a photo in the index or added by this run.

        From the thread that adds. Raises KeyError, IndexDamagedError.
        """
        for entry in reversed(self._pending.entries):
            if entry.row.id == photo_id:
                return entry.row.pooled, entry.row.words
        self._wait()
        self._stored.include([file.name for file in self._manifest.photos])
        return self._stored.of(photo_id)

    def finish(self, gone: Iterable[int]) -> Manifest:
        """Commit what was added, delete the ids in `gone`, and bring recall up to date."""
        self._wait()
        self._pending.buried.extend(gone)
        with writing(self.index_dir):
            manifest = self._stage(self._pending)
            if manifest.photos:
                number, table = self._pending.number, self._table(manifest)
                manifest = replace(
                    manifest,
                    recall=refresh_recall(self.index_dir, manifest, number),
                    words=refresh_word_recall(self.index_dir, manifest, number),
                    descriptors=refresh_descriptors(self.index_dir, manifest, table, number),
                    n_photos=int(table.live.sum()),
                )
            if manifest != self._committed:
                self._publish(replace(manifest, generation=self._pending.number))
        self._pending = self._new_pending(self._manifest.generation + 1)
        remove_leftovers(self.index_dir, self._manifest)
        return self._manifest

    def _row(self, photo_id: int, found: Found, pooled: Pooled, place: Place) -> PhotoRow:
        return PhotoRow(
            id=photo_id,
            source=self._source(found.source.root),
            path=found.relative,
            content_hash=bytes.fromhex(pooled.content_hash),
            size=found.size,
            mtime_ns=found.mtime_ns,
            width=pooled.frame.width,
            height=pooled.frame.height,
            place=place,
            pooled=pooled.vector,
            words=pooled.words,
            taken_ns=pooled.taken_ns,
        )

    def _source(self, root: SourceRoot) -> int:
        if root not in self._sources:
            self._sources.append(root)
        return self._sources.index(root)

    def _new_pending(self, number: int) -> _Pending:
        shape = (self._capacity, self._manifest.photo_bytes)
        return _Pending(number, np.empty(shape, np.uint8))

    def _newest_codec(self) -> Codec | None:
        codecs = self._manifest.codecs
        return load_codec(self.index_dir / codecs[-1].name) if codecs else None

    def _commit_if_full(self) -> None:
        full = self._pending
        has_room = full.maps < self._capacity and len(full.entries) < _MAX_ROWS
        if has_room and full.most_described < _MAX_DESCRIBED:
            return
        self._wait()
        # Replaced before it is handed over: an interrupt between the two loses a shard's work,
        # the other way round would commit it twice.
        self._pending = self._new_pending(full.number + 1)
        self._commit = self._commit_thread.submit(self._commit_shard, full)

    def _wait(self) -> None:
        if self._commit is not None:
            self._commit.result()
            self._commit = None

    def _commit_shard(self, pending: _Pending) -> None:
        with writing(self.index_dir):
            self._publish(self._stage(pending))

    def _stage(self, pending: _Pending) -> Manifest:
        """Write the files of a commit; returns the manifest that would name them."""
        manifest, number = self._manifest, pending.number
        rows = [entry.row for entry in pending.entries]
        buried = [entry.buried for entry in pending.entries if entry.buried is not None]
        ids = np.array([e.row.id for e in pending.entries if e.has_maps], dtype=np.int64)
        shards, photos = manifest.shards, manifest.photos
        if len(ids):
            file = self._write(
                shard_name(number),
                number,
                len(ids),
                lambda path: write_shard(path, ids, pending.encoded[: len(ids)]),
            )
            shards = (*shards, MapShard(**asdict(file), codec=manifest.codecs[-1].number))
        if rows:
            file = self._write(
                photos_name(number),
                number,
                len(rows),
                lambda path: write_photos(path, rows, manifest.dim),
            )
            photos = (*photos, file)
        dead = sorted({*manifest.tombstones, *pending.buried, *buried})
        return replace(
            manifest,
            generation=number if rows or pending.described else manifest.generation,
            sources=tuple(self._sources),
            shards=shards,
            photos=photos,
            descriptors=self._stage_vectors(pending),
            next_id=max([manifest.next_id, *(row.id + 1 for row in rows)]),
            tombstones=tuple(dead),
        )

    def _stage_vectors(self, pending: _Pending) -> tuple[DescriptorColumn, ...]:
        """The columns with the files of a commit, which are written."""
        columns, number = [], pending.number
        for place, column in enumerate(self._manifest.descriptors):
            vectors = pending.described.get(column.name)
            if vectors:
                file = self._write(
                    vectors_name(number, place),
                    number,
                    len(vectors),
                    partial(write_vectors, vectors=vectors),
                )
                column = replace(column, files=(*column.files, file))
            columns.append(column)
        return tuple(columns)

    def _write(
        self, name: str, number: int, rows: int, write: Callable[[Path], None]
    ) -> StoredFile:
        write_atomically(self.index_dir / name, write)
        return describe_file(self.index_dir, name, number, rows)

    def _table(self, manifest: Manifest) -> PhotoTable:
        files = [self.index_dir / file.name for file in manifest.photos]
        return read_photo_table(files, np.array(manifest.tombstones, dtype=np.int64))

    def _publish(self, manifest: Manifest) -> None:
        write_manifest(self.index_dir, manifest)
        self._committed = self._manifest = manifest
        self._names.update({file.number: file.name for file in manifest.shards})


def _prepare(index_dir: Path, extractor: Extractor, quality: str | None) -> Manifest:
    """Make an empty index if there is none, and see that the one there fits the extractor."""
    if not (index_dir / MANIFEST_NAME).exists():
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
