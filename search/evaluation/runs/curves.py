"""Precision over recall, and recall over the number of photos looked at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evaluation.runs.values import Entrant

# The recalls at which a curve has a precision.
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class FoundRanks:
    """Where one query's relevant photos are.

    ranks: ascending, from 1; ignored photos do not count. n_relevant: how many there are; those
    not in `ranks` were not among the places that the run file has.
    """

    ranks: NDArray[np.int64]
    n_relevant: int


def found_ranks(entrant: Entrant) -> list[FoundRanks]:
    """For each query of a run of searches with something to find."""
    found = []
    for asked in entrant.run.content["queries"]:
        relevant, method = asked["relevant"], asked["methods"][entrant.method]
        if not relevant:
            continue
        if (ranks := method.get("relevant_ranks")) is None:
            ignored = set(asked["ignored"])
            places = [place for place in method["ranking"] if place not in ignored]
            ranks = np.flatnonzero(np.isin(places, relevant)) + 1
        found.append(FoundRanks(np.asarray(ranks, dtype=np.int64), len(relevant)))
    return found


def has_exact_ranks(entrant: Entrant) -> bool:
    """Whether the run file has the rank of every relevant photo, with equal scores counted against
    the method; files of earlier versions have rankings of 1,000 places alone.
    """
    queries = entrant.run.content["queries"]
    return all("relevant_ranks" in asked["methods"][entrant.method] for asked in queries)


def precision_recall(found: list[FoundRanks]) -> NDArray[np.float64]:
    """Interpolated precision at each of `RECALLS`, (101,), the mean over queries.

    It is the highest precision at that recall or a higher one, and 0 at recalls that the ranking
    does not reach.
    """
    return np.mean([_interpolated(query) for query in found], axis=0)


def recall_at(found: list[FoundRanks], ks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of queries with a relevant photo among the first k, (len(ks),)."""
    best = np.array([query.ranks[0] if len(query.ranks) else np.inf for query in found])
    return np.asarray((best[:, None] <= ks).mean(axis=0))


def _interpolated(query: FoundRanks) -> NDArray[np.float64]:
    n = np.arange(1, len(query.ranks) + 1)
    best_beyond = np.maximum.accumulate((n / query.ranks)[::-1])[::-1]
    # The first place in `ranks` that has the recall; the small number absorbs rounding.
    place = np.ceil(RECALLS * query.n_relevant - 1e-9).astype(np.int64).clip(1) - 1
    return np.append(best_beyond, np.zeros(query.n_relevant - len(n)))[place]
