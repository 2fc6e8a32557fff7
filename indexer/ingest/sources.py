"""What a user points at: folders, photos, lists of photos, and places in buckets; and which files
these cover.
"""

import os
import re
import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal
from unicodedata import normalize

from features.errors import WaldoError
from features.photo import is_picture
from indexer.bucket.object_path import (
    ObjectPath,
    objects_below,
    path_of,
    refusal_behind,
    status_of,
)
from indexer.bucket.object_store import url_in
from indexer.bucket.remote_index import bucket_of
from indexer.errors import SourceError
from indexer.photo_lists import STANDARD_INPUT, ListLine, is_list, is_pipe, read_lines
from indexer.store.failures import printable
from indexer.store.filters import glob_expression
from indexer.store.manifest import SourceRoot, absolute_path

# Folders, in lower case, where systems keep thumbnails and what was deleted. Those whose names
# begin with a dot are left out anyway.
_LEFT_OUT = frozenset((
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # network storage
    *("$recycle.bin", "recycler", "system volume information"),  # Windows
    *("__macosx", "lost+found"),
))  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One SOURCE of a run.

    path: of the folder, photo or list file; absolute, with symbolic links resolved. Of a pipe, the
    working directory. Of a place in a bucket, its URL. lines: of a pipe, which can be read once.
    """

    kind: Literal["folder", "photo", "list", "pipe", "bucket"]
    path: Path
    lines: tuple[ListLine, ...] = field(default=(), repr=False)

    @cached_property
    def root(self) -> SourceRoot:
        """What the paths of its photos are relative to."""
        if self.kind in ("folder", "pipe", "bucket"):
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

    @property
    def file(self) -> Path:
        """The path to open it by, also where it lies in a bucket."""
        return path_of(self.path)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that cannot be listed, or a file that cannot be looked at.

    source: the SOURCE that led to it. path: absolute. may_exist: False if a listed file is not
    there; otherwise the photos that the index knows at or beneath this path may still be there, as
    on a drive that is away.
    """

    source: Source
    path: str
    reason: str
    may_exist: bool = True


class Exclusion:
    """Globs of files and folders that are left out. One without "/" is a name at any depth; others
    are compared with the path below the SOURCE, and with the absolute path.
    """

    def __init__(self, globs: Sequence[str] = ()) -> None:
        """Raises SourceError for an invalid glob."""
        parts = []
        for given in globs:
            glob = normalize("NFC", given.removeprefix("./").rstrip("/") or given)
            if "/" in glob:
                here = os.path.abspath(glob)  # noqa: PTH100 (a glob, of which no link is resolved)
                parts += [glob_expression(glob), glob_expression(here)]
            else:
                parts.append(f"(?:.*/)?{glob_expression(glob)}")
        try:
            self._expression = re.compile(f"(?s:(?:{'|'.join(parts)})(?:/.*)?)") if parts else None
        except re.error:
            raise SourceError(f"exclude {' '.join(globs)}: not a valid glob") from None

    def matches(self, root: str, relative: str) -> bool:
        """Whether a path below a root, or a folder above it, is left out."""
        if self._expression is None:
            return False
        return any(
            self._expression.fullmatch(normalize("NFC", path))
            for path in (relative, absolute_path(root, relative))
        )


NOTHING = Exclusion()


def open_sources(
    sources: Sequence[Path | Source], index_dir: Path, exclude: Exclusion = NOTHING
) -> list[Source]:
    """Find out what each SOURCE is. It is quick, so that errors are told before a model is loaded.

    sources: paths, or sources that were opened before, for a pipe can be read only once. "-" is
    standard input; a URL (`url_in`) is an object, or all that lies below it. index_dir: the index,
    or its URL, which need not exist yet; pictures beneath it are not the user's.

    Raises BucketError, and SourceError for a SOURCE that is missing, cannot be read or holds no
    picture.
    """
    opened = [
        source if isinstance(source, Source) else _open(source, index_dir, exclude)
        for source in sources
    ]
    return list(dict.fromkeys(opened))


def list_photos(
    sources: Sequence[Source], index_dir: Path, exclude: Exclusion = NOTHING
) -> Iterator[Found | Unreadable]:
    """Every file that may be a photo, once, in an order that depends only on the names.

    Folders are walked depth first in the order of names. Symbolic links to folders are followed
    last, and no folder is entered twice, so a photo has the name that it has without links if it
    has one. Hidden files and folders (with a leading dot), folders of thumbnails and of deleted
    files, and the index itself are left out. Lists are read in the order of their lines, buckets
    in the order of their keys. Raises BucketError.
    """
    return _each_once(_Walk(index_dir, exclude), sources)


def count_files(sources: Sequence[Source], index_dir: Path, exclude: Exclusion = NOTHING) -> int:
    """How many files and folders `list_photos` gives. No file is looked at, which takes most of the
    time where a million are listed. Raises BucketError.
    """
    return sum(1 for _ in _each_once(_Walk(index_dir, exclude, looks=False), sources))


def _each_once(walk: "_Walk", sources: Sequence[Source]) -> Iterator[Found | Unreadable]:
    # A single folder names no file twice, so a large collection needs no set of all its paths.
    alone = len(sources) == 1 and sources[0].kind in ("folder", "bucket")
    seen: set[str] = set()
    for found in walk.files(sources):
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
            str(source.path).rstrip("/") + "/"
            for source in sources
            if source.kind in ("folder", "bucket")
        ]
        self._lists = {printable(str(source.path)) for source in sources if source.kind == "list"}
        self._excluded: list[str] = []

    def exclude(self, path: str) -> None:
        """Note that this path, and what lies beneath it, could not be looked at."""
        self._excluded.append(path)

    def excludes(self, path: str) -> bool:
        """Whether a path could not be looked at."""
        return any(path == p or path.startswith(p + "/") for p in self._excluded)

    def includes(self, path: str, list_path: str | None, root: str = "") -> bool:
        """Whether the run comes across the photo at an absolute path, if it is there.

        list_path: the list that named the photo, if one did. root: of the photo's source.
        """
        if self.excludes(path):
            return False
        if list_path is not None and printable(list_path) in self._lists:
            return True
        for folder in self._folders:
            if path.startswith(folder):
                # A photo in a folder that is left out was named by itself: walking does not find
                # it. If its source lies above that folder, an earlier Waldo has walked there.
                hidden = any(p.startswith(".") for p in path[len(folder) :].split("/"))
                return not hidden and not _is_left_out(root[len(folder) :])
        return False


def _is_left_out(relative: str) -> bool:
    return any(part.lower() in _LEFT_OUT for part in relative.split("/"))


def _open(source: Path, index_dir: Path, exclude: Exclusion) -> Source:
    try:
        if url := url_in(source):
            return _open_place(ObjectPath(url), index_dir, exclude)
        if is_pipe(source):
            return _open_pipe(source)
        path = source.resolve(strict=True)
        if path.is_dir():
            opened = Source("folder", path)
        else:
            opened = Source("list" if is_list(path) else "photo", path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"{source}: cannot be read ({reason}); check the path, and that its drive is mounted"
        ) from error
    _check_not_empty(opened, index_dir, exclude)
    return opened


def _open_place(place: ObjectPath, index_dir: Path, exclude: Exclusion) -> Source:
    """An object, or all that lies below its URL. Raises SourceError, BucketError, OSError."""
    is_object = False
    try:
        is_object = place.key != "" and place.is_file()
    except OSError as error:
        raise refusal_behind(error) or error from None
    source = Source("photo" if is_object else "bucket", place)
    _check_not_empty(source, index_dir, exclude)
    return source


def _open_pipe(pipe: Path) -> Source:
    """A source of all lines of a pipe; the paths in them start at the working directory."""
    name = "standard input" if pipe == STANDARD_INPUT else str(pipe)
    if pipe == STANDARD_INPUT:
        lines = tuple(_lines_of(sys.stdin.buffer, name))
    else:
        with pipe.open("rb") as file:
            lines = tuple(_lines_of(file, name))
    source = Source("pipe", Path.cwd(), lines)
    if not any(isinstance(found, Found) for found in _read_list(source)):
        raise SourceError(f"{name}: names no file that exists; it must give one path per line")
    return source


def _check_not_empty(source: Source, index_dir: Path, exclude: Exclusion) -> None:
    files = list_photos([source], index_dir, exclude)
    if source.kind in ("folder", "bucket"):
        if not any(is_picture(f.file) for f in files if isinstance(f, Found)):
            raise SourceError(f"{source.path}: no picture in this folder; check the path")
    elif source.kind == "list":
        if not any(isinstance(f, Found) for f in files):
            note = next((line.note for line in _lines(source) if line.note), "")
            raise SourceError(
                f"{source.path}: not a picture, and as a list of photos (one path per line, "
                f"relative to the list's folder) it names no file that exists{note}; check its "
                "lines"
            )
    elif not is_picture(source.path):
        raise SourceError(f"{source.path}: neither a picture nor a list of photos; leave it out")


class _Walk:
    """Lists the files of sources. No folder is entered twice."""

    def __init__(self, index_dir: Path, exclude: Exclusion, looks: bool = True) -> None:
        """looks: False for a mere count. Sizes and times of files are 0 then, and the files that
        lists name may not exist.
        """
        self._exclude, self._looks = exclude, looks
        self._entered: set[tuple[int, int]] = set()
        # Links to folders, relative to their source.
        self._links: deque[tuple[Source, str]] = deque()
        try:
            status = index_dir.stat()
            self._entered.add((status.st_dev, status.st_ino))
        except OSError:
            pass  # no index yet
        bucket = None if url_in(index_dir) else bucket_of(index_dir)
        self._index_url = url_in(index_dir) if bucket is None else bucket.url

    def files(self, sources: Sequence[Source]) -> Iterator[Found | Unreadable]:
        """The files of all sources; what only links lead to comes last."""
        for source in sources:
            if source.kind == "folder":
                yield from self._below(source, "")
            elif source.kind == "bucket":
                yield from self._objects(source)
            elif source.kind == "photo":
                yield _stat(source, source.path.name)
            else:
                for entry in _read_list(source, self._looks):
                    if not self._exclude.matches(source.root.root, _relative(entry)):
                        yield entry
        while self._links:
            yield from self._below(*self._links.popleft())

    def _objects(self, source: Source) -> Iterator[Found]:
        """What lies below a place in a bucket. An empty object may stand for a folder there."""
        root = str(source.path)
        for relative, found in objects_below(ObjectPath(root)):
            hidden = any(part.startswith(".") for part in relative.split("/"))
            *folders, name = relative.split("/")
            if hidden or _is_left_out("/".join(folders)) or not (found.size or "." in name):
                continue
            if self._index_url and f"{root}/{relative}".startswith(f"{self._index_url}/"):
                continue
            if not self._exclude.matches(root, relative):
                yield Found(source, relative, found.size, found.mtime_ns)

    def _below(self, source: Source, folder: str) -> Iterator[Found | Unreadable]:
        """The files below a folder, depth first. folder: relative to the source, "" for itself."""
        # Of each folder on the way down, what is yet to be looked at. No recursion: folders may be
        # nested deeper than Python's calls.
        levels = [self._entries(source, folder)]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
            elif isinstance(entry, str):
                levels.append(self._entries(source, entry))
            else:
                yield entry

    def _entries(self, source: Source, folder: str) -> Iterator[Found | Unreadable | str]:
        """What lies right in a folder: files, and folders by their names relative to the source."""
        root = str(source.path)
        path = absolute_path(root, folder).rstrip("/") or "/"
        try:
            status = os.stat(path)  # noqa: PTH116 (Path costs ten times as much)
            if (status.st_dev, status.st_ino) in self._entered:
                return
            self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Unreadable(source, path, f"cannot be listed ({error.strerror})")
            return
        for entry in entries:
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or self._exclude.matches(root, relative):
                continue
            try:
                if entry.is_dir():
                    if entry.name.lower() in _LEFT_OUT:
                        continue
                    if entry.is_symlink():
                        self._links.append((source, relative))
                    else:
                        yield relative
                elif entry.is_file():
                    if not self._looks:
                        yield Found(source, relative, 0, 0)
                        continue
                    status = entry.stat()
                    yield Found(source, relative, status.st_size, status.st_mtime_ns)
                elif entry.is_symlink():
                    yield Unreadable(source, entry.path, "links to what is not there")
            except OSError as error:
                yield Unreadable(source, entry.path, f"cannot be read ({error.strerror})")


def _relative(entry: Found | Unreadable) -> str:
    """The path of a listed file, relative to its source where it lies below that."""
    return entry.relative if isinstance(entry, Found) else entry.path


def _lines(source: Source) -> Iterator[ListLine]:
    if source.kind == "pipe":
        yield from source.lines
    else:
        with source.path.open("rb") as file:
            yield from _lines_of(file, str(source.path))


def _lines_of(file: BinaryIO, name: str) -> Iterator[ListLine]:
    try:
        yield from read_lines(file)
    except WaldoError as error:
        raise SourceError(f"{name}: cannot be read as a list of photos: {error}") from None


def _read_list(source: Source, looks: bool = True) -> Iterator[Found | Unreadable]:
    root = source.root.root
    folder = root.rstrip("/") + "/"
    for line in _lines(source):
        path = os.path.normpath(absolute_path(root, line.photo))
        relative = path.removeprefix(folder)
        yield _stat(source, relative, line.note) if looks else Found(source, relative, 0, 0)


def _stat(source: Source, relative: str, note: str = "") -> Found | Unreadable:
    path = absolute_path(source.root.root, relative)
    try:
        status = status_of(path)
    except (FileNotFoundError, NotADirectoryError):
        # Without its folder, the photo may be on a drive that is away.
        may_exist = not Path(path).parent.is_dir()
        return Unreadable(source, path, f"no such file{note}", may_exist)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Unreadable(source, path, f"cannot be read ({reason})")
    if not stat.S_ISREG(status.st_mode):
        return Unreadable(source, path, "not a file; give a folder as a SOURCE of its own")
    return Found(source, relative, status.st_size, status.st_mtime_ns)
