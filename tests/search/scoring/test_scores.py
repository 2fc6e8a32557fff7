"""Every score against a naive float64 twin, one reference token and one cell at a time."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec.codec import Codec
from indexer.codec.tokens import TokenMap
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.fusion import FusionWeights
from search.scoring.scores import SCORES, Score, bind_score, class_evidence

Arrays = dict[str, np.ndarray]


def naive_appearance(a: Arrays, candidate: int, cell: int) -> float:
    """S_A at a cell, PDM Eq. 5."""
    total = 0.0
    for token in a["tokens"]:
        total += float(np.dot(token, a["appearance"][candidate, cell]))
    return total / len(a["tokens"])


def naive_semantic(a: Arrays, candidate: int, cell: int) -> float:
    """S_S at a cell, PDM Eq. 6."""
    return float(np.dot(a["class_vector"], a["semantic"][candidate, cell]))


def naive_fused(a: Arrays, candidate: int, cell: int) -> float:
    """S_DF at a cell, PDM Eq. 7."""
    return (naive_appearance(a, candidate, cell) + naive_semantic(a, candidate, cell)) / 2


def over_map(cell_value: Callable[[Arrays, int, int], float]) -> Callable[[Arrays, int], float]:
    def mean(a: Arrays, candidate: int) -> float:
        cells = [c for c in range(a["valid"].shape[1]) if a["valid"][candidate, c]]
        return sum(cell_value(a, candidate, c) for c in cells) / len(cells)

    return mean


def centred_cosine(a: Arrays, token: np.ndarray, cell: np.ndarray) -> float:
    x, y = token - a["mean"], cell - a["mean"]
    return float(np.dot(x, y) / (np.sqrt(np.dot(x, x)) * np.sqrt(np.dot(y, y))))


def naive_late(a: Arrays, candidate: int) -> float:
    total = 0.0
    for token in a["tokens"]:
        total += max(
            centred_cosine(a, token, a["appearance"][candidate, c])
            for c in range(a["valid"].shape[1])
            if a["valid"][candidate, c]
        )
    return total / len(a["tokens"])


def naive_cosine(a: Arrays, candidate: int) -> float:
    x = np.mean(a["tokens"], axis=0)
    y = np.mean(
        [
            cell
            for cell, valid in zip(a["appearance"][candidate], a["valid"][candidate], strict=True)
            if valid
        ],
        axis=0,
    )
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def token_cosines(a: Arrays, candidate: int) -> dict[int, list[float]]:
    """Of each valid cell with each token."""
    return {
        c: [centred_cosine(a, token, a["appearance"][candidate, c]) for token in a["tokens"]]
        for c in range(a["valid"].shape[1])
        if a["valid"][candidate, c]
    }


def mean_cosines(a: Arrays, candidate: int) -> list[float]:
    """Of the valid cells with the mean token, best first."""
    mean = np.mean(a["tokens"], axis=0)
    cells = a["appearance"][candidate][a["valid"][candidate]]
    return sorted((centred_cosine(a, mean, cell) for cell in cells), reverse=True)


def naive_maximum(a: Arrays, candidate: int) -> float:
    return mean_cosines(a, candidate)[0]


def naive_top_mean(a: Arrays, candidate: int) -> float:
    best = mean_cosines(a, candidate)[:8]
    return sum(best) / len(best)


def naive_mutual(a: Arrays, candidate: int) -> float:
    cosines = token_cosines(a, candidate)
    pairs = []
    for i in range(len(a["tokens"])):
        cell = max(cosines, key=lambda c: cosines[c][i])
        if max(cosines[cell]) == cosines[cell][i]:
            pairs.append(cosines[cell][i])
    return sum(pairs) / len(pairs)


def naive_consistent(a: Arrays, candidate: int) -> float:
    cosines = token_cosines(a, candidate)
    side = int(np.sqrt(a["valid"].shape[1]))
    middle = np.round(np.mean(a["positions"], axis=0))
    n = len(a["tokens"])
    most = -np.inf
    for scale in (0.5, 0.7, 1.0, 1.4, 2.0):
        for row in range(side):
            for column in range(side):
                votes = 0.0
                for i in range(n):
                    cell = max(cosines, key=lambda c: cosines[c][i])
                    dy = cell // side - scale * (a["positions"][i, 0] - middle[0]) - row
                    dx = cell % side - scale * (a["positions"][i, 1] - middle[1]) - column
                    votes += cosines[cell][i] * np.exp(-(dy * dy + dx * dx) / 2)
                most = max(most, votes / n)
    return (naive_late(a, candidate) + 0.2 * most) / 1.2


def naive_class_evidence(a: Arrays, candidate: int) -> float:
    """Of the 8 clearest cells, the mean logarithm of the class's share among it and its rivals,
    times sqrt(d)."""
    clear = []
    for c in np.flatnonzero(a["valid"][candidate]):
        cell = a["semantic"][candidate, c] / np.sqrt(len(a["class_vector"]))
        rivals = sum(np.exp(np.dot(rival, cell)) for rival in a["rivals"])
        own = np.exp(np.dot(a["class_vector"], cell))
        clear.append(np.sqrt(len(cell)) * np.log(own / (own + rivals)))
    clear = sorted(clear, reverse=True)[:8]
    return float(sum(clear) / len(clear))


def naive_fused_score(a: Arrays, candidate: int) -> float:
    return naive_consistent(a, candidate) + 0.3 * naive_class_evidence(a, candidate)


def without_unlikely(a: Arrays) -> Arrays:
    """The same with only those cells valid that are not in a photo's quarter of least S_S."""
    valid = a["valid"].copy()
    for candidate in range(len(valid)):
        cells = np.flatnonzero(valid[candidate])
        likely = np.array([naive_semantic(a, candidate, c) for c in cells])
        valid[candidate, cells[likely < np.quantile(likely, 0.25)]] = False
    return {**a, "valid": valid}


def naive_correspondence(a: Arrays, candidate: int) -> float:
    cosines = token_cosines(a, candidate)
    total = 0.0
    for i, own in enumerate(a["names"]):
        cell = max(cosines, key=lambda c: cosines[c][i])
        other = a["semantic"][candidate, cell]
        lengths = np.sqrt(np.dot(own, own) * np.dot(other, other))
        total += cosines[cell][i] * float(np.dot(own, other) / lengths)
    return total / len(a["names"])


NAIVE: dict[str, Callable[[Arrays, int], float]] = {
    "pdm": over_map(naive_fused),
    "appearance": over_map(naive_appearance),
    "semantic": over_map(naive_semantic),
    "cosine": naive_cosine,
    "late": naive_late,
    "late-gated": lambda a, candidate: naive_late(without_unlikely(a), candidate),
    "correspondence": naive_correspondence,
    "maximum": naive_maximum,
    "top-mean": naive_top_mean,
    "mutual": naive_mutual,
    "consistent": naive_consistent,
    "fused": naive_fused_score,
}


# Scores by each token's best cell, which is chosen in bfloat16.
BY_BEST_CELL = {"late", "late-gated", "correspondence", "consistent", "fused"}


def clear_winners(a: Arrays) -> bool:
    """No token's two best cells in any candidate are nearly as good."""
    for candidate in range(len(a["valid"])):
        cosines = np.sort(list(token_cosines(a, candidate).values()), axis=0)
        if len(cosines) > 1 and (cosines[-1] - cosines[-2]).min() < 0.01:
            return False
    return True


def random_arrays(seed: int, batch: int = 3, cells: int = 16, d: int = 8) -> Arrays:
    rng = np.random.default_rng(seed)
    valid = rng.random((batch, cells)) < 0.6
    valid[:, 0] = True
    return {
        "tokens": rng.normal(size=(5, d)),
        "names": rng.normal(size=(5, d)),
        "positions": rng.integers(0, 4, size=(5, 2)),
        "class_vector": rng.normal(size=d),
        "mean": rng.normal(size=d),
        "appearance": rng.normal(size=(batch, cells, d)),
        "semantic": rng.normal(size=(batch, cells, d)),
        "valid": valid,
        "rivals": rng.normal(size=(6, d)),
    }


def tensors(a: Arrays) -> tuple[ScoringReference, CandidateMaps]:
    def single(name: str) -> torch.Tensor:
        return torch.from_numpy(a[name]).float()

    names = ("tokens", "names", "class_vector", "positions")
    reference = ScoringReference(*(single(name) for name in names))
    appearance, semantic = (
        TokenMap.plain(single(name), single("mean")) for name in ("appearance", "semantic")
    )
    return reference, CandidateMaps(appearance, semantic, torch.from_numpy(a["valid"]))


def bound(name: str, a: Arrays) -> Score:
    """A score with the weights and rivals of the arrays."""
    weights = FusionWeights(agreement=0.2, class_evidence=0.3)
    return SCORES[name].bound(weights, torch.from_numpy(a["rivals"]).float())


def test_every_score_has_a_twin() -> None:
    assert set(NAIVE) == set(SCORES)


@pytest.mark.parametrize("name", sorted(SCORES))
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scores_equal_their_naive_twins(name: str, seed: int) -> None:
    tries = (random_arrays(seed + number) for number in itertools.count())
    arrays = next(
        a
        for a in tries
        if name not in BY_BEST_CELL
        or clear_winners(without_unlikely(a) if name == "late-gated" else a)
    )
    scores = bound(name, arrays).function(*tensors(arrays)).numpy()
    expected = [NAIVE[name](arrays, candidate) for candidate in range(3)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("quality", "most"), [("high", 0.02), ("standard", 0.15)])
def test_class_evidence_of_encoded_maps(quality: str, most: float) -> None:
    arrays = random_arrays(14, batch=12, d=16)
    arrays["valid"][:] = True
    arrays["semantic"] *= 2.0 ** (-np.arange(16) / 4)  # a spectrum that falls off, as real ones'
    frame = Frame(width=32, height=32, size=32, grid=4)
    half = [
        arrays[name].reshape(12, 4, 4, 16).astype(np.float16) for name in ("appearance", "semantic")
    ]
    photos = [FeatureMaps(*maps, frame, "") for maps in zip(*half, strict=True)]
    known = np.concatenate([arrays["class_vector"][None], arrays["rivals"]]).astype(np.float32)
    codec = Codec.fit(quality, photos, known)
    encoded = torch.from_numpy(codec.encode(*half))
    reference, candidates = tensors(arrays)
    candidates = CandidateMaps(*codec.tokens(encoded), candidates.valid)
    rivals = torch.from_numpy(arrays["rivals"]).float()
    found = class_evidence(reference, candidates, rivals).numpy()
    before = [naive_class_evidence(arrays, candidate) for candidate in range(12)]
    np.testing.assert_allclose(found, before, atol=most)
    arrays["semantic"] = codec.decode(encoded)[1].double().numpy()
    exact = [naive_class_evidence(arrays, candidate) for candidate in range(12)]
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "cell_value"),
    [("pdm", naive_fused), ("appearance", naive_appearance), ("semantic", naive_semantic)],
)
def test_heatmaps_of_the_linear_scores(
    name: str, cell_value: Callable[[Arrays, int, int], float]
) -> None:
    arrays = random_arrays(7)
    heatmaps = SCORES[name].heat(*tensors(arrays)).numpy()
    expected = [[cell_value(arrays, i, c) for c in range(16)] for i in range(3)]
    np.testing.assert_allclose(heatmaps, expected, rtol=1e-4, atol=1e-5)


def test_heatmap_of_late_interaction_is_the_best_cosine() -> None:
    arrays = random_arrays(8)
    heatmaps = SCORES["late"].heat(*tensors(arrays)).numpy()
    for i in range(3):
        for c in np.flatnonzero(arrays["valid"][i]):
            cell = arrays["appearance"][i, c]
            best = max(centred_cosine(arrays, token, cell) for token in arrays["tokens"])
            assert heatmaps[i, c] == pytest.approx(best, abs=1e-5)


def test_padding_never_wins_against_negative_cosines() -> None:
    arrays = random_arrays(9)
    # Every valid cell points away from the tokens; padding equals them.
    arrays["tokens"][:] = arrays["mean"] + 1.0
    arrays["appearance"][:] = arrays["mean"] - 1.0
    arrays["appearance"][~arrays["valid"]] = arrays["mean"] + 1.0
    scores = SCORES["late"].function(*tensors(arrays))
    np.testing.assert_allclose(scores.numpy(), -1.0, atol=1e-5)


def test_consistent_prefers_the_object_as_it_was_to_its_parts_in_disorder() -> None:
    arrays = random_arrays(11, batch=2, cells=36, d=32)
    arrays["valid"][:] = True
    arrays["positions"] = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]])
    places = {0: [14, 15, 20, 21, 26], 1: [0, 17, 5, 33, 9]}  # moved by two rows and columns
    for candidate, cells in places.items():
        arrays["appearance"][candidate, cells] = arrays["tokens"]
    reference, candidates = tensors(arrays)
    late = SCORES["late"].function(reference, candidates)
    assert late[0] == pytest.approx(float(late[1]), abs=1e-5)
    as_it_was, in_disorder = SCORES["consistent"].function(reference, candidates).tolist()
    assert as_it_was == pytest.approx(1.0, abs=1e-5)
    assert in_disorder < 0.95


@pytest.mark.parametrize("name", sorted(SCORES))
def test_padding_changes_no_score(name: str) -> None:
    arrays = random_arrays(12)
    score = bound(name, arrays)
    before = score.function(*tensors(arrays))
    arrays["appearance"][~arrays["valid"]] = arrays["tokens"][0]
    arrays["semantic"][~arrays["valid"]] = arrays["class_vector"]
    torch.testing.assert_close(score.function(*tensors(arrays)), before)


def test_without_class_evidence_fused_is_consistent() -> None:
    arrays = random_arrays(13)
    reference, candidates = tensors(arrays)
    consistent, fused = (bound(name, arrays) for name in ("consistent", "fused"))
    expected = consistent.function(reference, candidates)
    assert not torch.equal(fused.function(reference, candidates), expected)
    unnamed = replace(reference, class_vector=None)
    assert torch.equal(fused.function(unnamed, candidates), expected)
    without_rivals = SCORES["fused"].bound(FusionWeights(agreement=0.2, class_evidence=0.3))
    assert torch.equal(without_rivals.function(reference, candidates), expected)


def test_rivals_are_made_only_where_they_count() -> None:
    reference, _ = tensors(random_arrays(14))
    unnamed = replace(reference, class_vector=None)

    class Words:
        """An extractor of which only its competing names matter."""

        asked = 0

        def fingerprint(self) -> dict[str, str]:
            return {"model": "words"}

        @property
        def rival_vectors(self) -> np.ndarray:
            self.asked += 1
            return np.ones((2, 8), np.float32)

    words, weighted = Words(), FusionWeights(class_evidence=0.1)
    for name, references, weights, expected in (
        ("consistent", [reference], weighted, 0),
        ("fused", [reference], FusionWeights(), 0),
        ("fused", [unnamed], weighted, 0),
        ("fused", [unnamed, reference], weighted, 1),
    ):
        words.asked = 0
        bind_score(SCORES[name], words, references, weights)
        assert words.asked == expected


def test_without_a_class_pdm_is_half_the_appearance() -> None:
    reference, candidates = tensors(random_arrays(10))
    bare = replace(reference, class_vector=None)
    halved = SCORES["pdm"].function(bare, candidates)
    torch.testing.assert_close(halved * 2, SCORES["appearance"].function(bare, candidates))
