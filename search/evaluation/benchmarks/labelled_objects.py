"""Benchmarks of objects with known masks, in photos and in videos."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from features.errors import WaldoError
from features.regions import Box
from search.segmentation.drawing import read_ids

# In annotations of videos, pixels of which the annotators were not sure.
_VOID = 255


@dataclass(frozen=True)
class MaskedPhoto:
    """A photo and the file of a mask of its upright pixels, for `read_mask`."""

    photo: Path
    mask: Path


@dataclass(frozen=True)
class SegmentationObject:
    """An object that is shown in one photo and to be segmented in others.

    name: unique in its benchmark. class_name: what the object is, in words, or None where the
    benchmark does not say. targets: at least one. others: photos of other objects, in which it must
    not be found; only some benchmarks have them.
    """

    name: str
    class_name: str | None
    reference: MaskedPhoto
    targets: list[MaskedPhoto]
    others: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class SegmentationBenchmark:
    """objects: at least one. convention: as of `Benchmark`."""

    objects: list[SegmentationObject]
    convention: str = ""


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video with an annotation for each of its frames.

    frames, annotations: files, in order, at least three. A method is given the annotation of the
    first frame; the first and the last frame do not count for its result. objects: the ids in the
    first frame's annotation, ascending; objects that appear later are not asked for.
    """

    name: str
    frames: list[Path]
    annotations: list[Path]
    objects: list[int]


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask file: the pixels whose value is not 0, (height, width) bool.

    The value is the index in palette images, and any channel in colour images. Of a JPEG, which
    blurs edges, it is the pixels above half of the brightest. Raises WaldoError where the file is
    not a readable picture.
    """
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            blurred = image.format == "JPEG"
            colour = image.mode in ("RGB", "RGBA", "LA", "PA")
            values = np.asarray(image.convert("RGB") if colour else image)
    except Exception as error:  # Pillow raises any kind of error for a broken picture
        raise WaldoError(f"{path}: not a readable PNG or JPEG mask ({error})") from None
    least = values.max() / 2 if blurred else 0
    return np.asarray(np.atleast_3d(values > least).any(axis=2))


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[Box, ...]:
    """The box around the True pixels of a mask, (height, width); none where there are none."""
    found = Image.fromarray(mask).getbbox()
    return () if found is None else (found,)


def read_annotation(path: Path) -> NDArray[np.uint8]:
    """Read the object ids of a frame, (height, width) uint8: 0 for background and for void (255 in
    the file).

    Raises WaldoError as `read_ids`.
    """
    ids = read_ids(path)
    ids[ids == _VOID] = 0
    return ids


def check_sizes(photo: Path, mask: Path) -> None:
    """Raise WaldoError where a mask and its photo differ in size, or one of them is no picture.

    Only the files' headers are read.
    """
    width, height = _size(photo, upright=True)
    mask_width, mask_height = _size(mask, upright=False)
    if (width, height) != (mask_width, mask_height):
        raise WaldoError(
            f"{mask}: is {mask_width} x {mask_height} pixels, its photo {photo.name} {width} x "
            f"{height} (upright); take the mask that was made for this photo"
        )


def _size(path: Path, upright: bool) -> tuple[int, int]:
    """Width and height by the file's header, of the upright picture or of the pixels as stored."""
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            turned = upright and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            width, height = image.size
    except Exception as error:  # Pillow raises any kind of error for a broken picture
        raise WaldoError(f"{path}: not a readable picture ({error})") from None
    return (height, width) if turned else (width, height)
