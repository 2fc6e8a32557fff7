"""What tests of evaluations share: the bundled model with small maps and few nouns."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from features.diffusion.presets import PRESETS
from features.extractor import FeatureExtractor
from features.vocabulary import nouns

# The number of nouns whose class vectors a codec and the class evidence of a score take.
N_NOUNS = 50

SETTINGS = replace(PRESETS["tiny"].settings, image_size=96)


@pytest.fixture(scope="package", autouse=True)
def small_model() -> Iterator[None]:
    """The bundled model has maps of 12 x 12 cells, also at the command line."""
    every = nouns()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], settings=SETTINGS))
        patched.setattr("features.extractor.nouns", lambda: every[:: len(every) // N_NOUNS])
        yield


@pytest.fixture(scope="package")
def tiny(tiny: FeatureExtractor) -> FeatureExtractor:
    """The bundled model, four photos at a time."""
    return FeatureExtractor(tiny.model, SETTINGS, tiny.batch_size)


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos each call of the model took, from now on."""
    found: list[int] = []
    extract = FeatureExtractor.extract

    def watched(self: FeatureExtractor, inputs: list) -> list:
        found.append(len(inputs))
        return extract(self, inputs)

    monkeypatch.setattr(FeatureExtractor, "extract", watched)
    return found
