"""Global image descriptors: one vector per photo, by a model of the transformers library.

They describe a photo as a whole. In the paper they are baselines, and a way to find candidates
(DINOv2 + PDM and OpenCLIP + PDM in its tables).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import (
    Batches,
    Precision,
    computing_type,
    find_device,
    in_fingerprint,
    precision_of,
    upload,
    usual_precision,
)
from features.errors import ModelError
from features.photo import Photo, load_photo
from features.pretrained.checkpoints import (
    Layout,
    explained_errors,
    files_digest,
    load_pretrained,
    locate,
    quiet_libraries,
    read_config,
)
from features.pretrained.library_parts import library_class
from features.vision.image_processor import ImageProcessor

if TYPE_CHECKING:
    import torch

# Hub ids: DINOv2 ViT-L/14 as in the paper, OpenCLIP ViT-H/14, SigLIP SO400M/14 at 384 pixels.
DESCRIPTORS = {
    "dinov2": "facebook/dinov2-large",
    "openclip": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "siglip": "google/siglip-so400m-patch14-384",
}

# To be increased when the same file and model give other model inputs than before.
PREPROCESSING = 1

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_FILES = (_CONFIG, _PREPROCESSOR, "model*.safetensors", "model.safetensors.index.json")
_NEEDED = "DINOv2, CLIP or SigLIP in transformers' layout with safetensors weights"
_LAYOUT = Layout("transformers", _CONFIG, _FILES, ("model*.safetensors",))


@dataclass(frozen=True)
class _Kind:
    """How one kind of model gives a vector.

    model, config: names of classes of transformers. dim: the setting that holds the length of the
    vector, and its default. vector: takes (n, d) from the model's output. fixed_size: whether the
    model takes pictures of one size only.
    """

    model: str
    config: str
    dim: tuple[str, int]
    vector: Callable[[Any], "torch.Tensor"]
    fixed_size: bool


# The CLS token of the last layer; the projection that text is compared with; the pooling head.
_DINOV2 = _Kind(
    "Dinov2Model",
    "Dinov2Config",
    ("hidden_size", 768),
    lambda out: out.last_hidden_state[:, 0],
    False,
)
_CLIP = _Kind(
    "CLIPVisionModelWithProjection",
    "CLIPVisionConfig",
    ("projection_dim", 512),
    lambda out: out.image_embeds,
    True,
)
_SIGLIP = _Kind(
    "SiglipVisionModel",
    "SiglipVisionConfig",
    ("hidden_size", 768),
    lambda out: out.pooler_output,
    True,
)
# Side of the pictures of a fixed size, pixels, where a config.json does not say it.
_DEFAULT_SIZE = 224
# By config.json's model_type.
_KINDS = {
    "dinov2": _DINOV2,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}


def descriptor_name(name: str) -> str:
    """The name by which an index knows a descriptor: for a local folder, its absolute path."""
    return str(Path(name).resolve()) if name not in DESCRIPTORS and Path(name).is_dir() else name


class ImageDescriptor:
    """Photos in, one vector each.

    name: from `descriptor_name`. revision: the hub's commit, or "sha256:..." over the files of a
    local folder. dim: d, the length of a vector. batch_size: photos per batch, or fewer where
    a GPU's memory does not suffice; smaller batches are filled up, so that a vector does not depend
    on how many other photos share its batch. The weights are read when they are first used;
    `describe` raises ModelError where they are broken, or the device cannot be used.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        checkpoint: "_Checkpoint",
        device: str,
        batch_size: int,
        precision: Precision | None = None,
    ) -> None:
        """precision: as for `load_model`."""
        self.name = name
        self.revision = revision
        self.dim = checkpoint.dim
        self.batch_size = batch_size
        self._batches = Batches(batch_size)
        self._checkpoint = checkpoint
        self._device = device
        self._precision = precision

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        batch_size: int = 8,
        revision: str | None = None,
        precision: Precision | None = None,
    ) -> "ImageDescriptor":
        """By a name in `DESCRIPTORS`, a local folder in transformers' layout, or a hub id.

        revision: a hub commit. precision: as for `load_model`. A hub model that is not on this
        machine yet is downloaded. Raises ModelError where the files cannot be had, or are not
        DINOv2, CLIP or SigLIP.
        """
        folder, commit = locate("descriptor", name, DESCRIPTORS, _LAYOUT, revision)
        files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
        found = commit or files_digest(folder, files)
        name = descriptor_name(name)
        checkpoint = _Checkpoint.read(name, folder)
        return cls(name, found, checkpoint, device, batch_size, precision)

    @classmethod
    def from_fingerprint(
        cls, fingerprint: dict[str, Any], device: str = "auto", batch_size: int = 1
    ) -> "ImageDescriptor":
        """The descriptor that made the vectors of an index.

        Raises ModelError where its model cannot be found any more, or has changed.
        """
        name, revision = str(fingerprint["model"]), str(fingerprint["revision"])
        pinned = None if revision.startswith("sha256:") else revision
        descriptor = cls.load(name, device, batch_size, pinned, precision_of(fingerprint))
        if descriptor.fingerprint() != fingerprint:
            raise ModelError(
                f"the index was made with another version of the descriptor {name}; "
                "index the photos again into a new folder"
            )
        return descriptor

    @cached_property
    def precision(self) -> Precision:
        """That of the model's weights."""
        return self._precision or usual_precision(self._device)

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that decides the numbers; vectors of equal fingerprints can be compared."""
        return {
            "model": self.name,
            "revision": self.revision,
            "preprocessing": PREPROCESSING,
            **in_fingerprint(self.precision),
        }

    def get_ready(self) -> None:
        """Read the model's weights now. Raises ModelError."""
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        import torch

        device = find_device(self._device)
        rounded = self._checkpoint.model().to(getattr(torch, self.precision))
        return rounded.to(device, computing_type(device, self.precision))

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """The pixels that the model sees of a photo, (height, width, 3) uint8; safe for threads.

        A photo that was decoded too small is decoded again. Raises what `load_photo` raises.
        """
        least = self._checkpoint.processor.least
        if min(photo.image.size) < least and photo.image.size != (photo.width, photo.height):
            photo = load_photo(photo.path, at_least=least)
        return self._checkpoint.processor.pixels(photo.image)

    def describe(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Vectors of length 1 of n photos' `prepare`d pixels, (n, d) float32, in their order.

        A vector is NaN where the model's numbers overflow.
        """
        _ = self._model  # first, since a model that does not fit needs no smaller batch
        found = self._batches.map(self._vectors, inputs)
        return np.concatenate([np.empty((0, self.dim), np.float32), *found])

    def _vectors(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """`describe` of at most one batch."""
        import torch

        filled = np.stack([*inputs, *[inputs[0]] * (self._batches.size - len(inputs))])
        pixels = upload(self._checkpoint.processor.normalise(filled), self._model.device)
        with torch.inference_mode():
            output = self._model(pixels.to(self._model.dtype))
            found = self._checkpoint.kind.vector(output)[: len(inputs)].float().cpu().numpy()
        vectors: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return vectors


@dataclass(frozen=True)
class _Checkpoint:
    """A descriptor in a folder, as its configuration says.

    dim: the length of a vector.
    """

    name: str
    folder: Path
    kind: _Kind
    dim: int
    processor: ImageProcessor

    @classmethod
    def read(cls, name: str, folder: Path) -> "_Checkpoint":
        """Without its weights, and without torch. Raises ModelError."""
        with explained_errors(f"descriptor {name}", folder, _NEEDED):
            config, kind = read_config(folder, _KINDS)
            own = config.get("vision_config", config)
            # A whole CLIP names the length of its vectors once, for both its halves.
            given = {**own, **config} if kind is _CLIP else own
            dim = int(given.get(*kind.dim))
            processor = ImageProcessor.load(folder / _PREPROCESSOR, square=kind is _SIGLIP)
            side = own.get("image_size", _DEFAULT_SIZE)
            if kind.fixed_size and processor.size != (side, side):
                raise ValueError(f"its {_PREPROCESSOR} is not for pictures of {side} pixels")
        return cls(name, folder, kind, dim, processor)

    def model(self) -> Any:
        """The model in float32 on the CPU. Raises ModelError where its weights are broken."""
        kind = self.kind
        with explained_errors(f"descriptor {self.name}", self.folder, _NEEDED):
            with quiet_libraries():
                config = library_class(kind.config).from_pretrained(
                    self.folder, local_files_only=True
                )
            if kind is _CLIP:
                config.projection_dim = self.dim
            model = load_pretrained(library_class(kind.model), self.folder, config=config)
            if getattr(config, kind.dim[0]) != self.dim:
                raise ValueError(f"its vectors are not of length {self.dim}")
        model.requires_grad_(False).eval()
        return model
