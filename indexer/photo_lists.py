"""Lists of photos, as `waldo index` and `waldo query` take them.

Each line is the path of a photo, or a JSON object with "photo" and other keys. Whether a file is a
list, and how its text is encoded, follows from its content, not from its name. A pipe is a list.
"""

import codecs
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from features.errors import WaldoError
from features.photo import is_picture

STANDARD_INPUT = Path("-")

_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32-LE"),  # begins as UTF-16 does
    (codecs.BOM_UTF32_BE, "UTF-32-BE"),
    (codecs.BOM_UTF16_LE, "UTF-16-LE"),
    (codecs.BOM_UTF16_BE, "UTF-16-BE"),
)
# The encoding of a line that is not Unicode.
_GUESS = "Windows-1252"
# Control characters that a text may hold: tab, line feed, form feed, carriage return.
_LAYOUT = "\t\n\f\r"
# Bytes at the beginning of a file that show whether it is a list.
_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class ListLine:
    """A line that is not blank. number: from 1. text: without the end of the line."""

    number: int
    text: str
    encoding: str

    @property
    def note(self) -> str:
        """What to add where the photo of the line is not there: it may have been misread."""
        return f" (the list is read as {_GUESS})" if self.encoding == _GUESS else ""

    @property
    def is_json(self) -> bool:
        return self.text.lstrip().startswith("{")

    @property
    def photo(self) -> str:
        """The path of the photo."""
        try:
            return str(self.fields()["photo"]) if self.is_json else self.text
        except WaldoError:
            return self.text  # a name may begin as JSON does

    def fields(self) -> dict[str, Any]:
        """What the line says: "photo", and more if it is JSON. Raises WaldoError."""
        if not self.is_json:
            return {"photo": self.text.strip()}
        try:
            given: dict[str, Any] = json.loads(self.text)
        except ValueError as error:
            raise WaldoError(f"not JSON ({error})") from None
        if not isinstance(given.get("photo"), str):
            raise WaldoError('must hold "photo", the path of a photo')
        return given


def is_list(path: Path) -> bool:
    """Whether a path is a pipe, or a file of text that is no picture.

    Raises OSError where the system cannot read it.
    """
    if is_pipe(path):
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD)
    encoding, skipped = _encoding_of(head)
    text = head[skipped:].decode(encoding or "latin-1", errors="ignore")
    return not any(char < " " and char not in _LAYOUT for char in text) and not is_picture(path)


def is_pipe(path: Path) -> bool:
    """Whether a path is standard input or another stream, which can be read once."""
    if path == STANDARD_INPUT:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def read_lines(file: BinaryIO) -> Iterator[ListLine]:
    """The lines of a list, each as soon as it arrives.

    A text without a byte order mark is UTF-8, but for lines that are not: those are Windows-1252.
    Raises WaldoError where the text is not in the encoding that its mark names.
    """
    first = file.readline()
    encoding, skipped = _encoding_of(first)
    lines = chain([first[skipped:]], file)
    read: Iterator[tuple[str, str]]
    if encoding not in (None, "UTF-8"):
        # Its line feeds are no single bytes.
        try:
            text = b"".join(lines).decode(encoding or "")
        except UnicodeDecodeError as error:
            raise WaldoError(f"not {encoding}, as it begins ({error.reason})") from None
        # A program that converts a list may leave its mark before the new one.
        read = ((line, str(encoding)) for line in text.removeprefix("\ufeff").split("\n"))
    else:
        read = map(_decoded, lines)
    for number, (line, name) in enumerate(read, start=1):
        if line.strip():
            yield ListLine(number, line.rstrip("\r\n"), name)


def _decoded(line: bytes) -> tuple[str, str]:
    """A line, and its encoding."""
    try:
        return line.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace"), _GUESS


def _encoding_of(head: bytes) -> tuple[str | None, int]:
    """The encoding that the beginning of a text shows, and how many bytes of it are a mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    if head[1:2] == b"\0" != head[:1]:
        return "UTF-16-LE", 0
    if head[:1] == b"\0" != head[1:2]:
        return "UTF-16-BE", 0
    return None, 0
