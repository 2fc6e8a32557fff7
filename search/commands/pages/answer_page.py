"""The page of an answer: the object, and each match with its boxes, heatmap and pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.errors import WaldoError
from features.photo import Photo, load_photo
from features.regions import Box, Point
from search.answer import Answer, Match
from search.commands.pages.pair_picture import PairPicture, draw_pairs
from search.commands.pages.rendering import Picture, render, write_html
from search.commands.terminal.tables import CHANGED, describe_object, not_found_line
from search.presentation.sureness import CHANCE, sureness
from search.query import Query
from search.reference import Reference
from search.segmentation.overlay import heatmap_over, mask_over, shrunk

# The longer side of a picture, in pixels.
_LONGEST = 640


@dataclass(frozen=True)
class _View:
    """A photo of the query. role: what it is for. picture: all but the object is faded, where it is
    known what was taken; None where the photo is gone. box, point: as asked for, in pixels of the
    photo; its size is width x height.
    """

    role: str
    path: Path
    picture: Picture | None
    width: int = 0
    height: int = 0
    box: Box | None = None
    point: Point | None = None


@dataclass(frozen=True)
class _Card:
    """One match. word: how sure it is. names: whose albums show the photo. photo, heat, pairs: None
    where the photo is gone; of a photo that was changed, no heat and no pairs. pairs: None also
    where no pair is alike, and where the photo of the object is gone.
    """

    match: Match
    word: str
    names: Sequence[str]
    photo: Picture | None
    heat: Picture | None = None
    pairs: PairPicture | None = None


def write_answer_page(
    answer: Answer, path: Path, names: Mapping[int, Sequence[str]] | None = None
) -> None:
    """Write the page of an answer as one file that needs no other; it links to the photos.

    names: whose albums show a photo, by its id. Photos that are gone since they were indexed are
    said to be gone. Raises WaldoError where the file cannot be written.
    """
    write_html(render_answer(answer, names), path)


def render_answer(answer: Answer, names: Mapping[int, Sequence[str]] | None = None) -> str:
    """The HTML of an answer's page. names: as `write_answer_page` takes them."""
    own = names or {}
    photos = [_load(view.photo) for view in answer.query.views]
    cards = [
        _card(
            match,
            own.get(match.id, ()),
            answer.references[match.reference],
            photos[match.reference],
        )
        for match in answer.matches
    ]
    return render(
        "answer.html",
        title=f"Looking for {describe_object(answer.query)}",
        answer=answer,
        not_found=not_found_line(answer) if answer.found is False else None,
        views=list(_views(answer, photos)),
        cards=[card for card in cards if card.word != CHANCE],
        folded=[card for card in cards if card.word == CHANCE],
        changed=CHANGED,
    )


def _load(path: Path) -> Photo | None:
    """A photo, large enough to draw; None where it is gone."""
    try:
        return load_photo(path, at_least=2 * _LONGEST)
    except (WaldoError, OSError):
        return None


def _views(answer: Answer, photos: list[Photo | None]) -> Iterator[_View]:
    """The photos of the object, and those of what it is not. photos: those of the object."""
    query = answer.query
    shown = zip(query.views, photos, answer.references, strict=True)
    for number, (view, photo, reference) in enumerate(shown):
        yield _view(view, photo, "the same object" if number else "looked for", reference)
    for view in query.unlike:
        yield _view(view, _load(view.photo), "not this one")


def _view(
    query: Query, photo: Photo | None, role: str, reference: Reference | None = None
) -> _View:
    if photo is None:
        return _View(role, query.photo, None)
    picture = shrunk(photo, _LONGEST)
    if reference is not None:
        picture = mask_over(picture, reference.cells, reference.maps.frame)
    shown = Picture.of(picture)
    return _View(role, query.photo, shown, photo.width, photo.height, query.box, query.point)


def _card(match: Match, names: Sequence[str], reference: Reference, asked: Photo | None) -> _Card:
    """asked: the photo of the reference."""
    word, photo = sureness(match), _load(match.path)
    if photo is None:
        return _Card(match, word, names, None)
    picture = shrunk(photo, _LONGEST)
    if match.changed:
        return _Card(match, word, names, Picture.of(picture))
    heat = heatmap_over(picture, match.heatmap, match.frame)
    pairs = None
    if match.pairs and asked is not None:
        pairs = draw_pairs(asked, reference.box, photo, match)
    return _Card(match, word, names, Picture.of(picture), Picture.of(heat), pairs)
