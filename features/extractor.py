"""Photos in, feature maps out: a diffusion model with the settings that features are taken by."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.device import (
    Batches,
    Precision,
    download,
    how_many_fit,
    in_fingerprint,
    precision_of,
)
from features.diffusion.inversion import invert
from features.diffusion.loading import load_model
from features.diffusion.model import Conditioning, DiffusionModel
from features.diffusion.presets import PRESETS, FeatureSettings
from features.diffusion.vocabulary import nouns
from features.errors import ModelError
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput
from features.regions import CLASS_THRESHOLD, class_cells, named_cells

if TYPE_CHECKING:
    import torch

# Photos per batch where nobody says how many. On a GPU, small batches leave much of it idle.
_USUAL_BATCH = 8
_LARGEST_BATCH = 32
# To be increased when the same file and model give other model inputs than before.
PREPROCESSING = 1


class FeatureExtractor:
    """Extracts feature maps from photos with one model and one set of settings.

    The model's weights are read when they are first used, for features and class vectors. Where
    they are broken, the methods that use them raise ModelError.
    image_size: side of the model's square input, pixels. grid, dim: maps are (grid, grid, dim).
    """

    def __init__(
        self, model: DiffusionModel, settings: FeatureSettings, batch_size: int | None = None
    ) -> None:
        """batch_size: photos per UNet evaluation; None for what suits the device."""
        self.model = model
        self.settings = settings
        self._given_batch_size = batch_size
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

    @property
    def is_asynchronous(self) -> bool:
        """Whether `begin` returns before the maps are there."""
        return self.device.type == "cuda"

    @property
    def n_workers(self) -> int:
        """How many batches are extracted at the same time."""
        return 1

    @cached_property
    def batch_size(self) -> int:
        """Photos per UNet evaluation, or fewer where a GPU's memory does not suffice.

        Smaller batches are filled up, so that a photo's numbers do not depend on how many other
        photos share its batch. Where no number was given, an NVIDIA GPU takes as many as its free
        memory allows, which one photo shows; so this may read the model, and raise ModelError.
        """
        if self._given_batch_size is not None:
            return self._given_batch_size
        if self.device.type != "cuda":
            return _USUAL_BATCH
        one = FeatureExtractor(self.model, self.settings, 1)
        size = self.image_size
        grey = ModelInput(
            np.full((size, size, 3), 128, np.uint8), Frame(size, size, size, self.grid), "", None
        )
        return how_many_fit(self.device, lambda: one.extract([grey]), _LARGEST_BATCH)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self.batch_size)

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that decides the numbers; maps of equal fingerprints can be compared.

        Raises ModelError where the usual precision of a device is asked for that cannot be used.
        """
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "preprocessing": PREPROCESSING,
            **self.settings.as_dict(),
            **in_fingerprint(self.model.precision),
        }

    def get_ready(self) -> None:
        """Read the model's weights now. Raises ModelError."""
        self.model.load()

    def check_class_name(self, name: str) -> None:
        """Raise RegionError where the files of the model's tokenizer already tell that it knows no
        word of a class name.
        """
        self.model.check_class_name(name)

    def class_vector(self, name: str) -> NDArray[np.float32]:
        """C of PDM Eq. 3 for a class name, (d,) float32.

        Raises RegionError where the model knows no word of the name.
        """
        vector: NDArray[np.float32] = (
            self.model.class_vector(name, self.settings.block).cpu().numpy()
        )
        return vector

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
        # A model reads all unknown words alike, so vectors can be equal.
        return np.unique(self.model.class_vectors(nouns(), self.settings.block), axis=0)

    def background_vector(self) -> NDArray[np.float32] | None:
        """The class vector of the word for the background; None where the model has none."""
        preset = PRESETS.get(self.model.name)
        if preset is None or preset.background is None:
            return None
        return self.class_vector(preset.background)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        """Feature maps of photos that were prepared for `image_size` and `grid`, in their order.

        Numbers beyond the range of float16 become infinite. Where the memory of a GPU does not
        suffice, it warns with LittleMemoryWarning and goes on in smaller batches. Raises ModelError
        where it does not suffice for one photo.
        """
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        """Begin to extract photos; the function that is returned waits for what `extract` returns.

        A GPU is given all the work that it has to do for them. It raises likewise.
        """
        if inputs:
            _ = self._conditioning  # first, since a model that does not fit needs no smaller batch
        begun = self._batches.map(self._begin_batch, inputs)
        return lambda: list(itertools.chain.from_iterable(maps() for maps in begun))

    @cached_property
    def _conditioning(self) -> Conditioning:
        return self.model.condition(self.settings.prompt)

    def _begin_batch(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        import torch

        size = self._batches.size
        filled = [*inputs, *[inputs[0]] * (size - len(inputs))]
        latents = self.model.encode_photos(np.stack([photo.pixels for photo in filled]))
        settings = self.settings
        hashes = [photo.content_hash for photo in filled]
        noisy = invert(self.model, latents, settings, self._conditioning, hashes)
        features = self.model.features(noisy, settings.timestep, self._conditioning, settings.block)
        # The photos that only filled up the batch are dropped.
        both = download(torch.stack([values[: len(inputs)].half() for values in features]))

        def maps() -> list[FeatureMaps]:
            appearance, semantic = both().reshape(2, -1, self.grid, self.grid, self.dim)
            return [
                FeatureMaps(appearance[i], semantic[i], photo.frame, photo.content_hash)
                for i, photo in enumerate(inputs)
            ]

        return maps
