"""Where the values of a Parquet column lie in its file.

A column chunk of fixed-size, uncompressed, required values in ONE data page is a header followed
by the values back to back, so row i can be read by its offset. The footer does not say how many
pages a chunk has; the page's own header (Thrift's compact encoding) does.
"""

from pathlib import Path
from typing import Any

# Longer than any header of a page without statistics (about 26 bytes).
_HEADER_LIMIT = 512
_DATA_PAGE, _PLAIN = 0, 0


def plain_offset(path: Path, chunk: Any, rows: int, width: int) -> int | None:
    """Byte offset of the first value of a column chunk, or None if it cannot be read by offset.

    chunk: pyarrow's ColumnChunkMetaData. rows, width: values in the chunk and bytes of each.
    """
    header_size = chunk.total_compressed_size - rows * width
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    if not 0 < header_size <= _HEADER_LIMIT:
        return None
    with path.open("rb") as file:
        file.seek(chunk.data_page_offset)
        raw = file.read(header_size)
    try:
        header, used = _read_struct(raw, 0)
    except (IndexError, ValueError):
        return None
    page = header.get(5)  # PageHeader.data_page_header
    is_plain = (
        used == header_size
        and header.get(1) == _DATA_PAGE
        and header.get(3) == rows * width  # compressed_page_size
        and isinstance(page, dict)
        and page.get(1) == rows  # num_values
        and page.get(2) == _PLAIN  # encoding
    )
    return chunk.data_page_offset + header_size if is_plain else None


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
