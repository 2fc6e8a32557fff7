"""DAVIS-2017, semi-supervised (Pont-Tuset et al., 2017): how its sequences are read."""

from pathlib import Path

import numpy as np

from features.errors import WaldoError
from search.evaluation.benchmarks.labelled_objects import (
    AnnotatedVideo,
    check_sizes,
    read_annotation,
)


def read_davis(root: Path) -> list[AnnotatedVideo]:
    """Read the sequences that `ImageSets/2017/val.txt` names, at 480p, in its order.

    Frames are `JPEGImages/480p/SEQUENCE/NNNNN.jpg`, annotations
    `Annotations/480p/SEQUENCE/NNNNN.png`. Raises WaldoError where the folder has another layout,
    and where an annotation and its frame differ in size.
    """
    listing = root / "ImageSets" / "2017" / "val.txt"
    try:
        names = listing.read_text(encoding="utf-8-sig").split()
    except (OSError, ValueError):
        raise WaldoError(
            f"{root}: holds no readable ImageSets/2017/val.txt; unpack "
            "DAVIS-2017-trainval-480p.zip and give its folder DAVIS"
        ) from None
    if not names:
        raise WaldoError(f"{listing}: names no sequence")
    return [_read_sequence(root, name) for name in names]


def _read_sequence(root: Path, name: str) -> AnnotatedVideo:
    frames = sorted((root / "JPEGImages" / "480p" / name).glob("*.jpg"))
    annotations = sorted((root / "Annotations" / "480p" / name).glob("*.png"))
    if len(frames) < 3:
        raise WaldoError(
            f"{root / 'JPEGImages' / '480p' / name}: holds {len(frames)} frames (*.jpg); at least "
            "three are needed, because the first and the last do not count"
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
    return AnnotatedVideo(name, frames, annotations, objects)
