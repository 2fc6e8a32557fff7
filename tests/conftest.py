"""Shared fixtures: what is costly is made once for a whole run, also where workers share the run.

Tests of a real model, and those marked so, are `slow`; `make test-fast` leaves them out.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from features.extractor import FeatureExtractor
    from tests.helpers.command_line import CommandLine

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread per worker: together they fill the cores. Read when torch is first imported, and
    # inherited by the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

DEMO = Path(__file__).parent.parent / "data" / "demo"

# Fixtures that load a model, or write one.
MODEL_FIXTURES = {"tiny", "sample_index", "pipeline_folder", "descriptor_folder"}

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if MODEL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Gives the folder of a name, which `make` fills when it is first asked for.

    All workers of a run share it, so nobody may change what is in it: copy it for that.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / f"once-{name}"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                unfinished = tmp_path_factory.mktemp(name)
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def pipeline_folder(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a random-weights pipeline of a family."""
    from tests.helpers.pipelines import save_pipeline

    return lambda family: made_once(family, lambda folder: save_pipeline(family, folder))


@pytest.fixture(scope="session")
def descriptor_folder(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a random-weights descriptor of a kind."""
    from tests.helpers.descriptor_models import save_descriptor

    return lambda kind: made_once(kind, lambda folder: save_descriptor(kind, folder))


@pytest.fixture(scope="session")
def tiny() -> "FeatureExtractor":
    """The bundled model, four photos at a time."""
    from features.extractor import FeatureExtractor

    return FeatureExtractor.load("tiny", device="cpu", batch_size=4)


@pytest.fixture(scope="session")
def sample_index(tiny: "FeatureExtractor", made_once: MadeOnce) -> Path:
    """An index of the sample collection by the bundled model, to be read alone."""
    from indexer.ingest.build import index_photos

    def make(folder: Path) -> None:
        index_photos([DEMO / "photos"], folder, tiny, batch_size=tiny.batch_size)

    return made_once("sample-index", make)


@pytest.fixture
def waldo(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> "CommandLine":
    """The command line, with a cache folder of its own."""
    from tests.helpers.command_line import CommandLine

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return CommandLine(capsys, monkeypatch)
