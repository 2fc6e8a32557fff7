"""The methods an evaluation compares: scores on a model's maps, baselines to beat, ablations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import load_photo
from features.vision.descriptors import DESCRIPTORS, descriptor_name
from indexer.codec.tokens import TokenMap
from search.evaluation.benchmarks.benchmark import Benchmark, flags
from search.evaluation.methods.ablation import Changes, parse_changes
from search.evaluation.methods.baselines import EXTRACTORS
from search.evaluation.methods.rootsift import has_opencv, rootsift_scores
from search.evaluation.metrics.ranking import best_places
from search.query import Query
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.confidence import combined_heights, heights
from search.scoring.scores import SCORES, Score, token_heat

if TYPE_CHECKING:
    import torch

# The sources of maps that a method compares: the model, the same architecture with random weights,
# and those of `baselines.EXTRACTORS`, which no setting of the model changes.
MODEL, RANDOM_WEIGHTS = "model", "random-weights"
# What a method is given to select the object in a query's photo: its region (and class), only its
# class name, or nothing, so that it looks for the whole photo.
QueryHint = Literal["region", "class", "photo"]
# How the object is selected in a query's photo: by which hint, and by which tau of PDM Eq. 3.
Region = tuple[QueryHint, float | None]


@dataclass(frozen=True)
class StoreMethod:
    """A method that asks an index of the gallery.

    name: the name that people give. maps: the source of the maps it compares. hint: what it is
    given to select the query's object. changes: what an ablation changes.
    """

    name: str
    maps: str
    hint: QueryHint = field(default="region", kw_only=True)
    changes: Changes = field(default=Changes(), kw_only=True)

    @property
    def needs_class(self) -> bool:
        return self.hint == "class"

    @property
    def region(self) -> Region:
        """How it selects the object: methods of equal regions share references."""
        return self.hint, self.changes.tau

    def asks(self, query: Query) -> Query:
        """The query as this method sees it."""
        if self.hint == "region":
            return query
        nowhere = replace(query, mask=None, box=None, point=None)
        if self.hint == "class":
            return nowhere
        photo = load_photo(query.photo)
        return replace(nowhere, class_name=None, box=(0.0, 0.0, photo.width, photo.height))


@dataclass(frozen=True)
class MapMethod(StoreMethod):
    """A score of full maps.

    score: how it compares them. expanded: whether the first matches are asked with too, as searches
    do (`search.ranking.expansion`), among the best 400 photos; the others follow these.
    """

    score: Score
    expanded: bool = field(default=False, kw_only=True)

    @property
    def needs_class(self) -> bool:
        return super().needs_class or self.score.needs_class


@dataclass(frozen=True)
class WordMethod(StoreMethod):
    """Recall by visual words alone, without re-ranking."""


@dataclass(frozen=True)
class DescriptorMethod(StoreMethod):
    """A global descriptor of whole photos, the query's too, as in the paper's baselines.

    maps: the source of the maps of the index that holds the descriptor. descriptor: its name, see
    `features.vision.descriptors.descriptor_name`.
    """

    descriptor: str


@dataclass(frozen=True)
class DirectMethod:
    """A method that needs no maps.

    scores: yields the scores of each query in turn, (n_gallery,) float32.
    """

    name: str
    scores: Callable[[Benchmark], Iterator[NDArray[np.float32]]]
    needs_class: bool = False


SingleMethod = MapMethod | WordMethod | DescriptorMethod | DirectMethod


@dataclass(frozen=True)
class CombinedMethod:
    """A method whose scores follow from those of others, its parts."""

    name: str
    parts: tuple[SingleMethod, ...]

    @property
    def needs_class(self) -> bool:
        return any(part.needs_class for part in self.parts)


@dataclass(frozen=True)
class RerankedMethod(CombinedMethod):
    """The best photos by one method, re-ranked by a score of full maps; the others follow them.

    name: NAME+SCORE. parts: the two methods; of the second only the candidates are scored.
    candidates: the number of photos that are re-ranked, 400 as in the paper.
    """

    parts: tuple[SingleMethod, MapMethod]
    candidates: int = 400


@dataclass(frozen=True)
class TogetherMethod(CombinedMethod):
    """Several methods together, as `search.late_fusion` ranks by several indexes.

    name: together:NAME,NAME... parts: at least two methods.
    """

    def scores(self, *parts: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of a query, (n_gallery,) float32: the photos' heights above chance by all
        methods, from the methods' own scores, each (n_gallery,) float32.
        """
        above = np.stack([heights(part) for part in parts])
        return combined_heights(above, np.ones(above.shape, dtype=bool)).astype(np.float32)


Method = SingleMethod | CombinedMethod


def candidates_first(
    first: NDArray[np.float32], then: NDArray[np.float32], candidates: int
) -> NDArray[np.float32]:
    """Scores of a query, (n_gallery,) float32: the candidates' by `then`, the rest lower.

    first: (n_gallery,) float32; the photos with the best of these are the candidates, and the rest
    keep their order by it. then: (n_gallery,) float32, only looked at for candidates.
    """
    best = best_places(first, candidates)
    rest = ~flags(best, len(first))
    scores = then.astype(np.float32, copy=True)
    # Equal scores stay equal: the levels of the rest are numbered from the lowest.
    _, levels = np.unique(first[rest], return_inverse=True)
    scores[rest] = np.floor(scores[best].min()) - 1 - len(first) + levels
    return scores


def class_oracle(benchmark: Benchmark) -> Iterator[NDArray[np.float32]]:
    """1 for photos that show the query's class, else 0: knowing the class exactly."""
    assert benchmark.gallery_classes is not None  # `select_methods` saw to that
    for asked in benchmark.queries:
        yield benchmark.shows(asked.query.class_name).astype(np.float32)


def _histogram_intersection(
    reference: ScoringReference, candidates: CandidateMaps
) -> "torch.Tensor":
    """The mass that the object's histogram shares with the whole photo's."""
    return candidates.pooled.minimum(reference.tokens.mean(dim=0)).sum(dim=1)


def _histogram_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The mass that the object's histogram shares with each cell's."""
    wanted = reference.tokens.mean(dim=0)
    return candidates.appearance.decode().minimum(wanted).sum(dim=2)


def _late_uncentred(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Late interaction by plain cosine."""
    tokens = candidates.appearance.decode()
    plain = TokenMap.plain(tokens, tokens.new_zeros(tokens.shape[2]))
    return SCORES["late"].function(reference, replace(candidates, appearance=plain))


# The methods that are compared by default.
_DEFAULT_METHODS: tuple[SingleMethod, ...] = (
    *(MapMethod(score.name, MODEL, score) for score in SCORES.values()),
    *(
        MapMethod(f"{score.name}-by-class", MODEL, score, hint="class")
        for score in SCORES.values()
        if score.name != "semantic"  # it uses no region anyway
    ),
    MapMethod("consistent-expanded", MODEL, SCORES["consistent"], expanded=True),
    MapMethod(
        "consistent-expanded-by-class", MODEL, SCORES["consistent"], expanded=True, hint="class"
    ),
    WordMethod("words", MODEL),
    WordMethod("words-by-class", MODEL, hint="class"),
    MapMethod("random-weights", RANDOM_WEIGHTS, SCORES["late"]),
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
        MODEL,
        Score("late-uncentred", "late by plain cosine", _late_uncentred, token_heat),
    ),
    # What appearance alone achieves where nothing says which object is meant.
    MapMethod("consistent-whole-photo", MODEL, SCORES["consistent"], hint="photo"),
)

# What stands before the methods of a TogetherMethod.
_TOGETHER = "together:"

METHODS: dict[str, SingleMethod] = {
    method.name: method for method in (*_DEFAULT_METHODS, *_ABLATIONS)
}


def find_method(name: str) -> Method:
    """The method of a name. A name is one of:

    - a key of METHODS;
    - a global descriptor, named as `waldo index --descriptor` takes it;
    - NAME@KEY=VALUE..., a method of METHODS with features taken otherwise (see `ablation`);
    - NAME+SCORE, the best photos by one of the above, re-ranked by a method of METHODS that scores
      the model's maps, which may be changed too;
    - together:NAME,NAME..., several of the above but NAME+SCORE, together.

    Raises WaldoError for an unknown name, and for changes that cannot be made.
    """
    if name.startswith(_TOGETHER):
        return _find_together(name)
    method: Method | None = None
    first, _, score = name.rpartition("+")
    # Where the last part is no method, the + belongs to a folder's name or to a prompt.
    if first and score.partition("@")[0] in METHODS and not Path(name).is_dir():
        best, then = _find_single(first), _find_single(score)
        if best is not None and isinstance(then, MapMethod) and then.maps == MODEL:
            method = RerankedMethod(name, (best, then))
    else:
        method = _find_single(name)
    if method is None:
        known = ", ".join([*METHODS, *DESCRIPTORS])
        raise WaldoError(
            f"method {name}: no such method; one of {known}, or NAME+SCORE, or {_TOGETHER}NAME,NAME"
        )
    return method


def _find_together(name: str) -> TogetherMethod:
    parts = [find_method(part) for part in name.removeprefix(_TOGETHER).split(",")]
    single = tuple(part for part in parts if not isinstance(part, CombinedMethod))
    if len(single) < max(2, len(parts)) or len({part.name for part in single}) < len(single):
        raise WaldoError(f"method {name}: {_TOGETHER} takes two or more different single methods")
    return TogetherMethod(name, single)


def _find_single(name: str) -> SingleMethod | None:
    plain, *changes = name.split("@")
    method = METHODS.get(plain)
    if changes and (plain in METHODS or plain in DESCRIPTORS):
        if isinstance(method, MapMethod | WordMethod) and method.maps not in EXTRACTORS:
            changed = parse_changes(name, changes, method.hint == "class")
            return replace(method, name=name, changes=changed)
        raise WaldoError(f"method {name}: {plain} compares no maps that @ could change")
    if method is not None:
        return method
    if name in DESCRIPTORS or Path(name).is_dir() or ("/" in name and "+" not in name):
        return DescriptorMethod(name, MODEL, descriptor_name(name))
    return None


def asks_by_class(method: SingleMethod) -> bool:
    """Whether a method asks the model for a class name."""
    return isinstance(method, StoreMethod) and method.maps == MODEL and method.needs_class


def descriptors_of(methods: Sequence[Method]) -> list[str]:
    """Names of the descriptors that some methods need, each once."""
    parts = single_methods(methods)
    return list(dict.fromkeys(m.descriptor for m in parts if isinstance(m, DescriptorMethod)))


def single_methods(methods: Sequence[Method]) -> list[SingleMethod]:
    """The methods that scores are taken from, each once."""
    parts: dict[str, SingleMethod] = {}
    for method in methods:
        for part in method.parts if isinstance(method, CombinedMethod) else (method,):
            parts[part.name] = part
    return list(parts.values())


def whole_gallery_methods(methods: Sequence[Method]) -> list[SingleMethod]:
    """The single methods that score the whole gallery: without scores that only re-rank."""
    return single_methods([m.parts[0] if isinstance(m, RerankedMethod) else m for m in methods])


def select_methods(
    names: list[str], benchmark: Benchmark, knows_words: bool = True
) -> list[Method]:
    """Methods by name, see `find_method`; without names, all default methods that can run here.

    A method can run where the benchmark has the labels, the machine has the libraries and the model
    has the words that it needs. knows_words: whether the model knows class names. Raises WaldoError
    for an unknown name, and for a method whose labels are missing.
    """
    has_classes = benchmark.gallery_classes is not None
    chosen = [find_method(name) for name in names]
    for method in chosen:
        if method.needs_class and not has_classes:
            raise WaldoError(
                f"method {method.name}: needs the class of every photo, which "
                f"{benchmark.protocol} does not give here (folders: classes.json)"
            )
    if chosen:
        return chosen
    runnable = [
        m
        for m in _DEFAULT_METHODS
        if (has_classes or not m.needs_class) and (knows_words or not asks_by_class(m))
    ]
    return [m for m in runnable if m.name != "rootsift" or has_opencv()]
