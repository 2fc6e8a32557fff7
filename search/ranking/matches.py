"""The first matches of a ranking: where in each photo the object is."""

import numpy as np

from features.frame import Frame
from indexer.collection import Collection
from search.answer import Match
from search.ranking.candidate_ranking import Asked, Ranking
from search.ranking.localise import localise
from search.ranking.pairs import in_pixels
from search.scoring.confidence import minimum_remaining_score


def find_matches(
    reader: Collection, asked: Asked, ranking: Ranking, count: int, reranked: bool
) -> tuple[list[Match], list[str]]:
    """The first matches of a ranking, and a line for each photo whose maps are damaged.

    reranked: whether the ranking's scores are by full maps.
    """
    maps = reader.read_maps(ranking.ids[:count])
    rows = np.flatnonzero(np.isin(ranking.ids[:count], maps.ids))
    least = np.full(len(rows), np.inf, dtype=np.float32)
    # A score that is a mean over the map hardly changes when one place is masked out.
    if reranked and asked.score.recall == "words":
        least = minimum_remaining_score(ranking.own_scores, ranking.own_scores[rows])
    evidence = localise(
        *(reader, maps, asked.prepared, ranking.references[rows], asked.score, least),
        asked.unlike,
    )
    size, grid = reader.image_size, reader.grid
    matches = []
    for place, (row, record) in enumerate(zip(rows.tolist(), reader.photos(maps.ids), strict=True)):
        frame = Frame(record.width, record.height, size, grid)
        found = [cells.reshape(grid, grid) for cells in evidence.places[place] if cells.any()]
        reference = int(ranking.references[row])
        shown = asked.references[reference].maps.frame
        sure, likely = ranking.confidences, ranking.probabilities
        matches.append(
            Match(
                rank=place + 1,
                path=record.path,
                id=record.id,
                score=float(ranking.scores[row]),
                recall_score=float(ranking.recall_scores[row]),
                confidence=None if sure is None else float(sure[row]),
                boxes=tuple(frame.box_of(cells) for cells in found),
                heatmap=evidence.heat[place].reshape(grid, grid),
                frame=frame,
                is_query=record.content_hash in asked.hashes,
                reference=reference,
                copies=tuple(r.path for r in reader.photos(reader.copies_of(record.id))),
                changed=record.is_changed(),
                probability=None if likely is None else float(likely[row]),
                pairs=in_pixels(evidence.pairs[place], shown, frame),
            )
        )
    return matches, maps.damaged
