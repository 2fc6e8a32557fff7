"""Photos in, feature maps out: a diffusion model with the settings that features are taken by."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.batch_extraction import BatchExtraction
from features.device import Precision, in_fingerprint, precision_of
from features.diffusion.inversion import invert
from features.diffusion.loading import load_model
from features.diffusion.model import Conditioning, DiffusionModel
from features.diffusion.noun_vectors import noun_vectors
from features.diffusion.presets import PRESETS, FeatureSettings
from features.errors import ModelError
from features.maps import FeatureMaps
from features.photo import ModelInput
from features.regions import CLASS_THRESHOLD, class_cells, named_cells

if TYPE_CHECKING:
    import torch

# To be increased when the same file and model give other model inputs than before.
PREPROCESSING = 1
# The inversions that a setting belongs to.
_INVERSIONS_WITH = {"steps": ("ddim", "fixed-point"), "iterations": ("fixed-point",)}


class FeatureExtractor(BatchExtraction):
    """Extracts feature maps from photos with one model and one set of settings.

    The model's weights are read when they are first used, for features and class vectors. Where
    they are broken, the methods that use them raise ModelError.
    image_size: side of the model's square input, pixels. grid, dim: maps are (grid, grid, dim).
    """

    def __init__(
        self, model: DiffusionModel, settings: FeatureSettings, batch_size: int | None = None
    ) -> None:
        """batch_size: photos per evaluation of the denoiser; None for what suits the device."""
        super().__init__(batch_size)
        self.model = model
        self.settings = settings
        self.image_size = settings.image_size
        self.grid, self.dim = model.architecture.map_shape(settings)

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> "FeatureExtractor":
        """A model by preset name, local folder or hub id, with its own settings.

        batch_size: None for what suits the device. precision: as for `load_model`. Raises
        ModelError where it cannot be found, downloaded or used.
        """
        model = load_model(name, device, precision=precision)
        preset = PRESETS.get(name)
        settings = preset.settings if preset else model.architecture.inspected_settings()
        return cls(model, settings, batch_size)

    @classmethod
    def from_fingerprint(
        cls,
        fingerprint: Mapping[str, str | int | float],
        device: str = "auto",
        batch_size: int | None = 1,
    ) -> "FeatureExtractor":
        """The extractor that made the features of an index.

        batch_size: None for what suits the device. Raises ModelError where its model cannot be
        found any more, or has changed.
        """
        name, revision = str(fingerprint["model"]), str(fingerprint["revision"])
        pinned = None if revision.startswith("sha256:") else revision
        model = load_model(name, device, pinned, precision_of(fingerprint))
        extractor = cls(model, FeatureSettings.from_dict(dict(fingerprint)), batch_size)
        if extractor.fingerprint() != fingerprint:
            raise ModelError(
                f"the index was made with another version of the model {name}; "
                "index the photos again into a new folder"
            )
        return extractor

    @property
    def device(self) -> "torch.device":
        return self.model.device

    def with_batch_size(self, batch_size: int) -> "FeatureExtractor":
        """The same model and settings in batches of another size."""
        return FeatureExtractor(self.model, self.settings, batch_size)

    def with_random_weights(self) -> "FeatureExtractor":
        """The same architecture and settings with new random weights, as a baseline."""
        model = self.model.with_random_weights()
        return FeatureExtractor(model, self.settings, self.given_batch_size)

    def with_cells(self, least: int) -> "FeatureExtractor":
        """The same model with an input that is large enough for so many cells per side."""
        return self.changed(image_size=max(least * (self.image_size // self.grid), self.image_size))

    def changed(self, **changes: int | str) -> "FeatureExtractor":
        """The same model with some fields of its `FeatureSettings` changed; itself where none is.

        Raises ModelError where the model cannot extract features so, and where a change has no
        effect.
        """
        settings = replace(self.settings, **dict[str, Any](changes))
        for key, inversions in _INVERSIONS_WITH.items():
            if key in changes and settings.inversion not in inversions:
                raise ModelError(
                    f"{key} belong to the inversion {' or '.join(inversions)}, not to "
                    f"{settings.inversion}"
                )
        if settings == self.settings:
            return self
        return FeatureExtractor(self.model, settings, self.given_batch_size)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that its settings may name, in the order they run."""
        return tuple(self.model.architecture.dims)

    @property
    def knows_words(self) -> bool:
        """Whether it knows class names."""
        return True

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that decides the numbers; maps of equal fingerprints can be compared.

        Raises ModelError where the usual precision of a device is asked for that cannot be used.
        """
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "preprocessing": PREPROCESSING,
            **self.settings.as_dict(),
            **self.model.rules,
            **in_fingerprint(self.model.precision),
        }

    def get_ready(self) -> None:
        """Read the model's weights and the prompt now. Raises ModelError."""
        _ = self._conditioning

    def check_class_name(self, name: str) -> None:
        """Raise RegionError where the files of the model's tokenizer already tell that it knows no
        word of a class name.
        """
        self.model.check_class_name(name)

    def class_vector(self, name: str) -> NDArray[np.float32]:
        """C of PDM Eq. 3 for a class name, (d,) float32.

        Raises RegionError where the model knows no word of the name.
        """
        settings = self.settings
        vector = self.model.class_vector(name, settings.block, settings.timestep)
        found: NDArray[np.float32] = vector.cpu().numpy()
        return found

    def class_cells(
        self, maps: FeatureMaps, name: str, tau: float | None = None
    ) -> NDArray[np.bool_]:
        """The object that a class name selects in a photo, (grid, grid) bool.

        By PDM Eq. 3; or, for a model that was taught a word for the background, the object under
        the peak of F_S . (C - C_background). tau: selects by Eq. 3 with this threshold, whatever
        the model. Raises RegionError where the name selects nothing.
        """
        evidence_vector = self.evidence_vector(name)
        if tau is None and evidence_vector is not None:
            return named_cells(maps, evidence_vector)
        return class_cells(maps, self.class_vector(name), CLASS_THRESHOLD if tau is None else tau)

    def evidence_vector(self, name: str) -> NDArray[np.float32] | None:
        """C - C_background, (d,) float32; None where the model was taught no background.

        Raises RegionError where the model knows no word of the name.
        """
        background = self.background_vector()
        return None if background is None else self.class_vector(name) - background

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        """The vectors that semantic maps may be multiplied with, (v, d) float32.

        These are the class vectors of `nouns()`, without repetitions; then, for a model that was
        taught a word for the background, their differences from the background's vector.
        """
        vectors, background = self._noun_vectors, self.background_vector()
        self.model.put_text_encoders_away()
        return vectors if background is None else np.concatenate([vectors, vectors - background])

    @cached_property
    def rival_vectors(self) -> NDArray[np.float32]:
        """Class vectors of competing names, (m, d) float32: those of `nouns()`, and that of the
        background where the model was taught a word for it.
        """
        vectors, background = self._noun_vectors, self.background_vector()
        return vectors if background is None else np.concatenate([vectors, background[None]])

    @cached_property
    def _noun_vectors(self) -> NDArray[np.float32]:
        """The class vectors of the nouns that the model knows a word of, without repetitions."""

        def class_vectors(names: list[str]) -> NDArray[np.float32]:
            settings = self.settings
            return self.model.class_vectors(names, settings.block, settings.timestep)

        # A model reads all unknown words alike, so vectors can be equal.
        return np.unique(noun_vectors(self.fingerprint(), self.device.type, class_vectors), axis=0)

    def background_vector(self) -> NDArray[np.float32] | None:
        """The class vector of the word for the background; None where the model has none."""
        preset = PRESETS.get(self.model.name)
        if preset is None or preset.background is None:
            return None
        return self.class_vector(preset.background)

    @property
    def takes_any_shape(self) -> bool:
        """Whether the model sees photos without padding: transformers do, UNets see a square."""
        return self.model.takes_any_shape

    def features(self, photos: Sequence[ModelInput]) -> tuple["torch.Tensor", "torch.Tensor"]:
        settings = self.settings
        latents = self.model.encode_photos(np.stack([photo.pixels for photo in photos]))
        hashes = [photo.content_hash for photo in photos]
        noisy = invert(self.model, latents, settings, self._conditioning, hashes)
        return self.model.features(noisy, settings.timestep, self._conditioning, settings.block)

    @cached_property
    def _conditioning(self) -> Conditioning:
        conditioning = self.model.condition(self.settings.prompt)
        self.model.put_text_encoders_away()
        return conditioning
