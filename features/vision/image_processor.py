"""The preprocessing of a photo for a model of transformers, by its preprocessor_config.json.

It is done with Pillow and not by the library's image processors, because which of them the library
picks, and so the numbers, depends on whether torchvision is installed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError

_Channels = tuple[float, float, float]


@dataclass(frozen=True)
class ImageProcessor:
    """A resize, a crop at the centre, and a normalisation of each channel.

    shortest_edge: the length in pixels that the shorter side is scaled to; None scales to `size`,
    whatever the photo's shape. size: (width, height) of the crop. resample: Pillow's number of the
    filter. mean, std: of sRGB values in 0..1, one per channel.
    """

    shortest_edge: int | None
    size: tuple[int, int]
    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def load(cls, path: Path, *, square: bool) -> "ImageProcessor":
        """Read a preprocessor_config.json.

        square: whether a size that is a single number means both sides; otherwise it means the
        shorter side, as in old files of CLIP. Raises ModelError where the file cannot be read, or
        asks for other preprocessing than this class does.
        """
        with _reading(path) as config:
            return cls._of(config, square)

    @classmethod
    def _of(cls, config: dict[str, Any], square: bool) -> "ImageProcessor":
        if config.get("do_resize", True) is not True:
            raise ValueError("do_resize is off")
        mean, std = _normalisation(config)
        size = config["size"]
        if isinstance(size, int):
            size = {"height": size, "width": size} if square else {"shortest_edge": size}
        edge = size.get("shortest_edge")
        crop = size
        if config.get("do_center_crop", "crop_size" in config):
            crop = config["crop_size"]
            if isinstance(crop, int):
                crop = {"height": crop, "width": crop}
        elif edge is not None:
            raise ValueError("photos would differ in shape: no do_center_crop")
        width, height = int(crop["width"]), int(crop["height"])
        scaled = (edge, edge) if edge is not None else (size["width"], size["height"])
        if not (0 < width <= scaled[0] and 0 < height <= scaled[1]):
            raise ValueError("the crop is larger than what it is cropped from")
        if edge is None and scaled != (width, height):
            raise ValueError("a crop of what was scaled to a fixed size")
        resample = int(Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)))
        return cls(edge, (width, height), resample, mean, std)

    @property
    def least(self) -> int:
        """Pixels that a photo's shorter side must have so that it is not enlarged."""
        return max(self.size) if self.shortest_edge is None else self.shortest_edge

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The crop of the scaled RGB image, (height, width, 3) uint8."""
        width, height = self.size
        if self.shortest_edge is None:
            return np.asarray(image.resize((width, height), self.resample))
        short = min(image.size)
        scaled_width, scaled_height = (int(self.shortest_edge * n / short) for n in image.size)
        left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
        # Only the crop is computed: scaled up whole, a very long and narrow photo fills the memory.
        across, down = image.width / scaled_width, image.height / scaled_height
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return np.asarray(image.resize((width, height), self.resample, box))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A model's input, (n, 3, height, width) float32, of n photos' `pixels`."""
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        values = (pixels.astype(np.float32) / np.float32(255.0) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def read_normalisation(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean and the standard deviation that a preprocessor_config.json names, (3,) float32 each,
    of sRGB values in 0..1. Raises ModelError as `ImageProcessor.load`.
    """
    with _reading(path) as config:
        mean, std = (np.array(values, dtype=np.float32) for values in _normalisation(config))
        return mean, std


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    """What a file says, and ModelError for whatever is wrong with it."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: not a preprocessing that Waldo knows ({reason})") from error


def _normalisation(config: dict[str, Any]) -> tuple[_Channels, _Channels]:
    """Mean and standard deviation of each channel. Raises ValueError, KeyError or TypeError."""
    for step in ("do_rescale", "do_normalize"):
        if config.get(step, True) is not True:
            raise ValueError(f"{step} is off")
    if abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError("rescale_factor is not 1/255")
    mean, std = (_channels(config[name]) for name in ("image_mean", "image_std"))
    return mean, std


def _channels(values: list[float]) -> _Channels:
    red, green, blue = values
    return float(red), float(green), float(blue)
