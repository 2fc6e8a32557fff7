"""One model on the CPU and on a GPU, and what is made with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput, load_model_input
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.index import Index

DEMO = Path(__file__).parents[3] / "data" / "demo"
PHOTOS = sorted((DEMO / "photos").glob("*.jpg"))[:6]
CAT, CAT_BOX = DEMO / "query" / "cat.jpg", (172.0, 31.0, 333.0, 164.0)


@dataclass(frozen=True)
class Twins:
    """One model on both devices, with small maps."""

    cpu: FeatureExtractor
    gpu: FeatureExtractor

    def photos(self, count: int) -> list[ModelInput]:
        return [load_model_input(p, self.cpu.image_size, self.cpu.grid) for p in PHOTOS[:count]]

    def with_settings(self, **changes: object) -> "Twins":
        settings = replace(self.cpu.settings, **changes)
        return Twins(*(FeatureExtractor(one.model, settings, 2) for one in (self.cpu, self.gpu)))


def index(extractor: FeatureExtractor, folder: Path, quality: str = "standard") -> Path:
    index_photos(PHOTOS, folder, extractor, batch_size=4, quality=quality)
    return folder


def opened(folder: Path, extractor: FeatureExtractor, maps: str = "disk") -> Index:
    reader = IndexReader.open(folder)
    if maps == "gpu":
        reader.hold_maps(extractor.device)
    return Index(reader, extractor)


def assert_alike(found: list[FeatureMaps], expected: list[FeatureMaps], tolerance: float) -> None:
    """Maps are equal but for a share of their typical number."""
    for one, other in zip(found, expected, strict=True):
        for name in ("appearance", "semantic"):
            mine, theirs = (getattr(maps, name).astype(np.float32) for maps in (one, other))
            assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).mean()
