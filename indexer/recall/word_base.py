"""The base of recall by visual words: blocks of `WordLists` in an Arrow file, a batch for each.

It is written block by block, as the shards of the photo table are read. In memory are the ids of
all photos and the words of one block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import IndexDamagedError, one_line
from indexer.recall.word_lists import BLOCK, WordLists
from indexer.store.manifest import MapShard
from indexer.store.photos import WordRows, rows_that_count

if TYPE_CHECKING:
    import pyarrow as pa

# The columns after the codec, each a list per batch.
_COLUMNS = {
    "ids": "int64",
    "bounds": "int64",
    "words": "uint16",
    "starts": "int64",
    "entries": "uint16",
}


def gather_lists(
    tables: Callable[[], Iterable[WordRows]], shards: Sequence[MapShard]
) -> Iterator[WordLists]:
    """The lists of all photos of a photo table, block by block.

    tables: starts over with the oldest shard of the photo table each time it is called. shards:
    say which codec the words of a photo are of. Deleted photos stay until their rows leave the
    photo table. The blocks of a codec do not depend on how the photos are divided into shards.
    """
    kept = rows_that_count([table.ids for table in tables()], tombstones=())
    codec_of = {file.number: file.codec for file in shards}
    waiting: dict[int, list[WordRows]] = {}
    for table, keep in zip(tables(), kept, strict=True):
        numbers, places = np.unique(table.shards, return_inverse=True)
        codecs = np.array([codec_of.get(n, -1) for n in numbers.tolist()], np.int64)[places]
        for codec in np.unique(codecs[keep & (codecs >= 0)]).tolist():
            rows = waiting.setdefault(codec, [])
            rows.append(table.select(keep & (codecs == codec)))
            while sum(len(part.ids) for part in rows) >= BLOCK:
                yield _first_block(codec, rows)
    for codec in sorted(waiting):
        if any(len(part.ids) for part in waiting[codec]):
            yield _first_block(codec, waiting[codec])


def _first_block(codec: int, rows: list[WordRows]) -> WordLists:
    """The lists of the first photos of some rows, BLOCK or fewer; these are taken out."""
    ids = np.concatenate([part.ids for part in rows])
    counts = np.concatenate([np.diff(part.starts) for part in rows])
    shards = np.concatenate([part.shards for part in rows])
    words = np.concatenate([part.words for part in rows])
    bounds = np.concatenate([[0], np.cumsum(counts)])
    n = min(BLOCK, len(ids))
    cut = int(bounds[n])
    rows[:] = [WordRows(ids[n:], shards[n:], bounds[n:] - cut, words[cut:])]
    return WordLists.invert(codec, ids[:n], bounds[: n + 1], words[:cut])


def write_lists(path: Path, blocks: Iterable[WordLists]) -> int:
    """Write blocks to a new file; returns how many photos they have. Raises OSError."""
    import pyarrow as pa

    schema, count = _schema(), 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for lists in blocks:
            columns = [pa.array([lists.codec], pa.int64())]
            for name in _COLUMNS:
                values = pa.array(getattr(lists, name))
                columns.append(pa.ListArray.from_arrays([0, len(values)], values))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(lists.ids)
    return count


def read_lists(path: Path) -> list[WordLists]:
    """The blocks of a file. It is mapped: words and entries are read when they are needed.

    Raises OSError, and IndexDamagedError where the file is not what `write_lists` writes.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            if reader.schema != _schema():
                raise IndexDamagedError(f"{path}: not lists of visual words")
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return [_checked(path, batch) for batch in batches]
    except pa.ArrowInvalid as error:
        raise IndexDamagedError(f"{path}: {one_line(error)}") from error


def _schema() -> "pa.Schema":
    import pyarrow as pa

    lists = [(name, pa.list_(getattr(pa, kind)())) for name, kind in _COLUMNS.items()]
    return pa.schema([("codec", pa.int64()), *lists])


def _checked(path: Path, batch: "pa.RecordBatch") -> WordLists:
    """The block in a batch of the file. Raises IndexDamagedError where its bounds are wrong."""
    batch.validate()
    columns = [batch.column(name).values.to_numpy() for name in _COLUMNS]
    lists = WordLists(batch.column("codec")[0].as_py(), *columns)
    total = len(lists.words)
    sound = (
        len(lists.bounds) == len(lists.ids) + 1 <= BLOCK + 1
        and total == len(lists.entries)
        and all(
            bounds[0] == 0 and bounds[-1] == total and (np.diff(bounds) >= 0).all()
            for bounds in (lists.bounds, lists.starts)
        )
    )
    if not sound:
        raise IndexDamagedError(f"{path}: lists of visual words with wrong bounds")
    return lists
