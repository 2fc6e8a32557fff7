"""Made by the tests: textured squares on a smooth background, in videos and photos."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.segmentation.drawing import write_ids
from tests.helpers.benchmarks.benchmark_folders import save_ids
from tests.helpers.pictures import smooth_pixels

WIDTH, HEIGHT, SIDE = 96, 64, 20

Ids = NDArray[np.uint8]


def square_frame(places: dict[int, tuple[int, int] | None]) -> tuple[Image.Image, Ids]:
    """A frame with a square for each object, and its ids.

    places: of each object's square the left and the top, or None where it is out of sight.
    """
    pixels = smooth_pixels(WIDTH, HEIGHT, 0) // 2
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number, place in places.items():
        if place is None:
            continue
        left, top = place
        rng = np.random.default_rng(number)
        texture = rng.integers(150, 256) * rng.permutation([1, 1, 0]) + rng.integers(
            0, 50, (5, 5, 3)
        )
        square = np.kron(np.minimum(texture, 255), np.ones((4, 4, 1)))
        pixels[top : top + SIDE, left : left + SIDE] = square
        ids[top : top + SIDE, left : left + SIDE] = number
    return Image.fromarray(pixels), ids


def save_frames(
    folder: Path, all_places: list[dict[int, tuple[int, int] | None]], masks: Path | None = None
) -> list[Ids]:
    """Writes 00000.png, 00001.png, ... and their ids into a folder of masks; returns the ids."""
    folder.mkdir(parents=True)
    if masks is not None:
        masks.mkdir(parents=True)
    every = []
    for number, places in enumerate(all_places):
        picture, ids = square_frame(places)
        picture.save(folder / f"{number:05}.jpg", quality=95)
        if masks is not None:
            write_ids(masks / f"{number:05}.png", ids)
        every.append(ids)
    return every


def save_davis(root: Path, sequences: dict[str, list[dict[int, tuple[int, int] | None]]]) -> Path:
    """A miniature of DAVIS-2017's folder."""
    for name, places in sequences.items():
        masks = root / "Annotations" / "480p" / name
        save_frames(root / "JPEGImages" / "480p" / name, places, masks)
    listing = root / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(sequences) + "\n")
    return root


def save_perseg(root: Path) -> Path:
    """A miniature of PerSeg's folder: two squares, one with another beside it, each elsewhere in
    every photo.
    """
    for name, number in (("cup", 3), ("toy2", 4)):
        for photo, place in enumerate([(30, 20), (60, 10), (10, 36)]):
            beside = {9: (70, 40)} if name == "cup" and photo == 1 else {}
            picture, ids = square_frame({number: place, **beside})
            path = root / "Images" / name / f"{photo:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=95)
            save_ids(root / "Annotations" / name / f"{photo:02}.png", ids * (ids == number))
    return root
