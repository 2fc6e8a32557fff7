"""The files of a gallery that may have a million photos."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISLNK
from typing import Any, overload

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


class FilesOnDisk:
    """Files as they lie on a disk, which may be slow to tell: each is looked at once.

    paths: theirs, one after the other. Raises WaldoError for a file that is missing.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._folders: dict[str, str] = {}
        # Those that are not simply below the folder that their path names, by their numbers.
        self._elsewhere: dict[int, str] = {}
        self._text = hashlib.sha256(b"[[")
        for number, path in enumerate(paths):
            status, is_link = _look_at(path)
            if is_link or path.name in ("", ".."):
                self._elsewhere[number] = str(path.resolve())
            place = self._place(number, path)
            known = json.dumps((place, status.st_size, status.st_mtime_ns))
            self._text.update(f"{', ' if number else ''}{known}".encode())

    def resolved(self) -> Iterator[str]:
        """Each path as `Path.resolve` gives it."""
        for number, path in enumerate(self.paths):
            yield self._place(number, path)

    def digest(self, others: list[Any]) -> str:
        """Of the files, each by its path, size and modification time, and of others, JSON-ready."""
        text = self._text.copy()
        text.update(f"], {json.dumps(others)[1:]}".encode())
        return text.hexdigest()[:16]

    def _place(self, number: int, path: Path) -> str:
        """The path of a file, resolved: its folder is, once for all files in it. Paths are split as
        texts, because Path takes longer than the look.
        """
        if number in self._elsewhere:
            return self._elsewhere[number]
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)  # noqa: PTH118


def _look_at(path: Path) -> tuple[os.stat_result, bool]:
    """The status of the file at a path, and whether the path is a link. Raises WaldoError."""
    is_link = False
    try:
        status = os.lstat(path)
        is_link = S_ISLNK(status.st_mode)
        if not is_link:
            return status, False
    except OSError:
        pass  # missing, or in a tar
    try:
        return path.stat(), is_link
    except OSError as error:
        raise WaldoError(
            f"{path}: cannot be read ({error.strerror}); a benchmark needs all its photos"
        ) from None


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
