"""Columns of global descriptors: one vector for each content, beside the photo table.

A column can be added to an index that has photos, so its vectors lie in files of their own:
`content_hash`, the SHA-256 of a photo's file, and `vector`. Photos of the same content share one,
and a photo that is moved, or deleted and comes back, keeps it. Recall searches a base over photos,
and adds what that lacks, as with pooled vectors (`recall.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.recall.vectors import (
    RULE,
    RecallIndex,
    RecallRule,
    Vectors,
    base_is_due,
    build_base,
    load_base,
    write_base,
)
from indexer.store.files import StoredFile, describe_file
from indexer.store.manifest import Derived, DescriptorColumn, Manifest
from indexer.store.photos import PhotoTable, read_columns, write_table
from indexer.store.rewrite import evenly, read_table, store_table
from indexer.store.shards import rows_per_shard

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "descriptors"


def vectors_name(number: int, place: int) -> str:
    """File name below the index folder. place: of the column among the manifest's."""
    return f"{FOLDER}/{number:06d}-{place}.parquet"


def base_name(number: int, place: int) -> str:
    """File name of a column's recall base below the index folder."""
    return f"{FOLDER}/{number:06d}-{place}.faiss"


def write_vectors(path: Path, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Write some contents' vectors, (d,) each, to a new file; not atomic."""
    import pyarrow as pa

    values = pa.array(np.concatenate(list(vectors.values())).astype(np.float32, copy=False))
    columns = {
        "content_hash": pa.array(list(vectors), pa.binary(32)),
        "vector": pa.FixedSizeListArray.from_arrays(values, len(values) // len(vectors)),
    }
    write_table(path, pa.table(columns))


def read_vectors(path: Path, dim: int) -> NDArray[np.float32]:
    """(n, dim) vectors of a file, in its order. Raises IndexDamagedError."""
    vectors = read_columns(path, ["vector"]).column("vector").combine_chunks()
    found: NDArray[np.float32] = vectors.flatten().to_numpy().reshape(-1, dim)
    return found


def has_vector(
    index_dir: Path, column: DescriptorColumn | None, table: PhotoTable
) -> NDArray[np.bool_]:
    """(n,) bool: which photos of a table, dead ones too, a column has a vector for; None has none.

    Raises IndexDamagedError.
    """
    if column is None:
        return np.zeros(len(table), dtype=bool)
    return _places(index_dir, column, table.hashes) >= 0


def load_descriptor_recall(
    index_dir: Path, manifest: Manifest, table: PhotoTable, column: DescriptorColumn
) -> RecallIndex:
    """The photos by a column's vectors: its base, and what the photo table has beyond it.

    Raises IndexDamagedError where a file of the column cannot be read.
    """
    recall = load_base(index_dir, column.recall, column.dim, manifest.tombstones)
    lacking = np.flatnonzero(table.live & ~np.isin(table.ids, recall.ids))
    for ids, vectors in _photo_vectors(index_dir, column, table, lacking):
        recall.add(ids, vectors)
    return recall


def refresh_descriptors(
    index_dir: Path,
    manifest: Manifest,
    table: PhotoTable,
    number: int,
    *,
    rule: RecallRule = RULE,
) -> tuple[DescriptorColumn, ...]:
    """The manifest's columns, with new recall bases written for those where one is due.

    table: the manifest's photo table. number: the generation that writes them. Raises as
    `recall.refresh_recall`.
    """
    live = np.flatnonzero(table.live)
    columns = []
    for place, column in enumerate(manifest.descriptors):
        if column.files and base_is_due(column.files, column.recall, rule):
            base = build_base(
                partial(_photo_vectors, index_dir, column, table, live), column.dim, rule
            )
            name = base_name(number, place)
            write_base(index_dir / name, base)
            file = describe_file(index_dir, name, number, base.ntotal)
            column = replace(column, recall=Derived(file, column.files[-1].number))
        columns.append(column)
    return tuple(columns)


def is_fragmented(column: DescriptorColumn, photos: int) -> bool:
    """Whether a column has small files or vectors of nothing. photos: live ones."""
    rows = sum(file.rows for file in column.files)
    return rows > photos or len(column.files) > -(-rows // _capacity(column))


def rewrite_column(
    index_dir: Path, column: DescriptorColumn, place: int, table: PhotoTable, number: int
) -> DescriptorColumn:
    """Write the vectors that live photos need, each once, into full files; without a recall base.

    place: the column's among the manifest's. number: the generation of the first of these files.
    Raises IndexDamagedError for a damaged file.
    """
    import pyarrow as pa

    starts = _starts(column)
    kept = np.zeros(starts[-1], dtype=bool)
    places = _places(index_dir, column, table.hashes[table.live])
    kept[places[places >= 0]] = True

    def parts() -> "Iterator[pa.Table]":
        for file, start, stop in zip(column.files, starts, starts[1:], strict=False):
            yield read_table(index_dir, file).filter(pa.array(kept[start:stop]))

    files: list[StoredFile] = []
    if kept.any():
        for rows in evenly(parts(), _capacity(column)):
            at = number + len(files)
            files.append(store_table(index_dir, vectors_name(at, place), at, rows))
    return replace(column, files=tuple(files), recall=None)


def _photo_vectors(
    index_dir: Path, column: DescriptorColumn, table: PhotoTable, rows: NDArray[np.intp]
) -> Iterator[Vectors]:
    """Ids and vectors of those of some photos that a column has one for, a file at a time.

    rows: of the table. Raises IndexDamagedError.
    """
    if len(rows) == 0:
        return
    places, starts = _places(index_dir, column, table.hashes[rows]), _starts(column)
    for file, start, stop in zip(column.files, starts, starts[1:], strict=False):
        inside = np.flatnonzero((places >= start) & (places < stop))
        if len(inside):
            vectors = read_vectors(index_dir / file.name, column.dim)
            yield table.ids[rows[inside]], vectors[places[inside] - start]


def _places(
    index_dir: Path, column: DescriptorColumn, hashes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Where the vectors of (n, 32) content hashes lie: (n,), rows counted through the column's
    files, -1 for one that has none. Of several the first. Raises IndexDamagedError.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    held = [
        read_columns(index_dir / file.name, ["content_hash"]).column(0) for file in column.files
    ]
    contents = pa.chunked_array([chunk for part in held for chunk in part.chunks], pa.binary(32))
    wanted = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(hashes), [None, pa.py_buffer(np.ascontiguousarray(hashes))]
    )
    places: NDArray[np.int64] = (
        pc.index_in(wanted, value_set=contents).fill_null(-1).to_numpy().astype(np.int64)
    )
    return places


def _starts(column: DescriptorColumn) -> NDArray[np.int64]:
    """(files + 1,): where each file's rows begin when they are counted through all."""
    return np.cumsum([0, *(file.rows for file in column.files)])


def _capacity(column: DescriptorColumn) -> int:
    """Vectors that fill a file."""
    return rows_per_shard(32 + 4 * column.dim)
