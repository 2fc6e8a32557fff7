"""SAM and SAM 2 by the transformers library, loaded only from safetensors weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.device import find_device
from features.pretrained.checkpoints import (
    Layout,
    explained_errors,
    load_pretrained,
    locate,
    read_config,
)
from features.pretrained.library_parts import library_class
from search.segmentation.cascade import Prompt, Proposals

if TYPE_CHECKING:
    import torch

_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
_NEEDED = "SAM or SAM 2 in transformers' layout with safetensors weights"
_LAYOUT = Layout("transformers", "config.json", _FILES, ("model*.safetensors",))

# The model classes by the model_type of config.json. Published SAM 2 weights belong to a video
# model, of which Waldo uses the part for pictures.
_CLASSES = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}

# The mean and standard deviation of sRGB values in 0..1 on ImageNet, as both models expect them.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True)
class _Encoded:
    """An encoded picture.

    embeddings: what the model's encoder returned. picture: (width, height) of the picture.
    content: (width, height) of the scaled picture, which lies at the top left of the model's square
    input.
    """

    embeddings: Any
    picture: tuple[int, int]
    content: tuple[int, int]


class Sam:
    """A `MaskModel`, SAM or SAM 2 in float32.

    files: the files it consists of. The weights are read when they are first used, or by
    `get_ready`; whatever uses them raises ModelError where they are broken, or the device cannot be
    used.
    """

    def __init__(self, files: list[Path], read: Callable[[], Any]) -> None:
        """read: reads the weights, and gives a SamModel or a Sam2Model on its device."""
        self.files = files
        self._read = read

    @classmethod
    def load(cls, name: str, device: str = "auto") -> "Sam":
        """Find a local folder in transformers' layout, or a hub id.

        A hub model that is not on this machine yet is downloaded. Raises ModelError where the
        files cannot be had, or are no SAM.
        """
        folder, _ = locate("sam", name, {}, _LAYOUT)
        files = sorted(path for pattern in _FILES for path in folder.glob(pattern))
        with explained_errors(f"sam {name}", folder, _NEEDED):
            _, model_class = read_config(folder, _CLASSES)
        return cls(files, partial(_read_model, name, folder, model_class, device))

    def get_ready(self) -> None:
        """Read the weights now. Raises ModelError."""
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        return self._read()

    @property
    def _size(self) -> int:
        """Side of the model's square input, pixels."""
        size = self._model.config.prompt_encoder_config.image_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def _stretches(self) -> bool:
        """SAM keeps the shape of a picture and pads it; SAM 2 stretches it to a square."""
        return bool(self._model.config.model_type != "sam")

    def encode(self, picture: Image.Image) -> _Encoded:
        """Encode an RGB picture, once for all prompts."""
        import torch

        size = self._size
        scale = size / max(picture.size)
        width, height = (max(1, round(scale * side)) for side in picture.size)
        content = (size, size) if self._stretches else (width, height)
        scaled = picture.resize(content, Image.Resampling.BILINEAR, reducing_gap=3.0)
        pixels = np.zeros((size, size, 3), dtype=np.float32)
        values = np.asarray(scaled, dtype=np.float32) / np.float32(255.0)
        pixels[: content[1], : content[0]] = (values - _MEAN) / _STD
        batch = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).to(self._device)
        with torch.inference_mode():
            embeddings = self._model.get_image_embeddings(batch)
        return _Encoded(embeddings, picture.size, content)

    def propose(self, encoded: _Encoded, prompt: Prompt) -> Proposals:
        """The model's three masks for a prompt: a whole, a part, and a part of that part."""
        import torch

        # Coordinates go from pixels of the picture to pixels of the model's input. The model itself
        # adds the half pixel from an index to the centre of the pixel.
        per_pixel = np.divide(encoded.content, encoded.picture)
        inputs: dict[str, Any] = {
            "input_points": self._tensor(prompt.points * per_pixel - 0.5)[None, None],
            "input_labels": torch.from_numpy(prompt.labels).to(self._device)[None, None],
        }
        if prompt.box is not None:
            corners = np.reshape(prompt.box, (2, 2)) * per_pixel - 0.5
            inputs["input_boxes"] = self._tensor(corners.reshape(1, 1, 4))
        if prompt.logits is not None:
            inputs["input_masks"] = self._tensor(prompt.logits)[None, None]
        with torch.inference_mode():
            found = self._model(image_embeddings=encoded.embeddings, **inputs).pred_masks
        logits = found[0, 0].float().cpu().numpy()
        return Proposals(logits, np.stack([self._drawn(mask, encoded) for mask in logits]))

    def _drawn(self, logits: NDArray[np.float32], encoded: _Encoded) -> NDArray[np.float32]:
        """A mask of the model's square input scaled to the picture, (height, width) float32."""
        per_pixel = logits.shape[0] / self._size
        box = (0.0, 0.0, encoded.content[0] * per_pixel, encoded.content[1] * per_pixel)
        image = Image.fromarray(logits)
        return np.asarray(image.resize(encoded.picture, Image.Resampling.BILINEAR, box))

    def _tensor(self, values: NDArray[np.floating]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(values.astype(np.float32)).to(self._device)

    @property
    def _device(self) -> Any:
        return self._model.device


def _read_model(name: str, folder: Path, model_class: str, device: str) -> Any:
    target = find_device(device)
    with explained_errors(f"sam {name}", folder, _NEEDED):
        model = load_pretrained(library_class(model_class), folder)
    return model.requires_grad_(False).eval().to(target)
