"""Confidence against its definition, and against random scores."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import combine_pvalues, norm

from search.evaluation.benchmarks.benchmark import BenchmarkQuery
from search.evaluation.metrics.absence import absence, query_absence
from search.query import Query
from search.scoring.confidence import (
    MINIMUM_PHOTOS,
    combined_heights,
    confidences,
    evidence,
    probabilities,
)


@pytest.mark.parametrize("decimals", [7, 2])
def test_confidence_equals_its_definition(decimals: int) -> None:
    # By two decimals many scores are equal.
    scores = np.random.default_rng(0).normal(0.4, 0.05, 300).astype(np.float32).round(decimals)
    scores[7], scores[8] = 0.62, 0.58
    middle, high = np.quantile(scores.astype(np.float64), [0.5, 0.9])
    spread = (high - middle) / norm.ppf(0.9)
    expected = []
    for own in scores:
        others = scores[scores <= own]
        reached = [(scores >= other).sum() for other in others]
        expected.append(1 - min(1.0, *(300 * norm.sf((others - middle) / spread) / reached)))
    found = confidences(scores)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.argmax() == 7
    assert found[7] > 0.99
    assert (np.diff(found[scores.argsort()]) >= 0).all()


@pytest.mark.parametrize("count", [50, 400])
def test_chance_reaches_a_confidence_as_often_as_promised(count: int) -> None:
    rng = np.random.default_rng(1)
    best = []
    for _ in range(600):
        found = confidences(rng.normal(size=count).astype(np.float32))
        assert found is not None
        best.append(found.max())
    for least in (0.5, 0.9, 0.99):
        # The quantiles are estimated from few photos, hence the tolerance.
        assert np.mean(np.array(best) >= least) == pytest.approx(1 - least, abs=0.12)


def test_evidence_equals_its_definition() -> None:
    scores = np.random.default_rng(3).normal(0.4, 0.05, 200).astype(np.float32)
    own = np.zeros(200, dtype=bool)
    own[9] = True
    scores[9], scores[4] = 1.0, 0.7  # the query's own photo, and the first match
    middle, high = np.quantile(scores.astype(np.float64), [0.5, 0.9])
    spread = (high - middle) / norm.ppf(0.9)
    first = max(scores[row] for row in range(200) if row != 9) - middle
    expected = [
        [(score - middle) / spread, np.log(5000), min(max((score - middle) / first, 0), 1)]
        for score in scores.astype(np.float64)
    ]
    np.testing.assert_allclose(evidence(scores, 5000, own), expected, atol=1e-3)


def test_a_photo_is_more_probable_by_its_score_and_among_fewer_photos() -> None:
    scores = np.random.default_rng(4).normal(0.4, 0.05, 100).astype(np.float32)
    none = np.zeros(100, dtype=bool)
    few, many = probabilities(scores, 100, none), probabilities(scores, 10_000, none)
    assert few is not None
    assert many is not None
    assert (few > many).all()
    assert 0 < many.min() < few.max() < 0.7  # all by chance
    assert (np.diff(few[scores.argsort()]) > 0).all()  # no plateaus
    scores[3] = 0.9
    clear = probabilities(scores, 100, none)
    assert clear is not None
    assert clear[3] > 0.95
    assert np.delete(clear, 3).max() < few.max()  # far behind a clear first match
    as_query = probabilities(scores, 100, np.arange(100) == 3)
    assert as_query is not None
    assert np.delete(as_query, 3).max() > np.delete(clear, 3).max()


def test_too_few_photos_have_no_confidence() -> None:
    assert confidences(np.zeros(MINIMUM_PHOTOS - 1, np.float32)) is None
    few = np.zeros(MINIMUM_PHOTOS - 1, np.float32)
    assert probabilities(few, 19, np.zeros(19, dtype=bool)) is None
    alike = probabilities(np.ones(20, np.float32), 20, np.ones(20, dtype=bool))
    assert alike is not None
    assert alike.max() < 0.5
    same = confidences(np.zeros(MINIMUM_PHOTOS, np.float32))
    assert same is not None
    assert np.isfinite(same).all()
    assert same.max() <= 0.5


def test_absence_counts_queries_with_and_without_their_object() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(0.3, 0.02, (3, 60)).astype(np.float32)
    queries = [
        BenchmarkQuery(Query(Path("q.jpg"), "dog"), np.array([10 + row]), np.arange(2), True)
        for row in range(3)
    ]
    scores[0, 10] = 0.9  # found
    scores[1, 20] = 0.9  # a wrong photo leads, with and without the object in the gallery
    scores[2, 12] = 0.2  # nothing is found
    scores[:, 0] = 1.0  # ignored
    found = absence([query_absence(*asked) for asked in zip(queries, scores, strict=True)])
    assert found is not None
    assert found["0.99"] == {
        "right": 1 / 3,
        "wrong": 1 / 3,
        "false_alarms": 1 / 3,
        "precision": 1 / 2,
    }
    # The query with the right best match beats two of the three without an object; the others beat
    # at most two.
    assert 4 / 9 <= found["auc"] <= 8 / 9


def test_heights_of_several_judges_are_combined_by_fishers_method() -> None:
    random = np.random.default_rng(7)
    heights = random.normal(size=(3, 200)) * 2
    heights[:, 0], heights[:, 1], heights[:, 2] = 60, -60, (50, -9, -9)
    known = random.random((3, 200)) < 0.7
    known[0] |= ~known.any(axis=0)
    known[:, :3] = True
    found = combined_heights(heights, known)
    assert np.isfinite(found).all()
    assert found[0] > 60 > found[2] > 40  # beyond what float64 p-values can hold
    for column in range(3, 200):
        p_values = norm.sf(heights[known[:, column], column])
        expected = norm.isf(combine_pvalues(p_values).pvalue)
        assert found[column] == pytest.approx(expected, rel=1e-6, abs=1e-6)
