"""Results as tables for people and as JSON for programs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from features.diffusion.presets import PRESETS

if TYPE_CHECKING:
    from rich.table import Table

    from indexer.codec.machine import Machine
    from indexer.store.filters import PhotoFilter
    from search.query import Answer, Query
    from search.segmentation.mask_files import Failure, WrittenMask


def answer_json(
    answer: "Answer", masks: "Sequence[WrittenMask | None] | None" = None
) -> dict[str, Any]:
    """An answer as JSON-ready values; boxes are in pixels of the upright photo, times in seconds.

    masks: one per match, None for a match whose photo is gone; None where no masks were drawn.
    """
    query = answer.query
    return {
        "query": {
            "photo": str(query.photo),
            "class": query.class_name,
            "mask": None if query.mask is None else str(query.mask),
            "box": query.box,
            "point": query.point,
            **({"also": [_view_json(view) for view in query.also]} if query.also else {}),
            **({"not": [_view_json(view) for view in query.unlike]} if query.unlike else {}),
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
                "box": match.box,
                "boxes": match.boxes,
                "is_query": match.is_query,
                **({} if masks is None else {"mask": _mask_path(masks[row])}),
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


def _view_json(view: "Query") -> dict[str, Any]:
    """A photo, and its region where it has one."""
    region = {"mask": view.mask and str(view.mask), "box": view.box, "point": view.point}
    return {"photo": str(view.photo), **{k: v for k, v in region.items() if v is not None}}


def _filter_json(wanted: "PhotoFilter | None") -> dict[str, Any]:
    """The photos that were searched, if not all; "until" is the first instant after them."""
    if wanted is None:
        return {}
    since, until = (
        None if at is None else datetime.fromtimestamp(at // 10**9, UTC).isoformat()
        for at in (wanted.since_ns, wanted.until_ns)
    )
    return {"paths": list(wanted.paths), "since": since, "until": until}


def answer_table(answer: "Answer") -> "Table":
    """The matches, one per row: ranks, scores, boxes and paths."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("rank", "score", "confidence", "recall"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("box", no_wrap=True)
    table.add_column("photo", overflow="fold")
    for match in answer.matches:
        note = "  (the query photo)" if match.is_query else ""
        if len(match.boxes) > 1:
            note = f"  ({len(match.boxes)} places){note}"
        table.add_row(
            str(match.rank),
            f"{match.score:.4f}",
            "" if match.confidence is None else f"{match.confidence:.2f}",
            f"{match.recall_score:.4g}",
            ",".join(str(edge) for edge in match.box),
            # As Text, because brackets in a file name are not markup.
            Text(f"{match.path}{note}"),
        )
    return table


def describe_object(query: "Query") -> str:
    """The object of a query in words, e.g. 'the dog in a.jpg' or 'the object in a.jpg'."""
    return f"the {query.class_name or 'object'} in {query.photo.name}"


def not_found_line(answer: "Answer") -> str:
    """A line that says that no photo reaches the confidence that was asked for."""
    best = answer.best_confidence
    return (
        f"not found: none of {answer.n_photos} photos, other than the query photo itself, reaches "
        f"confidence {answer.options.min_confidence:g}"
        + ("" if best is None else f"; the best has {best:.2f}")
    )


def segment_json(
    query: "Query", written: "Sequence[WrittenMask]", failures: "Sequence[Failure]"
) -> dict[str, Any]:
    """Masks as JSON-ready values; boxes and areas are in pixels of the upright photo."""
    return {
        "reference": {**_view_json(query), "class": query.class_name},
        "masks": [
            {
                "path": str(one.path),
                "mask": str(one.mask),
                "overlay": str(one.overlay),
                "box": one.box,
                "area": one.area,
                "score": one.score,
            }
            for one in written
        ],
        "failed": [{"path": str(one.path), "reason": one.reason} for one in failures],
    }


def segment_table(written: "Sequence[WrittenMask]") -> "Table":
    """The masks, one per row: scores, areas in percent of the photo, boxes and paths."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("score", "area"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("box", no_wrap=True)
    table.add_column("photo", overflow="fold")
    table.add_column("mask", overflow="fold")
    for one in written:
        table.add_row(
            f"{one.score:.4f}",
            f"{100 * one.share:.1f} %",
            ",".join(map(str, one.box or ())),
            Text(str(one.path)),
            Text(str(one.mask)),
        )
    return table


def _mask_path(written: "WrittenMask | None") -> str | None:
    return None if written is None else str(written.mask)


def models_json() -> list[dict[str, Any]]:
    """The presets as JSON-ready values."""
    return [
        {
            "name": preset.name,
            "source": preset.source,
            "licence": preset.licence,
            "download": preset.download,
            "map": [preset.grid, preset.grid, preset.dim],
            "settings": preset.settings.as_dict(),
        }
        for preset in PRESETS.values()
    ]


def models_table() -> "Table":
    """The presets as a table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "map", "size", "licence", "source"):
        table.add_column(column, no_wrap=column != "source")
    for preset in PRESETS.values():
        shape = f"{preset.grid} x {preset.grid} x {preset.dim}"
        table.add_row(preset.name, shape, preset.download, preset.licence, preset.source)
    return table


def machine_lines(machine: "Machine") -> list[str]:
    """What a machine is, line by line."""
    has = [name for name, present in machine.features.items() if present]
    return [
        f"CPU: {machine.cpu}, {machine.cores} cores",
        f"instructions: {', '.join(has) or 'not known'}",
        f"torch uses: {machine.capability}, {machine.threads} threads",
        f"GPU: {machine.gpu or 'none'}",
        f"kernels: {', '.join(machine.kernels)}",
    ]


def machine_table(machine: "Machine") -> "Table":
    """The kernel that is chosen for each shape, and each kernel's milliseconds for 1,000 cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("levels", "vectors", "numbers", "chosen"):
        table.add_column(column, no_wrap=True)
    for name in machine.kernels:
        table.add_column(f"{name} ms", justify="right", no_wrap=True)
    for one in machine.choices:
        times = (one.milliseconds.get(name) for name in machine.kernels)
        table.add_row(
            one.levels,
            str(one.vectors),
            str(one.numbers),
            one.kernel,
            *("" if time is None else f"{time:.2f}" for time in times),
        )
    return table
