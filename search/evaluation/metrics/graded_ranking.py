"""Rankings of graded benchmarks: the metrics of revisited Oxford and Paris (CVPR 2018).

They equal those of the published evaluator (github.com/filipradenovic/revisitop), which does not
define the order of equal scores.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import BenchmarkQuery, flags
from search.evaluation.metrics.ranking import ranks_of

Difficulty = Literal["easy", "medium", "hard"]


def positives_and_junk(
    query: BenchmarkQuery, difficulty: Difficulty
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The photos to find and those left out of the ranking, as places in the gallery.

    query: of a graded benchmark. "easy": find the easy photos; leave out junk and hard ones.
    "medium": find easy and hard ones; leave out junk. "hard": find the hard ones; leave out junk
    and easy ones. A query with nothing to find does not count for the mean.
    """
    assert query.hard is not None  # the benchmark is graded
    if difficulty == "medium":
        wanted = query.relevant
    elif difficulty == "hard":
        wanted = query.hard
    else:
        wanted = np.setdiff1d(query.relevant, query.hard)
    return wanted, np.union1d(query.ignored, np.setdiff1d(query.relevant, wanted))


def positive_ranks(
    scores: NDArray[np.floating], positives: NDArray[np.int64], junk: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The ranks of the positives, from 0, ascending, with the junk left out.

    Among equal scores the positives come last, so a method that cannot tell photos apart gains
    nothing from the order of the gallery. scores: (n_gallery,), higher is better. positives, junk:
    places, disjoint.
    """
    kept = ~flags(junk, len(scores))
    return ranks_of(flags(positives, len(scores))[kept], scores[kept])


def revisited_average_precision(ranks: NDArray[np.int64], n_positives: int) -> float:
    """The trapezoidal average precision of the published evaluator, 0..1.

    ranks: those of the positives that are ranked, as `positive_ranks` gives them. n_positives:
    their number with those that are not ranked. The j-th positive, at rank r, adds
    (j / r + (j + 1) / (r + 1)) / 2, where j / r is 1 at r = 0. The sum is divided by the number of
    positives. This is not scikit-learn's average precision: a single positive at r = 1 gives 0.25,
    not 0.5. Raises ValueError where there is no positive.
    """
    if n_positives == 0:
        raise ValueError("no positive: leave the query out")
    j = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
    after = (j + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * n_positives))


def revisited_precision_at(ranks: NDArray[np.int64], k: int) -> float:
    """The published evaluator's precision at k, 0..1; its mean over queries is mP@k.

    ranks: as in `revisited_average_precision`. k: at least 1. The result is the share of positives
    among the first kq = min(k, last positive's rank + 1) places, so a query with few positives can
    reach 1. It is 0 where no positive is ranked.
    """
    if len(ranks) == 0:
        return 0.0
    kq = min(k, int(ranks[-1]) + 1)
    return float((ranks < kq).sum() / kq)
