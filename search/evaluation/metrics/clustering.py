"""How well groups of photos agree with what the photos show. A photo may be in several groups, and
may show several objects.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClusteringScores:
    """precisions, recalls: (n,) float64, BCubed precision and recall of each photo; NaN for the
    recall of a photo that shows nothing. pair_precision, pair_recall: over the pairs of different
    photos; NaN where no pair is grouped, or none shows the same. placed: the share of the photos
    that are in a group.
    """

    precisions: NDArray[np.float64]
    recalls: NDArray[np.float64]
    pair_precision: float
    pair_recall: float
    placed: float

    @property
    def precision(self) -> float:
        return float(self.precisions.mean())

    @property
    def recall(self) -> float:
        return float(np.nanmean(self.recalls))

    @property
    def f(self) -> float:
        """The harmonic mean of BCubed precision and recall."""
        return harmonic(self.precision, self.recall)

    @property
    def pair_f(self) -> float:
        return harmonic(self.pair_precision, self.pair_recall)


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def score_groups(
    groups: Sequence[Collection[int]], labels: Sequence[Collection[Hashable]]
) -> ClusteringScores:
    """Extended BCubed (Amigo et al., "A comparison of extrinsic clustering evaluation metrics based
    on formal constraints", Information Retrieval 2009), and pairwise precision and recall.

    For two photos that share c groups and l labels, the multiplicity precision is min(c, l) / c and
    the multiplicity recall min(c, l) / l. A photo's precision is the mean over all photos that
    share a group with it, itself too; its recall likewise over those that share a label. Where
    each photo has one group and one label, this is BCubed as Bagga and Baldwin defined it (1998). A
    photo in no group is one of its own. A pair is grouped where the photos share a group, and true
    where they share a label.

    groups: the numbers of photos, from 0. labels: of each photo, n >= 1.
    """
    count = len(labels)
    together = _incidence(groups, count)
    alone = ~together.any(axis=1)
    names = {name: place for place, name in enumerate(dict.fromkeys(x for s in labels for x in s))}
    shown = np.zeros((count, len(names)), dtype=bool)
    for photo, own in enumerate(labels):
        shown[photo, [names[name] for name in own]] = True
    shared = together.astype(np.int64) @ together.T + np.diag(alone)
    same = shown.astype(np.int64) @ shown.T
    common = np.minimum(shared, same)
    off = ~np.eye(count, dtype=bool)
    grouped, true = (shared > 0) & off, (same > 0) & off
    return ClusteringScores(
        _means(common / np.maximum(shared, 1), shared > 0),
        _means(common / np.maximum(same, 1), same > 0),
        _share(grouped & true, grouped),
        _share(grouped & true, true),
        float(1 - alone.mean()),
    )


def _incidence(groups: Sequence[Collection[int]], count: int) -> NDArray[np.bool_]:
    found = np.zeros((count, len(groups)), dtype=bool)
    for place, group in enumerate(groups):
        found[list(group), place] = True
    return found


def _means(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each row where it counts, NaN where nothing does."""
    counts = where.sum(axis=1)
    sums = np.where(where, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")
