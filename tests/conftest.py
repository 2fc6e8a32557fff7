"""Shared fixtures: small pipelines on disk, and the bundled model, each loaded once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from features.extractor import FeatureExtractor
from tests.helpers.command_line import CommandLine
from tests.helpers.descriptor_models import save_descriptor
from tests.helpers.pipelines import save_pipeline


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
def descriptor_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random-weights descriptor of a kind, written when first asked for."""
    written: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in written:
            written[kind] = save_descriptor(kind, tmp_path_factory.mktemp(kind))
        return written[kind]

    return folder


@pytest.fixture(scope="session")
def tiny() -> FeatureExtractor:
    """The bundled model, four photos at a time."""
    return FeatureExtractor.load("tiny", device="cpu", batch_size=4)


@pytest.fixture
def waldo(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandLine:
    """The command line, with a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return CommandLine(capsys, monkeypatch)
