"""Filters: which photos a search considers, by their paths and by when they were taken."""

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.store.manifest import SourceRoot, absolute_path
from indexer.store.photos import PhotoTable

if TYPE_CHECKING:
    import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3600 * 10**9
_WILDCARDS = frozenset("*?[")
_TOKENS = re.compile(r"\*\*/|\*+|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


@dataclass(frozen=True)
class PhotoFilter:
    """Photos at one of some paths that were taken within a span of time; all pass by default.

    paths: files, folders (everything beneath them) or globs (`*` and `?` match within one name,
    `**` across folders). They are compared with a photo's absolute path, with its path relative to
    the SOURCE, and with the path that links lead to, in one normal form of Unicode; every photo
    passes where there are none. since_ns, until_ns: nanoseconds since 1970 began by the local
    clock, the first inclusive, the second exclusive; compared with the date taken, or with the
    file's modification time by this machine's clock where that date is unknown.
    """

    paths: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None

    def matching(self, table: PhotoTable, sources: Sequence[SourceRoot]) -> NDArray[np.bool_]:
        """(n,) bool: which rows of a photo table pass. sources: the manifest's.

        Raises WaldoError for an invalid glob.
        """
        passing = np.ones(len(table), dtype=bool)
        if self.since_ns is not None or self.until_ns is not None:
            times = _times(table)
            if self.since_ns is not None:
                passing &= times >= self.since_ns
            if self.until_ns is not None:
                passing &= times < self.until_ns
        if self.paths:
            passing &= _at_paths(self.paths, table, sources)
        return passing


def time_span(name: str, text: str) -> tuple[int, int]:
    """A year, month or day in UTC: its first nanosecond since 1970, and the first one after it.

    name: what the error calls it. Raises WaldoError for a text of another form.
    """
    parts = text.split("-")
    try:
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(text)
        if [len(part) for part in parts] != [4, 2, 2][: len(parts)]:
            raise ValueError(text)
        year, month, day = (*map(int, parts), 1, 1)[:3]
        start = datetime(year, month, day, tzinfo=UTC)
        if len(parts) == 1:
            end = start.replace(year=year + 1)
        elif len(parts) == 2:
            end = start.replace(year=year + month // 12, month=month % 12 + 1)
        else:
            end = start + timedelta(days=1)
    except (ValueError, OverflowError):
        raise WaldoError(f"{name} {text}: must be YYYY, YYYY-MM or YYYY-MM-DD") from None
    first, after = ((at - _EPOCH) // timedelta(seconds=1) * 10**9 for at in (start, end))
    return first, after


def real_folders(folders: Iterable[str]) -> dict[str, str]:
    """The real paths of those absolute folders that a link leads to."""
    found = {folder: os.path.realpath(folder) for folder in folders if folder.startswith("/")}
    return {folder: real for folder, real in found.items() if real != folder}


def _times(table: PhotoTable) -> NDArray[np.int64]:
    """(n,) int64 nanoseconds by the local clock: date taken, else modification time."""
    known = table.taken_ns.is_valid().to_numpy()
    times: NDArray[np.int64] = table.numbers["mtime_ns"].copy()
    hours, which = np.unique(times[~known] // _HOUR, return_inverse=True)
    offsets = [time.localtime(3600 * hour).tm_gmtoff for hour in hours.tolist()]
    times[~known] += np.array(offsets, dtype=np.int64)[which] * 10**9
    times[known] = table.taken_ns.drop_null().to_numpy()
    return times


def _at_paths(
    paths: Sequence[str], table: PhotoTable, sources: Sequence[SourceRoot]
) -> NDArray[np.bool_]:
    """(n,) bool: which photos lie at or beneath any of the paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    passing = np.zeros(len(table), dtype=bool)
    numbers = table.numbers["source"]
    spelled = dict.fromkeys(normalize("NFC", name) for path in paths for name in _spellings(path))
    expression = "(?s)" + "|".join(map(_regex, spelled))
    for number in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == number)
        relative = table.paths.take(pa.array(rows))
        # A list may name files outside its folder: those have an absolute path only.
        prefix = pa.scalar(absolute_path(sources[number].root, ""))
        outside = pc.starts_with(relative, "/")
        absolute = pc.binary_join_element_wise(prefix, relative, "")
        absolute = pc.if_else(outside, relative, absolute)
        try:
            for names in (relative, absolute, _resolved(absolute)):
                found = pc.match_substring_regex(pc.utf8_normalize(names, "NFC"), expression)
                passing[rows] |= found.to_numpy()
        except pa.ArrowInvalid:
            raise WaldoError(f"path {' '.join(paths)}: neither a path nor a valid glob") from None
    return passing


def _spellings(path: str) -> tuple[str, str, str]:
    """The names by which an index may have a path or glob that is given in the working directory:
    itself, absolute, and that with the links resolved in the folders before any wildcard.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100 (a glob, of which no link is resolved)
    parts = absolute.split("/")
    plain = list(takewhile(lambda part: not _WILDCARDS & set(part), parts))
    real = os.path.realpath("/".join(plain) or "/")
    return path, absolute, "/".join([real, *parts[len(plain) :]])


def _resolved(paths: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Absolute paths, with the real folder where a link leads to a photo's folder."""
    import pyarrow as pa
    import pyarrow.compute as pc

    folders = pc.replace_substring_regex(paths, "/[^/]*$", "")
    real = real_folders(pc.unique(folders).to_pylist())
    if not real:
        return paths
    split = (path.rpartition("/") for path in paths.to_pylist())
    return pa.chunked_array([[f"{real.get(folder, folder)}/{name}" for folder, _, name in split]])


def _regex(path: str) -> str:
    """An RE2 expression for the paths that a file, a folder or a glob matches."""
    path = path.removeprefix("./").rstrip("/") or path
    if path in (".", "./"):
        return ""
    # "/" ends in the separator by itself. A file's name may itself contain wildcards.
    literal = re.escape(path) + ("" if path.endswith("/") else r"(?:/|\z)")
    return rf"\A(?:{literal}|{glob_expression(path)}\z)"


def glob_expression(glob: str) -> str:
    """A regular expression for all of the paths that a glob matches, for RE2 and for Python."""
    return "(?:" + "".join(_token(part) for part in _TOKENS.findall(glob)) + ")"


def _token(part: str) -> str:
    """One part of a glob as an expression."""
    if part == "**/":
        return "(?:.*/)?"
    if part.startswith("*"):
        return ".*" if len(part) > 1 else "[^/]*"
    if part == "?":
        return "[^/]"
    inside = part[1:-1].removeprefix("!")
    if not inside:
        return re.escape(part)
    inside = re.sub(r"([\\\[\]^])", r"\\\1", inside)
    return f"[{'^/' if part[1] == '!' else ''}{inside}]"
