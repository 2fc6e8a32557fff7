"""Differences between runs, curves and breakdowns, against plain loops over float64 numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.evaluation.runs.breakdowns import by_class, by_size
from search.evaluation.runs.comparison import compare, grouped_interval
from search.evaluation.runs.curves import RECALLS, FoundRanks, found_ranks, precision_recall
from search.evaluation.runs.curves import recall_at as recall_curve
from search.evaluation.runs.run_files import Run
from search.evaluation.runs.values import entrants, metric_of, values


def searches_run(name: str, folder: str, precisions: dict[str, list[float | None]]) -> Run:
    """Queries 2 i and 2 i + 1 are two boxes of photo i; each has three relevant photos."""
    n = len(next(iter(precisions.values())))
    queries = [
        {
            "photo": f"{folder}/part/{i // 2:02}.jpg",
            "class": "cup" if i < 3 else None,
            "mask": None,
            "box": [0, 0, 10 + i % 2, 10],
            "object_share": [0.005, 0.01, 0.2, 0.9][i % 4],
            "relevant": [1, 2, 3],
            "ignored": [0],
            "methods": {
                method: {"average_precision": of[i], "ranking": [0, 4, 1, 5, 3, 2]}
                for method, of in precisions.items()
            },
        }
        for i in range(n)
    ]
    content = {
        "protocol": "folders",
        "queries": queries,
        "methods": {name: {} for name in precisions},
    }
    return Run(Path(f"{name}.json"), content, {method: {} for method in precisions})


def test_differences_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.random(40).tolist(), rng.random(40).tolist()
    # The second run lies in another folder: names begin below what all queries share.
    runs = [searches_run("a", "/x", {"late": old}), searches_run("b", "/y/z", {"late": new})]
    [found] = compare(runs).differences
    assert (found.n, found.n_groups) == (40, 20)
    assert "2,000 resamples of the 20 query photos" in compare(runs).explanation()
    assert "too narrow" not in compare(runs).explanation()
    assert found.mean == pytest.approx(sum(new) / 40 - sum(old) / 40)
    better = sum(a > b for a, b in zip(new, old, strict=True))
    assert (found.better, found.worse) == (better / 40, 1 - better / 40)
    picks = np.random.default_rng(0).integers(0, 20, (2000, 20))
    means = []
    for drawn in picks.tolist():
        chosen = [new[q] - old[q] for group in drawn for q in (2 * group, 2 * group + 1)]
        means.append(sum(chosen) / len(chosen))
    assert found.interval == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_queries_of_a_photo_do_not_count_as_independent() -> None:
    """Twins say nothing new: the interval is that of single queries, not a narrower one."""
    values_of = np.random.default_rng(1).normal(size=30)
    twins = grouped_interval(np.repeat(values_of, 2), np.repeat(np.arange(30), 2))
    assert twins == pytest.approx(grouped_interval(values_of, np.arange(30)))
    apart = grouped_interval(np.repeat(values_of, 2), np.arange(60))
    assert apart[1] - apart[0] < 0.85 * (twins[1] - twins[0])


def test_what_a_method_is_compared_with() -> None:
    a = searches_run("a", "/x", {"late": [0.5] * 4, "consistent": [0.75] * 4})
    b = searches_run("b", "/x", {"late": [0.25] * 4, "words": [1.0] * 4})
    pairs = [(d.entrant.name, d.other.name, d.mean) for d in compare([a, b]).differences]
    assert "too narrow" in compare([a, b]).explanation()  # two query photos
    assert pairs == [
        ("late (a)", "consistent (a)", -0.25),
        ("late (b)", "late (a)", -0.25),
        ("words (b)", "consistent (a)", 0.25),
    ]


def test_runs_of_other_queries_are_not_compared() -> None:
    a = searches_run("a", "/x", {"late": [0.5] * 4})
    b = searches_run("b", "/x", {"late": [0.5] * 4})
    b.content["queries"][2]["box"] = [5, 5, 9, 9]
    found = compare([a, b])
    assert found.differences == []
    assert found.notes == ["Not compared: b.json has other queries than a.json."]
    # A query with nothing to find counts in neither.
    c = searches_run("c", "/x", {"late": [0.5, None, 1.0, 1.0], "words": [0.5, None, 0.0, 1.0]})
    [difference] = compare([c]).differences
    assert (difference.n, difference.mean) == (3, pytest.approx(-1 / 3))


def test_masks_and_videos_are_compared_by_object() -> None:
    def fit(name: str, *ious: float) -> dict[str, Any]:
        return {"name": name, "iou": 0.1, "targets": [{"iou": iou} for iou in ious]}

    objects = {"segment": [fit("cup", 0.2, 0.4), fit("dog", 1.0)]}
    content = {"protocol": "permis", "objects": objects, "methods": {"segment": {}}}
    [entrant] = entrants([Run(Path("a.json"), content, {"segment": {}})])
    assert [v.value for v in values(entrant).values()] == pytest.approx([0.3, 1.0])
    assert metric_of(entrant.run).name == "mIoU per instance"
    content["protocol"] = "perseg"
    assert metric_of(entrant.run).name == "mIoU per group"
    assert [v.value for v in values(entrant).values()] == [0.1, 0.1]
    content["objects"]["segment"] = [
        {"sequence": "x", "object_id": number, "j": {"mean": number}, "f": {"mean": 1}}
        for number in (0, 1)
    ]
    assert [(v.group, v.value) for v in values(entrant).values()] == [("x", 0.5), ("x", 1.0)]
    content["objects"] = ["cup", "dog"]  # groups of photos: no result of a single one
    assert values(entrant) == {}


def test_curves_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(50):
        n = int(rng.integers(1, 9))
        ranks = np.sort(rng.choice(np.arange(1, 60), n, replace=False))
        found.append(FoundRanks(ranks[: int(rng.integers(0, n + 1))], n))
    expected = np.zeros(len(RECALLS))
    for query in found:
        for number in range(len(RECALLS)):
            # Recalls compared as whole numbers, free of rounding.
            beyond = [
                found_so_far / rank
                for found_so_far, rank in enumerate(query.ranks, start=1)
                if found_so_far * 100 >= number * query.n_relevant
            ]
            expected[number] += max(beyond, default=0.0) / len(found)
    np.testing.assert_allclose(precision_recall(found), expected, atol=1e-12)
    ks = np.array([1, 2, 5, 50])
    within = [[any(rank <= k for rank in q.ranks) for q in found] for k in ks]
    np.testing.assert_allclose(recall_curve(found, ks), np.mean(within, axis=1))


def test_ranks_of_files_with_and_without_them() -> None:
    run = searches_run("a", "/x", {"late": [0.5]})
    [entrant] = entrants([run])
    [query] = found_ranks(entrant)  # of the ranking 0, 4, 1, 5, 3, 2 the first is ignored
    assert (query.ranks.tolist(), query.n_relevant) == ([2, 4, 5], 3)
    run.content["queries"][0]["methods"]["late"]["relevant_ranks"] = [3, 4, 900]
    [query] = found_ranks(entrant)
    assert query.ranks.tolist() == [3, 4, 900]


def test_breakdowns() -> None:
    run = searches_run("a", "/x", {"late": [0.1, 0.2, 0.3, 0.4], "words": [1.0, 1.0, 1.0, None]})
    entered = entrants([run])
    [cups] = by_class(entered)
    assert (cups.label, cups.n, cups.means) == ("cup", 3, [pytest.approx(0.2), 1.0])
    sizes = [(part.label, part.n, part.means) for part in by_size(entered)]
    assert sizes == [
        ("below 1 %", 1, [0.1, 1.0]),
        ("1 to 3 %", 1, [0.2, 1.0]),
        ("10 to 30 %", 1, [0.3, 1.0]),
        ("30 % or more", 1, [0.4, None]),
    ]
