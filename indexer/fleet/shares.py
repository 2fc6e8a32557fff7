"""The listing of a run, divided among the parts of a fleet.

The sources are walked once, however many parts there are. What was found waits on disk, in a file
for each part, because the paths of a large collection would fill the memory.
"""

import contextlib
import json
import shutil
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from indexer.fleet.parts import Fleet
from indexer.ingest.sources import Found, Source, Unreadable

LISTING_NAME = "listing"

# Lines that wait in memory until they are written.
_MOST_LINES = 100_000

# Sizes of files are no longer told apart by where they are, if so many photos have the same...
_MOST_OF_A_SIZE = 1000
# ... and they are this share of what a part gets of all photos.
_SHARE_OF_A_PART = 0.5


class Shares:
    """What each part gets of a listing.

    total: files that were found. unreadable: what could not be looked at; every part gets all of
    it, because it may know photos beneath it.
    """

    def __init__(
        self, fleet: Fleet, sources: Sequence[Source], listing: Iterable[Found | Unreadable]
    ) -> None:
        """listing: of these sources. Raises OSError."""
        self.total = 0
        self.unreadable: list[Unreadable] = []
        self._sources = sources
        self._folder = fleet.index_dir / LISTING_NAME
        self.delete()
        self._folder.mkdir()
        number_of = {id(source): number for number, source in enumerate(sources)}
        waiting: dict[int, list[str]] = defaultdict(list)
        for entry in listing:
            if isinstance(entry, Unreadable):
                self.unreadable.append(entry)
                continue
            values = number_of[id(entry.source)], entry.relative, entry.size, entry.mtime_ns
            waiting[fleet.part_of(entry.size, entry.path)].append(json.dumps(values) + "\n")
            self.total += 1
            if self.total % _MOST_LINES == 0:
                self._write(waiting)
        self._write(waiting)

    def of(self, number: int) -> Iterator[Found | Unreadable]:
        """What a part gets, in the order of the listing."""
        yield from self.unreadable
        with contextlib.suppress(FileNotFoundError), self._file(number).open("rb") as lines:
            for line in lines:
                source, relative, size, mtime_ns = json.loads(line)
                yield Found(self._sources[source], relative, size, mtime_ns)

    def delete(self) -> None:
        """Delete what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, waiting: dict[int, list[str]]) -> None:
        for number, lines in waiting.items():
            with self._file(number).open("a", encoding="ascii") as file:
                file.writelines(lines)
        waiting.clear()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}.jsonl"


def common_sizes(sizes: "array[int]", parts: int, most: int = _MOST_OF_A_SIZE) -> frozenset[int]:
    """The sizes that so many photos have that one part would get too many of them, as with raw
    pictures of one camera.

    sizes: of all files, in bytes. most: so many photos of a size are never too many.
    """
    found, counts = np.unique(np.frombuffer(sizes, np.int64), return_counts=True)
    limit = max(most, _SHARE_OF_A_PART * len(sizes) / parts)
    return frozenset(found[counts > limit].tolist())
