"""What the readers of published benchmarks share: lists of photos, and whole photos as queries."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import photo_size
from features.regions import Box

# By the place of a photo in a gallery, its boxes.
Boxes = dict[int, tuple[Box, ...]]


def read_lines(path: Path, published_at: str) -> list[str]:
    """The lines of a text file that are not empty, without the space around them.

    published_at: where the file can be had, for the error. Raises WaldoError where it is missing or
    is not text.
    """
    if not path.is_file():
        raise WaldoError(f"{path}: no such file; it is published at {published_at}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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
    width, height = photo_size(photo)
    return (0.0, 0.0, float(width), float(height))


def read_boxes(path: Path, published_at: str) -> list[Box]:
    """The boxes in a text file, one in a line: x y w h in pixels of the upright photo, with spaces
    or commas between them; those without an area are left out.

    published_at: where the file can be had. Raises WaldoError where it is missing or has another
    line.
    """
    boxes = []
    for line in read_lines(path, published_at):
        try:
            x, y, width, height = map(float, line.replace(",", " ").split())
        except ValueError:
            raise WaldoError(f"{path}: {line!r} is no box; it must be x y w h") from None
        if width > 0 and height > 0:
            boxes.append((max(x, 0.0), max(y, 0.0), x + width, y + height))
    return boxes


def true_boxes(places: NDArray[np.int64], files: list[Path], published_at: str) -> Boxes:
    """The true boxes of photos, for `BenchmarkQuery.boxes`, from a file for each that has one.

    places: of the photos in the gallery. files: as `read_boxes` takes them, in the same order.
    """
    found = {
        place: tuple(read_boxes(file, published_at))
        for place, file in zip(places.tolist(), files, strict=True)
        if file.is_file()
    }
    return {place: boxes for place, boxes in found.items() if boxes}


def places_of(rows: Iterable[int]) -> NDArray[np.int64]:
    """Rows as a query holds them: rising, each once."""
    return np.unique(np.array(list(rows), dtype=np.int64))


def rows_by_name(names: list[str]) -> dict[str, list[int]]:
    """The rows that have each name, ascending."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows
