"""Which kernel is chosen, and what `waldo info --machine` is told of it."""

import pytest
import torch

from features.errors import WaldoError
from indexer.codec.kernels import (
    KERNELS,
    LARGEST_LOSS,
    Fbgemm,
    Float32,
    Int8,
    choose_kernel,
    fastest,
    measure_kernels,
    prepare_kernel,
    shape_class,
)
from indexer.codec.machine import describe_machine


def test_a_later_kernel_must_be_clearly_faster() -> None:
    assert fastest({"a": 1.0, "b": 0.9, "c": 0.86}) == "a"
    assert fastest({"a": 1.0, "b": 0.8, "c": 0.7}) == "b"
    assert fastest({"a": 1.0, "b": 0.8, "c": 0.6}) == "c"


def test_every_kernel_that_takes_the_levels_is_measured_once() -> None:
    found = measure_kernels(torch.int8, 16, 32)
    assert list(found) == [name for name, kernel in KERNELS.items() if kernel.is_offered()]
    assert all(seconds > 0 for seconds in found.values())
    assert measure_kernels(torch.int8, 16, 32) is found
    offered = [n for n in ("float32", "bfloat16") if KERNELS[n].is_offered()]
    assert list(measure_kernels(torch.int16, 16, 32)) == offered


def test_measuring_leaves_the_threads_as_they_are() -> None:
    threads = torch.get_num_threads()
    measure_kernels(torch.int8, 64, 16)
    assert torch.get_num_threads() == threads


def test_similar_shapes_share_a_measurement() -> None:
    assert shape_class(100, 96) == shape_class(128, 65) == (128, 128)
    assert shape_class(1, 5000) == (16, 1024)


def test_a_forced_kernel_is_used_where_it_takes_the_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "bfloat16")
    assert choose_kernel(torch.int8, 10, 10) == "bfloat16"
    assert choose_kernel(torch.int16, 10, 10) == "bfloat16"
    assert choose_kernel(torch.float32, 10, 10) == "float32"


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "float128")
    with pytest.raises(
        WaldoError, match="WALDO_KERNEL=float128: float128 is no kernel; one of flo"
    ):
        choose_kernel(torch.int8, 10, 10)


def test_a_kernel_that_torch_lacks_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_int_mm")
    assert not Int8.is_offered()
    monkeypatch.setenv("WALDO_KERNEL", "int8")
    with pytest.raises(WaldoError, match="int8 is not available here; one of float32"):
        choose_kernel(torch.int8, 10, 10)
    monkeypatch.delattr(torch, "_make_per_channel_quantized_tensor")
    assert not Fbgemm.is_offered()


def test_vectors_that_are_too_coarse_in_8_bits_are_compared_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "int8")
    even = torch.nn.functional.normalize(torch.randn(5, 96, generator=torch.Generator()), dim=1)
    prepared = prepare_kernel(even, torch.int8)
    assert isinstance(prepared, Int8)
    assert prepared.loss <= LARGEST_LOSS
    coarse = torch.full((1, 96), 0.0039)
    coarse[0, 0] = 1
    assert isinstance(prepare_kernel(coarse, torch.int8), Float32)


def test_the_machine_and_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "float32")
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.threads == torch.get_num_threads()
    assert "float32" in machine.kernels
    assert {choice.kernel for choice in machine.choices} == {"float32"}
    for choice in machine.choices:
        assert "float32" in choice.milliseconds
