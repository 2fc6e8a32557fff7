"""PerMIR and PerMIS with a folder per video, as the code published with PDM writes them."""

from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.labelled_objects import MaskedPhoto, check_sizes

_FRAMES = ("0", "1", "2")
_SUFFIXES = (".jpg", ".jpeg", ".png")

# Where the published code has the masks: as objects of Python, which may run code as they are read.
_PICKLED = "masks.npz.npy"


def read_video_folders(root: Path) -> dict[str, list[MaskedPhoto]]:
    """The three frames of each video with the masks of its object, by the folder's name, sorted.

    A folder holds the frames `0.jpg`, `1.jpg` and `2.jpg` (or as PNG), and `masks/0.png`,
    `masks/1.png` and `masks/2.png`. Hidden folders are left out. Empty where no folder has a frame.
    Raises WaldoError for a folder with another layout, and where a mask and its frame differ in
    size.
    """
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    if not any(_frames(folder, name) for folder in folders for name in _FRAMES):
        return {}
    return {folder.name: [_pair(folder, name) for name in _FRAMES] for folder in folders}


def _pair(folder: Path, name: str) -> MaskedPhoto:
    frames = _frames(folder, name)
    if len(frames) != 1:
        raise WaldoError(
            f"{folder}: holds {len(frames)} frames {name}.jpg or {name}.png; a video's folder must "
            "hold three frames, 0 to 2, and their masks as masks/0.png to masks/2.png"
        )
    mask = folder / "masks" / f"{name}.png"
    if not mask.is_file():
        if (folder / _PICKLED).is_file():
            raise WaldoError(
                f"{folder / _PICKLED}: is a pickle, which is not read because it may run any code; "
                "write its masks as pictures, as docs/evaluation.md shows"
            )
        raise WaldoError(f"{mask}: no such file; it must hold the mask of {frames[0].name}")
    check_sizes(frames[0], mask)
    return MaskedPhoto(frames[0], mask)


def _frames(folder: Path, name: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"{name}.*")) if path.suffix.lower() in _SUFFIXES]
