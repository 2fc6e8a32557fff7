"""The page of an answer: the object, and each match with its boxes and heatmap."""

from dataclasses import dataclass
from pathlib import Path

from features.errors import WaldoError
from search.commands.pages.rendering import Picture, render, write_html
from search.commands.tables import describe_object, not_found_line
from search.query import Answer, Match, Query
from search.reference import Reference
from search.segmentation.overlay import heatmap_over, mask_over, thumbnail

# The longer side of a picture, in pixels.
_LONGEST = 320


@dataclass(frozen=True)
class _View:
    """One photo of the object. photo, object: None where the photo is gone."""

    name: str
    photo: Picture | None
    object: Picture | None


@dataclass(frozen=True)
class _Card:
    """One match. photo, heat: None where the photo is gone."""

    match: Match
    photo: Picture | None
    heat: Picture | None


def write_answer_page(answer: Answer, path: Path) -> None:
    """Write the page of an answer as one file that needs no other.

    Photos that are gone since they were indexed are said to be gone. Raises WaldoError where the
    file cannot be written.
    """
    write_html(render_answer(answer), path)


def render_answer(answer: Answer) -> str:
    """The HTML of an answer's page."""
    options = answer.options
    views = zip(answer.query.views, answer.references, strict=True)
    return render(
        "answer.html",
        title=f"Looking for {describe_object(answer.query)}",
        answer=answer,
        order=f"re-ranked by {options.score}" if options.rerank else "by recall alone",
        not_found=not_found_line(answer) if answer.found is False else None,
        views=[_view(query, reference) for query, reference in views],
        cards=[_card(match) for match in answer.matches],
    )


def _view(query: Query, reference: Reference) -> _View:
    name = query.photo.name
    try:
        picture = thumbnail(query.photo, _LONGEST)
    except (WaldoError, OSError):
        return _View(name, None, None)
    chosen = mask_over(picture, reference.cells, reference.maps.frame)
    return _View(name, Picture.of(picture), Picture.of(chosen))


def _card(match: Match) -> _Card:
    try:
        picture = thumbnail(match.path, _LONGEST)
    except (WaldoError, OSError):
        return _Card(match, None, None)
    heat = heatmap_over(picture, match.heatmap, match.frame)
    return _Card(match, Picture.of(picture), Picture.of(heat))
