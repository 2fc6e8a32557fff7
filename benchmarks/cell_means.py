"""What it is worth to subtract the mean of each cell from the appearance maps of a model.

    python benchmarks/cell_means.py scenes data/scenes/validation --model tiny

Features of a transformer may have a part that depends on the position alone, and makes cells of one
position alike in all photos. A codec subtracts one mean from all cells; here each cell's own mean
over up to 256 photos of the gallery goes too. The gallery is indexed both ways. Prints how much of
the variance of F_A the cells' means explain, and for some scores mAP both ways, with the
difference, query by query. In percent, with 95 % bootstrap intervals.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_model_options, make_parser
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.models import MapExtractor, find_extractor
from features.photo import ModelInput, load_model_input
from search.evaluation.benchmarks import SEARCHES, read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.summary import summary
from search.evaluation.retrieval import run_methods

_SCORES = ("late", "consistent")
_SAMPLE = 256


class WithoutCellMeans:
    """An extractor that subtracts an array from F_A, and is otherwise the one that it stands for.

    offsets: (grid, grid, d) float32.
    """

    def __init__(self, inner: MapExtractor, offsets: NDArray[np.float32]) -> None:
        self._inner = inner
        self._offsets = offsets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def fingerprint(self) -> dict[str, str | int]:
        return {**self._inner.fingerprint(), "mean": "per cell"}

    def changed(self) -> "WithoutCellMeans":
        return self

    def with_batch_size(self, batch_size: int) -> "WithoutCellMeans":
        return WithoutCellMeans(self._inner.with_batch_size(batch_size), self._offsets)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        found = self._inner.begin(inputs)
        return lambda: [self._without(maps) for maps in found()]

    def _without(self, maps: FeatureMaps) -> FeatureMaps:
        appearance = (maps.appearance - self._offsets).astype(np.float16)
        return FeatureMaps(appearance, maps.semantic, maps.frame, maps.content_hash)


def cell_means(
    extractor: MapExtractor, photos: Sequence[Path]
) -> tuple[NDArray[np.float32], float]:
    """How the mean F_A of each cell differs from that of all, (grid, grid, d) float32, and the
    share of the variance within the cells that this explains. It is 0 where no photo has a cell.
    """
    grid, dim, size = extractor.grid, extractor.dim, extractor.image_size
    total, count, energy = np.zeros((grid, grid, dim)), np.zeros((grid, grid, 1)), 0.0
    batch = extractor.batch_size
    for start in range(0, len(photos), batch):
        some = [load_model_input(photo, size, grid) for photo in photos[start : start + batch]]
        for maps in extractor.extract(some):
            valid = maps.frame.valid()[..., None]
            values = maps.appearance.astype(np.float64) * valid
            total += values
            count += valid
            energy += float((values**2).sum())
    mean = total.sum(axis=(0, 1)) / count.sum()
    offsets = np.where(count > 0, total / np.maximum(count, 1) - mean, 0.0)
    explained = float((count * offsets**2).sum()) / (energy - count.sum() * float(mean @ mean))
    return offsets.astype(np.float32), explained


def measure(benchmark: Benchmark, extractor: MapExtractor, work: Path) -> None:
    """Evaluate both ways, and print what they find."""
    step = -(-len(benchmark.gallery) // _SAMPLE)
    sample = benchmark.gallery[::step]
    offsets, explained = cell_means(extractor, sample)
    print(
        f"the means of cells explain {100 * explained:.1f} % of the variance of F_A, of which "
        f"{100 / len(sample):.1f} % by chance"
    )
    methods = [METHODS[name] for name in _SCORES]
    centred: Any = WithoutCellMeans(extractor, offsets)
    plain = run_methods(benchmark, list(methods), extractor, work)
    without = run_methods(benchmark, list(methods), centred, work)
    for before, after in zip(plain.results, without.results, strict=True):
        found = [[query.measured for query in result.queries] for result in (before, after)]
        one, other = summary(benchmark, found[0]), summary(benchmark, found[1], found[0])
        texts = [f"{100 * values['mAP']:5.1f}" for values in (one, other)]
        low, high = (100 * end for end in other["more_than_default_interval"])
        change = f"{100 * other['more_than_default']:+.1f} ({low:+.1f} to {high:+.1f})"
        print(f"{before.method.name:12} mAP {texts[0]}, without cells' means {texts[1]}: {change}")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("protocol", choices=list(SEARCHES))
    parser.add_argument("root", type=Path)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = find_extractor(given.model, given.device)
    benchmark = read_benchmark(given.protocol, given.root)
    with tempfile.TemporaryDirectory() as work:
        measure(benchmark, extractor, Path(work))


if __name__ == "__main__":
    main()
