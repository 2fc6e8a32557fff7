"""Average precision by class and by the size of the object, and what a benchmark parts itself."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from search.evaluation.method_table import part_metric
from search.evaluation.runs.values import Entrant

# Bounds of the bins of an object's share of its photo.
_BOUNDS = (0.01, 0.03, 0.1, 0.3)
_BINS = (
    f"below {100 * _BOUNDS[0]:g} %",
    *(f"{100 * low:g} to {100 * high:g} %" for low, high in pairwise(_BOUNDS)),
    f"{100 * _BOUNDS[-1]:g} % or more",
)


@dataclass(frozen=True)
class Part:
    """Some queries of a run. label: what they share. n: how many. means: the metric by entrant,
    which is mAP but for `by_part`, a fraction; None where an entrant's run has no such query.
    """

    label: str
    n: int
    means: list[float | None]


def by_class(entered: list[Entrant]) -> list[Part]:
    """By the class that was looked for, in alphabetical order; queries without one are left out."""
    return sorted(_parts(entered, lambda asked: asked.get("class")), key=lambda part: part.label)


def by_size(entered: list[Entrant]) -> list[Part]:
    """By the share of its photo that the object takes; queries without an area are left out."""
    return sorted(_parts(entered, _bin), key=lambda part: _BINS.index(part.label))


def by_part(entered: list[Entrant]) -> list[Part]:
    """By the benchmark's own parts of the relevant photos, in the metric that reports have there;
    none where a run has no parts.
    """
    found = [entrant.run.content["methods"][entrant.method].get("parts") for entrant in entered]
    if not found or not all(found):
        return []
    metric = part_metric(found[0])
    return [
        Part(name, part["n_queries"], [parts[name][metric] for parts in found])
        for name, part in found[0].items()
    ]


def has_sizes(entrant: Entrant) -> bool:
    """Whether the run file has the sizes of objects; those of earlier versions have none."""
    return any("object_share" in asked for asked in entrant.run.content["queries"])


def _bin(asked: dict[str, Any]) -> str | None:
    share = asked.get("object_share")
    return None if share is None else _BINS[int(np.searchsorted(_BOUNDS, share, side="right"))]


def _parts(entered: list[Entrant], label_of: Callable[[dict[str, Any]], str | None]) -> list[Part]:
    found = [_by_label(entrant, label_of) for entrant in entered]
    parts = []
    for label in dict.fromkeys(label for groups in found for label in groups):
        chosen = [groups.get(label, []) for groups in found]
        means = [float(np.mean(precisions)) if precisions else None for precisions in chosen]
        parts.append(Part(label, max(map(len, chosen)), means))
    return parts


def _by_label(
    entrant: Entrant, label_of: Callable[[dict[str, Any]], str | None]
) -> dict[str, list[float]]:
    """The average precisions of the queries with each label."""
    groups: dict[str, list[float]] = defaultdict(list)
    for asked in entrant.run.content["queries"]:
        precision = asked["methods"][entrant.method]["average_precision"]
        if (label := label_of(asked)) is not None and precision is not None:
            groups[label].append(precision)
    return groups
