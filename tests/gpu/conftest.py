"""The product on a GPU: it answers as on a CPU, seldom waits, and survives full memory.

Where there is no GPU, it is a simulated one; waits and memory are only counted there. The model
computes in float32 on both, so that only the arithmetic of the two paths differs, unless a test
says otherwise.
"""

import gc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from features.extractor import FeatureExtractor
from tests.helpers.models.simulated_cuda import SimulatedCuda, simulated_cuda
from tests.helpers.models.twins import Twins, index

SIZE = 96  # side of the model's input, pixels: small maps are quick

Folder = Callable[[str], Path]


@pytest.fixture(scope="package")
def machine() -> Iterator[SimulatedCuda | None]:
    """One simulated GPU for all these tests, so that models are loaded once.

    None where there is a real one, which is used instead.
    """
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(allow_tf32=False):  # float32 is to be float32
            yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with simulated_cuda() as gpu:
        yield gpu
    torch.set_num_threads(threads)


@pytest.fixture
def cuda(machine: SimulatedCuda | None) -> None:
    """A GPU, real or simulated, with nothing of earlier tests on it but models."""
    gc.collect()


@pytest.fixture
def gpu(machine: SimulatedCuda | None, cuda: None) -> Iterator[SimulatedCuda]:
    """A simulated GPU, which counts waits and memory."""
    if machine is None:
        pytest.skip("this is counted on the simulated GPU")
    machine.waits.clear()
    total = machine.total
    yield machine
    machine.total = total


@pytest.fixture(scope="package")
def twins(machine: SimulatedCuda | None, pipeline_folder: Folder) -> Callable[[str], Twins]:
    """By the name of the bundled model, or of a family of pipelines."""

    @cache
    def make(name: str) -> Twins:
        where = name if name == "tiny" else str(pipeline_folder(name))
        both = (FeatureExtractor.load(where, on, 2, "float32") for on in ("cpu", "cuda"))
        found = Twins(*both)
        return found.with_settings(image_size=SIZE) if name == "tiny" else found

    return make


@pytest.fixture(scope="package")
def tiny_twins(twins: Callable[[str], Twins]) -> Twins:
    return twins("tiny")


@pytest.fixture(scope="package")
def indexes(tiny_twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An index by the bundled model on the CPU, of each quality."""

    @cache
    def make(quality: str) -> Path:
        return index(tiny_twins.cpu, tmp_path_factory.mktemp(quality) / "index", quality)

    return make
