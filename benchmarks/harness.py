"""What the benchmark scripts share: options, timing, memory, and how numbers are printed."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a script's options. doc: its docstring, whose first line describes it."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options `--model` and `--device`, as the commands of Waldo have them."""
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")


def seconds_of(
    work: Callable[..., object], *arguments: object, device: "torch.device | None" = None
) -> float:
    """Wall-clock seconds of a call. device: a GPU whose work must be finished, too."""
    begin = time.perf_counter()
    work(*arguments)
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - begin


def median_seconds(
    work: Callable[[], object], repetitions: int = 5, device: "torch.device | None" = None
) -> float:
    """The median wall-clock seconds of a call, after one call that is not measured."""
    seconds = [seconds_of(work, device=device) for _ in range(repetitions + 1)]
    return statistics.median(seconds[1:])


def peak_memory() -> float:
    """The most memory that this process has used so far, MiB. Needs Linux."""
    return memory_of_process("VmHWM")


def memory_of_process(name: str) -> float:
    """An amount of memory in the status of this process, as proc(5) names it, MiB. Needs Linux."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{name}:"))


def percent(values: Sequence[float]) -> str:
    """The mean of fractions and its 95 % bootstrap interval, in percent."""
    from search.evaluation.metrics.ranking import bootstrap_interval

    low, high = bootstrap_interval(values)
    return f"{100 * np.mean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"
