"""Which object a class name alone means, where the photo shows several things that it may mean.

The map of a class is often as high on another object as on the one that is meant. But other photos
of the collection show the object that is meant, and their map of the class is high there too. So
several regions are proposed, and each is searched for; the one whose first matches agree best with
the class name is the object.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError
from features.maps import FeatureMaps
from features.regions import named_cells
from indexer.collection import Collection
from indexer.protocols import Extractor
from search.clock import Clock
from search.query import Query
from search.recall import find_candidates, recall_by_maps
from search.reference import Reference
from search.scoring.candidates import ScoringReference, to_candidates
from search.scoring.confidence import MINIMUM_PHOTOS, probabilities
from search.scoring.rerank import score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES, bind_score

# Regions that are proposed, the candidates that all of them are compared with, and the matches that
# are looked at for each.
_PROPOSED = 3
_CANDIDATES = 200
_MATCHES = 3

# Another region must be better than the first by this factor (docs/scores.md).
_BETTER = 1.2


def choose_object(
    reader: Collection,
    query: Query,
    reference: Reference,
    extractor: Extractor,
    allowed: NDArray[np.int64] | None,
    clock: Clock,
) -> Reference:
    """The reference with the cells of the object that the query's class name means.

    That is, of three regions, the one with the highest e sqrt(n) p. e is the evidence for the class
    at the cells that the region's n tokens match in its first three matches, above the mean of the
    query's photo, or 0 below it; so e sqrt(n) compares as standard scores of means do. p is the
    mean probability of these matches. Another region than that under the peak of the class map must
    be better by a fifth.

    It stays as it is where a mask, a box, a point or its own name shows the object, where the
    extractor tells no class from the background, and where fewer than 20 photos are compared.

    Photos are compared by the default score, whatever the score of the search. allowed: ids of the
    photos that may be found; None for all. clock: gets the stages "choose" and "fetch". Raises
    RegionError where the class name is unknown.
    """
    name = query.class_name
    region = query.mask or query.box or query.point or query.of_name
    if name is None or region is not None:
        return reference
    vector = extractor.evidence_vector(name)
    if vector is None:
        return reference
    score = bind_score(SCORES[DEFAULT_SCORE], extractor, [])
    with clock("choose"):
        proposed = [
            replace(reference, cells=cells)
            for cells in regions_of(reference.maps, vector, reference.cells)
        ]
        recalls = [recall_by_maps(reader, each, score) for each in proposed]
        ids = find_candidates(recalls, _CANDIDATES, allowed).ids
    if len(proposed) == 1 or len(ids) < MINIMUM_PHOTOS:
        return reference
    asked = [each.for_scoring(extractor.device) for each in proposed]
    scored = score_references(reader, ids, asked, [score], clock, stage="choose")
    searched = reader.n_photos if allowed is None else len(allowed)
    own = reader.has_content(scored.ids, {reference.maps.content_hash})
    photo = reference.maps
    usual = float((photo.semantic[photo.frame.valid()].astype(np.float32) @ vector).mean())
    with clock("choose"):
        worth = np.array(
            [
                _worth(reader, scored.ids, scores, own, searched, region, vector, usual)
                for scores, region in zip(scored.by_score[score.name], asked, strict=True)
            ]
        )
    worth[0] *= _BETTER
    return proposed[int(worth.argmax())]


def regions_of(
    maps: FeatureMaps, evidence_vector: NDArray[np.float32], first: NDArray[np.bool_]
) -> Sequence[NDArray[np.bool_]]:
    """The regions that a class name may mean, 1 to 3 of (grid, grid) bool, the given one first.

    Each of the others is the object under the peak of the evidence apart from those before it.
    """
    regions = [first]
    with suppress(RegionError):  # nothing of the photo is left
        while len(regions) < _PROPOSED:
            regions.append(named_cells(maps, evidence_vector, regions))
    return regions


def _worth(
    reader: Collection,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    own: NDArray[np.bool_],
    searched: int,
    region: ScoringReference,
    evidence_vector: NDArray[np.float32],
    usual: float,
) -> float:
    """e sqrt(n) p of a region; see `choose_object`.

    scores: (n,), those of the photos `ids` by this region. own: (n,) bool, copies of the query's
    photo. searched: as for `probabilities`. usual: the mean evidence in the query's photo.
    """
    likely = probabilities(scores, searched, own)
    order = np.lexsort((ids, -scores))
    first = order[~own[order]][:_MATCHES]
    if likely is None or len(first) == 0:  # damaged photos, and copies
        return 0.0
    evidence = max(_matched_evidence(reader, ids[first], region, evidence_vector) - usual, 0.0)
    return evidence * len(region.tokens) ** 0.5 * float(likely[first].mean())


def _matched_evidence(
    reader: Collection,
    ids: NDArray[np.int64],
    region: ScoringReference,
    evidence_vector: NDArray[np.float32],
) -> float:
    """The mean evidence for a class at the cells that a region's tokens match in some photos."""
    import torch

    vector = torch.from_numpy(evidence_vector).to(region.tokens.device)
    found = []
    with torch.inference_mode():
        for _, maps in reader.read_maps(ids).by_codec():
            candidates = to_candidates(reader, maps, [region])
            _, cells = candidates.best(region)
            evidence = candidates.semantic.products(vector[None]).squeeze(2)
            found.append(evidence.gather(1, cells).mean(dim=1).cpu().numpy())
    return float(np.concatenate(found).mean()) if found else 0.0
