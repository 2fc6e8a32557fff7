"""The models that give feature maps, by a name, or as an index was made with them."""

from collections.abc import Mapping
from pathlib import Path

from features.device import Precision
from features.diffusion.presets import PRESETS
from features.extractor import FeatureExtractor
from features.vision.vision_extractor import FEATURES, VisionExtractor
from features.vision.vision_presets import VISION_PRESETS

# What gives feature maps of the models above; further classes may (`indexer.protocols.Extractor`).
MapExtractor = FeatureExtractor | VisionExtractor


def find_extractor(
    name: str,
    device: str = "auto",
    batch_size: int | None = None,
    precision: Precision | None = None,
) -> MapExtractor:
    """A model by preset name, local folder or hub id; its weights are read when first used.

    A folder in transformers' layout is a vision transformer, and so are the hub ids of
    `VISION_PRESETS`; everything else is a diffusion pipeline. batch_size, precision (of the
    weights): None for what suits the device. A hub model that is not on this machine yet is
    downloaded. Raises ModelError where it cannot be found, downloaded or used.
    """
    kind = VisionExtractor if _is_vision_transformer(name) else FeatureExtractor
    return kind.load(name, device, batch_size, precision)


def extractor_of(
    fingerprint: Mapping[str, str | int | float], device: str = "auto", batch_size: int | None = 1
) -> MapExtractor:
    """The extractor that made the features of an index.

    batch_size: None for what suits the device. Raises ModelError where its model cannot be found
    any more, or has changed.
    """
    is_vision_transformer = fingerprint.get("features") == FEATURES
    kind = VisionExtractor if is_vision_transformer else FeatureExtractor
    return kind.from_fingerprint(fingerprint, device, batch_size)


def _is_vision_transformer(name: str) -> bool:
    if name in PRESETS:
        return False
    if name in VISION_PRESETS or name in {preset.source for preset in VISION_PRESETS.values()}:
        return True
    folder = Path(name)
    # The parts of a diffusion pipeline have a config.json too.
    pipelines = (folder / "model_index.json", folder.absolute().parent / "model_index.json")
    return (folder / "config.json").is_file() and not any(path.is_file() for path in pipelines)
