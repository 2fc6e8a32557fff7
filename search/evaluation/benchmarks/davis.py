"""DAVIS-2017, semi-supervised (Pont-Tuset et al., 2017): how its sequences are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from search.evaluation.benchmarks.perseg import check_sizes
from search.segmentation.drawing import read_ids

# Marks pixels of which annotators were not sure.
_VOID = 255


@dataclass(frozen=True)
class DavisSequence:
    """A video with an annotation for each of its frames.

    frames, annotations: files, in order, three at least: the first frame's annotation is given to
    a method, and the first and the last are left out of the score. objects: ids in the first
    frame's annotation, ascending; objects that come up later are not asked for.
    """

    name: str
    frames: list[Path]
    annotations: list[Path]
    objects: list[int]


def read_davis(root: Path) -> list[DavisSequence]:
    """The sequences that `ImageSets/2017/val.txt` names, at 480p, in its order.

    Frames are `JPEGImages/480p/SEQUENCE/NNNNN.jpg`, annotations
    `Annotations/480p/SEQUENCE/NNNNN.png`. Raises WaldoError where the folder is not laid out so,
    and where an annotation has not its frame's size.
    """
    listing = root / "ImageSets" / "2017" / "val.txt"
    try:
        names = listing.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        raise WaldoError(
            f"--root {root}: holds no readable ImageSets/2017/val.txt; unpack "
            "DAVIS-2017-trainval-480p.zip and give its folder DAVIS"
        ) from None
    if not names:
        raise WaldoError(f"{listing}: names no sequence")
    return [_read_sequence(root, name) for name in names]


def read_annotation(path: Path) -> NDArray[np.uint8]:
    """Object ids of a frame, (height, width) uint8: 0 for background and void (255 in the file).

    Raises WaldoError as `read_ids`.
    """
    ids = read_ids(path)
    ids[ids == _VOID] = 0
    return ids


def _read_sequence(root: Path, name: str) -> DavisSequence:
    frames = sorted((root / "JPEGImages" / "480p" / name).glob("*.jpg"))
    annotations = sorted((root / "Annotations" / "480p" / name).glob("*.png"))
    if len(frames) < 3:
        raise WaldoError(
            f"{root / 'JPEGImages' / '480p' / name}: holds {len(frames)} frames (*.jpg); three are "
            "needed, for the first and the last do not count"
        )
    unmatched = sorted({path.stem for path in frames} ^ {path.stem for path in annotations})
    if unmatched:
        raise WaldoError(
            f"{root}: {name}: {len(unmatched)} of its frames lack their JPEG or their annotation, "
            f"the first is {unmatched[0]}"
        )
    for frame, annotation in zip(frames, annotations, strict=True):
        check_sizes(frame, annotation)
    objects = [int(number) for number in np.unique(read_annotation(annotations[0])) if number]
    if not objects:
        raise WaldoError(
            f"{annotations[0]}: shows no object (ids 1 to 254); take the annotations of DAVIS-2017"
        )
    return DavisSequence(name, frames, annotations, objects)
