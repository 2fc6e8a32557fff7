"""The PerSeg benchmark (Zhang et al., ICLR 2024): how its folder is read."""

from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.labelled_objects import (
    MaskedPhoto,
    SegmentationBenchmark,
    SegmentationObject,
    check_sizes,
)


def read_perseg(root: Path) -> SegmentationBenchmark:
    """Read `Images/OBJECT/NN.jpg` with `Annotations/OBJECT/NN.png`; photo 00 is the reference.

    Objects and photos come in the order of their names. The name of a folder ("red_teapot", "cat2")
    is no class name. Hidden files are left out. Raises WaldoError where the folder has another
    layout, and where a mask and its photo differ in size.
    """
    for name in ("Images", "Annotations"):
        if not (root / name).is_dir():
            raise WaldoError(
                f"{root}: holds no folder {name}; PerSeg has Images/OBJECT/NN.jpg and "
                "Annotations/OBJECT/NN.png"
            )
    folders = sorted(
        path for path in (root / "Images").iterdir() if path.is_dir() and path.name[0] != "."
    )
    if not folders:
        raise WaldoError(f"{root / 'Images'}: holds no object's folder")
    return SegmentationBenchmark(
        [_read_object(folder, root / "Annotations" / folder.name) for folder in folders]
    )


def _read_object(images: Path, annotations: Path) -> SegmentationObject:
    photos = {path.stem: path for path in _files(images, ".jpg")}
    masks = {path.stem: path for path in _files(annotations, ".png")}
    for stem in sorted(photos.keys() ^ masks.keys()):
        if stem in photos:
            raise WaldoError(f"{photos[stem]}: has no mask {annotations / stem}.png")
        raise WaldoError(f"{masks[stem]}: has no photo {images / stem}.jpg")
    if "00" not in photos or len(photos) < 2:
        raise WaldoError(f"{images}: must hold the reference 00.jpg and at least one other photo")
    pairs = {}
    for stem, photo in photos.items():
        check_sizes(photo, masks[stem])
        pairs[stem] = MaskedPhoto(photo, masks[stem])
    reference = pairs.pop("00")
    return SegmentationObject(images.name, None, reference, list(pairs.values()))


def _files(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and p.name[0] != ".")
