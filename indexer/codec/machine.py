"""What decides how fast this machine compares tokens: its CPU, and the kernels chosen for it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from indexer.codec.kernels import choose_kernel, measure_kernels, offered_kernels, shape_class

# The instructions that make kernels fast, and the names that Linux gives them.
_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16",),
    "AMX": ("amx_tile",),
}

# Shapes that a kernel is chosen for: the type of the levels, how many vectors are wanted, and how
# many numbers each has. Objects of one and of eight photos with maps of SDXL, of one with maps of
# "tiny", and of one with quality "high" and "none".
_SHAPES = (
    ("int8", 128, 128),
    ("int8", 1024, 128),
    ("int8", 128, 64),
    ("int16", 128, 128),
    ("float32", 128, 1024),
)


@dataclass(frozen=True)
class Choice:
    """The kernel for one shape.

    levels: their type. vectors: how many are compared with each cell. numbers: in each of them.
    milliseconds: by kernel, for 1,000 cells, where it can compare such levels.
    """

    levels: str
    vectors: int
    numbers: int
    kernel: str
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Machine:
    """The machine that Waldo runs on.

    cpu: its name. features: whether the CPU has the instructions; empty where the system does not
    tell. capability: the instructions that torch uses. cores: of this process. threads: of torch.
    gpu: its name, or None. kernels: those that this torch has.
    """

    cpu: str
    features: dict[str, bool]
    capability: str
    cores: int
    threads: int
    gpu: str | None
    kernels: list[str]
    choices: list[Choice]


def describe_machine() -> Machine:
    """The machine, and kernels measured on it.

    Raises WaldoError if WALDO_KERNEL names a kernel that is unknown or not available.
    """
    import torch

    name, flags = _read_cpu()
    choices = []
    for levels, count, width in _SHAPES:
        dtype = getattr(torch, levels)
        kernel = choose_kernel(dtype, count, width)
        seconds = measure_kernels(dtype, *shape_class(count, width))
        milliseconds = {each: round(1000 * taken, 3) for each, taken in seconds.items()}
        choices.append(Choice(levels, count, width, kernel, milliseconds))
    features = {name: bool(flags & set(flagged)) for name, flagged in _FEATURES.items()}
    return Machine(
        name,
        features if flags else {},
        torch.backends.cpu.get_cpu_capability(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch.get_num_threads(),
        torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        [kernel.name for kernel in offered_kernels()],
        choices,
    )


def _read_cpu() -> tuple[str, set[str]]:
    """The CPU's name and the flags of its instructions, none where the system does not tell."""
    found = {"model name": platform.processor() or platform.machine(), "flags": ""}
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in reversed(information.read_text(encoding="utf-8").splitlines()):
            name, _, value = line.partition(":")
            if name.strip() in found:
                found[name.strip()] = value.strip()
    return found["model name"], set(found["flags"].split())
