"""Personalized segmentation of photos, and the PerSeg benchmark (Zhang et al., ICLR 2024)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from features.errors import WaldoError


@dataclass(frozen=True)
class MaskedPhoto:
    """A photo and a mask file of its upright pixels, which `read_mask` reads."""

    photo: Path
    mask: Path


@dataclass(frozen=True)
class SegmentationObject:
    """One object: shown once, to be segmented in other photos.

    name: unique in its benchmark. class_name: what it is, in words, or None where the benchmark
    does not say. targets: one at least.
    """

    name: str
    class_name: str | None
    reference: MaskedPhoto
    targets: list[MaskedPhoto]


def read_perseg(root: Path) -> list[SegmentationObject]:
    """`Images/OBJECT/NN.jpg` with `Annotations/OBJECT/NN.png`; photo 00 is the reference.

    Objects and photos come in the order of their names. A folder's name ("red_teapot", "cat2") is
    no class name. Hidden files are passed over. Raises WaldoError where the folder is not laid out
    so, and where a mask has not its photo's size.
    """
    for name in ("Images", "Annotations"):
        if not (root / name).is_dir():
            raise WaldoError(
                f"--root {root}: holds no folder {name}; PerSeg has Images/OBJECT/NN.jpg and "
                "Annotations/OBJECT/NN.png"
            )
    folders = sorted(
        path for path in (root / "Images").iterdir() if path.is_dir() and path.name[0] != "."
    )
    if not folders:
        raise WaldoError(f"{root / 'Images'}: holds no object's folder")
    return [_read_object(folder, root / "Annotations" / folder.name) for folder in folders]


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A mask file, (height, width) bool: pixels whose value is not 0.

    The value is the index of palette images, and any channel of colour images. Raises WaldoError
    where the file is not a readable picture.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            colour = image.mode in ("RGB", "RGBA", "LA", "PA")
            values = np.asarray(image.convert("RGB") if colour else image)
    except Exception as error:  # broken pictures come up as any kind of error
        raise WaldoError(f"{path}: not a readable PNG mask ({error})") from None
    return np.asarray(np.atleast_3d(values != 0).any(axis=2))


def check_sizes(photo: Path, mask: Path) -> None:
    """Raises WaldoError where a mask has not the size of its photo, or either is no picture.

    Reads no more than the files' headers.
    """
    width, height = _size(photo, upright=True)
    mask_width, mask_height = _size(mask, upright=False)
    if (width, height) != (mask_width, mask_height):
        raise WaldoError(
            f"{mask}: is {mask_width} x {mask_height} pixels, its photo {photo.name} {width} x "
            f"{height} (upright); masks must be of that very photo"
        )


def _read_object(images: Path, annotations: Path) -> SegmentationObject:
    photos = {path.stem: path for path in _files(images, ".jpg")}
    masks = {path.stem: path for path in _files(annotations, ".png")}
    for stem in sorted(photos.keys() ^ masks.keys()):
        if stem in photos:
            raise WaldoError(f"{photos[stem]}: has no mask {annotations / stem}.png")
        raise WaldoError(f"{masks[stem]}: has no photo {images / stem}.jpg")
    if "00" not in photos or len(photos) < 2:
        raise WaldoError(
            f"{images}: must hold the reference 00.jpg and another photo, one at least"
        )
    pairs = {}
    for stem, photo in photos.items():
        check_sizes(photo, masks[stem])
        pairs[stem] = MaskedPhoto(photo, masks[stem])
    reference = pairs.pop("00")
    return SegmentationObject(images.name, None, reference, list(pairs.values()))


def _files(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix == suffix and p.name[0] != ".")


def _size(path: Path, upright: bool) -> tuple[int, int]:
    """Width and height by the file's header, as stored, or as the picture is to be looked at."""
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            turned = upright and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            width, height = image.size
    except Exception as error:  # broken pictures come up as any kind of error
        raise WaldoError(f"{path}: not a readable picture ({error})") from None
    return (height, width) if turned else (width, height)
