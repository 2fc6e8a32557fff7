"""An answer as JSON, for programs (docs/json.md)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.store.filters import PhotoFilter
from search.answer import Answer
from search.query import Query


def answer_json(answer: Answer, masks: Sequence[Path | None] | None = None) -> dict[str, Any]:
    """An answer as JSON-ready values; boxes are in pixels of the upright photo, times in seconds.

    masks: the file of each match's mask, None for a match whose photo is gone; None where no masks
    were drawn.
    """
    query = answer.query
    also = [
        {**view_json(view), "taken": reference.box}
        for view, reference in zip(query.also, answer.references[1:], strict=True)
    ]
    return {
        "query": {
            "photo": str(query.photo),
            "class": query.class_name,
            "mask": None if query.mask is None else str(query.mask),
            "box": query.box,
            "point": query.point,
            "taken": answer.references[0].box,
            **_name_json(query),
            **({"also": also} if also else {}),
            **({"not": [view_json(view) for view in query.unlike]} if query.unlike else {}),
            "score": answer.options.score if answer.options.rerank else None,
            **({} if answer.options.recall is None else {"recall": answer.options.recall}),
            **_filter_json(answer.options.filter),
        },
        "matches": [
            {
                "rank": match.rank,
                "path": str(match.path),
                "id": match.id,
                "score": match.score,
                "recall_score": match.recall_score,
                "confidence": match.confidence,
                "probability": match.probability,
                "box": match.box,
                "boxes": match.boxes,
                "is_query": match.is_query,
                "copies": [str(path) for path in match.copies],
                "changed": match.changed,
                **({} if masks is None else {"mask": masks[row] and str(masks[row])}),
            }
            for row, match in enumerate(answer.matches)
        ],
        **(
            {}
            if answer.found is None
            else {"found": answer.found, "best_confidence": answer.best_confidence}
        ),
        "timing": answer.timing,
    }


def view_json(view: Query) -> dict[str, Any]:
    """A photo, and its region where it has one."""
    region = {"mask": view.mask and str(view.mask), "box": view.box, "point": view.point}
    given = {key: value for key, value in region.items() if value is not None}
    return {"photo": str(view.photo), **given, **_name_json(view)}


def _name_json(view: Query) -> dict[str, Any]:
    """The name that brought a photo, if one did."""
    return {} if view.of_name is None else {"name": view.of_name}


def _filter_json(wanted: PhotoFilter | None) -> dict[str, Any]:
    """The photos that were searched, if not all; "until" is the first instant after them."""
    if wanted is None:
        return {}
    since, until = (
        None if at is None else datetime.fromtimestamp(at // 10**9, UTC).isoformat()
        for at in (wanted.since_ns, wanted.until_ns)
    )
    return {"paths": list(wanted.paths), "since": since, "until": until}
