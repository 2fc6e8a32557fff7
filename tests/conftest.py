"""Shared fixtures: small pipelines on disk, and the bundled model, each loaded once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from features.extractor import FeatureExtractor
from tests.cli import CommandLine
from tests.pipelines import save_pipeline


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random-weights pipeline of a family, written when first asked for."""
    written: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in written:
            written[family] = save_pipeline(family, tmp_path_factory.mktemp(family))
        return written[family]

    return folder


@pytest.fixture(scope="session")
def tiny() -> FeatureExtractor:
    """The bundled model, four photos at a time."""
    return FeatureExtractor.load("tiny", device="cpu", batch_size=4)


@pytest.fixture
def waldo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)
