"""The simulated GPU refuses what a GPU refuses, counts what a host waits for, and has an end."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.helpers.models.simulated_cuda import SimulatedCuda, SimulatedTensor, simulated_cuda


@pytest.fixture
def gpu() -> Iterator[SimulatedCuda]:
    with simulated_cuda(total=2**20) as device:
        yield device


def test_numbers_are_those_of_the_cpu(gpu: SimulatedCuda) -> None:
    here = torch.arange(12.0).reshape(3, 4)
    there = here.to("cuda")
    assert isinstance(there, SimulatedTensor)
    assert there.device == torch.device("cuda:0")
    assert torch.equal((there @ there.T).softmax(dim=1).cpu(), (here @ here.T).softmax(dim=1))
    assert there.tolist() == here.tolist()


def test_what_a_gpu_refuses(gpu: SimulatedCuda) -> None:
    here, there = torch.ones(3, 3), torch.ones(3, 3, device="cuda")
    with pytest.raises(RuntimeError, match="on the same device"):
        _ = here + there
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        there.numpy()
    with pytest.raises(RuntimeError, match="not implemented"):
        _ = there.int() @ there.int()
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(3, device="cuda:1")
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())


def test_waits_are_counted_by_the_line_that_asks(gpu: SimulatedCuda) -> None:
    there = torch.tensor([1.0, 0.0], device="cuda")
    gpu.waits.clear()
    _ = there * 2 + 1
    _ = torch.ones(2).pin_memory().to("cuda", non_blocking=True)
    assert gpu.waits == {}
    _ = there.cpu(), float(there.sum()), there.nonzero(), there[there > 0], torch.ones(2).cuda()
    kinds = Counter(kind for kind, _ in gpu.waits.elements())
    assert kinds == {"download": 1, "item": 1, "nonzero": 2, "upload": 1}
    assert {where.rsplit(":", 1)[0] for _, where in gpu.waits} == {__file__}


def test_memory_ends_and_is_given_back(gpu: SimulatedCuda) -> None:
    half = torch.zeros(2**17, device="cuda")
    view = half[:10]
    assert gpu.used == 2**19
    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(2**17 + 1, device="cuda")
    del half
    assert gpu.used == 2**19
    del view
    assert (gpu.used, gpu.peak) == (0, 2**19)


def test_threads_see_the_device(gpu: SimulatedCuda) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert float(thread.submit(torch.ones, 3, device="cuda").result().sum()) == 3.0


def test_nothing_is_left_of_it() -> None:
    with simulated_cuda():
        left = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="is gone"):
        _ = left + 1
    assert torch.ones(2).add(1).sum() == 4
