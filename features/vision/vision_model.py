"""A pre-trained vision transformer of the transformers library, and the tokens of its patches."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import Precision, computing_type, find_device, upload, usual_precision
from features.errors import ModelError
from features.pretrained.checkpoints import (
    Layout,
    explained_errors,
    files_digest,
    load_pretrained,
    locate,
    quiet_libraries,
)
from features.pretrained.library_parts import library_class, tokenizer_class
from features.vision.image_processor import read_normalisation
from features.vision.vision_presets import VISION_PRESETS, VisionArchitecture

if TYPE_CHECKING:
    import torch

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_WORDS = ("tokenizer*.json", "special_tokens_map.json", "*.model")
_FILES = (_CONFIG, _PREPROCESSOR, "model*.safetensors", "model.safetensors.index.json", *_WORDS)
_LAYOUT = Layout("transformers", _CONFIG, _FILES, ("model*.safetensors",))
_NEEDED = "DINOv2, DINOv3 or SigLIP in transformers' layout with safetensors weights"
# The text that SigLIP was published with, in lower case, by which SigLIP 2 was trained.
_PROMPT = "this is a photo of {}."
_TEXT_TOKENS = 64
# Names per batch of the text encoder.
_NAMES_AT_ONCE = 64


class VisionModel:
    """A vision transformer, and SigLIP's text encoder where it comes with one.

    name: the preset's name, hub id or folder by which it was found. revision: the hub's commit, or
    "sha256:..." over the files of a local folder. architecture: what its configuration says. These
    are known at once. The device is looked for, and the weights are read, when they are first used;
    whatever uses them raises ModelError where they cannot be.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        folder: Path,
        device: str,
        precision: Precision | None = None,
        seed: int | None = None,
    ) -> None:
        """folder: in transformers' layout. device: "auto" (a GPU where there is one), or any torch
        device. precision: of the weights; None for what is usual on the device. seed: of new random
        weights; None for those of the folder. Raises ModelError where the folder's configuration
        cannot be used.
        """
        self.name = name
        self.revision = revision
        self._folder = folder
        self._device_name = device
        self._precision = precision
        self._seed = seed
        with explained_errors(f"model {name}", folder, _NEEDED):
            self.architecture = VisionArchitecture.read(folder)
        self._mean, self._std = read_normalisation(folder / _PREPROCESSOR)

    @classmethod
    def find(
        cls, name: str, device: str, precision: Precision | None, revision: str | None = None
    ) -> "VisionModel":
        """A model by preset name, local folder or hub id.

        revision: a hub commit. A hub model that is not on this machine yet is downloaded. Raises
        ModelError where it cannot be found, downloaded or used.
        """
        known = {preset.name: preset.source for preset in VISION_PRESETS.values()}
        folder, commit = locate("model", name, known, _LAYOUT, revision)
        if name not in VISION_PRESETS and commit is None:
            name = str(folder)
        files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
        return cls(name, commit or files_digest(folder, files), folder, device, precision)

    def with_random_weights(self, seed: int = 0) -> "VisionModel":
        """The architecture of this model with newly initialised weights, as a baseline.

        The same seed gives the same weights. Its revision is "random:SEED".
        """
        return VisionModel(
            *(self.name, f"random:{seed}", self._folder, self._device_name, self._precision, seed)
        )

    @cached_property
    def device(self) -> "torch.device":
        return find_device(self._device_name)

    @cached_property
    def precision(self) -> Precision:
        """That of the weights."""
        return self._precision or usual_precision(self._device_name)

    def load(self) -> None:
        """Read the weights of the vision transformer now. Raises ModelError."""
        _ = self._transformer

    def features(self, pixels: NDArray[np.uint8]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S of (n, height, width, 3) sRGB pixels, each (n, cells, d) float32 on `device`.

        F_A of a cell is the token of its patch after the last layer, scaled to length 1, so that
        inner products are cosines. Class tokens and registers are left out. F_S is zero where
        the model knows no words. With a text encoder, F_S of a cell is what the model's pooling
        makes of that one token, scaled to length 1.
        """
        import torch

        with torch.inference_mode():
            mean, std = (upload(values, self.device) for values in (self._mean, self._std))
            photos = (upload(pixels, self.device) / 255.0 - mean) / std
            dtype = next(self._transformer.parameters()).dtype
            output = self._transformer(photos.permute(0, 3, 1, 2).to(dtype))
            tokens = output.last_hidden_state[:, self.architecture.first :]
            appearance = torch.nn.functional.normalize(tokens.float(), dim=2)
            if not self.architecture.has_text:
                return appearance, torch.zeros_like(appearance)
            # Releases of transformers before 5 have the transformer within another module.
            pool = getattr(self._transformer, "vision_model", self._transformer).head
            # The pooling over one token alone: what the model says of a photo of this patch.
            pooled = pool(tokens.reshape(-1, 1, tokens.shape[2])).reshape(tokens.shape)
            return appearance, torch.nn.functional.normalize(pooled.float(), dim=2)

    def class_vectors(self, names: Sequence[str]) -> NDArray[np.float32]:
        """C of class names, (n, d) float32 of length 1, in order; (0, d) where the model knows no
        words.
        """
        import torch

        found = [np.empty((0, self.architecture.dim), dtype=np.float32)]
        if not self.architecture.has_text:
            return found[0]
        tokenizer, encoder = self._text_encoder
        for start in range(0, len(names), _NAMES_AT_ONCE):
            texts = [_PROMPT.format(name.lower()) for name in names[start : start + _NAMES_AT_ONCE]]
            tokens = tokenizer(
                texts,
                padding="max_length",
                max_length=_TEXT_TOKENS,
                truncation=True,
                return_tensors="np",
            )
            ids = upload(np.asarray(tokens["input_ids"]), self.device)
            with torch.inference_mode():
                output = encoder(ids).pooler_output.float()
            found.append(torch.nn.functional.normalize(output, dim=1).cpu().numpy())
        return np.concatenate(found)

    @cached_property
    def _transformer(self) -> Any:
        family = self.architecture.family
        return self._read(family.model, family.config)

    @cached_property
    def _text_encoder(self) -> tuple[Any, Any]:
        """SigLIP's tokenizer and text encoder."""
        with explained_errors(f"model {self.name}", self._folder, _NEEDED), quiet_libraries():
            tokenizer = tokenizer_class(self._folder).from_pretrained(
                self._folder, local_files_only=True
            )
        encoder = self._read("SiglipTextModel", "SiglipTextConfig")
        length = getattr(encoder.config, "projection_size", encoder.config.hidden_size)
        if length != self.architecture.dim:
            raise ModelError(
                f"model {self.name}: its texts have {length} numbers, its patches "
                f"{self.architecture.dim}; Waldo needs {_NEEDED}"
            )
        return tokenizer, encoder

    def _read(self, model_class: str, config_class: str) -> Any:
        """A part of the model with its weights, on the device. Raises ModelError."""
        import torch

        with explained_errors(f"model {self.name}", self._folder, _NEEDED):
            with quiet_libraries():
                config = library_class(config_class).from_pretrained(
                    self._folder, local_files_only=True
                )
            kind = library_class(model_class)
            if self._seed is None:
                model = load_pretrained(kind, self._folder, config=config)
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self._seed)
                    model = kind(config)
        model.requires_grad_(False).eval()
        rounded = model.to(getattr(torch, self.precision))
        return rounded.to(self.device, computing_type(self.device, self.precision))
