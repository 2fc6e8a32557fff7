"""The base of recall by visual words: `WordLists` of every codec in a safetensors file.

It is written by parts, one shard of the photo table after the other, and then one block of lists
after the other. In memory are a few numbers per photo, and the words of one part.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError, one_line
from indexer.recall.word_lists import BLOCK, WordLists
from indexer.store.manifest import MapShard
from indexer.store.photos import WordRows, rows_that_count

_TYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "U16": np.dtype("<u2")}
# The length of the header, in front of it.
_PREFIX = 8


@dataclass(frozen=True)
class _Tensor:
    """A tensor in the file. offset: of its first byte."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape))


@dataclass(frozen=True)
class _PhotosOfCodec:
    """The photos of one codec.

    ids: (n,) int64, rising. bounds: (n + 1,) int64. rows: for each row of the photo table, in its
    order, the place of its photo among the ids; -1 for a row of another codec, or replaced.
    """

    codec: int
    ids: NDArray[np.int64]
    bounds: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def blocks(self) -> int:
        return -(-len(self.ids) // BLOCK)


def write_lists(
    file: BinaryIO, tables: Callable[[], Iterable[WordRows]], shards: Sequence[MapShard]
) -> int:
    """Write the lists of all photos; returns how many photos that are.

    tables: starts over with the oldest shard of the photo table each time it is called. shards:
    say which codec the words of a photo are of. Deleted photos stay until their rows leave the
    photo table. The same photos give the same bytes, however they are divided into shards.
    Raises OSError, and what `tables` raises.
    """
    photos, vocabulary = _photos_by_codec(tables(), shards)
    tensors = _layout(photos, vocabulary)
    _write_header(file, tensors)
    for part in photos:
        _write(file, tensors[f"{part.codec}.ids"], part.ids)
        _write(file, tensors[f"{part.codec}.bounds"], part.bounds)
    first = 0
    for table in tables():
        stop = first + len(table.ids)
        for part in photos:
            _write_words(file, tensors[f"{part.codec}.words"], part, table, part.rows[first:stop])
        first = stop
    for part in photos:
        _write_entries(file, tensors, part)
    return sum(len(part.ids) for part in photos)


def read_lists(content: NDArray[np.uint8]) -> list[WordLists]:
    """The lists in the content of a file, which may be mapped; words and entries are not read.

    Raises IndexDamagedError where the content is not what `write_lists` writes.
    """
    tensors = _read_header(content)
    codecs = sorted(int(name.split(".")[0]) for name in tensors if name.endswith(".ids"))
    try:
        return [_lists_of(codec, content, tensors) for codec in codecs]
    except KeyError as error:
        raise IndexDamagedError(f"lists of visual words without {error}") from error


def _lists_of(codec: int, content: NDArray[np.uint8], tensors: dict[str, _Tensor]) -> WordLists:
    """The lists of one codec. Raises KeyError, IndexDamagedError."""

    def array(name: str) -> NDArray[Any]:
        tensor = tensors[f"{codec}.{name}"]
        own = content[tensor.offset : tensor.offset + tensor.bytes]
        return own.view(tensor.dtype).reshape(tensor.shape)

    lists = WordLists(codec, *map(array, ("ids", "bounds", "words", "starts", "entries")))
    n, total = len(lists.ids), len(lists.words)
    sound = (
        len(lists.bounds) == n + 1
        and lists.starts.ndim == 2
        and len(lists.starts) == -(-n // BLOCK)
        and _rises(lists.ids[1:], lists.ids[:-1] + 1)
        and lists.bounds[0] == 0
        and _rises(lists.bounds[1:], lists.bounds[:-1])
        and lists.bounds[-1] == total == len(lists.entries)
        and _rises(lists.starts.ravel()[1:], lists.starts.ravel()[:-1])
        and lists.starts[0, 0] == 0
        and lists.starts[-1, -1] == total
    )
    if not sound:
        raise IndexDamagedError("lists of visual words with other bounds than were written")
    return lists


def _photos_by_codec(
    tables: Iterable[WordRows], shards: Sequence[MapShard]
) -> tuple[list[_PhotosOfCodec], int]:
    """The photos of each codec, by rising number, and the size of the vocabularies."""
    ids, counts, codecs, vocabulary = [], [], [], 0
    codec_of = {file.number: file.codec for file in shards}
    for table in tables:
        ids.append(table.ids)
        counts.append(np.diff(table.starts))
        numbers, places = np.unique(table.shards, return_inverse=True)
        own = np.array([codec_of.get(number, -1) for number in numbers.tolist()], np.int64)
        codecs.append(own[places])
        vocabulary = max(vocabulary, int(table.words.max(initial=0)) + 1)
    if not ids:
        return [], 0
    kept = np.concatenate(rows_that_count(ids, tombstones=()))
    every, words, codec = (np.concatenate(column) for column in (ids, counts, codecs))
    found = []
    for number in np.unique(codec[kept & (codec >= 0)]).tolist():
        at = np.flatnonzero(kept & (codec == number))
        at = at[np.argsort(every[at])]
        rows = np.full(len(every), -1)
        rows[at] = np.arange(len(at))
        bounds = np.concatenate([[0], np.cumsum(words[at])])
        found.append(_PhotosOfCodec(number, every[at], bounds, rows))
    return found, vocabulary


def _layout(photos: Sequence[_PhotosOfCodec], vocabulary: int) -> dict[str, _Tensor]:
    """Where each tensor lies after the header: those of the largest numbers first."""
    wanted: list[tuple[str, str, tuple[int, ...]]] = []
    for part in photos:
        n, codec = len(part.ids), part.codec
        wanted.append((f"{codec}.ids", "I64", (n,)))
        wanted.append((f"{codec}.bounds", "I64", (n + 1,)))
        wanted.append((f"{codec}.starts", "I64", (part.blocks, vocabulary + 1)))
    for part in photos:
        total = int(part.bounds[-1])
        wanted.append((f"{part.codec}.words", "U16", (total,)))
        wanted.append((f"{part.codec}.entries", "U16", (total,)))
    tensors, offset = {}, 0
    for name, kind, shape in wanted:
        tensors[name] = _Tensor(offset, _TYPES[kind], shape)
        offset += tensors[name].bytes
    start = _PREFIX + len(_header(tensors))
    return {
        name: _Tensor(start + tensor.offset, tensor.dtype, tensor.shape)
        for name, tensor in tensors.items()
    }


def _header(tensors: dict[str, _Tensor]) -> bytes:
    """The header of a safetensors file, filled up to whole eights. Offsets count from its end."""
    names = {dtype: name for name, dtype in _TYPES.items()}
    first = min((tensor.offset for tensor in tensors.values()), default=0)
    described = {
        name: {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [tensor.offset - first, tensor.offset - first + tensor.bytes],
        }
        for name, tensor in tensors.items()
    }
    text = json.dumps(described).encode()
    return text + b" " * (-len(text) % _PREFIX)


def _write_header(file: BinaryIO, tensors: dict[str, _Tensor]) -> None:
    text = _header(tensors)
    file.write(len(text).to_bytes(_PREFIX, "little") + text)


def _read_header(content: NDArray[np.uint8]) -> dict[str, _Tensor]:
    """Where each tensor lies. Raises IndexDamagedError."""
    size = int.from_bytes(content[:_PREFIX].tobytes(), "little")
    start = _PREFIX + size
    if start > len(content):
        raise IndexDamagedError("lists of visual words whose header is cut short")
    tensors = {}
    try:
        for name, entry in json.loads(content[_PREFIX:start].tobytes()).items():
            begin, end = entry["data_offsets"]
            tensor = _Tensor(start + begin, _TYPES[entry["dtype"]], tuple(entry["shape"]))
            if begin < 0 or end - begin != tensor.bytes or start + end > len(content):
                raise ValueError(f"tensor {name} lies outside the file")
            tensors[name] = tensor
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"lists of visual words with another header ({one_line(error)})"
        raise IndexDamagedError(reason) from error
    return tensors


def _write(file: BinaryIO, tensor: _Tensor, values: NDArray[Any], first: int = 0) -> None:
    """Write a part of a tensor. first: the place of its first value."""
    file.seek(tensor.offset + tensor.dtype.itemsize * first)
    file.write(np.ascontiguousarray(values, tensor.dtype).data)


def _read(file: BinaryIO, tensor: _Tensor, start: int, stop: int) -> NDArray[Any]:
    """A part of a tensor that was written."""
    file.seek(tensor.offset + tensor.dtype.itemsize * start)
    return np.frombuffer(file.read(tensor.dtype.itemsize * (stop - start)), tensor.dtype)


def _write_words(
    file: BinaryIO, tensor: _Tensor, part: _PhotosOfCodec, table: WordRows, rows: NDArray[np.int64]
) -> None:
    """Write the words of a shard's photos to their places. rows: as in `_PhotosOfCodec`."""
    kept = np.flatnonzero(rows >= 0)
    if not len(kept):
        return
    # Photos lie side by side, but for those that were written again.
    apart = np.flatnonzero((np.diff(kept) != 1) | (np.diff(rows[kept]) != 1)) + 1
    for run in np.split(kept, apart):
        words = table.words[table.starts[run[0]] : table.starts[run[-1] + 1]]
        _write(file, tensor, words, int(part.bounds[rows[run[0]]]))


def _write_entries(file: BinaryIO, tensors: dict[str, _Tensor], part: _PhotosOfCodec) -> None:
    """Write the lists of each block of photos, by its words in the file."""
    words_at, entries_at = tensors[f"{part.codec}.words"], tensors[f"{part.codec}.entries"]
    starts_at = tensors[f"{part.codec}.starts"]
    vocabulary = starts_at.shape[1] - 1
    for number in range(part.blocks):
        bounds = part.bounds[number * BLOCK : (number + 1) * BLOCK + 1]
        first, stop = int(bounds[0]), int(bounds[-1])
        words = _read(file, words_at, first, stop)
        # Sorted by word, and the photos of a word by their number in the block.
        both = np.repeat(np.arange(len(bounds) - 1, dtype=np.uint32), np.diff(bounds))
        both |= words.astype(np.uint32) << np.uint32(16)
        both.sort()
        _write(file, entries_at, both & np.uint32(0xFFFF), first)
        lists = np.searchsorted(both, np.arange(vocabulary, dtype=np.uint32) << np.uint32(16))
        _write(file, starts_at, np.append(first + lists, stop), number * (vocabulary + 1))


def _rises(later: NDArray[np.int64], earlier: NDArray[np.int64]) -> bool:
    return bool((later >= earlier).all())
