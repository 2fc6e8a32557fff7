"""The page of evaluation runs: their tables, and the queries that went best and worst."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.errors import WaldoError
from features.photo import load_photo
from features.regions import load_mask
from search.commands.pages.rendering import Picture, render, write_html
from search.evaluation.run_files import Run, runs_tables
from search.scores import DEFAULT_SCORE
from search.segmentation.overlay import thumbnail

# The number of best queries and of worst queries, and of photos shown for each of them.
_QUERIES = 5
_PHOTOS = 6

# The longer side of a picture, in pixels.
_LONGEST = 160


@dataclass(frozen=True)
class _Figure:
    """A photo with a caption. kind: query, right or wrong. picture: None where it is gone."""

    kind: str
    picture: Picture | None
    caption: str


@dataclass(frozen=True)
class _Section:
    """The queries of one run. groups: each has a title, and the figures of each of its queries."""

    title: str
    groups: list[tuple[str, list[list[_Figure]]]]


def write_runs_page(runs: list[Run], path: Path) -> None:
    """Write a page of runs as one file that needs no other.

    It shows `runs_tables`, then for each run of searches the queries with the highest and with the
    lowest average precision. The default score decides, or the first method of a run that lacks it.
    Each query is shown as its photo, with all but the object faded, and the photos at the head of
    its ranking, marked as right or wrong. Photos that are gone since the run are said to be gone.
    Raises WaldoError where the file cannot be written.
    """
    sections = [_section(run) for run in runs if "queries" in run.content]
    text = render("runs.html", title="Evaluation runs", tables=runs_tables(runs), sections=sections)
    write_html(text, path)


def _section(run: Run) -> _Section:
    method = DEFAULT_SCORE if DEFAULT_SCORE in run.rows else next(iter(run.rows))

    def precision(query: dict[str, Any]) -> Any:
        return query["methods"][method]["average_precision"]

    # A query with nothing to find has no average precision.
    queries = [query for query in run.content["queries"] if precision(query) is not None]
    queries.sort(key=precision)
    worst = queries[: min(_QUERIES, len(queries) // 2)]
    best = queries[len(worst) :][: -_QUERIES - 1 : -1]
    gallery = run.content["gallery"]
    groups = [
        (title, [list(_figures(query, method, gallery)) for query in chosen])
        for title, chosen in (("Best", best), ("Worst", worst))
        if chosen
    ]
    return _Section(f"{run.path}: queries by {method}", groups)


def _figures(query: dict[str, Any], method: str, gallery: list[str]) -> Iterator[_Figure]:
    """The photo of a query, then those at the head of its ranking by a method."""
    found = query["methods"][method]
    photo = Path(query["photo"])
    precision = f"average precision {100 * found['average_precision']:.1f}"
    yield _Figure("query", _picture(photo, query), f"{photo.name}, {precision}")
    ranked = [number for number in found["ranking"] if number not in query["ignored"]]
    for number in ranked[:_PHOTOS]:
        kind = "right" if number in query["relevant"] else "wrong"
        photo = Path(gallery[number])
        yield _Figure(kind, _picture(photo), f"{kind}: {photo.name}")


def _picture(photo: Path, query: dict[str, Any] | None = None) -> Picture | None:
    """A photo, with all but the region of `query` faded; None where it is gone."""
    try:
        picture = thumbnail(photo, _LONGEST)
        return Picture.of(picture if query is None else _faded(picture, query))
    except (WaldoError, OSError):
        return None


def _faded(picture: Image.Image, query: dict[str, Any]) -> Image.Image:
    known = load_photo(Path(query["photo"]), at_least=1)
    if query["mask"] is not None:
        mask = load_mask(Path(query["mask"]), known.width, known.height)
    elif query["box"] is not None:
        x0, y0, x1, y1 = map(round, query["box"])
        mask = np.zeros((known.height, known.width), dtype=bool)
        mask[y0:y1, x0:x1] = True
    else:
        return picture
    clear = Image.fromarray(np.where(mask, 255, 80).astype(np.uint8)).resize(picture.size)
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), clear)
