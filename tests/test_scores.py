"""Every score against a naive float64 twin, one reference token and one cell at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.frame import Frame
from search.localise import object_cells
from search.scores import SCORES, CandidateMaps, ScoringReference

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


NAIVE: dict[str, Callable[[Arrays, int], float]] = {
    "pdm": over_map(naive_fused),
    "appearance": over_map(naive_appearance),
    "semantic": over_map(naive_semantic),
    "cosine": naive_cosine,
    "late": naive_late,
}


def random_arrays(seed: int, batch: int = 3, cells: int = 12, d: int = 8) -> Arrays:
    rng = np.random.default_rng(seed)
    valid = rng.random((batch, cells)) < 0.6
    valid[:, 0] = True
    return {
        "tokens": rng.normal(size=(5, d)),
        "class_vector": rng.normal(size=d),
        "mean": rng.normal(size=d),
        "appearance": rng.normal(size=(batch, cells, d)),
        "semantic": rng.normal(size=(batch, cells, d)),
        "valid": valid,
    }


def tensors(a: Arrays) -> tuple[ScoringReference, CandidateMaps]:
    def single(name: str) -> torch.Tensor:
        return torch.from_numpy(a[name]).float()

    reference = ScoringReference(single("tokens"), single("class_vector"), single("mean"))
    candidates = CandidateMaps(
        single("appearance"), single("semantic"), torch.from_numpy(a["valid"])
    )
    return reference, candidates


def test_every_score_has_a_twin() -> None:
    assert set(NAIVE) == set(SCORES)


@pytest.mark.parametrize("name", sorted(SCORES))
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scores_equal_their_naive_twins(name: str, seed: int) -> None:
    arrays = random_arrays(seed)
    scored = SCORES[name].function(*tensors(arrays))
    expected = [NAIVE[name](arrays, candidate) for candidate in range(3)]
    np.testing.assert_allclose(scored.scores.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "cell_value"),
    [("pdm", naive_fused), ("appearance", naive_appearance), ("semantic", naive_semantic)],
)
def test_heatmaps_of_the_linear_scores(
    name: str, cell_value: Callable[[Arrays, int, int], float]
) -> None:
    arrays = random_arrays(7)
    heatmaps = SCORES[name].function(*tensors(arrays)).heatmaps.numpy()
    expected = [[cell_value(arrays, i, c) for c in range(12)] for i in range(3)]
    np.testing.assert_allclose(heatmaps, expected, rtol=1e-4, atol=1e-5)


def test_heatmap_of_late_interaction_is_the_best_cosine() -> None:
    arrays = random_arrays(8)
    heatmaps = SCORES["late"].function(*tensors(arrays)).heatmaps.numpy()
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
    scored = SCORES["late"].function(*tensors(arrays))
    np.testing.assert_allclose(scored.scores.numpy(), -1.0, atol=1e-5)


def test_without_a_class_pdm_is_half_the_appearance() -> None:
    reference, candidates = tensors(random_arrays(10))
    bare = ScoringReference(reference.tokens, None, reference.mean_appearance)
    halved = SCORES["pdm"].function(bare, candidates).scores
    torch.testing.assert_close(halved * 2, SCORES["appearance"].function(bare, candidates).scores)


def test_object_cells_are_those_around_the_peak() -> None:
    frame = Frame(width=160, height=80, size=128, grid=16)
    heatmap = np.zeros((16, 16), dtype=np.float32)
    heatmap[2:4, 3:6] = 0.8
    heatmap[2, 4] = 1.0
    heatmap[6, 12] = 0.9  # elsewhere, not connected
    heatmap[8:] = 5.0  # padding
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:4, 3:6] = True
    np.testing.assert_array_equal(object_cells(heatmap, frame), expected)
    assert frame.box_of(expected) == (30, 20, 60, 40)
