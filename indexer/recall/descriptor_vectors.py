"""Columns of global descriptors: one vector per content, beside the photo table.

A column can be added to an index that has photos, so its vectors lie in files of their own, with
the columns `content_hash` (the SHA-256 of a photo's file) and `vector`. Photos of the same content
share a vector, and a photo that moves, or is deleted and comes back, keeps it. Recall searches a
base over photos and adds what that lacks, as for pooled vectors (`vectors.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.recall.base_rule import RULE, RecallRule, refreshed
from indexer.recall.faiss_base import Vectors, build_base, write_base
from indexer.recall.vectors import RecallIndex, load_base
from indexer.store.files import StoredFile, describe_file
from indexer.store.manifest import DescriptorColumn, Manifest
from indexer.store.parquet_files import (
    evenly,
    read_columns,
    read_table,
    store_table,
    write_table,
)
from indexer.store.photos import PhotoTable, read_photo_table
from indexer.store.shards import rows_per_shard

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "descriptors"


def vectors_name(number: int, place: int) -> str:
    """File name below the index folder. place: the column's among those of the manifest."""
    return f"{FOLDER}/{number:06d}-{place}.parquet"


def base_name(number: int, place: int) -> str:
    """File name of a column's recall base below the index folder; see `vectors_name`."""
    return f"{FOLDER}/{number:06d}-{place}.faiss"


def write_vectors(path: Path, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Write the (d,) vectors of some contents to a new file; not atomic."""
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
    """(n,) bool: which photos of a table, deleted ones too, have a vector in a column.

    column: None has no vectors. Raises IndexDamagedError.
    """
    if column is None:
        return np.zeros(len(table), dtype=bool)
    return _places(index_dir, column, table.hashes) >= 0


def load_descriptor_recall(
    index_dir: Path, manifest: Manifest, table: PhotoTable, column: DescriptorColumn
) -> RecallIndex:
    """The photos by the vectors of a column: its base, and the photos that the base lacks.

    Raises IndexDamagedError if a file of the column cannot be read.
    """
    recall = load_base(index_dir, column.recall, column.dim, manifest.tombstones)
    lacking = np.flatnonzero(table.live & ~np.isin(table.ids, recall.ids))
    for ids, vectors in _photo_vectors(index_dir, column, table, lacking):
        recall.add(ids, vectors)
    return recall


def refresh_descriptors(
    index_dir: Path,
    manifest: Manifest,
    number: int,
    *,
    rule: RecallRule = RULE,
) -> tuple[DescriptorColumn, ...]:
    """The columns of the manifest; a new recall base is written for each that is due one.

    number: the generation that writes the bases. See `base_rule.refreshed`. Raises as
    `vectors.refresh_recall`.
    """

    @cache  # read where a column is due, and once for all of them
    def table() -> PhotoTable:
        return read_photo_table(index_dir, manifest)

    def write(column: DescriptorColumn, place: int) -> StoredFile:
        live = np.flatnonzero(table().live)
        vectors = partial(_photo_vectors, index_dir, column, table(), live)
        base = build_base(vectors, column.dim, rule)
        name = base_name(number, place)
        write_base(index_dir / name, base)
        return describe_file(index_dir, name, number, base.ntotal)

    return tuple(
        replace(
            column,
            recall=refreshed(column.files, column.recall, rule, partial(write, column, place)),
        )
        for place, column in enumerate(manifest.descriptors)
    )


def is_fragmented(column: DescriptorColumn, photos: int) -> bool:
    """Whether a column has small files, or vectors that no photo needs.

    photos: how many photos are not deleted.
    """
    rows = sum(file.rows for file in column.files)
    return rows > photos or len(column.files) > -(-rows // _capacity(column))


def rewrite_column(
    index_dir: Path, column: DescriptorColumn, place: int, table: PhotoTable, number: int
) -> DescriptorColumn:
    """Write the vectors that live photos need, each once, into full files.

    place: the column's among those of the manifest. number: the generation of the first file.
    Returns the column with these files and without a recall base. Raises IndexDamagedError for a
    damaged file.
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
    """Ids and vectors of the photos that have one in a column, one file at a time.

    rows: the photos, as rows of the table. Raises IndexDamagedError.
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
    """Where the vectors of (n, 32) content hashes lie: (n,) rows, counted through all files.

    -1 for a content without a vector; the first row of a content that has several. Raises
    IndexDamagedError.
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
    """(files + 1,): where the rows of each file begin when they are counted through all files."""
    return np.cumsum([0, *(file.rows for file in column.files)])


def _capacity(column: DescriptorColumn) -> int:
    """How many vectors fill a file."""
    return rows_per_shard(32 + 4 * column.dim)
