"""What a user points at: folders, photos, and lists of photos; and which files these cover."""

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from features.photo import is_picture
from indexer.errors import SourceError
from indexer.store.failures import printable
from indexer.store.manifest import SourceRoot, absolute_path


@dataclass(frozen=True)
class Source:
    """One SOURCE of a run.

    path: of the folder, photo or list file; absolute, with symbolic links resolved.
    """

    kind: Literal["folder", "photo", "list"]
    path: Path

    @cached_property
    def root(self) -> SourceRoot:
        """What the paths of its photos are relative to."""
        if self.kind == "folder":
            return SourceRoot(str(self.path))
        name = self.path.name if self.kind == "list" else None
        return SourceRoot(str(self.path.parent), name)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a photo.

    source: the SOURCE that led to it. relative: its path below `source.root`, with "/" between
    folders. size: in bytes. mtime_ns: modification time, nanoseconds since 1970.
    """

    source: Source
    relative: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """The absolute path. A list may name files outside its folder by their absolute paths."""
        return absolute_path(self.source.root.root, self.relative)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that cannot be listed, or a file that cannot be looked at.

    source: the SOURCE that led to it. path: absolute. may_exist: False if a listed file is not
    there; otherwise the photos that the index knows at or beneath this path may still be there.
    """

    source: Source
    path: str
    reason: str
    may_exist: bool = True


def open_sources(sources: Sequence[Path], index_dir: Path) -> list[Source]:
    """Find out what each SOURCE is. It is quick, so that errors are told before a model is loaded.

    index_dir: the index, which need not exist yet; pictures beneath it are not the user's.

    Raises SourceError for a SOURCE that is missing, cannot be read or holds no picture.
    """
    opened = [_open(source) for source in sources]
    for source in opened:
        _check_not_empty(source, index_dir.resolve())
    return list(dict.fromkeys(opened))


def list_photos(sources: Sequence[Source], index_dir: Path) -> Iterator[Found | Unreadable]:
    """Every file that may be a photo, once, in an order that depends only on the names.

    Folders are walked depth first in the order of names. Symbolic links are followed, but no folder
    is entered twice. Hidden files and folders (with a leading dot) and the index itself are left
    out. Lists are read in the order of their lines.
    """
    skip = index_dir.resolve()
    visited: set[tuple[int, int]] = set()
    # A single folder names no file twice, so a large collection needs no set of all its paths.
    alone = len(sources) == 1 and sources[0].kind == "folder"
    seen: set[str] = set()
    for source in sources:
        for found in _list_source(source, skip, visited):
            if not alone:
                path = found.path
                if path in seen:
                    continue
                seen.add(path)
            yield found


class Coverage:
    """Which photos a run comes across, if they are there: a photo it covers and misses is gone."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._folders = [
            str(source.path).rstrip("/") + "/" for source in sources if source.kind == "folder"
        ]
        self._lists = {printable(str(source.path)) for source in sources if source.kind == "list"}
        self._excluded: list[str] = []

    def exclude(self, path: str) -> None:
        """Note that this path, and what lies beneath it, could not be looked at."""
        self._excluded.append(path)

    def includes(self, path: str, list_path: str | None) -> bool:
        """Whether the run comes across the photo at an absolute path.

        list_path: the list that named the photo, if one did.
        """
        if any(path == p or path.startswith(p + "/") for p in self._excluded):
            return False
        if list_path is not None and printable(list_path) in self._lists:
            return True
        for folder in self._folders:
            if path.startswith(folder):
                # A photo in a hidden folder was named by itself: walking does not find it.
                return not any(p.startswith(".") for p in path[len(folder) :].split("/"))
        return False


def _open(source: Path) -> Source:
    try:
        path = source.resolve(strict=True)
        if path.is_dir():
            return Source("folder", path)
        return Source("list" if _is_list(path) else "photo", path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"{source}: cannot be read ({reason}); check the path, and that its drive is mounted"
        ) from error


def _is_list(path: Path) -> bool:
    """Whether a file is text, and no picture."""
    with path.open("rb") as file:
        head = file.read(65_536)
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return "\0" not in text and not is_picture(path)


def _check_not_empty(source: Source, index_dir: Path) -> None:
    if source.kind == "folder":
        files = _list_source(source, index_dir, set())
        if not any(is_picture(Path(f.path)) for f in files if isinstance(f, Found)):
            raise SourceError(f"{source.path}: no picture in this folder; check the path")
    elif source.kind == "list":
        if not any(isinstance(f, Found) for f in _list_source(source, index_dir, set())):
            raise SourceError(
                f"{source.path}: not a picture, and as a list of photos (one path per line, "
                "relative to the list's folder) it names no file that exists; check its lines"
            )
    elif not is_picture(source.path):
        raise SourceError(f"{source.path}: neither a picture nor a list of photos; leave it out")


def _list_source(
    source: Source, skip: Path, visited: set[tuple[int, int]]
) -> Iterator[Found | Unreadable]:
    if source.kind == "folder":
        yield from _walk(source, source.path, "", skip, visited)
    elif source.kind == "list":
        yield from _read_list(source)
    else:
        yield _stat(source, source.path.name)


def _walk(
    source: Source, folder: Path, prefix: str, skip: Path, visited: set[tuple[int, int]]
) -> Iterator[Found | Unreadable]:
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Unreadable(source, str(folder), f"cannot be listed ({error.strerror})")
        return
    here = (status.st_dev, status.st_ino)
    if here in visited or folder.resolve() == skip:
        return
    visited.add(here)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        relative = prefix + entry.name
        try:
            if entry.is_dir():
                yield from _walk(source, Path(entry.path), relative + "/", skip, visited)
            elif entry.is_file():
                status = entry.stat()
                yield Found(source, relative, status.st_size, status.st_mtime_ns)
        except OSError as error:
            yield Unreadable(source, entry.path, f"cannot be read ({error.strerror})")


def _read_list(source: Source) -> Iterator[Found | Unreadable]:
    with source.path.open(encoding="utf-8-sig", errors="surrogateescape", newline=None) as lines:
        for line in lines:
            name = line.rstrip("\n")
            if not name.strip():
                continue
            root = str(source.path.parent)
            path = os.path.normpath(absolute_path(root, name))
            inside = path.startswith(root.rstrip("/") + "/")
            yield _stat(source, os.path.relpath(path, root) if inside else path)


def _stat(source: Source, relative: str) -> Found | Unreadable:
    path = absolute_path(source.root.root, relative)
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return Unreadable(source, path, "no such file", may_exist=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Unreadable(source, path, f"cannot be read ({reason})")
    if not stat.S_ISREG(status.st_mode):
        return Unreadable(source, path, "not a file; give a folder as a SOURCE of its own")
    return Found(source, relative, status.st_size, status.st_mtime_ns)
