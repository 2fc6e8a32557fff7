"""Where the values of a Parquet column lie in its file.

A column of fixed-size, uncompressed, required values in ONE data page is a header (Thrift's compact
encoding) followed by the values back to back, so row i can be read by its offset.
"""

from dataclasses import dataclass
from typing import Any

_DATA_PAGE, _PLAIN = 0, 0


@dataclass(frozen=True)
class PlainPage:
    """A page of plain values. rows: how many. start, end: byte offsets of the values."""

    rows: int
    start: int
    end: int


def plain_page(raw: bytes, at: int, width: int) -> PlainPage | None:
    """The page whose header begins at raw[at:]; None unless it holds plain values of a fixed width.

    raw: a file's first bytes, that header among them. width: bytes of a value. Definition levels
    and compression show in the page's size.
    """
    try:
        header, start = _read_struct(raw, at)
    except (IndexError, ValueError):
        return None
    page = header.get(5)  # PageHeader.data_page_header
    if header.get(1) != _DATA_PAGE or not isinstance(page, dict) or page.get(2) != _PLAIN:
        return None
    rows = page.get(1)  # num_values
    if not isinstance(rows, int) or not rows * width == header.get(2) == header.get(3):
        return None
    return PlainPage(rows, start, start + rows * width)


def _read_struct(raw: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A Thrift compact struct at raw[at:] as {field number: value}, and where it ends.

    Raises ValueError for field types that page headers do not use, IndexError past the end.
    """
    fields: dict[int, Any] = {}
    number = 0
    while raw[at] != 0:
        delta, kind = raw[at] >> 4, raw[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _read_integer(raw, at)
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], at = _read_integer(raw, at)
        elif kind == 12:
            fields[number], at = _read_struct(raw, at)
        else:
            raise ValueError(f"unexpected Thrift type {kind}")
    return fields, at + 1


def _read_integer(raw: bytes, at: int) -> tuple[int, int]:
    """A zigzag variable-length integer at raw[at:], and where it ends."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
