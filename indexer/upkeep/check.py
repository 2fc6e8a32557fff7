"""What an index holds, and whether its files still are what was written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.transfer import OnBytes
from indexer.codec.codec import load_codec
from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.recall.descriptor_vectors import has_vector, load_descriptor_recall, read_vectors
from indexer.recall.vectors import load_recall, recall_kind
from indexer.store.failures import FAILURES_NAME, read_failures
from indexer.store.files import StoredFile, digest
from indexer.store.folder import own_files
from indexer.store.locks import ReaderLock
from indexer.store.manifest import Manifest, read_manifest
from indexer.store.mapstore import MapStore, Place
from indexer.store.photos import PhotoTable, read_photo_table, read_pooled
from indexer.store.shards import open_shard, read_layout
from indexer.upkeep.compact import plan_compaction

_ROWS_AT_ONCE = 256


def describe(index_dir: Path) -> dict[str, Any]:
    """The index in numbers and names, ready to be printed or written as JSON.

    deleted: deleted photos that still have a row. small_shards: map shards that are not full.
    dead_map_rows: rows of all map shards that no photo needs. descriptors: the name of each, the
    length of its vectors, and how many photos have one. weights: those that were fitted to this
    collection, if any. compact_has_work: whether compact would change anything. bytes: size of the
    files that make up the index. bytes_on_disk: the same with files that were replaced and stay
    until their readers are done.

    Raises IndexMissingError, IndexFormatError, IndexDamagedError.
    """
    with contextlib.closing(ReaderLock(index_dir)):
        manifest = read_manifest(index_dir)
        table = read_photo_table(index_dir, manifest)
        plan = plan_compaction(manifest, table)
        kind = recall_kind(index_dir, manifest)
        described = [
            int((has_vector(index_dir, column, table) & table.live).sum())
            for column in manifest.descriptors
        ]
        on_disk = sum(path.stat().st_size for path in own_files(index_dir))
    return {
        "index": str(index_dir),
        "format": manifest.format,
        "generation": manifest.generation,
        "model": manifest.fingerprint.get("model"),
        "fingerprint": dict(manifest.fingerprint),
        "image_size": manifest.image_size,
        "grid": manifest.grid,
        "dim": manifest.dim,
        "photos": int(table.live.sum()),
        "deleted": int((~table.live).sum()),
        "shards": len(manifest.shards),
        "small_shards": plan.small_shards,
        "map_rows": sum(file.rows for file in manifest.shards),
        "dead_map_rows": plan.dead_rows,
        "compact_has_work": not plan.is_nothing(manifest),
        "recall": kind,
        "descriptors": [
            {"name": column.name, "dim": column.dim, "photos": photos}
            for column, photos in zip(manifest.descriptors, described, strict=True)
        ],
        **({} if manifest.weights is None else {"weights": manifest.weights}),
        "codec": manifest.quality,
        "bytes_per_photo": manifest.photo_bytes,
        "bytes": sum(file.bytes for file in manifest.files()),
        "bytes_on_disk": on_disk,
        "failures": len(read_failures(index_dir)),
        "sources": [str(Path(s.root, s.list_name or "")) for s in manifest.sources],
    }


def verify(index_dir: Path, progress: OnBytes | None = None) -> list[str]:
    """Read the whole index and compare it with its digests, counts and checksums.

    Returns one line per problem, with the file and what to do; none where the index is sound.
    progress: called with the bytes that were read, and `bytes_to_verify`. Raises IndexMissingError
    and IndexFormatError.
    """
    with contextlib.closing(ReaderLock(index_dir)):
        try:
            manifest = read_manifest(index_dir)
        except IndexDamagedError as error:
            return [str(error)]
        return list(_problems(index_dir, manifest, _Reading(bytes_to_verify(manifest), progress)))


def bytes_to_verify(manifest: Manifest) -> int:
    """What `verify` reads of an index: all of its files, and the rows of its map shards again."""
    rows = sum(file.rows for file in manifest.shards)
    return sum(file.bytes for file in manifest.files()) + rows * manifest.photo_bytes


class _Reading:
    """Counts what is read."""

    def __init__(self, total: int, progress: OnBytes | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes that were read, or that need not be read."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _problems(index_dir: Path, manifest: Manifest, reading: _Reading) -> Iterator[str]:
    # Of these files no more is read where it would need a parser, which may fail on damaged input.
    bad = set()
    for file in manifest.files():
        for problem in _file_problems(index_dir, manifest, file):
            bad.add(file.name)
            yield problem
        reading.add(file.bytes)
    yield from _codec_problems(index_dir, manifest, bad)
    yield from _row_problems(index_dir, manifest, reading)
    if not bad.intersection(file.name for file in manifest.photos):
        try:
            table = read_photo_table(index_dir, manifest)
            yield from _table_problems(index_dir, manifest, table)
            yield from _place_problems(index_dir, manifest, table, bad)
            yield from _recall_problems(index_dir, manifest, table, bad)
            yield from _descriptor_problems(index_dir, manifest, table, bad)
        except IndexDamagedError as error:
            yield str(error)
    failures = index_dir / FAILURES_NAME
    lines = failures.read_bytes().count(b"\n") if failures.exists() else 0
    if lines != len(read_failures(index_dir)):
        yield f"{failures}: some lines cannot be read; run `waldo index` again to write it anew"


def _file_problems(index_dir: Path, manifest: Manifest, file: StoredFile) -> Iterator[str]:
    path = index_dir / file.name
    mend = manifest.repair_hint(file)
    try:
        size = path.stat().st_size
        if size != file.bytes:
            yield f"{path}: {size} bytes, not {file.bytes}; {mend}"
        elif digest(path) != file.sha256:
            yield f"{path}: its content is not what was written; {mend}"
    except OSError as error:
        mend = manifest.repair_hint(file, is_missing=True)
        yield f"{path}: cannot be read ({error.strerror}); {mend}"


def _table_problems(index_dir: Path, manifest: Manifest, table: PhotoTable) -> Iterator[str]:
    for file in manifest.photos:
        ids, _ = read_pooled(index_dir / file.name, manifest.dim)
        if len(ids) != file.rows:
            yield f"{index_dir / file.name}: {len(ids)} rows, not {file.rows}; {REPAIR_HINT}"
    if len(table) and int(table.ids[-1]) >= manifest.next_id:
        yield (
            f"{index_dir}: ids that are not below the manifest's next id; index the photos into a "
            "new folder"
        )
    if len(table) and int(table.numbers["source"].max()) >= len(manifest.sources):
        yield f"{index_dir}: photos of an unknown source; index the photos into a new folder"


def _row_problems(index_dir: Path, manifest: Manifest, reading: _Reading) -> Iterator[str]:
    """Every map shard against its record in the manifest, and its rows against their checksums."""
    store = MapStore(index_dir, manifest.shards, manifest.photo_bytes)
    try:
        for file in manifest.shards:
            path = index_dir / file.name
            try:
                ids = store.shard(file.number).ids
                layout = read_layout(path, file.rows, manifest.photo_bytes)
            except IndexDamagedError as error:
                yield f"{path}: {error}; {REPAIR_HINT}"
                reading.add(file.rows * manifest.photo_bytes)
                continue
            if file.layout not in (None, layout):
                yield f"{path}: its columns lie elsewhere than the manifest says; {REPAIR_HINT}"
            for start in range(0, len(ids), _ROWS_AT_ONCE):
                rows = range(start, min(start + _ROWS_AT_ONCE, len(ids)))
                _, damaged = store.read([Place(file.number, r, int(ids[r])) for r in rows])
                yield from (f"{index_dir}: {damaged[i]}" for i in sorted(damaged))
                reading.add(len(rows) * manifest.photo_bytes)
    finally:
        store.close()


def _place_problems(
    index_dir: Path, manifest: Manifest, table: PhotoTable, bad: set[str]
) -> Iterator[str]:
    """Every live photo against the row that should hold its maps. bad: files reported already."""
    ids: dict[int, NDArray[np.int64]] = {}
    for file in manifest.shards:
        if file.name not in bad:
            with contextlib.suppress(IndexDamagedError):  # reported already
                ids[file.number] = open_shard(index_dir, file, manifest.photo_bytes).ids
    known = {file.number for file in manifest.shards}
    for row in np.flatnonzero(table.live).tolist():
        place = table.place(row)
        if place.shard in known and place.shard not in ids:
            continue
        held = ids.get(place.shard, np.empty(0, np.int64))
        if place.row >= len(held) or held[place.row] != place.maps_id:
            yield (
                f"{index_dir}: the maps of {table.path(row)} are lost (shard {place.shard} row "
                f"{place.row}); run `waldo index` again over the same photos"
            )


def _codec_problems(index_dir: Path, manifest: Manifest, bad: set[str]) -> Iterator[str]:
    for file in manifest.codecs:
        if file.name in bad:
            continue
        try:
            codec = load_codec(index_dir / file.name)
        except IndexDamagedError as error:
            yield str(error)
            continue
        shape = (codec.quality, codec.grid, codec.dim, codec.fitted_on)
        if shape != (manifest.quality, manifest.grid, manifest.dim, file.rows):
            yield f"{index_dir / file.name}: the codec of another index; {REPAIR_HINT}"
    numbers = {file.number for file in manifest.codecs}
    for shard in manifest.shards:
        if shard.codec not in numbers:
            yield f"{index_dir / shard.name}: its codec is missing; {REPAIR_HINT}"


def _recall_problems(
    index_dir: Path, manifest: Manifest, table: PhotoTable, bad: set[str]
) -> Iterator[str]:
    """The recall indexes against the photo table."""
    for base in (manifest.recall, manifest.words):
        if base is not None and base.covers > manifest.last_photos:
            path = index_dir / base.file.name
            yield f"{path}: covers photo table shards that do not exist; {REPAIR_HINT}"
    if manifest.recall is None or manifest.recall.file.name in bad:
        return
    recall = load_recall(index_dir, manifest)
    if not np.array_equal(np.sort(recall.ids), table.ids):
        path = index_dir / manifest.recall.file.name
        yield f"{path}: its ids are not those of the photo table; {REPAIR_HINT}"


def _descriptor_problems(
    index_dir: Path, manifest: Manifest, table: PhotoTable, bad: set[str]
) -> Iterator[str]:
    """Every descriptor's vectors, and its recall index against the photo table."""
    for column in manifest.descriptors:
        for file in column.files:
            if file.name in bad:
                continue
            path = index_dir / file.name
            vectors = read_vectors(path, column.dim)
            if len(vectors) != file.rows:
                yield f"{path}: {len(vectors)} rows, not {file.rows}; {REPAIR_HINT}"
            if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
                yield f"{path}: vectors whose length is not 1; {REPAIR_HINT}"
        last = column.files[-1].number if column.files else 0
        if column.recall is not None and column.recall.covers > last:
            path = index_dir / column.recall.file.name
            yield f"{path}: covers files that do not exist; {REPAIR_HINT}"
        names = [file.name for file in column.files]
        if column.recall is None or bad.intersection([*names, column.recall.file.name]):
            continue
        recall = load_descriptor_recall(index_dir, manifest, table, column)
        if not np.isin(recall.ids, table.ids).all():
            path = index_dir / column.recall.file.name
            yield f"{path}: holds photos that are not in the photo table; {REPAIR_HINT}"
