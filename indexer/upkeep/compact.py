"""Compacting: rewrite what deletions, changes and small runs left behind, and nothing else.

Rows of maps that no photo needs any more are dropped, small map shards are merged into full ones,
and the photo table is written anew without the rows that no longer count. Ids stay. Everything is
written under new names, one shard at a time, and one replacement of the manifest commits it. Killed
at any instant, the index is as it was, and compacting it again gives the same result.

A row whose checksum differs is not copied. Its photo keeps its row in the photo table, which then
names a shard that does not exist, so the next `waldo index` over the photo extracts it again.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.bucket.collection_copy import CollectionCopy
from indexer.bucket.remote_index import shard_opener
from indexer.errors import IndexDamagedError
from indexer.recall.descriptor_vectors import is_fragmented, refresh_descriptors, rewrite_column
from indexer.recall.inverted_file import refresh_word_recall
from indexer.recall.vectors import refresh_recall
from indexer.store.files import StoredFile, writing
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import (
    Manifest,
    MapShard,
    read_manifest,
    without_lost_files,
    write_manifest,
)
from indexer.store.mapstore import MapStore, Place
from indexer.store.parquet_files import evenly, read_table, store_table
from indexer.store.photos import (
    PhotoTable,
    photo_path,
    photos_name,
    read_ids,
    read_photo_table,
    rows_that_count,
)
from indexer.store.shards import rows_per_shard, store_shard

_PHOTOS_PER_SHARD = 20_000
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class CompactReport:
    """What a compaction did.

    photos: in the index. changed: whether there was anything to do. deleted: rows of deleted or
    changed photos dropped from the photo table. dropped: rows dropped from map shards.
    shards_before, shards_after: map shards. bytes_before, bytes_after: size of the files that make
    up the index. lost: photos, by absolute path, whose maps are damaged or missing; the next
    `waldo index` over them extracts them again. in_use: whether replaced files stay on disk until
    the next run because somebody has the index open. seconds: the whole run.
    """

    index_dir: Path
    photos: int
    changed: bool
    deleted: int
    dropped: int
    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int
    lost: tuple[str, ...]
    in_use: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a compaction would rewrite.

    dead_rows: rows of map shards that no photo needs. small_shards: map shards that are not full.
    shards: map shards to be merged. table: whether the photo table is rewritten, and with it what
    is made from it. descriptors: whether the vectors of descriptors are. codecs: those to keep.
    """

    dead_rows: int
    small_shards: int
    shards: tuple[MapShard, ...]
    table: bool
    descriptors: bool
    codecs: tuple[StoredFile, ...]

    def is_nothing(self, manifest: Manifest) -> bool:
        rewrites = self.shards or self.table or self.descriptors
        return not rewrites and self.codecs == manifest.codecs


def compact_copy(index_dir: Path, copy: CollectionCopy | None) -> CompactReport:
    """As `compact`. copy: the working copy in the folder, if it is one: its bucket then gets what
    was compacted, and objects that its manifest has not named for long are deleted there.

    Raises as `WorkingCopy.push` too.
    """
    report = compact(index_dir)
    if copy is not None:
        with writing(index_dir):
            copy.push()
            copy.delete_unnamed()
    return report


def compact(index_dir: Path) -> CompactReport:
    """Rewrite what needs it.

    Needs as much free disk as what is rewritten, and memory for about one shard. Raises
    IndexMissingError, IndexBusyError, IndexFormatError, IndexDamagedError where the manifest or the
    photo table is damaged, IndexWriteError; the index is then as it was.
    """
    started = time.monotonic()
    read_manifest(index_dir)  # raises where there is no index, before a lock file is made
    with writer_lock(index_dir), writing(index_dir):
        committed = read_manifest(index_dir)
        remove_leftovers(index_dir, committed)
        # A lost part of the photo table is an error: without it, maps would seem not needed.
        manifest = replace(without_lost_files(index_dir, committed), photos=committed.photos)
        table = read_photo_table(index_dir, manifest)
        plan = plan_compaction(manifest, table)
        rows_before = sum(file.rows for file in manifest.shards)
        photos, moved = int(table.live.sum()), _Moved()
        changed = not plan.is_nothing(manifest)
        if changed:
            try:
                manifest, moved = _rewrite(index_dir, manifest, table, plan)
                write_manifest(index_dir, manifest)
            except BaseException:
                # Where the disk is full, make room again.
                with contextlib.suppress(OSError, WaldoError):
                    remove_leftovers(index_dir, committed)
                raise
        gone = remove_leftovers(index_dir, manifest if changed else committed)
    return CompactReport(
        index_dir,
        photos=photos,
        changed=changed,
        deleted=sum(file.rows for file in committed.photos) - photos if plan.table else 0,
        dropped=rows_before - sum(file.rows for file in manifest.shards),
        shards_before=len(committed.shards),
        shards_after=len(manifest.shards),
        bytes_before=sum(file.bytes for file in committed.files()),
        bytes_after=sum(file.bytes for file in manifest.files()),
        lost=_lost(manifest, table, moved),
        in_use=not gone,
        seconds=time.monotonic() - started,
    )


def plan_compaction(manifest: Manifest, table: PhotoTable) -> Plan:
    """What a compaction of this state would do; nothing is read or written."""
    capacity = rows_per_shard(manifest.photo_bytes)
    used = _used_rows(manifest, table)
    dead = {file.number: file.rows - len(used[file.number]) for file in manifest.shards}
    merged: list[MapShard] = []
    for codec in sorted({file.codec for file in manifest.shards}):
        candidates = [
            file
            for file in manifest.shards
            if file.codec == codec and (dead[file.number] or file.rows < capacity)
        ]
        rows = sum(len(used[file.number]) for file in candidates)
        needed = -(-rows // capacity)
        if needed < len(candidates) or any(dead[file.number] for file in candidates):
            merged += candidates
    photos = int(table.live.sum())
    rewrites_table = (
        bool(merged or manifest.tombstones)
        or sum(file.rows for file in manifest.photos) > photos
        or len(manifest.photos) > -(-photos // _PHOTOS_PER_SHARD)
    )
    # The newest codec stays: a run may have fitted it and been killed before it stored a photo.
    in_use = {f.codec for f in manifest.shards if used[f.number].size}
    codecs = [f for f in manifest.codecs[:-1] if f.number in in_use]
    return Plan(
        dead_rows=sum(dead.values()),
        small_shards=sum(file.rows < capacity for file in manifest.shards),
        shards=tuple(merged),
        table=rewrites_table,
        descriptors=rewrites_table or any(is_fragmented(c, photos) for c in manifest.descriptors),
        codecs=(*codecs, *manifest.codecs[-1:]),
    )


@dataclass(frozen=True)
class _Moved:
    """Where the rows of merged map shards went.

    places: old shard number -> new shard number and new row of each old row, (rows,) int64 each;
    the new row is -1 where a row was dropped.
    """

    places: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    def follow(
        self, shards: NDArray[np.int64], rows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The new places of (n,) places; those of dropped rows are left as they are."""
        new_shards, new_rows = shards.copy(), rows.copy()
        for number in np.unique(shards).tolist():
            if number not in self.places:
                continue
            to_shard, to_row = self.places[number]
            at = np.flatnonzero((shards == number) & (rows < len(to_row)))
            at = at[to_row[rows[at]] >= 0]
            new_shards[at], new_rows[at] = to_shard[rows[at]], to_row[rows[at]]
        return new_shards, new_rows


def _used_rows(manifest: Manifest, table: PhotoTable) -> dict[int, NDArray[np.int32]]:
    """The rows of each map shard that hold maps of live photos, rising."""
    order = np.argsort(table.numbers["shard"], kind="stable")
    order = order[table.live[order]]
    shards, rows = table.numbers["shard"][order], table.numbers["row"][order]
    used = {}
    for file in manifest.shards:
        start, stop = np.searchsorted(shards, [file.number, file.number + 1])
        inside = np.unique(rows[start:stop])
        used[file.number] = inside[inside < file.rows]
    return used


def _rewrite(
    index_dir: Path, manifest: Manifest, table: PhotoTable, plan: Plan
) -> tuple[Manifest, _Moved]:
    """Write all new files; returns the manifest that names them."""
    new_shards, moved = _merge_shards(index_dir, manifest, table, plan.shards)
    kept = [file for file in manifest.shards if file not in plan.shards]
    last = max([manifest.generation + 1, *(file.number for file in new_shards)])
    manifest = replace(
        manifest,
        generation=last,
        codecs=plan.codecs,
        shards=(*kept, *new_shards),
        n_photos=int(table.live.sum()),
    )
    if plan.table:
        photos = _rewrite_table(index_dir, manifest, moved)
        last = max([last, *(file.number for file in photos)])
        manifest = replace(
            manifest, generation=last, photos=tuple(photos), recall=None, words=None, tombstones=()
        )
        recall = refresh_recall(index_dir, manifest, last, rebuild=True)
        words = refresh_word_recall(index_dir, manifest, last, rebuild=True)
        manifest = replace(manifest, recall=recall, words=words)
    if plan.descriptors:
        manifest = _rewrite_descriptors(index_dir, manifest, table)
    return manifest, moved


def _rewrite_descriptors(index_dir: Path, manifest: Manifest, table: PhotoTable) -> Manifest:
    """Write the vectors of descriptors and their recall bases anew, for the photos of a table."""
    first = manifest.generation + 1
    columns = tuple(
        rewrite_column(index_dir, column, place, table, first)
        for place, column in enumerate(manifest.descriptors)
    )
    last = max([manifest.generation, *(f.number for column in columns for f in column.files)])
    manifest = replace(manifest, generation=last, descriptors=columns)
    return replace(manifest, descriptors=refresh_descriptors(index_dir, manifest, last))


def _merge_shards(
    index_dir: Path, manifest: Manifest, table: PhotoTable, merged: Sequence[MapShard]
) -> tuple[list[MapShard], _Moved]:
    """Copy the rows in use of some shards into new ones, one codec after the other."""
    store = MapStore(index_dir, merged, manifest.photo_bytes, shard_opener(index_dir))
    used, moved = _used_rows(manifest, table), _Moved()
    number, written = manifest.generation + 1, list[MapShard]()
    try:
        for codec in sorted({file.codec for file in merged}):
            packer = _Packer(index_dir, manifest.photo_bytes, codec, number)
            for file in (file for file in merged if file.codec == codec):
                moved.places[file.number] = packer.take(store, file, used[file.number])
            packer.flush()
            number += len(packer.written)
            written += packer.written
    finally:
        store.close()
    return written, moved


class _Packer:
    """Fills new shards of one codec with rows of old ones. written: the shards that are done."""

    def __init__(self, index_dir: Path, photo_bytes: int, codec: int, number: int) -> None:
        self._index_dir = index_dir
        self._codec = codec
        self._number = number
        capacity = rows_per_shard(photo_bytes)
        self._maps = np.empty((capacity, photo_bytes), np.uint8)
        self._ids = np.empty(capacity, np.int64)
        self._filled = 0
        self.written: list[MapShard] = []

    def take(
        self, store: MapStore, file: MapShard, rows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Copy some rows of a shard; returns where each row of it went, as `_Moved` has it."""
        to_shard, to_row = np.zeros(file.rows, np.int64), np.full(file.rows, -1, np.int64)
        try:
            ids = store.shard(file.number).ids
        except IndexDamagedError:
            return to_shard, to_row
        rows = rows[rows < len(ids)]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE].tolist()
            maps, damaged = store.read([Place(file.number, row, int(ids[row])) for row in chunk])
            for at, row in enumerate(chunk):
                if at not in damaged:
                    to_shard[row], to_row[row] = self._number, self._filled
                    self._add(int(ids[row]), maps[at])
        return to_shard, to_row

    def flush(self) -> None:
        """Write the rows that were copied since the last shard."""
        if self._filled:
            ids, maps = self._ids[: self._filled], self._maps[: self._filled]
            self.written.append(store_shard(self._index_dir, self._number, ids, maps, self._codec))
            self._number += 1
            self._filled = 0

    def _add(self, photo_id: int, maps: NDArray[np.uint8]) -> None:
        self._ids[self._filled] = photo_id
        self._maps[self._filled] = maps
        self._filled += 1
        if self._filled == len(self._ids):
            self.flush()


def _rewrite_table(index_dir: Path, manifest: Manifest, moved: _Moved) -> list[StoredFile]:
    """Write the rows of the photo table that count, in their order, with the new places of maps."""
    import pyarrow as pa

    ids = [read_ids(index_dir / file.name) for file in manifest.photos]
    every = rows_that_count(ids, manifest.tombstones)

    def parts() -> Iterator[pa.Table]:
        for file, counts in zip(manifest.photos, every, strict=True):
            rows = read_table(index_dir, file).filter(pa.array(counts))
            shards, places = rows.column("shard").to_numpy(), rows.column("row").to_numpy()
            for name, values in zip(("shard", "row"), moved.follow(shards, places), strict=True):
                at = rows.schema.get_field_index(name)
                rows = rows.set_column(at, rows.schema.field(at), pa.array(values))
            yield rows

    return [
        store_table(index_dir, photos_name(number), number, rows)
        for number, rows in enumerate(
            evenly(parts(), _PHOTOS_PER_SHARD), start=manifest.generation + 1
        )
    ]


def _lost(manifest: Manifest, table: PhotoTable, moved: _Moved) -> tuple[str, ...]:
    """Absolute paths of the live photos whose maps no shard holds any more."""
    shards, _ = moved.follow(table.numbers["shard"], table.numbers["row"])
    lost = table.live & ~np.isin(shards, [file.number for file in manifest.shards])
    return tuple(photo_path(manifest, table, row) for row in np.flatnonzero(lost).tolist())
