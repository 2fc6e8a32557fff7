"""Which photos a question is about, by where they lie and when they were taken."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.store.manifest import SourceRoot, absolute_path
from indexer.store.photos import PhotoTable

_TOKENS = re.compile(r"\*\*/|\*+|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


@dataclass(frozen=True)
class PhotoFilter:
    """Photos that lie in one of some places and in a span of time; the default lets all pass.

    paths: files, folders (everything beneath them) or globs (`*` and `?` stay within a name, `**`
    does not), matched with the absolute path and with the path relative to the SOURCE; none allows
    every place. since_ns, until_ns: nanoseconds since 1970, the first inclusive, the second not;
    compared with the date taken, or the file's modification time where that is not known.
    """

    paths: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None

    def matching(self, table: PhotoTable, sources: Sequence[SourceRoot]) -> NDArray[np.bool_]:
        """(n,) bool: which rows of a photo table pass. sources: the manifest's.

        Raises WaldoError for a glob that makes no sense.
        """
        passing = np.ones(len(table), dtype=bool)
        if self.since_ns is not None or self.until_ns is not None:
            times = _times(table)
            if self.since_ns is not None:
                passing &= times >= self.since_ns
            if self.until_ns is not None:
                passing &= times < self.until_ns
        if self.paths:
            passing &= _in_places(self.paths, table, sources)
        return passing


def _times(table: PhotoTable) -> NDArray[np.int64]:
    """(n,) int64 nanoseconds since 1970: date taken, else modification time."""
    times: NDArray[np.int64] = table.numbers["mtime_ns"].copy()
    known = table.taken_ns.is_valid().to_numpy()
    times[known] = table.taken_ns.drop_null().to_numpy()
    return times


def _in_places(
    paths: Sequence[str], table: PhotoTable, sources: Sequence[SourceRoot]
) -> NDArray[np.bool_]:
    """(n,) bool: which photos lie in any of the places."""
    import pyarrow as pa
    import pyarrow.compute as pc

    passing = np.zeros(len(table), dtype=bool)
    numbers = table.numbers["source"]
    expression = "(?s)" + "|".join(_regex(path) for path in paths)
    for number in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == number)
        relative = table.paths.take(pa.array(rows))
        # A list may name files outside its folder by their absolute path: those have no other.
        prefix = pa.scalar(absolute_path(sources[number].root, ""))
        outside = pc.starts_with(relative, "/")
        absolute = pc.binary_join_element_wise(prefix, relative, "")
        absolute = pc.if_else(outside, relative, absolute)
        try:
            found = pc.or_(
                pc.match_substring_regex(relative, expression),
                pc.match_substring_regex(absolute, expression),
            )
        except pa.ArrowInvalid:
            raise WaldoError(f"--path {' '.join(paths)}: not a path, nor a glob") from None
        passing[rows] = found.to_numpy()
    return passing


def _regex(path: str) -> str:
    """An RE2 expression for the paths that a file, folder or glob stands for."""
    path = path.removeprefix("./").rstrip("/") or path
    if path in (".", "./"):
        return ""
    # The root folder ends in the separator by itself. Names may hold wildcards of their own.
    literal = re.escape(path) + ("" if path.endswith("/") else r"(?:/|\z)")
    glob = "".join(_token(part) for part in _TOKENS.findall(path))
    return rf"\A(?:{literal}|{glob}\z)"


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
