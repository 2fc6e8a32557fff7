"""Photos in, feature maps out: a vision transformer, and the size that photos are seen at."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.batch_extraction import BatchExtraction
from features.device import Precision, in_fingerprint, precision_of
from features.diffusion.noun_vectors import noun_vectors
from features.errors import ModelError
from features.maps import FeatureMaps
from features.photo import ModelInput
from features.regions import CLASS_THRESHOLD, class_cells
from features.vision.vision_model import VisionModel
from features.vision.vision_presets import VISION_PRESETS

if TYPE_CHECKING:
    import torch

# To be increased when the same file and model give other features than before.
PREPROCESSING = 1
# What a fingerprint calls these features, which tells them from a diffusion model's.
FEATURES = "patch tokens"


class VisionExtractor(BatchExtraction):
    """Extracts feature maps from photos with a vision transformer (`VisionModel.features`).

    The model's weights are read when they are first used; the methods that use them raise
    ModelError where they are broken. image_size: side of the model's square input, pixels. grid,
    dim: maps are (grid, grid, dim).
    """

    def __init__(self, model: VisionModel, image_size: int, batch_size: int | None = None) -> None:
        """batch_size: photos per evaluation of the model; None for what suits the device. Raises
        ModelError for an image size that the model cannot take.
        """
        super().__init__(batch_size)
        model.architecture.check_input(image_size)
        self.model = model
        self.image_size = image_size
        self.grid = image_size // model.architecture.patch
        self.dim = model.architecture.dim

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> "VisionExtractor":
        """A model by preset name, local folder or hub id, at its own image size.

        batch_size, precision (of the weights): None for what suits the device. Raises ModelError
        where the model cannot be found, downloaded or used.
        """
        model = VisionModel.find(name, device, precision)
        preset = VISION_PRESETS.get(name)
        size = model.architecture.image_size if preset is None else preset.settings.image_size
        return cls(model, size, batch_size)

    @classmethod
    def from_fingerprint(
        cls,
        fingerprint: Mapping[str, str | int | float],
        device: str = "auto",
        batch_size: int | None = 1,
    ) -> "VisionExtractor":
        """The extractor that made the features of an index.

        batch_size: None for what suits the device. Raises ModelError where its model cannot be
        found any more, or has changed.
        """
        name, revision = str(fingerprint["model"]), str(fingerprint["revision"])
        pinned = None if revision.startswith("sha256:") else revision
        model = VisionModel.find(name, device, precision_of(fingerprint), pinned)
        extractor = cls(model, int(fingerprint["image_size"]), batch_size)
        if extractor.fingerprint() != fingerprint:
            raise ModelError(
                f"the index was made with another version of the model {name}; "
                "index the photos again into a new folder"
            )
        return extractor

    @property
    def device(self) -> "torch.device":
        return self.model.device

    def with_batch_size(self, batch_size: int) -> "VisionExtractor":
        """The same model in batches of another size."""
        return VisionExtractor(self.model, self.image_size, batch_size)

    def with_random_weights(self) -> "VisionExtractor":
        """The same architecture with new random weights, as a baseline."""
        model = self.model.with_random_weights()
        return VisionExtractor(model, self.image_size, self.given_batch_size)

    def with_cells(self, least: int) -> "VisionExtractor":
        """The same model with at least so many cells per side, if it takes pictures of any size."""
        architecture = self.model.architecture
        if not architecture.family.any_size:
            return self
        return self.changed(image_size=max(least, self.grid) * architecture.patch)

    def changed(self, **changes: int | str) -> "VisionExtractor":
        """The same model with another `image_size`; itself where that is its own.

        Raises ModelError for any other setting, and for a size that the model cannot take.
        """
        for key in changes:
            if key != "image_size":
                raise ModelError(
                    f"{self.model.name} is no diffusion model and has no {key}; its image_size can "
                    "be changed"
                )
        size = int(changes.get("image_size", self.image_size))
        if size == self.image_size:
            return self
        return VisionExtractor(self.model, size, self.given_batch_size)

    @property
    def blocks(self) -> tuple[str, ...]:
        """None: its maps are always of the last layer."""
        return ()

    @property
    def knows_words(self) -> bool:
        """Whether it knows class names."""
        return self.model.architecture.has_text

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that decides the numbers; maps of equal fingerprints can be compared.

        Raises ModelError where the usual precision of a device is asked for that cannot be used.
        """
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "preprocessing": PREPROCESSING,
            "features": FEATURES,
            "image_size": self.image_size,
            **({"padding": "left out"} if self.takes_any_shape else {}),
            **in_fingerprint(self.model.precision),
        }

    def get_ready(self) -> None:
        """Read the model's weights now. Raises ModelError."""
        self.model.load()

    def check_class_name(self, name: str) -> None:
        """Every name is taken: SigLIP's tokenizer knows all words, the other models none."""

    def class_vector(self, name: str) -> NDArray[np.float32] | None:
        """C of a class name, (d,) float32 of length 1; None for a model that knows no words."""
        return self.model.class_vectors([name])[0] if self.knows_words else None

    def class_cells(
        self, maps: FeatureMaps, name: str, tau: float | None = None
    ) -> NDArray[np.bool_]:
        """The cells that show an object of a class, (grid, grid) bool (PDM Eq. 3).

        tau: the threshold of Eq. 3; None for the usual one. Raises RegionError where the name
        selects nothing. Only for a model that knows words.
        """
        vector = self.class_vector(name)
        assert vector is not None  # the caller has looked at `knows_words`
        return class_cells(maps, vector, CLASS_THRESHOLD if tau is None else tau)

    def evidence_vector(self, name: str) -> NDArray[np.float32] | None:
        """None: these models were taught no word for the background."""
        return None

    def background_vector(self) -> NDArray[np.float32] | None:
        """None, as for `evidence_vector`."""
        return None

    @property
    def rival_vectors(self) -> NDArray[np.float32]:
        """Class vectors of competing names, (m, d) float32: those of `nouns()`; none for a model
        that knows no words.
        """
        return self._noun_vectors

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        """The vectors that semantic maps may be multiplied with, (v, d) float32."""
        return self._noun_vectors

    @cached_property
    def _noun_vectors(self) -> NDArray[np.float32]:
        if not self.knows_words:
            return np.empty((0, self.dim), dtype=np.float32)
        return noun_vectors(self.fingerprint(), self.device.type, self.model.class_vectors)

    @property
    def takes_any_shape(self) -> bool:
        """Whether the model sees photos without padding: SigLIP has positions for a square only."""
        return self.model.architecture.family.any_size

    def features(self, photos: Sequence[ModelInput]) -> tuple["torch.Tensor", "torch.Tensor"]:
        return self.model.features(np.stack([photo.pixels for photo in photos]))
