"""The listing of a run, divided among the parts of a fleet.

The sources are walked once, however many parts there are. What was found waits on disk, in a file
for each part, because the paths of a large collection would fill the memory. Other processes that
see the folder can read it too.
"""

import json
import secrets
import shutil
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Shares:
    """What each part gets of a listing; make it with `divide_listing`.

    folder: where the files of the parts are. sources: of the listing; pipes without their lines,
    which are listed. total: files that were found. unreadable: what could not be looked at; every
    part gets all of it, because it may know photos beneath it.
    """

    folder: Path
    sources: tuple[Source, ...]
    total: int
    unreadable: tuple[Unreadable, ...]

    def of(self, number: int) -> Iterator[Found | Unreadable]:
        """What a part gets, in the order of the listing.

        Raises OSError where the file of the part is missing: were that taken for an empty part, all
        photos in it would count as gone.
        """
        yield from self.unreadable
        with _file(self.folder, number).open("rb") as lines:
            for line in lines:
                source, relative, size, mtime_ns = json.loads(line)
                yield Found(self.sources[source], relative, size, mtime_ns)

    def delete(self) -> None:
        """Delete what is on disk."""
        _delete_listings(self.folder.parent)


def divide_listing(
    fleet: Fleet, sources: Sequence[Source], listing: Iterable[Found | Unreadable]
) -> Shares:
    """Divide the listing of some sources among the parts. Raises OSError.

    What an earlier run has left is deleted. The files are in a folder of this run's own, so that no
    worker of a run that was killed reads half of a listing.
    """
    above = fleet.index_dir / LISTING_NAME
    _delete_listings(above)
    folder = above / secrets.token_hex(8)
    folder.mkdir(parents=True)
    for number in range(fleet.parts):
        _file(folder, number).touch()
    number_of = {id(source): number for number, source in enumerate(sources)}
    waiting: dict[int, list[str]] = defaultdict(list)
    unreadable: list[Unreadable] = []
    total = 0
    for entry in listing:
        if isinstance(entry, Unreadable):
            unreadable.append(replace(entry, source=without_lines(entry.source)))
            continue
        values = number_of[id(entry.source)], entry.relative, entry.size, entry.mtime_ns
        waiting[fleet.part_of(entry.size, entry.path)].append(json.dumps(values) + "\n")
        total += 1
        if total % _MOST_LINES == 0:
            _write(folder, waiting)
    _write(folder, waiting)
    return Shares(folder, tuple(map(without_lines, sources)), total, tuple(unreadable))


def common_sizes(sizes: "array[int]", parts: int, most: int = _MOST_OF_A_SIZE) -> frozenset[int]:
    """The sizes that so many photos have that one part would get too many of them, as with raw
    pictures of one camera.

    sizes: of all files, in bytes. most: so many photos of a size are never too many.
    """
    found, counts = np.unique(np.frombuffer(sizes, np.int64), return_counts=True)
    limit = max(most, _SHARE_OF_A_PART * len(sizes) / parts)
    return frozenset(found[counts > limit].tolist())


def without_lines(source: Source) -> Source:
    """A source as other processes need it: a pipe without what was read from it."""
    return replace(source, lines=()) if source.lines else source


def _write(folder: Path, waiting: dict[int, list[str]]) -> None:
    for number, lines in waiting.items():
        with _file(folder, number).open("a", encoding="ascii") as file:
            file.writelines(lines)
    waiting.clear()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.jsonl"


def _delete_listings(above: Path) -> None:
    shutil.rmtree(above, ignore_errors=True)
