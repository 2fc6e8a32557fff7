"""Average linkage over a sparse graph."""

import heapq
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def average_linkage(
    count: int, pairs: NDArray[np.int64], strengths: NDArray[np.float32], least: float
) -> list[list[int]]:
    """Groups of items, by average linkage (Sokal and Michener, 1958).

    The two groups with the highest mean strength over all pairs of their items are joined again and
    again, until that mean is below `least`. A pair without a link has the strength 0, so a few
    strong links join no large groups. The work grows with the links, not with the pairs.

    count: items, numbered from 0. pairs: (l, 2), linked items, each pair once. strengths: (l,), not
    negative. least: above 0. Returns groups of two items or more, each rising, by their first item.
    """
    sums: dict[int, dict[int, float]] = defaultdict(dict)
    for (a, b), strength in zip(pairs.tolist(), strengths.tolist(), strict=True):
        sums[a][b] = sums[b][a] = strength
    members = {item: [item] for item in range(count)}
    heap = [(-sums[a][b], a, b) for a in sums for b in sums[a] if a < b]
    heapq.heapify(heap)
    while heap:
        mean, a, b = heapq.heappop(heap)
        if -mean < least:
            break
        # A pair that has changed since has another entry.
        if a not in members or b not in members or mean != -_mean(sums, members, a, b):
            continue
        members[a] += members.pop(b)
        for other, total in sums.pop(b).items():
            del sums[other][b]
            if other != a:
                sums[a][other] = sums[other][a] = sums[a].get(other, 0.0) + total
        for other in sums[a]:
            first, second = min(a, other), max(a, other)
            heapq.heappush(heap, (-_mean(sums, members, first, second), first, second))
    return sorted(sorted(group) for group in members.values() if len(group) > 1)


def _mean(
    sums: dict[int, dict[int, float]], members: dict[int, list[int]], a: int, b: int
) -> float:
    return sums[a].get(b, 0.0) / (len(members[a]) * len(members[b]))


def join_overlapping(groups: Iterable[set[int]], share: float) -> list[list[int]]:
    """Which groups belong together, by their places in `groups`.

    Two groups do where they have at least two items in common, and these are at least `share` of
    the smaller one's items. The largest are joined first; what is joined counts as one group.
    """
    joined = [([number], set(group)) for number, group in enumerate(groups)]
    again = True
    while again:
        again = False
        joined.sort(key=lambda one: (-len(one[1]), one[0]))
        kept: list[tuple[list[int], set[int]]] = []
        holders: dict[int, list[int]] = defaultdict(list)  # the kept groups that have an item
        for numbers, items in joined:
            near = sorted({place for item in items for place in holders[item]})
            for place in near:
                common = len(items & kept[place][1])
                if common >= max(2, share * min(len(items), len(kept[place][1]))):
                    kept[place][0].extend(numbers)
                    fresh = items - kept[place][1]
                    kept[place][1].update(fresh)
                    again = True
                    break
            else:
                place, fresh = len(kept), items
                kept.append((numbers, items))
            for item in fresh:
                holders[item].append(place)
        joined = kept
    return [sorted(numbers) for numbers, _ in joined]
