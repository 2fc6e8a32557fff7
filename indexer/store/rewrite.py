"""Files of an index read whole, to be written anew in another form."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import REPAIR_HINT, IndexDamagedError, one_line
from indexer.store.files import StoredFile, describe_file, digest, write_atomically
from indexer.store.photos import write_table

if TYPE_CHECKING:
    import pyarrow as pa


def is_as_written(index_dir: Path, file: StoredFile) -> bool:
    """Whether a file's content is what the manifest says; False where it cannot be read."""
    try:
        return digest(index_dir / file.name) == file.sha256
    except OSError:
        return False


def read_table(index_dir: Path, file: StoredFile) -> "pa.Table":
    """All columns of a photo table shard, every byte of it checked.

    What is damaged must not be written anew with a digest that calls it sound. Raises
    IndexDamagedError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = index_dir / file.name
    if not is_as_written(index_dir, file):
        raise IndexDamagedError(f"{path}: its content is not what was written; {REPAIR_HINT}")
    try:
        with pq.ParquetFile(path) as stored:
            return stored.read()
    except (OSError, pa.ArrowException) as error:
        raise IndexDamagedError(
            f"{path} cannot be read ({one_line(error)}); {REPAIR_HINT}"
        ) from error


def store_table(index_dir: Path, name: str, number: int, table: "pa.Table") -> StoredFile:
    """Write a photo table shard durably; returns its entry in the manifest. Raises OSError."""
    write_atomically(index_dir / name, lambda path: write_table(path, table))
    return describe_file(index_dir, name, number, table.num_rows)


def evenly(parts: "Iterable[pa.Table]", count: int) -> "Iterator[pa.Table]":
    """The same rows in tables of `count`, the last one smaller; none is empty.

    parts: at least one table.
    """
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        while sum(rows.num_rows for rows in waiting) >= count:
            rows = pa.concat_tables(waiting)
            yield rows.slice(0, count)
            waiting = [rows.slice(count)]
    rows = pa.concat_tables(waiting)
    if rows.num_rows:
        yield rows
