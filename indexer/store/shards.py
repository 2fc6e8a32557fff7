"""Map shards: the encoded maps of some photos in one Parquet file that is also read by offset.

Columns: `id` int64 (the photo the maps were first taken from), `checksum` uint32, the CRC-32 of
maps, and `maps` fixed-size binary (see `codec.py`). One row group, one page a column, uncompressed:
any Parquet reader reads it, and so does one `preadv` a photo. The maps come last, so that the first
few KiB of the file say all that is needed to read any of them.
"""

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError, one_line
from indexer.store.pages import plain_page

SHARD_BYTES = 64 * 2**20
# A Parquet writer starts another page after this many rows.
_MAX_ROWS = 20_000
# Bytes of an id and a checksum; those of three page headers (about 25 each), and some to spare.
_LIGHT_ROW, _HEADERS = 12, 512
_MAGIC = b"PAR1"
READS_AHEAD = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


def rows_per_shard(photo_bytes: int) -> int:
    """How many photos fill a shard; photo_bytes is the size of one photo's encoded maps."""
    return min(_MAX_ROWS, max(1, SHARD_BYTES // photo_bytes))


def write_shard(path: Path, ids: NDArray[np.int64], maps: NDArray[np.uint8]) -> None:
    """Write n photos' encoded maps to a new file; not atomic, see `files.write_atomically`.

    ids: (n,). maps: (n, photo_bytes), C-contiguous.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, width = maps.shape
    sums = np.array([zlib.crc32(row.data) for row in maps], dtype=np.uint32)
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), count, [None, pa.py_buffer(np.ascontiguousarray(maps))]
    )
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("checksum", pa.uint32(), nullable=False),
            pa.field("maps", pa.binary(width), nullable=False),
        ]
    )
    table = pa.table([pa.array(ids), pa.array(sums), column], schema=schema)
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

    path: the file. ids: (n,) int64. checksums: (n,) uint32. width: bytes of a photo's maps.
    offset: byte offset of the first photo's maps, or None where the file is laid out otherwise than
    `write_shard` does and has to be read through pyarrow.
    """

    path: Path
    ids: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    width: int
    offset: int | None

    def read_ready(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> list[int]:
        """`read` those rows that are in memory, and let the system fetch the others meanwhile.

        Returns the places in `rows` of those others, which `read` will find sooner.
        """
        ready: set[int] = set()
        if self.offset is None or not READS_AHEAD:
            return list(range(len(rows)))
        # A file that cannot be opened is for `read` to report.
        with contextlib.suppress(OSError), _opened(self.path) as file:
            for place, (row, target) in enumerate(zip(rows, out, strict=True)):
                at = self.offset + row * self.width
                try:
                    count = os.preadv(file, [target.data], at, os.RWF_NOWAIT)
                except OSError:  # it would wait, or the file system cannot tell
                    count = 0
                if count == self.width:
                    ready.add(place)
                else:
                    os.posix_fadvise(file, at, self.width, os.POSIX_FADV_WILLNEED)
        return [place for place in range(len(rows)) if place not in ready]

    def read(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> None:
        """Fill one (width,) uint8 array a row with the bytes of some rows, unchecked.

        Raises IndexDamagedError where the file cannot be read.
        """
        try:
            if self.offset is None:
                self._read_column(rows, out)
            else:
                with _opened(self.path) as file:
                    for row, target in zip(rows, out, strict=True):
                        _read_at(file, self.offset + row * self.width, target.data)
        except (OSError, _arrow_error()) as error:
            raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error

    def is_sound(self, row: int, maps: memoryview) -> bool:
        """Whether a row's bytes are those that were written."""
        return zlib.crc32(maps) == int(self.checksums[row])

    def _read_column(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(self.path, columns=["maps"], partitioning=None).take(list(rows))
        for value, target in zip(table.column("maps"), out, strict=True):
            target[:] = np.frombuffer(value.as_buffer(), dtype=np.uint8)


def read_heads_ahead(paths: Iterable[Path], photo_bytes: int) -> None:
    """Let the system fetch what `open_shard` will read of some files, and do not wait."""
    if not READS_AHEAD:
        return
    for path in paths:
        with contextlib.suppress(OSError), _opened(path) as file:
            size = os.fstat(file).st_size
            os.posix_fadvise(file, 0, _head_bytes(size, photo_bytes), os.POSIX_FADV_WILLNEED)
            os.posix_fadvise(file, max(0, size - 8), 8, os.POSIX_FADV_WILLNEED)


def open_shard(path: Path, photo_bytes: int) -> Shard:
    """Read a shard's light columns, and check how its maps are laid out.

    photo_bytes: the size of a photo's maps that the index's manifest promises.
    Raises IndexDamagedError where the file is missing, no Parquet, or holds other maps.
    """
    try:
        return _open_by_offset(path, photo_bytes) or _open_by_footer(path, photo_bytes)
    except (OSError, KeyError, _arrow_error()) as error:
        raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error


def _open_by_offset(path: Path, width: int) -> Shard | None:
    """A shard as `write_shard` lays it out, None for any other file; raises OSError."""
    if not hasattr(os, "preadv"):
        return None
    with _opened(path) as file:
        size = os.fstat(file).st_size
        head = os.pread(file, _head_bytes(size, width), 0)
        tail = os.pread(file, 8, max(0, size - 8))
    if head[:4] != _MAGIC or tail[4:] != _MAGIC:
        return None
    ids = plain_page(head, 4, width=8)
    sums = ids and plain_page(head, ids.end, width=4)
    maps = sums and plain_page(head, sums.end, width)
    if not (ids and sums and maps and ids.rows == sums.rows == maps.rows):
        return None
    # Three pages and the footer are the whole file, so there is no other page or row group.
    if maps.end + int.from_bytes(tail[:4], "little") + len(tail) != size:
        return None
    return Shard(
        path,
        np.frombuffer(head, "<i8", ids.rows, ids.start),
        np.frombuffer(head, "<u4", ids.rows, sums.start),
        width,
        maps.start,
    )


def _head_bytes(size: int, width: int) -> int:
    """Enough of a shard's first bytes to hold all but the maps."""
    return _HEADERS + _LIGHT_ROW * min(_MAX_ROWS, size // width)


def _open_by_footer(path: Path, width: int) -> Shard:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        found = getattr(file.schema_arrow.field("maps").type, "byte_width", 0)
        if found != width:
            raise IndexDamagedError(f"holds maps of {found} bytes, not of {width}")
        light = file.read(columns=["id", "checksum"])
    ids, sums = (light.column(name).to_numpy() for name in ("id", "checksum"))
    return Shard(path, ids, sums, width, offset=None)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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

    error: type[Exception] = pa.ArrowException
    return error
