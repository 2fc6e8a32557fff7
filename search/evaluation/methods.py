"""The methods an evaluation compares: scores on a model's maps, and baselines to beat."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from search.evaluation.benchmark import Benchmark
from search.evaluation.rootsift import has_opencv, rootsift_scores
from search.query import Query
from search.scores import SCORES, CandidateMaps, Score, ScoringReference

if TYPE_CHECKING:
    import torch

# Whose maps a method looks at.
MapSource = Literal["model", "random-weights", "rgb-patches", "rgb-histogram"]


@dataclass(frozen=True)
class StoreMethod:
    """A method that asks an index of the gallery.

    name: as given to --method. maps: what it looks at. by_class: the query's region is left out, so
    its class name alone says which object is meant.
    """

    name: str
    maps: MapSource
    by_class: bool = field(default=False, kw_only=True)

    @property
    def needs_class(self) -> bool:
        return self.by_class

    def asks(self, query: Query) -> Query:
        """The query as this method gets it."""
        return replace(query, mask=None, box=None, point=None) if self.by_class else query


@dataclass(frozen=True)
class MapMethod(StoreMethod):
    """A score of full maps. score: how it compares."""

    score: Score

    @property
    def needs_class(self) -> bool:
        return super().needs_class or self.score.needs_class


@dataclass(frozen=True)
class WordMethod(StoreMethod):
    """Recall by visual words alone, without re-ranking."""


@dataclass(frozen=True)
class DirectMethod:
    """A method that needs no maps. scores: gives (n_queries, n_gallery) float32."""

    name: str
    scores: Callable[[Benchmark], NDArray[np.float32]]
    needs_class: bool = False


Method = MapMethod | WordMethod | DirectMethod


def class_oracle(benchmark: Benchmark) -> NDArray[np.float32]:
    """1 for photos that show the query's class, else 0: knowing the class exactly."""
    classes = benchmark.gallery_classes
    assert classes is not None  # `select_methods` saw to that
    return np.array(
        [[asked.query.class_name in shown for shown in classes] for asked in benchmark.queries],
        dtype=np.float32,
    )


def _histogram_intersection(
    reference: ScoringReference, candidates: CandidateMaps
) -> "torch.Tensor":
    """Shared mass of the object's histogram and the whole photo's."""
    wanted = reference.tokens.mean(dim=0)
    cells = candidates.appearance.decode()
    valid = candidates.valid[:, :, None]
    photo = cells.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1)
    return photo.minimum(wanted).sum(dim=1)


def _histogram_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Shared mass of the object's histogram and each cell's."""
    wanted = reference.tokens.mean(dim=0)
    return candidates.appearance.decode().minimum(wanted).sum(dim=2)


_ALL: tuple[Method, ...] = (
    *(MapMethod(score.name, "model", score) for score in SCORES.values()),
    *(
        MapMethod(f"{score.name}-by-class", "model", score, by_class=True)
        for score in SCORES.values()
        if score.name != "semantic"  # looks at no region anyway
    ),
    WordMethod("words", "model"),
    WordMethod("words-by-class", "model", by_class=True),
    MapMethod("random-weights", "random-weights", SCORES["late"]),
    MapMethod("rgb-patches", "rgb-patches", SCORES["late"]),
    MapMethod("rgb-patches-consistent", "rgb-patches", SCORES["consistent"]),
    MapMethod(
        "rgb-histogram",
        "rgb-histogram",
        Score("rgb-histogram", "histogram intersection", _histogram_intersection, _histogram_heat),
    ),
    DirectMethod("rootsift", rootsift_scores),
    DirectMethod("class-oracle", class_oracle, needs_class=True),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def select_methods(names: list[str], benchmark: Benchmark) -> list[Method]:
    """Methods by name; for no name, all that can run: that the benchmark has the labels for, and
    that nothing is missing for.

    Raises WaldoError for an unknown one, and for one that needs class names that are not there.
    """
    has_classes = benchmark.gallery_classes is not None
    for name in names:
        if name not in METHODS:
            raise WaldoError(f"--method {name}: no such method; one of {', '.join(METHODS)}")
        if METHODS[name].needs_class and not has_classes:
            raise WaldoError(
                f"--method {name}: needs the class of every photo, which "
                f"{benchmark.protocol} does not give here (folders: classes.json)"
            )
    if names:
        return [METHODS[name] for name in names]
    runnable = [m for m in METHODS.values() if has_classes or not m.needs_class]
    return [m for m in runnable if m.name != "rootsift" or has_opencv()]
