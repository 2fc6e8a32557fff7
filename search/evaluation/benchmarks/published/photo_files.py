"""The files of a gallery that may have a million photos."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from features.errors import WaldoError
from indexer.bucket.object_path import path_of


class PhotoFiles(Sequence[Path]):
    """Paths in a fifth of the memory that so many objects take: each is made when it is looked at,
    by `path_of`.

    Equal to a sequence of the same paths.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self._text = bytearray()  # one behind the other
        self._ends = array("q", [0])
        for path in paths:
            self._text += os.fsencode(path)
            self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> list[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | list[Path]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        row = range(len(self))[place]
        start, end = self._ends[row : row + 2]
        return path_of(os.fsdecode(bytes(self._text[start:end])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def files_below(folder: Path, suffix: str = "") -> Iterator[str]:
    """The paths of the files in a folder and in those below it whose names end so, depth first in
    the order of names. Links to folders are followed, because large sets lie on several disks, but
    not back to a folder that they are in.

    Raises WaldoError for a folder that is missing or cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise WaldoError(f"{error.filename}: cannot be listed ({error.strerror})") from None
    for entry in entries:
        if entry.is_dir():
            if entry.is_symlink() and _leads_back(Path(entry.path)):
                continue
            yield from files_below(Path(entry.path), suffix)
        elif entry.name.endswith(suffix):
            yield entry.path


def _leads_back(link: Path) -> bool:
    """Whether a link leads to a folder that it is in, by whatever links it was reached."""
    target = link.resolve()
    return any(folder.resolve().is_relative_to(target) for folder in link.absolute().parents)
