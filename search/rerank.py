"""Reading candidates' maps and scoring them, in batches that fit in memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.reader import IndexReader, MapBatch
from search.clock import Clock
from search.localise import MOST_PLACES, object_places
from search.scores import CandidateMaps, Score, ScoringReference

if TYPE_CHECKING:
    import torch

# Candidates are read about this many bytes at a time, while those before are scored.
_READ_BYTES = 8 * 2**20

# Candidates are scored so many at a time that levels and cosines are about this many numbers: a CPU
# is spared calls, a GPU kept busy.
_BLOCK_NUMBERS = {"cpu": 16_000_000, "gpu": 256_000_000}


# What a photo loses for being more like what is not looked for.
_UNLIKE_WEIGHT = np.float32(0.5)


@dataclass(frozen=True)
class RerankedCandidates:
    """Scored candidates, in the order they were given, damaged ones left out.

    ids: (n,) int64. scores: (n,) float32. damaged: a line for each candidate left out.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    damaged: list[str]


def to_candidates(
    reader: IndexReader, maps: MapBatch, references: Sequence[ScoringReference]
) -> CandidateMaps:
    """Stored maps of one codec as a score takes them, on the device of the references, at least
    one, that will be compared with them.
    """
    import torch

    device = references[0].tokens.device
    appearance, semantic = reader.tokens(maps, device)
    valid = torch.from_numpy(maps.valid).to(device)
    return CandidateMaps(appearance, semantic, valid, tuple(references))


def scoring_blocks(
    reader: IndexReader, maps: MapBatch, references: Sequence[ScoringReference]
) -> Iterator[tuple[NDArray[np.intp], CandidateMaps]]:
    """Photos' maps in blocks that suit the device of the references that will all be compared with
    them: each block's rows in `maps`, and the block.
    """
    device = references[0].tokens.device
    numbers = _BLOCK_NUMBERS["cpu" if device.type == "cpu" else "gpu"]
    tokens = sum(len(reference.tokens) for reference in references)
    block = max(1, numbers // (reader.grid**2 * (reader.dim + tokens)))
    for rows, part in maps.by_codec():
        for start in range(0, len(rows), block):
            some = slice(start, start + block)
            yield rows[some], to_candidates(reader, part.rows(some), references)


def rerank(
    reader: IndexReader,
    ids: NDArray[np.int64],
    reference: ScoringReference,
    score: Score,
    clock: Clock,
) -> RerankedCandidates:
    """Score candidates' full maps against a reference, on the reference's device.

    ids: (n,) int64, photos of the index. clock: gets the stages "fetch", what is waited for beside
    scoring, and "score".
    """
    kept: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    damaged: list[str] = []
    for maps in read_ahead(reader, ids, clock):
        damaged += maps.damaged
        kept.append(maps.ids)
        with clock("score"):
            scores.append(score_maps(reader, maps, reference, score))
    return RerankedCandidates(
        np.concatenate([*kept, np.empty(0, np.int64)]),
        np.concatenate([*scores, np.empty(0, np.float32)]),
        damaged,
    )


def combine(wanted: NDArray[np.float32], unwanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """One score a photo, (n,), of those by several photos of the object and of what it is not.

    wanted: (r, n), r >= 1: the best counts. unwanted: (m, n): a photo more like one of these loses
    half of what it is more like it (docs/scores.md).
    """
    best = wanted.max(axis=0)
    worst = unwanted.max(axis=0, initial=-np.inf)
    combined: NDArray[np.float32] = best - _UNLIKE_WEIGHT * np.maximum(worst - best, 0.0)
    return combined


def score_maps(
    reader: IndexReader, maps: MapBatch, reference: ScoringReference, score: Score
) -> NDArray[np.float32]:
    """The scores of photos' maps, (n,) float32, computed on the reference's device."""
    import torch

    scores = np.empty(len(maps.ids), dtype=np.float32)
    with torch.inference_mode():
        for rows, candidates in scoring_blocks(reader, maps, [reference]):
            scores[rows] = score.function(reference, candidates).cpu().numpy()
    return scores


@dataclass(frozen=True)
class Evidence:
    """Where in n photos the object is.

    heat: (n, cells) float32, the score's evidence. places: (n, 8, cells) bool, the object's cells
    at each place where it is, best first; at least one cell at the first, none where there is no
    further place.
    """

    heat: NDArray[np.float32]
    places: NDArray[np.bool_]


def localise(
    reader: IndexReader,
    maps: MapBatch,
    references: Sequence[ScoringReference],
    which: NDArray[np.int64],
    score: Score,
    least: NDArray[np.float32],
    unlike: Sequence[ScoringReference] = (),
) -> Evidence:
    """Where in photos the object is, found on the references' device.

    which: (n,), the reference that each photo is to be seen by. least: (n,), what a photo must
    score without the places found in it for another place to count. unlike: what the object is not.
    """
    import torch

    count, cells = len(maps.ids), reader.grid**2
    evidence = Evidence(
        np.empty((count, cells), dtype=np.float32),
        np.zeros((count, MOST_PLACES, cells), dtype=bool),
    )
    with torch.inference_mode():
        for number in np.unique(which):
            reference = references[number]
            chosen = np.flatnonzero(which == number)
            for rows, part in maps.rows(chosen).by_codec():
                photos = chosen[rows]
                candidates = to_candidates(reader, part, [reference, *unlike])
                heat = score.heat(reference, candidates)
                evidence.heat[photos] = heat.cpu().numpy()
                scored = partial(_score_left, score, reference, unlike)
                enough = torch.from_numpy(least[photos]).to(heat.device)
                places = object_places(reference, candidates, heat, scored, enough)
                for at, place in enumerate(places):
                    evidence.places[photos, at] = place.cpu().numpy()
    return evidence


def _score_left(
    score: Score,
    reference: ScoringReference,
    unlike: Sequence[ScoringReference],
    candidates: CandidateMaps,
) -> "torch.Tensor":
    """Scores by one photo of the object and those of what it is not, (batch,) float32."""
    import torch

    by_each = [score.function(each, candidates).cpu().numpy() for each in (reference, *unlike)]
    combined = combine(np.stack(by_each[:1]), np.stack(by_each)[1:])
    return torch.from_numpy(combined).to(candidates.valid.device)


def read_ahead(reader: IndexReader, ids: NDArray[np.int64], clock: Clock) -> Iterator[MapBatch]:
    """The maps of photos, batch by batch, each read from disk while the one before is worked on.

    ids: (n,) int64, photos of the index. clock: gets the stage "fetch", what is waited for.
    """
    batch = max(1, _READ_BYTES // reader.photo_bytes)
    parts = [ids[start : start + batch] for start in range(0, len(ids), batch)]
    if reader.holds_maps:
        for part in parts:
            with clock("fetch"):
                maps = reader.read_maps(part)
            yield maps
        return
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(reader.read_maps, part) for part in parts[:1]]
        for number in range(len(parts)):
            with clock("fetch"):
                maps = coming.pop().result()
            coming += [thread.submit(reader.read_maps, p) for p in parts[number + 1 : number + 2]]
            yield maps
