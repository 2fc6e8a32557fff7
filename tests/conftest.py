"""Shared fixtures: what is costly is made once for a whole run, also where workers share the run.

`make test-fast` (--fast) leaves out every test that loads a model or starts another process.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from features.extractor import FeatureExtractor
    from tests.helpers.command_line import CommandLine

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread per worker: together they fill the cores. Read when torch is first imported, and
    # inherited by the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# The many processes that tests start find Waldo compiled, as an installed package is.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The background jobs of a shell, and the processes that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

DEMO = Path(__file__).parent.parent / "data" / "demo"

# What --fast has no time for, beside all that is made once.
SLOW = ("subprocess.Popen", "features.diffusion.loading.read_parts")

# Side of the bundled model's input where small maps do, pixels.
SMALL = 96

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="skip what needs a model or a process")


@pytest.fixture(scope="session", autouse=True)
def only_fast_tests(pytestconfig: pytest.Config) -> Iterator[bool]:
    """Under --fast a test is skipped when it comes to load a model, or to start a process."""
    fast = bool(pytestconfig.getoption("--fast"))
    with pytest.MonkeyPatch.context() as patch:
        for slow in SLOW if fast else ():
            patch.setattr(slow, skip_as_slow)
        yield fast


def skip_as_slow(*_: object, **__: object) -> NoReturn:
    pytest.skip("not a fast test")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of this process in place of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, only_fast_tests: bool) -> MadeOnce:
    """Gives the folder of a name, which `make` fills when it is first asked for.

    All workers of a run share it, so nobody may change what is in it: copy it for that.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        if only_fast_tests:
            skip_as_slow()
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

    def make(family: str, folder: Path) -> None:
        from tests.helpers.models.pipelines import save_pipeline

        save_pipeline(family, folder)

    return lambda family: made_once(family, partial(make, family))


@pytest.fixture(scope="session")
def descriptor_folder(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a random-weights descriptor of a kind."""

    def make(kind: str, folder: Path) -> None:
        from tests.helpers.models.descriptor_models import save_descriptor

        save_descriptor(kind, folder)

    return lambda kind: made_once(kind, partial(make, kind))


@pytest.fixture(scope="session")
def vision_folder(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a random-weights vision transformer of a kind."""

    def make(kind: str, folder: Path) -> None:
        from tests.helpers.models.vision_models import save_vision_model

        save_vision_model(kind, folder)

    return lambda kind: made_once(f"vision-{kind}", partial(make, kind))


@pytest.fixture(scope="session")
def tiny() -> "FeatureExtractor":
    """The bundled model, four photos at a time."""
    from features.extractor import FeatureExtractor

    return FeatureExtractor.load("tiny", device="cpu", batch_size=4)


@pytest.fixture(scope="session")
def small_tiny(tiny: "FeatureExtractor") -> "FeatureExtractor":
    """The same with maps of 12 x 12 cells in place of 28 x 28: a third of the work, or less."""
    return tiny.changed(image_size=SMALL)


@pytest.fixture(scope="module")
def small_maps(tiny: "FeatureExtractor") -> Iterator[None]:
    """The bundled model has the maps of `small_tiny` for all who load it by its name; but not
    `tiny`, which is loaded before, because it stays for the tests that follow.
    """
    from features.diffusion.presets import PRESETS

    usual = PRESETS["tiny"]
    grid = usual.grid * SMALL // usual.settings.image_size
    small = replace(usual, grid=grid, settings=replace(usual.settings, image_size=SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", small)
        yield


@pytest.fixture(scope="session")
def sample_index(small_tiny: "FeatureExtractor", made_once: MadeOnce) -> Path:
    """An index of the sample collection by the bundled model with small maps, to be read alone."""
    from indexer.ingest.build import index_photos

    def make(folder: Path) -> None:
        index_photos([DEMO / "photos"], folder, small_tiny, batch_size=small_tiny.batch_size)

    return made_once("sample-index", make)


@pytest.fixture(scope="session")
def demo_index(tiny: "FeatureExtractor", made_once: MadeOnce) -> Path:
    """The same with the maps that `make demo` makes, for what must be found in the photos."""
    from indexer.ingest.build import index_photos

    def make(folder: Path) -> None:
        index_photos([DEMO / "photos"], folder, tiny, batch_size=tiny.batch_size)

    return made_once("demo-index", make)


@pytest.fixture(scope="session")
def small_index(sample_index: Path, made_once: MadeOnce) -> Path:
    """The first 24 photos of the sample index, to be read alone."""
    from indexer.reader import IndexReader
    from indexer.upkeep.remove import remove

    def make(folder: Path) -> None:
        shutil.copytree(sample_index, folder, dirs_exist_ok=True)
        with IndexReader.open(folder) as reader:
            paths = sorted(Path(path) for path in reader.paths())
        remove(folder, paths[24:])

    return made_once("small-index", make)


@pytest.fixture(scope="session")
def linked_index(small_index: Path, made_once: MadeOnce) -> Path:
    """The same with the links between its photos, to be read alone."""
    from search.recurring.linking import link_photos

    def make(folder: Path) -> None:
        shutil.copytree(small_index, folder, dirs_exist_ok=True)
        assert link_photos(folder) > 0

    return made_once("linked-index", make)


@pytest.fixture
def waldo(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    cache_folder: Path,
) -> "CommandLine":
    """The command line, with a cache folder of its own but for the class vectors of nouns, which
    take most of a second.
    """
    from tests.helpers.command_line import CommandLine

    own = tmp_path_factory.mktemp("cache")
    for folder in (cache_folder, own):
        (folder / "waldo").mkdir(exist_ok=True)
    (cache_folder / "waldo" / "nouns").mkdir(exist_ok=True)
    (own / "waldo" / "nouns").symlink_to(cache_folder / "waldo" / "nouns")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    return CommandLine(capsys, monkeypatch)
