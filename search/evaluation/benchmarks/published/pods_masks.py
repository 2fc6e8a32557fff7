"""The masks of PODS (Sundaram et al., 2024): an object in its photos, and in none of the others."""

from pathlib import Path

from features.errors import WaldoError
from features.photo import is_picture
from search.evaluation.benchmarks.labelled_objects import (
    MaskedPhoto,
    SegmentationBenchmark,
    SegmentationObject,
    check_sizes,
)
from search.evaluation.benchmarks.published.pods import read_info

_PHOTOS, _MASKS = "test_dense", "test_dense_masks"


def read_pods_masks(root: Path) -> SegmentationBenchmark:
    """Read PODS' segmentation: the objects of its test set, each to be found in its test photos
    with masks (12 each in the published data), and not in those of the other objects.

    The reference is the first train photo of an object that has a mask. root: holds
    `pods_info.json`, photos as `train/OBJECT/FILE` and `test_dense/OBJECT/FILE`, and their masks
    below `train_masks/` and `test_dense_masks/` with the same names, or as PNG. Raises WaldoError
    for a folder with another layout, for missing masks, and where a mask and its photo differ in
    size.
    """
    category, held_in = read_info(root)
    dense = {name: _photos(root / _PHOTOS / name) for name in category}
    every = [(name, photo) for name, photos in dense.items() for photo in photos]
    objects = []
    for name, kind in category.items():
        if held_in[name] != "test":
            continue
        trained = _photos(root / "train" / name)
        masked = [photo for photo in trained if _mask(root / "train_masks" / name, photo)]
        if not masked or not dense[name]:
            raise WaldoError(
                f"{root}: {name} needs a photo in train/ with a mask in train_masks/, and photos "
                f"in {_PHOTOS}/ with masks in {_MASKS}/"
            )
        objects.append(
            SegmentationObject(
                *(name, str(kind), _masked(root / "train_masks" / name, masked[0])),
                targets=[_masked(root / _MASKS / name, photo) for photo in dense[name]],
                others=[photo for other, photo in every if other != name],
            )
        )
    if not objects:
        raise WaldoError(f"{root}/pods_info.json: names no object of the test set")
    return SegmentationBenchmark(objects)


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and is_picture(path))


def _mask(folder: Path, photo: Path) -> Path | None:
    paths = (folder / photo.name, folder / f"{photo.stem}.png")
    return next((path for path in paths if path.is_file()), None)


def _masked(folder: Path, photo: Path) -> MaskedPhoto:
    mask = _mask(folder, photo)
    if mask is None:
        raise WaldoError(f"{photo}: has no mask {folder / photo.name}")
    check_sizes(photo, mask)
    return MaskedPhoto(photo, mask)
