"""What the readers of published benchmarks share: lists of photos, and whole photos as queries."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import load_photo
from features.regions import Box


def read_lines(path: Path, published_at: str) -> list[str]:
    """The lines of a text file that are not empty, without the space around them.

    published_at: where the file can be had, for the error. Raises WaldoError where it is missing or
    is not text.
    """
    if not path.is_file():
        raise WaldoError(f"{path}: no such file; it is published at {published_at}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WaldoError(f"{path}: not readable as text ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def check_photos(photos: list[Path], listing: Path) -> None:
    """Raise WaldoError where a photo that a list names is missing."""
    missing = [photo for photo in photos if not photo.is_file()]
    if missing:
        raise WaldoError(
            f"{missing[0]}: no such photo; {len(missing)} of the {len(photos)} named in "
            f"{listing.name} are missing"
        )


def whole_photo(photo: Path) -> Box:
    """The box of a whole photo, (x0, y0, x1, y1) in upright pixels: the region of queries whose
    benchmark shows no object more closely. Raises WaldoError for a photo that cannot be read.
    """
    known = load_photo(photo, at_least=1)
    return (0.0, 0.0, float(known.width), float(known.height))


def places_of(rows: Iterable[int]) -> NDArray[np.int64]:
    """Rows as a query holds them: rising, each once."""
    return np.unique(np.array(list(rows), dtype=np.int64))


def rows_by_name(names: list[str]) -> dict[str, list[int]]:
    """The rows that have each name, ascending."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows
