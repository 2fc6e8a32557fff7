"""The methods an evaluation compares: scores on a model's maps, baselines to beat, ablations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from features.descriptors import DESCRIPTORS, descriptor_name
from features.errors import WaldoError
from features.photo import load_photo
from indexer.codec.tokens import TokenMap
from search.candidates import CandidateMaps, ScoringReference
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.ablation import Changes, parse_changes
from search.evaluation.methods.rootsift import has_opencv, rootsift_scores
from search.query import Query
from search.scores import SCORES, Score, token_heat

if TYPE_CHECKING:
    import torch

# Whose maps a method looks at.
MapSource = Literal["model", "random-weights", "rgb-patches", "rgb-histogram"]
# Those that are made by a model's settings.
_CHANGEABLE: tuple[MapSource, ...] = ("model", "random-weights")
# What a method is told of the object in a query's photo: its region (and class), its class name
# alone, or nothing, so that all of the photo is looked for.
Told = Literal["region", "class", "photo"]
# How the object is found in a query's photo: by what is told of it, and by which tau.
Region = tuple[Told, float | None]


@dataclass(frozen=True)
class StoreMethod:
    """A method that asks an index of the gallery.

    name: as given to --method. maps: what it looks at. told: what it gets to know of the query's
    object. changes: what an ablation changes.
    """

    name: str
    maps: MapSource
    told: Told = field(default="region", kw_only=True)
    changes: Changes = field(default=Changes(), kw_only=True)

    @property
    def needs_class(self) -> bool:
        return self.told == "class"

    @property
    def region(self) -> Region:
        """The same for methods that can share references."""
        return self.told, self.changes.tau

    def asks(self, query: Query) -> Query:
        """The query as this method gets it."""
        if self.told == "region":
            return query
        nowhere = replace(query, mask=None, box=None, point=None)
        if self.told == "class":
            return nowhere
        photo = load_photo(query.photo)
        return replace(nowhere, class_name=None, box=(0.0, 0.0, photo.width, photo.height))


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
class DescriptorMethod(StoreMethod):
    """A global descriptor of whole photos, the query's too, as the paper's baselines. maps: those
    of the index that has it. descriptor: its name, see `features.descriptors.descriptor_name`.
    """

    descriptor: str


@dataclass(frozen=True)
class DirectMethod:
    """A method that needs no maps.

    scores: gives each query's scores in turn, (n_gallery,) float32.
    """

    name: str
    scores: Callable[[Benchmark], Iterator[NDArray[np.float32]]]
    needs_class: bool = False


SingleMethod = MapMethod | WordMethod | DescriptorMethod | DirectMethod


@dataclass(frozen=True)
class RerankedMethod:
    """The best photos by one method, ranked by a score of full maps; the others stay behind them.

    name: NAME+SCORE. first, then: the two. candidates: photos that are ranked anew; 400 as in the
    paper.
    """

    name: str
    first: SingleMethod
    then: MapMethod
    candidates: int = 400

    @property
    def needs_class(self) -> bool:
        return self.first.needs_class or self.then.needs_class

    def scores(self, first: NDArray[np.float32], then: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_gallery) float32, those by `then` for the candidates, and lower ones for the rest.

        first, then: (n, n_gallery) float32, the two methods' own scores. Of equals the earlier
        photo is a candidate.
        """
        count = first.shape[1]
        order = np.argsort(-first, axis=1, kind="stable")
        rest = order[:, self.candidates :]
        scores = then.astype(np.float32, copy=True)
        for row in range(len(scores)):
            # equals stay equal: the rest's are numbered from 1 at the lowest
            _, levels = np.unique(first[row, rest[row]], return_inverse=True)
            floor = np.floor(scores[row, order[row, : self.candidates]].min())
            scores[row, rest[row]] = floor - 1 - count + levels
        return scores


Method = SingleMethod | RerankedMethod


def class_oracle(benchmark: Benchmark) -> Iterator[NDArray[np.float32]]:
    """1 for photos that show the query's class, else 0: knowing the class exactly."""
    classes = benchmark.gallery_classes
    assert classes is not None  # `select_methods` saw to that
    for asked in benchmark.queries:
        yield np.array([asked.query.class_name in shown for shown in classes], dtype=np.float32)


def _histogram_intersection(
    reference: ScoringReference, candidates: CandidateMaps
) -> "torch.Tensor":
    """Shared mass of the object's histogram and the whole photo's."""
    return candidates.pooled.minimum(reference.tokens.mean(dim=0)).sum(dim=1)


def _histogram_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Shared mass of the object's histogram and each cell's."""
    wanted = reference.tokens.mean(dim=0)
    return candidates.appearance.decode().minimum(wanted).sum(dim=2)


def _late_uncentred(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Late interaction by plain cosine."""
    tokens = candidates.appearance.decode()
    plain = TokenMap.plain(tokens, tokens.new_zeros(tokens.shape[2]))
    return SCORES["late"].function(reference, replace(candidates, appearance=plain))


# What is compared unless told otherwise.
_USUAL: tuple[SingleMethod, ...] = (
    *(MapMethod(score.name, "model", score) for score in SCORES.values()),
    *(
        MapMethod(f"{score.name}-by-class", "model", score, told="class")
        for score in SCORES.values()
        if score.name != "semantic"  # looks at no region anyway
    ),
    WordMethod("words", "model"),
    WordMethod("words-by-class", "model", told="class"),
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

_ABLATIONS: tuple[SingleMethod, ...] = (
    MapMethod(
        "late-uncentred",
        "model",
        Score("late-uncentred", "late by plain cosine", _late_uncentred, token_heat),
    ),
    # What appearance can do alone where nobody says which object is meant.
    MapMethod("consistent-whole-photo", "model", SCORES["consistent"], told="photo"),
)

METHODS: dict[str, SingleMethod] = {method.name: method for method in (*_USUAL, *_ABLATIONS)}


def find_method(name: str) -> Method:
    """A method by its name: one of METHODS; a global descriptor, as `waldo index --descriptor` has
    it; NAME@KEY=VALUE..., one of METHODS by other features, see `methods.ablation`; or NAME+SCORE,
    the best photos by one of these, ranked again by a score of METHODS, which may be changed too.

    Raises WaldoError for an unknown one, and for changes that cannot be made.
    """
    method: Method | None = None
    first, _, score = name.rpartition("+")
    # Where that is no method, the + is within a folder's name, or a prompt.
    if first and score.partition("@")[0] in METHODS and not Path(name).is_dir():
        best, then = _find_single(first), _find_single(score)
        if best is not None and isinstance(then, MapMethod) and then.maps == "model":
            method = RerankedMethod(name, best, then)
    else:
        method = _find_single(name)
    if method is None:
        known = ", ".join([*METHODS, *DESCRIPTORS])
        raise WaldoError(f"--method {name}: no such method; one of {known}, or NAME+SCORE")
    return method


def _find_single(name: str) -> SingleMethod | None:
    plain, *changes = name.split("@")
    method = METHODS.get(plain)
    if changes and (plain in METHODS or plain in DESCRIPTORS):
        if isinstance(method, MapMethod | WordMethod) and method.maps in _CHANGEABLE:
            changed = parse_changes(name, changes, method.told == "class")
            return replace(method, name=name, changes=changed)
        raise WaldoError(f"--method {name}: {plain} looks at no maps that @ could change")
    if method is not None:
        return method
    if name in DESCRIPTORS or Path(name).is_dir() or ("/" in name and "+" not in name):
        return DescriptorMethod(name, "model", descriptor_name(name))
    return None


def descriptors_of(methods: Sequence[Method]) -> list[str]:
    """Names of the descriptors that some methods need, each once."""
    parts = [m.first if isinstance(m, RerankedMethod) else m for m in methods]
    return list(dict.fromkeys(m.descriptor for m in parts if isinstance(m, DescriptorMethod)))


def select_methods(names: list[str], benchmark: Benchmark) -> list[Method]:
    """Methods by name, see `find_method`; for no name, all but ablations that can run: that the
    benchmark has the labels for, and that nothing is missing for.

    Raises WaldoError for an unknown one, and for one that needs class names that are not there.
    """
    has_classes = benchmark.gallery_classes is not None
    chosen = [find_method(name) for name in names]
    for method in chosen:
        if method.needs_class and not has_classes:
            raise WaldoError(
                f"--method {method.name}: needs the class of every photo, which "
                f"{benchmark.protocol} does not give here (folders: classes.json)"
            )
    if chosen:
        return chosen
    runnable = [m for m in _USUAL if has_classes or not m.needs_class]
    return [m for m in runnable if m.name != "rootsift" or has_opencv()]
