"""Reading candidates' maps and scoring them, in batches that fit in memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.reader import IndexReader, MapBatch
from search.clock import Clock
from search.scores import CandidateMaps, Score, ScoringReference

if TYPE_CHECKING:
    import torch

# Candidates whose maps are scored at once are chosen so that float32 copies of their maps and
# their token-by-cell cosines stay near this many numbers (256 MB).
_BATCH_NUMBERS = 64_000_000


@dataclass(frozen=True)
class RerankedCandidates:
    """Scored candidates, in the order they were given, damaged ones left out.

    ids: (n,) int64. scores: (n,) float32. heatmaps: (n, cells) float32. damaged: a line for each
    candidate left out.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    heatmaps: NDArray[np.float32]
    damaged: list[str]


def to_candidates(reader: IndexReader, maps: MapBatch, device: "torch.device") -> CandidateMaps:
    """Stored maps as a score takes them, decoded on a device."""
    import torch

    appearance, semantic = reader.decode(maps, device)
    return CandidateMaps(appearance, semantic, torch.from_numpy(maps.valid).to(device))


def rerank(
    reader: IndexReader,
    ids: NDArray[np.int64],
    reference: ScoringReference,
    score: Score,
    clock: Clock,
) -> RerankedCandidates:
    """Score candidates' full maps against a reference, on the reference's device.

    ids: (n,) int64, photos of the index. clock: gets the stages "fetch" and "score".
    """
    import torch

    device = reference.tokens.device
    cells = reader.grid**2
    batch = max(1, _BATCH_NUMBERS // (cells * (4 * reader.dim + len(reference.tokens))))
    scores = np.empty(len(ids), dtype=np.float32)
    heatmaps = np.empty((len(ids), cells), dtype=np.float32)
    kept: list[NDArray[np.int64]] = []
    damaged: list[str] = []
    done = 0
    for start in range(0, len(ids), batch):
        with clock("fetch"):
            maps = reader.read_maps(ids[start : start + batch])
        damaged += maps.damaged
        kept.append(maps.ids)
        if len(maps.ids) == 0:
            continue
        with clock("score"), torch.inference_mode():
            scored = score.function(reference, to_candidates(reader, maps, device))
            rows = slice(done, done + len(maps.ids))
            scores[rows] = scored.scores.cpu().numpy()
            heatmaps[rows] = scored.heatmaps.cpu().numpy()
        done += len(maps.ids)
    own = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
    return RerankedCandidates(own, scores[:done], heatmaps[:done], damaged)
