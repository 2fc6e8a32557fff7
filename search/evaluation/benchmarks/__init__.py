"""Protocols by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.permir import read_permir
from search.evaluation.benchmarks.revisited import read_revisited
from search.evaluation.benchmarks.scenes import read_scenes

PROTOCOLS: dict[str, Callable[[Path], Benchmark]] = {
    "folders": read_folders,
    "scenes": read_scenes,
    "permir": read_permir,
    "roxford5k": partial(read_revisited, name="roxford5k"),
    "rparis6k": partial(read_revisited, name="rparis6k"),
}

# Those that measure masks, not searches.
BY_OBJECT = ("perseg", "permis", "davis2017")


def read_benchmark(protocol: str, root: Path) -> Benchmark:
    """Read a benchmark of searches by its protocol.

    Raises WaldoError for an unknown protocol and for a folder that is not laid out for it.
    """
    if protocol not in PROTOCOLS:
        known = ", ".join([*PROTOCOLS, *BY_OBJECT])
        raise WaldoError(f"{protocol}: no such protocol; one of {known}")
    return PROTOCOLS[protocol](root)
