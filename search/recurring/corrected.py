"""Recurring objects as people corrected them."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from indexer.object_corrections import Correction, Places
from indexer.region_links import RegionLinks

# A region is meant by a place where so much of it is inside.
_INSIDE = 0.5


def corrected(
    objects: Sequence[Sequence[int]], links: RegionLinks, corrections: Sequence[Correction]
) -> list[list[int]]:
    """Objects after all corrections, by the numbers of their regions, each rising.

    Corrections are applied one after the other, so what was said last holds. An object that a
    person spoke of is known again by its places: it is the one that has most of their regions. If
    none has any, because links went with photos, these regions are the object. Photos that are
    taken out of an object, and are two or more, are an object of their own. What is left in one
    photo is no object.
    """
    groups = [set(regions) for regions in objects]
    of_content: dict[bytes, list[int]] = defaultdict(list)
    for region, photo in enumerate(links.photos.tolist()):
        of_content[links.contents[photo].tobytes()].append(region)
    for one in corrections:
        groups = _after(groups, one, links, of_content)
    return [sorted(group) for group in groups if len(set(links.photos[sorted(group)])) > 1]


def _after(
    groups: list[set[int]],
    said: Correction,
    links: RegionLinks,
    of_content: dict[bytes, list[int]],
) -> list[set[int]]:
    """The objects after one correction."""
    holder = {region: place for place, group in enumerate(groups) for region in group}
    joined: set[int] = set()
    chosen: set[int] = set()
    for places in said.objects:
        meant = _meant(places, links, of_content)
        holders = Counter(holder[region] for region in meant if region in holder)
        if holders:
            place = min(holders, key=lambda place: (-holders[place], min(groups[place])))
            chosen.add(place)
            joined |= groups[place]
        else:
            joined |= meant
    gone = {r for content in said.without for r in of_content.get(content.tobytes(), ())}
    others = [group for place, group in enumerate(groups) if place not in chosen]
    return [*others, joined - gone, joined & gone]


def _meant(places: Places, links: RegionLinks, of_content: dict[bytes, list[int]]) -> set[int]:
    """The regions that places mean."""
    meant = set()
    for content, cells in zip(places.contents, places.cells, strict=True):
        for region in of_content.get(content.tobytes(), ()):
            own = links.cells[region]
            if np.count_nonzero(own & cells) >= _INSIDE * np.count_nonzero(own):
                meant.add(region)
    return meant
