"""Parquet files of the photo table and of descriptors: written, read by column, read whole."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import REPAIR_HINT, IndexDamagedError, one_line
from indexer.store.files import StoredFile, describe_file, digest, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a table to a new file; not atomic."""
    import pyarrow.parquet as pq

    # Values of these columns are all different: a dictionary would only hold them twice.
    different = ("pooled", "words", "vector")
    repeated = [name for name in table.column_names if name not in different]
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=repeated)


def store_table(index_dir: Path, name: str, number: int, table: "pa.Table") -> StoredFile:
    """Write a table durably; returns its entry in the manifest. Raises OSError."""
    write_atomically(index_dir / name, lambda path: write_table(path, table))
    return describe_file(index_dir, name, number, table.num_rows)


def read_columns(path: Path, columns: list[str] | None = None) -> "pa.Table":
    """Some columns of a file, all of them for None. Raises IndexDamagedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise IndexDamagedError(
            f"{path} cannot be read ({one_line(error)}); {REPAIR_HINT}"
        ) from error


def read_table(index_dir: Path, file: StoredFile) -> "pa.Table":
    """A whole file whose digest was checked, so that no damage is written anew as sound.

    Raises IndexDamagedError.
    """
    path = index_dir / file.name
    try:
        sound = digest(path) == file.sha256
    except OSError:
        sound = False
    if not sound:
        raise IndexDamagedError(f"{path}: its content is not what was written; {REPAIR_HINT}")
    return read_columns(path)


def evenly(parts: "Iterable[pa.Table]", count: int) -> "Iterator[pa.Table]":
    """The rows of some tables, in tables of `count` rows; none of these is empty.

    The last one may have fewer rows. parts: at least one table.
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
