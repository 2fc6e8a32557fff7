"""The methods an evaluation compares: scores on a model's maps, and baselines to beat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from features.errors import WaldoError
from search.evaluation.benchmark import Benchmark
from search.scores import SCORES, CandidateMaps, Score, Scored, ScoringReference

if TYPE_CHECKING:
    import torch

# Whose maps a method looks at. "none": no maps at all.
MapSource = Literal["model", "random-weights", "rgb-patches", "rgb-histogram", "none"]


@dataclass(frozen=True)
class Method:
    """name: as given to --method. maps: what it looks at. score: how it compares; None for the
    oracle that knows every photo's class.
    """

    name: str
    maps: MapSource
    score: Score | None

    @property
    def needs_class(self) -> bool:
        return self.score is None or self.score.needs_class


def _histogram_intersection(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Shared mass of the object's histogram and the whole photo's."""
    wanted = reference.tokens.mean(dim=0)
    cells: torch.Tensor = candidates.appearance
    valid = candidates.valid[:, :, None]
    photo = cells.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1)
    return Scored(photo.minimum(wanted).sum(dim=1), cells.minimum(wanted).sum(dim=2))


def _baseline(name: str, maps: MapSource, function: Callable[..., Scored]) -> Method:
    return Method(name, maps, Score(name, "baseline", function))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(Method(score.name, "model", score) for score in SCORES.values()),
        Method("random-weights", "random-weights", SCORES["late"]),
        _baseline("rgb-patches", "rgb-patches", SCORES["late"].function),
        _baseline("rgb-histogram", "rgb-histogram", _histogram_intersection),
        Method("class-oracle", "none", None),
    )
}


def select_methods(names: list[str], benchmark: Benchmark) -> list[Method]:
    """Methods by name; for no name, all that the benchmark has the labels for.

    Raises WaldoError for an unknown one, and for one that needs class names that are not there.
    """
    has_classes = benchmark.gallery_classes is not None
    for name in names:
        if name not in METHODS:
            raise WaldoError(f"--method {name}: no such method; one of {', '.join(METHODS)}")
        if METHODS[name].needs_class and not has_classes:
            raise WaldoError(f"--method {name}: needs the class of every photo (classes.json)")
    chosen = [METHODS[name] for name in names or METHODS]
    return [method for method in chosen if has_classes or not method.needs_class]
