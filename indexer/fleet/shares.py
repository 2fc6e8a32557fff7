"""The listing of a run, divided among the parts of a fleet.

The sources are walked once, however many parts there are. What was found waits on disk, in a file
for each part, because the paths of a large collection would fill the memory. Whoever brings a part
up to date is given what is in its file, so it need not see the folder.
"""

import gzip
import io
import json
import shutil
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.ingest.sources import Found, Source, Unreadable
from indexer.parts import Fleet
from indexer.store.manifest import read_manifest

LISTING_NAME = "listing"

# Lines that wait in memory until they are written.
_MOST_LINES = 100_000

# Photos whose files have one size go into one part by that size. They are divided by their paths
# instead where there are more of them than this, and more than this share of an average part.
_MOST_OF_A_SIZE = 1000
_SHARE_OF_A_PART = 0.5


@dataclass(frozen=True)
class Share:
    """What one part gets of a listing.

    sources: of the listing; pipes without their lines, which are listed. unreadable: what could not
    be looked at; every part gets all of it, because it may know photos beneath it. first_unlisted:
    the first id of photos that were added to the part after the listing began. lines: the files
    that were found, as `Shares` stores them.
    """

    sources: tuple[Source, ...]
    unreadable: tuple[Unreadable, ...]
    first_unlisted: int
    lines: bytes

    def entries(self) -> Iterator[Found | Unreadable]:
        """What could not be looked at, then the files in the order of the listing."""
        yield from self.unreadable
        with gzip.open(io.BytesIO(self.lines)) as lines:
            for line in lines:
                source, relative, size, mtime_ns = json.loads(line)
                yield Found(self.sources[source], relative, size, mtime_ns)


@dataclass(frozen=True)
class Shares:
    """What each part gets of a listing; make it with `divide_listing`.

    folder: where the files of the parts are. sources, unreadable: as in `Share`. first_unlisted: of
    each part. total: files that were found.
    """

    folder: Path
    sources: tuple[Source, ...]
    total: int
    unreadable: tuple[Unreadable, ...]
    first_unlisted: tuple[int, ...]

    def of(self, number: int) -> Share:
        """What a part gets: some ten bytes per file.

        Raises OSError where the file of the part is missing: were that taken for an empty part, all
        photos in it would count as gone.
        """
        lines = _file(self.folder, number).read_bytes()
        return Share(self.sources, self.unreadable, self.first_unlisted[number], lines)

    def delete(self) -> None:
        """Delete what is on disk."""
        _delete_listing(self.folder)


def divide_listing(
    fleet: Fleet, sources: Sequence[Source], listing: Iterable[Found | Unreadable]
) -> Shares:
    """Divide the listing of some sources among the parts, which are ready.

    What an earlier run has left is deleted. Raises OSError, IndexDamagedError, IndexFormatError.
    """
    first_unlisted = tuple(read_manifest(part).next_id for part in fleet.folders)
    folder = fleet.index_dir / LISTING_NAME
    _delete_listing(folder)
    folder.mkdir()
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
    without = tuple(map(without_lines, sources))
    return Shares(folder, without, total, tuple(unreadable), first_unlisted)


def common_sizes(sizes: "array[int]", parts: int, most: int = _MOST_OF_A_SIZE) -> frozenset[int]:
    """The sizes that too many photos have for all of them to go into one part, as with raw pictures
    of one camera.

    sizes: of all files, in bytes. most: up to so many photos of a size are never too many.
    """
    found, counts = np.unique(np.frombuffer(sizes, np.int64), return_counts=True)
    limit = max(most, _SHARE_OF_A_PART * len(sizes) / parts)
    return frozenset(found[counts > limit].tolist())


def without_lines(source: Source) -> Source:
    """A source as other processes need it: a pipe without what was read from it."""
    return replace(source, lines=()) if source.lines else source


def _write(folder: Path, waiting: dict[int, list[str]]) -> None:
    for number, lines in waiting.items():
        with gzip.open(_file(folder, number), "at", 1, encoding="ascii") as file:
            file.writelines(lines)
    waiting.clear()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.jsonl.gz"


def _delete_listing(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
