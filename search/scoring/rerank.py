"""Re-ranking: candidates' full maps are read once and scored against every reference."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import Batches
from indexer.collection import Collection, MapBatch
from search.clock import Clock
from search.scoring.candidates import (
    CandidateMaps,
    ScoringReference,
    photos_per_read,
    read_ahead,
    scoring_blocks,
)
from search.scoring.scores import Score

if TYPE_CHECKING:
    import torch

# As Python's `map`.
Map = Callable[..., Iterable[Any]]

# References whose tokens share one matrix product; more would leave blocks of few photos.
_TOGETHER = 8

# Photos that others are asked about at a time, so that they say how far they are, and send back a
# bounded number of scores.
_ASKED_TOGETHER = 16_384

# How much of the difference a photo loses that is more like an unwanted object.
_UNLIKE_WEIGHT = np.float32(0.5)


@dataclass(frozen=True)
class Scored:
    """Photos' scores by full maps.

    ids: (n,) int64, the photos in the order they were given, damaged ones left out.
    by_score: (n_references, n) float32 by the name of each score.
    damaged: a line for each photo that was left out.
    """

    ids: NDArray[np.int64]
    by_score: dict[str, NDArray[np.float32]]
    damaged: list[str]


def score_references(
    reader: Collection,
    ids: NDArray[np.int64],
    references: Sequence[ScoringReference],
    scores: Sequence[Score],
    clock: Clock,
    stage: str | None = None,
    on_photos: Callable[[int], None] | None = None,
) -> Scored:
    """Score photos by their full maps against references, on the references' device.

    Each photo's maps are read once, by whoever holds them. The tokens of up to 8 references share
    one matrix product with a block of photos; on a CPU, each thread works on a block of its own.

    ids: (n,) int64, photos of the index. references: at least one. scores: of different names.
    clock: gets the stage "fetch", and the time of each score as `stage`, or else by its name; what
    scores share counts for the first of them. on_photos: called with the number of photos done.
    Where a GPU's memory does not suffice, it warns with LittleMemoryWarning and compares fewer
    photos at a time.
    """
    with clock(stage or scores[0].name):
        pieces = _scored_there(reader, ids, references, scores, on_photos)
    if pieces is not None:
        return _put_together(ids, pieces, len(references), scores)
    kept: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    parts = {score.name: [np.empty((len(references), 0), np.float32)] for score in scores}
    damaged: list[str] = []
    done = 0
    batches = Batches(photos_per_read(reader), "candidates")
    with map_in_threads(references[0].tokens.device) as over_blocks:

        def score_some(maps: MapBatch, some: range) -> dict[str, NDArray[np.float32]]:
            photos = maps.rows(slice(some.start, some.stop))
            return _score_photos(reader, photos, references, scores, clock, stage, over_blocks)

        for maps in read_ahead(reader, ids, clock):
            if on_photos is not None:
                on_photos(done)
            for found in batches.map(partial(score_some, maps), range(len(maps.ids))):
                for name, photos in found.items():
                    parts[name].append(photos)
            kept.append(maps.ids)
            damaged += maps.damaged
            done += len(maps.ids) + len(maps.damaged)
    by_score = {name: np.concatenate(values, axis=1) for name, values in parts.items()}
    return Scored(np.concatenate(kept), by_score, damaged)


def _scored_there(
    reader: Collection,
    ids: NDArray[np.int64],
    references: Sequence[ScoringReference],
    scores: Sequence[Score],
    on_photos: Callable[[int], None] | None,
) -> list[Scored] | None:
    """What those who hold the maps of photos score; None where this process reads them."""
    work = partial(_score_there, references=references, scores=scores)
    pieces: list[Scored] = []
    for start in range(0, max(1, len(ids)), _ASKED_TOGETHER):
        some = ids[start : start + _ASKED_TOGETHER]
        found = reader.near_maps(some, work)
        if found is None:
            return None
        pieces += found
        if on_photos is not None:
            on_photos(start + len(some))
    return pieces


def _score_there(
    reader: Collection,
    ids: NDArray[np.int64],
    references: Sequence[ScoringReference],
    scores: Sequence[Score],
) -> Scored:
    """As `score_references`, by whoever holds the maps."""
    return score_references(reader, ids, references, scores, Clock())


def _put_together(
    ids: NDArray[np.int64], pieces: Sequence[Scored], n_references: int, scores: Sequence[Score]
) -> Scored:
    """What several scored, in the order of ids."""
    found = np.concatenate([np.empty(0, np.int64), *(piece.ids for piece in pieces)])
    rising = np.argsort(ids)
    order = np.argsort(rising[np.searchsorted(ids, found, sorter=rising)])
    none = np.empty((n_references, 0), np.float32)
    by_score = {
        score.name: np.concatenate(
            [none, *(piece.by_score[score.name] for piece in pieces)], axis=1
        )[:, order]
        for score in scores
    }
    return Scored(found[order], by_score, [line for piece in pieces for line in piece.damaged])


def _score_photos(
    reader: Collection,
    maps: MapBatch,
    references: Sequence[ScoringReference],
    scores: Sequence[Score],
    clock: Clock,
    stage: str | None,
    over_blocks: Map,
) -> dict[str, NDArray[np.float32]]:
    """(n_references, n) float32 by the name of each score, of n photos; see `score_references`."""
    shape = len(references), len(maps.ids)
    found = {score.name: np.empty(shape, dtype=np.float32) for score in scores}
    for first in range(0, len(references), _TOGETHER):
        group = references[first : first + _TOGETHER]
        rows = slice(first, first + len(group))
        blocks = list(scoring_blocks(reader, maps, group))
        for score in scores:
            with clock(stage or score.name):
                values = over_blocks(partial(_score_block, score), blocks)
                for (columns, _), block_values in zip(blocks, values, strict=True):
                    found[score.name][rows, columns] = block_values
    return found


def _score_block(
    score: Score, block: tuple[NDArray[np.intp], CandidateMaps]
) -> NDArray[np.float32]:
    """(n_references, photos) float32, by the references that come with a block."""
    import torch

    _, candidates = block
    with torch.inference_mode():
        values = [score.function(reference, candidates) for reference in candidates.references]
        return torch.stack(values).cpu().numpy()


@contextmanager
def map_in_threads(device: "torch.device") -> Iterator[Map]:
    """A `map` that works on as many items at a time as torch has threads, on a CPU.

    Threads that share the work of each operation wait for each other after each; threads that have
    items of their own do not.
    """
    import torch

    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield map
        return
    with ThreadPoolExecutor(count, "score", torch.set_num_threads, (1,)) as threads:
        try:
            yield threads.map
        finally:
            torch.set_num_threads(count)  # for threads that start later


def combine(wanted: NDArray[np.float32], unwanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """One score per photo, (n,) float32, from those by several photos of the object, and by photos
    of what it is not.

    wanted: (r, n) float32, r >= 1; a photo's best counts. unwanted: (m, n) float32, m >= 0; a photo
    that is more like one of these loses half of the difference (docs/scores.md).
    """
    best = wanted.max(axis=0)
    worst = unwanted.max(axis=0, initial=-np.inf)
    combined: NDArray[np.float32] = best - _UNLIKE_WEIGHT * np.maximum(worst - best, 0.0)
    return combined
