"""Map shards: the encoded maps of some photos in a Parquet file, of which single rows are read.

Columns: `id` int64 (the photo that the maps were first taken from), `checksum` uint32 (CRC-32 of
the maps) and `maps` fixed-size binary (see `codec.Codec`). A shard has one row group and one page
per column, and is not compressed. Any Parquet reader reads it. Waldo does so without one: where the
values of each column begin is recorded in the manifest when the shard is written, so one `pread`
gets all ids and checksums, and one `preadv` the maps of a photo.
"""

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError, one_line
from indexer.store.files import describe_file, write_atomically
from indexer.store.manifest import MapShard, ShardLayout

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SHARD_BYTES = 64 * 2**20
# A Parquet writer starts another page after this many rows.
_MAX_ROWS = 20_000
# A page's header takes 21 to 36 bytes, so two of them are longer than this.
_LONGEST_HEADER = 40
# pyarrow reads this much of a file's end, in search of its footer.
_FOOTER = 64 * 2**10
READS_AHEAD = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


def shard_name(number: int) -> str:
    """File name of a map shard below the index folder."""
    return f"shards/{number:06d}.parquet"


def rows_per_shard(photo_bytes: int) -> int:
    """How many photos fill a shard; photo_bytes is the size of one photo's encoded maps."""
    return min(_MAX_ROWS, max(1, SHARD_BYTES // photo_bytes))


def store_shard(
    index_dir: Path, number: int, ids: NDArray[np.int64], maps: NDArray[np.uint8], codec: int
) -> MapShard:
    """Write n photos' encoded maps durably; returns the shard's entry in the manifest.

    ids: (n,). maps: (n, photo_bytes), C-contiguous. codec: number of the one that encoded them.
    Raises OSError.
    """
    name = shard_name(number)
    write_atomically(index_dir / name, lambda path: _write_shard(path, ids, maps))
    stored = describe_file(index_dir, name, number, len(ids))
    layout = read_layout(index_dir / name, *maps.shape)
    return MapShard(**asdict(stored), codec=codec, layout=layout)


def _write_shard(path: Path, ids: NDArray[np.int64], maps: NDArray[np.uint8]) -> None:
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


def read_layout(path: Path, rows: int, photo_bytes: int) -> ShardLayout:
    """Where the values of a shard's columns begin, by the footer of its file.

    rows, photo_bytes: how many photos' maps it should hold, and the size of each. Raises
    IndexDamagedError where the file cannot be read, holds something else, or is laid out otherwise
    than `store_shard` does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error
    if metadata.num_rows != rows:
        raise IndexDamagedError(f"{metadata.num_rows} rows, not {rows}")
    widths = {"id": 8, "checksum": 4, "maps": photo_bytes}
    if metadata.num_row_groups != 1 or metadata.schema.names != list(widths):
        raise IndexDamagedError("is not laid out as a map shard")
    found = metadata.schema.column(2).length
    if found != photo_bytes:
        raise IndexDamagedError(f"holds maps of {found} bytes, not of {photo_bytes}")
    columns = [metadata.row_group(0).column(at) for at in range(len(widths))]
    starts = (
        _start_of_values(column, rows * width)
        for column, width in zip(columns, widths.values(), strict=True)
    )
    return ShardLayout(*starts)


def _start_of_values(column: "pq.ColumnChunkMetaData", size: int) -> int:
    """The byte offset of a column's values, which take `size` bytes: the end of its only page.

    Raises IndexDamagedError where that is not how they lie.
    """
    plain = column.compression == "UNCOMPRESSED" and set(column.encodings) <= {"PLAIN", "RLE"}
    header = column.total_compressed_size - size
    if not plain or not 0 < header < _LONGEST_HEADER:
        raise IndexDamagedError("is not laid out as a map shard")
    return int(column.data_page_offset + header)


@dataclass(frozen=True)
class Shard:
    """An opened map shard.

    path: the file. ids: (n,) int64. checksums: (n,) uint32. width: bytes of a photo's maps.
    offset: byte offset of the first photo's maps.
    """

    path: Path
    ids: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    width: int
    offset: int

    def read_ready(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> list[int]:
        """Read those rows that are in memory, and let the system fetch the others meanwhile.

        Arguments as for `read`. Returns the positions in `rows` of the others, which `read` will
        then find sooner.
        """
        if not READS_AHEAD:
            return list(range(len(rows)))
        ready: set[int] = set()
        # A file that cannot be opened is for `read` to report.
        with contextlib.suppress(OSError), _opened(self.path) as file:
            for position, (row, target) in enumerate(zip(rows, out, strict=True)):
                at = self.offset + row * self.width
                try:
                    count = os.preadv(file, [target.data], at, os.RWF_NOWAIT)
                except OSError:  # it would wait, or the file system cannot tell
                    count = 0
                if count == self.width:
                    ready.add(position)
                else:
                    os.posix_fadvise(file, at, self.width, os.POSIX_FADV_WILLNEED)
        return [position for position in range(len(rows)) if position not in ready]

    def read(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> None:
        """Fill one (width,) uint8 array per row with the bytes of some rows, unchecked.

        Raises IndexDamagedError where the file cannot be read.
        """
        try:
            with _opened(self.path) as file:
                for row, target in zip(rows, out, strict=True):
                    _read_at(file, self.offset + row * self.width, target.data)
        except OSError as error:
            raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error

    def is_sound(self, row: int, maps: memoryview) -> bool:
        """Whether a row's bytes are those that were written."""
        return zlib.crc32(maps) == int(self.checksums[row])


def open_shard(index_dir: Path, file: MapShard, photo_bytes: int) -> Shard:
    """Read the ids and checksums of a shard.

    photo_bytes: the size of a photo's maps, as the manifest says. Raises IndexDamagedError where
    the file is missing or is not what the manifest says.
    """
    path = index_dir / file.name
    layout = file.layout or read_layout(path, file.rows, photo_bytes)
    try:
        with _opened(path) as descriptor:
            size = os.fstat(descriptor).st_size
            head = os.pread(descriptor, layout.maps, 0)
    except OSError as error:
        raise IndexDamagedError(f"cannot be read ({one_line(error)})") from error
    if size != file.bytes:
        raise IndexDamagedError(f"{size} bytes, not {file.bytes}")
    try:
        ids = np.frombuffer(head, "<i8", file.rows, layout.ids)
        checksums = np.frombuffer(head, "<u4", file.rows, layout.checksums)
    except ValueError:
        raise IndexDamagedError("its columns lie elsewhere than the manifest says") from None
    return Shard(path, ids, checksums, photo_bytes, layout.maps)


def read_heads_ahead(index_dir: Path, files: Iterable[MapShard]) -> None:
    """Let the system fetch what `open_shard` will read of some files, and do not wait."""
    if not READS_AHEAD:
        return
    for file in files:
        with contextlib.suppress(OSError), _opened(index_dir / file.name) as descriptor:
            head = file.layout.maps if file.layout else 12 * file.rows
            os.posix_fadvise(descriptor, 0, head, os.POSIX_FADV_WILLNEED)
            if file.layout is None:
                tail = max(0, file.bytes - _FOOTER)
                os.posix_fadvise(descriptor, tail, _FOOTER, os.POSIX_FADV_WILLNEED)


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
