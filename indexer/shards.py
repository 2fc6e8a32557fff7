"""Map shards: the maps of some photos in one Parquet file that is also read by offset.

Columns: `id` int64 (the photo the maps were first taken from), `appearance` and `semantic`
fixed-size binary of grid * grid * d little-endian float16 each, row-major from the top left, and
`checksum` uint32, the CRC-32 of appearance then semantic. One row group, one page a column,
uncompressed: any Parquet reader reads it, and so does one `preadv` a map.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError, one_line
from indexer.pages import plain_offset

SHARD_BYTES = 64 * 2**20
# A Parquet writer starts another page after this many rows.
_MAX_ROWS = 20_000
MAP_COLUMNS = ("appearance", "semantic")


def rows_per_shard(map_bytes: int) -> int:
    """How many photos fill a shard; map_bytes is the size of ONE map (appearance or semantic)."""
    return min(_MAX_ROWS, max(1, SHARD_BYTES // (2 * map_bytes)))


def checksum(appearance: bytes | memoryview, semantic: bytes | memoryview) -> int:
    """CRC-32 of the bytes of a photo's two maps, appearance first."""
    return zlib.crc32(semantic, zlib.crc32(appearance))


def write_shard(
    path: Path,
    ids: NDArray[np.int64],
    appearance: NDArray[np.float16],
    semantic: NDArray[np.float16],
) -> None:
    """Write n photos' maps to a new file; not atomic, see `files.write_atomically`.

    ids: (n,). appearance, semantic: (n, grid, grid, d), C-contiguous.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(ids)
    maps = [np.ascontiguousarray(m, dtype="<f2").reshape(count, -1) for m in (appearance, semantic)]
    width = maps[0].shape[1] * 2
    sums = np.array(
        [checksum(a.data, s.data) for a, s in zip(*maps, strict=True)],
        dtype=np.uint32,
    )
    columns = [
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(m)])
        for m in maps
    ]
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("appearance", pa.binary(width), nullable=False),
            pa.field("semantic", pa.binary(width), nullable=False),
            pa.field("checksum", pa.uint32(), nullable=False),
        ]
    )
    table = pa.table([pa.array(ids), *columns, pa.array(sums)], schema=schema)
    pq.write_table(
        table,
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        data_page_size=max(2**20, 2 * count * width),
        row_group_size=count,
    )


@dataclass(frozen=True)
class Shard:
    """An opened map shard: the light columns, and where the maps lie.

    path: the file. ids: (n,) int64. checksums: (n,) uint32. width: bytes of one map.
    offsets: byte offsets of the first appearance and semantic map, or None where the file is laid
    out otherwise than `write_shard` does and has to be read through pyarrow.
    """

    path: Path
    ids: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    width: int
    offsets: tuple[int, int] | None

    def read(
        self,
        rows: Sequence[int],
        appearance: Sequence[NDArray[np.uint8]],
        semantic: Sequence[NDArray[np.uint8]],
    ) -> None:
        """Fill one (width,) uint8 array a row and map with the bytes of some rows, unchecked.

        Raises IndexDamagedError where the file cannot be read.
        """
        try:
            if self.offsets is None:
                self._read_columns(rows, appearance, semantic)
            else:
                self._read_offsets(self.offsets, rows, appearance, semantic)
        except (OSError, _arrow_error()) as error:
            raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error

    def is_sound(self, row: int, appearance: memoryview, semantic: memoryview) -> bool:
        """Whether a row's bytes are those that were written."""
        return checksum(appearance, semantic) == int(self.checksums[row])

    def _read_offsets(
        self,
        offsets: tuple[int, int],
        rows: Sequence[int],
        appearance: Sequence[NDArray[np.uint8]],
        semantic: Sequence[NDArray[np.uint8]],
    ) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for offset, out in zip(offsets, (appearance, semantic), strict=True):
                for row, target in zip(rows, out, strict=True):
                    _read_at(descriptor, offset + row * self.width, target.data)
        finally:
            os.close(descriptor)

    def _read_columns(
        self,
        rows: Sequence[int],
        appearance: Sequence[NDArray[np.uint8]],
        semantic: Sequence[NDArray[np.uint8]],
    ) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(self.path, columns=list(MAP_COLUMNS), partitioning=None)
        table = table.take(list(rows))
        for name, out in zip(MAP_COLUMNS, (appearance, semantic), strict=True):
            for value, target in zip(table.column(name), out, strict=True):
                target[:] = np.frombuffer(value.as_buffer(), dtype=np.uint8)


def open_shard(path: Path, map_bytes: int) -> Shard:
    """Read a shard's footer and light columns, and check how its maps are laid out.

    map_bytes: the size of one map that the index's manifest promises.
    Raises IndexDamagedError where the file is missing, no Parquet, or holds other maps.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            widths = [getattr(schema.field(name).type, "byte_width", 0) for name in MAP_COLUMNS]
            if widths != [map_bytes, map_bytes]:
                raise IndexDamagedError(f"holds maps of {widths} bytes, not of {map_bytes}")
            light = file.read(columns=["id", "checksum"])
            offsets = _map_offsets(path, file.metadata, map_bytes)
    except (OSError, KeyError, _arrow_error()) as error:
        raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error
    return Shard(
        path,
        light.column("id").to_numpy(),
        light.column("checksum").to_numpy(),
        map_bytes,
        offsets,
    )


def _map_offsets(path: Path, metadata: Any, width: int) -> tuple[int, int] | None:
    if metadata.num_row_groups != 1 or not hasattr(os, "preadv"):
        return None
    group = metadata.row_group(0)
    chunks = {group.column(i).path_in_schema: group.column(i) for i in range(metadata.num_columns)}
    found = [plain_offset(path, chunks[name], metadata.num_rows, width) for name in MAP_COLUMNS]
    if found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def _read_at(descriptor: int, offset: int, out: memoryview) -> None:
    """Fill `out` from a file, however many calls that takes. Raises OSError at its end."""
    done = 0
    while done < len(out):
        count = os.preadv(descriptor, [out[done:]], offset + done)
        if count == 0:
            raise OSError("the file ends early")
        done += count


def _arrow_error() -> type[Exception]:
    import pyarrow as pa

    return pa.ArrowException
