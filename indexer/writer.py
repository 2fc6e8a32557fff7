"""Writing to an index: rows gather in memory, and reach the disk a shard and a commit at a time."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.errors import IndexDamagedError
from indexer.extractor import Extractor
from indexer.files import StoredFile, describe_file, sync_folder, write_atomically
from indexer.folder import make_folder, remove_leftovers, writing
from indexer.lock import writer_lock
from indexer.manifest import (
    MANIFEST_NAME,
    Derived,
    Manifest,
    SourceRoot,
    check_fingerprint,
    read_manifest,
    without_lost_files,
    write_manifest,
)
from indexer.mapstore import MEND, MapStore, Place, shard_name
from indexer.photos import PhotoRow, photos_name, read_photo_table, write_photos
from indexer.recall import load_recall, recall_name
from indexer.shards import rows_per_shard, write_shard
from indexer.sources import Found
from indexer.statistics import read_mean, statistics_name, write_statistics

# Photos that share maps with others fill no shard; their rows are committed at this many.
_MAX_ROWS = 20_000


@dataclass(frozen=True)
class Pooled:
    """What the photo table keeps of a photo's maps.

    vector: (2 d,) float32, see `FeatureMaps.pooled`. frame, content_hash: as in FeatureMaps.
    """

    vector: NDArray[np.float32]
    frame: Frame
    content_hash: str

    @classmethod
    def of(cls, maps: FeatureMaps) -> "Pooled":
        return cls(maps.pooled(), maps.frame, maps.content_hash)


@dataclass(frozen=True)
class _Entry:
    """One row to commit. has_maps: it brings maps of its own. buried: the id it replaces."""

    row: PhotoRow
    has_maps: bool
    buried: int | None


@dataclass
class _Pending:
    """What the next commit will write.

    number: its generation. appearance, semantic: (capacity, grid, grid, d) float16; as many rows
    are filled as entries have maps. buried: ids to delete beside those of the entries.
    """

    number: int
    appearance: NDArray[np.float16]
    semantic: NDArray[np.float16]
    entries: list[_Entry] = field(default_factory=list)
    maps: int = 0
    buried: list[int] = field(default_factory=list)


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
        self._capacity = rows_per_shard(manifest.map_bytes)
        self._pending = self._new_pending(manifest.generation + 1)
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: Future[None] | None = None
        self._names = {file.number: file.name for file in self._manifest.shards}
        self.maps = MapStore(index_dir, self._names, manifest.map_bytes)

    @classmethod
    @contextlib.contextmanager
    def open(cls, index_dir: Path, extractor: Extractor) -> Iterator["IndexWriter"]:
        """Open an index for writing, or make it, and hold its lock meanwhile.

        Raises IndexBusyError, IndexMissingError for a folder that holds other things,
        IndexFormatError, FingerprintError, IndexDamagedError, IndexWriteError.
        """
        make_folder(index_dir)
        with writer_lock(index_dir):
            with writing(index_dir):
                manifest = _prepare(index_dir, extractor)
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

    def add(
        self,
        found: Found,
        maps: FeatureMaps,
        pooled: Pooled,
        *,
        photo_id: int | None = None,
        buries: int | None = None,
    ) -> Place:
        """Add a photo with its own maps; returns where they will lie.

        photo_id: of the photo whose row this one replaces, else a new one is given. buries: id to
        delete in the same commit. May wait for the commit of the last shard; raises what that
        raised.
        """
        pending = self._pending
        at = pending.maps
        pending.appearance[at] = maps.appearance
        pending.semantic[at] = maps.semantic
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

    def bury(self, photo_id: int) -> None:
        """Delete a photo in the next commit."""
        self._pending.buried.append(photo_id)

    def maps_at(self, place: Place) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Appearance and semantic map, (grid, grid, d) each, that `add` put at `place`.

        From the thread that added them. Raises IndexDamagedError where the disk lost them since.
        """
        if place.shard == self._pending.number:
            return self._pending.appearance[place.row], self._pending.semantic[place.row]
        self._wait()
        maps = read_maps(self.maps, place, self._manifest.grid)
        if maps is None:
            raise IndexDamagedError(f"{self.index_dir / shard_name(place.shard)}: damaged; {MEND}")
        return maps

    def finish(self, gone: Iterable[int]) -> Manifest:
        """Commit what was added, delete the ids in `gone`, and bring recall and mean up to date."""
        self._wait()
        self._pending.buried.extend(gone)
        with writing(self.index_dir):
            manifest = self._stage(self._pending)
            if manifest.photos:
                manifest = self._derive(manifest, self._pending.number)
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
        )

    def _source(self, root: SourceRoot) -> int:
        if root not in self._sources:
            self._sources.append(root)
        return self._sources.index(root)

    def _new_pending(self, number: int) -> _Pending:
        manifest = self._manifest
        shape = (self._capacity, manifest.grid, manifest.grid, manifest.dim)
        return _Pending(number, np.empty(shape, np.float16), np.empty(shape, np.float16))

    def _commit_if_full(self) -> None:
        full = self._pending
        if full.maps < self._capacity and len(full.entries) < _MAX_ROWS:
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
                lambda path: write_shard(
                    path, ids, pending.appearance[: len(ids)], pending.semantic[: len(ids)]
                ),
            )
            shards = (*shards, file)
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
            generation=number if rows else manifest.generation,
            sources=tuple(self._sources),
            shards=shards,
            photos=photos,
            next_id=max([manifest.next_id, *(row.id + 1 for row in rows)]),
            tombstones=tuple(dead),
        )

    def _write(
        self, name: str, number: int, rows: int, write: Callable[[Path], None]
    ) -> StoredFile:
        write_atomically(self.index_dir / name, write)
        return describe_file(self.index_dir, name, number, rows)

    def _derive(self, manifest: Manifest, number: int) -> Manifest:
        """Write recall index and mean anew where they do not cover what the manifest names."""
        files = [self.index_dir / file.name for file in manifest.photos]
        table = read_photo_table(files, np.array(manifest.tombstones, dtype=np.int64))
        live = int(table.live.sum())
        covered = manifest.recall is not None and manifest.recall.covers == manifest.last_photos
        if covered and read_mean(self.index_dir, manifest, live) is not None:
            return manifest
        recall = load_recall(self.index_dir, manifest)
        if not covered:
            name = recall_name(number)
            recall.save(self.index_dir / name)
            stored = describe_file(self.index_dir, name, number, len(recall.ids))
            manifest = replace(manifest, recall=Derived(stored, manifest.last_photos))
        name = statistics_name(number)
        write_statistics(self.index_dir / name, recall.mean())
        stored = describe_file(self.index_dir, name, number, live)
        return replace(manifest, statistics=Derived(stored, manifest.last_photos))

    def _publish(self, manifest: Manifest) -> None:
        write_manifest(self.index_dir, manifest)
        self._committed = self._manifest = manifest
        self._names.update({file.number: file.name for file in manifest.shards})


def _prepare(index_dir: Path, extractor: Extractor) -> Manifest:
    """Make an empty index if there is none, and see that the one there fits the extractor."""
    if not (index_dir / MANIFEST_NAME).exists():
        fresh = Manifest(
            dict(extractor.fingerprint()), extractor.image_size, extractor.grid, extractor.dim
        )
        write_manifest(index_dir, fresh)
    manifest = read_manifest(index_dir)
    check_fingerprint(index_dir, manifest, extractor.fingerprint())
    for name in ("shards", "photos"):
        (index_dir / name).mkdir(exist_ok=True)
    sync_folder(index_dir)
    remove_leftovers(index_dir, manifest)
    return manifest


def read_maps(
    store: MapStore, place: Place, grid: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]] | None:
    """One photo's appearance and semantic map, (grid, grid, d) each, or None if damaged."""
    appearance, semantic, damaged = store.read([place])
    if damaged:
        return None
    shape = (grid, grid, -1)
    return appearance[0].view("<f2").reshape(shape), semantic[0].view("<f2").reshape(shape)
