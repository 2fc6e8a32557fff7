"""The best and the worst queries of a method of a run, as pictures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.errors import WaldoError
from features.photo import photo_size
from features.regions import load_mask
from indexer.bucket.object_path import path_of
from search.commands.pages.rendering import Picture
from search.evaluation.runs.values import Entrant
from search.segmentation.overlay import thumbnail

# The number of best queries and of worst queries, and of photos shown for each of them.
_QUERIES = 5
_PHOTOS = 6

# The longer side of a picture, in pixels, and the quality of its JPEG.
_LONGEST = 160
_QUALITY = 70


@dataclass(frozen=True)
class Figure:
    """A photo with a caption. kind: query, right or wrong. number: of its picture in the
    `PictureStore`; None where the photo is gone.
    """

    kind: str
    number: int | None
    caption: str


@dataclass(frozen=True)
class QueryGroup:
    """A method's best and worst queries. parts: each has a title, and the figures of each of its
    queries.
    """

    method: str
    parts: list[tuple[str, list[list[Figure]]]]


class PictureStore:
    """The pictures of a page, each once, however often it is shown.

    pictures: by number. gone: the photos that could not be read.
    """

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.gone: list[Path] = []
        self._numbers: dict[str, int | None] = {}

    def number(self, photo: Path, query: dict[str, Any] | None = None) -> int | None:
        """The number of a photo's picture, with all but the region of `query` faded; None where
        the photo is gone.
        """
        key = str(photo if query is None else (photo, query["mask"], query["box"]))
        if key not in self._numbers:
            self._numbers[key] = self._add(photo, query)
        return self._numbers[key]

    def _add(self, photo: Path, query: dict[str, Any] | None) -> int | None:
        try:
            picture = thumbnail(photo, _LONGEST)
            shown = picture if query is None else _faded(picture, query)
        except (WaldoError, OSError):
            if photo not in self.gone:
                self.gone.append(photo)
            return None
        self.pictures.append(Picture.of(shown, _QUALITY))
        return len(self.pictures) - 1


def best_and_worst(entrant: Entrant, pictures: PictureStore) -> QueryGroup:
    """The queries with the highest and with the lowest average precision. Each is shown as its
    photo, and the photos at the head of its ranking, marked as right or wrong.
    """
    method, content = entrant.method, entrant.run.content

    def precision(query: dict[str, Any]) -> Any:
        return query["methods"][method]["average_precision"]

    # A query with nothing to find has no average precision.
    queries = [query for query in content["queries"] if precision(query) is not None]
    worst = _first(queries, precision, min(_QUERIES, len(queries) // 2))
    best = _first(
        [query for query in queries if all(query is not one for one in worst)],
        lambda query: -precision(query),
        _QUERIES,
    )
    parts = [
        (
            f"{title}{_ties(chosen, queries, precision)}",
            [list(_figures(query, method, content["gallery"], pictures)) for query in chosen],
        )
        for title, chosen in (("Best", best), ("Worst", worst))
        if chosen
    ]
    return QueryGroup(entrant.name, parts)


def _first(
    queries: list[dict[str, Any]], by: Callable[[dict[str, Any]], Any], most: int
) -> list[dict[str, Any]]:
    """The first queries by a number. Of those that share the last place, some from all over the
    benchmark are taken, because neighbours often ask for one object.
    """
    ordered = sorted(queries, key=by)
    if len(ordered) <= most or most == 0:
        return ordered[:most]
    last = by(ordered[most - 1])
    sure = [query for query in ordered if by(query) < last]
    tied = [query for query in ordered if by(query) == last]
    places = np.linspace(0, len(tied) - 1, most - len(sure)).round().astype(int)
    return [*sure, *(tied[place] for place in places.tolist())]


def _ties(
    chosen: list[dict[str, Any]],
    queries: list[dict[str, Any]],
    by: Callable[[dict[str, Any]], Any],
) -> str:
    """How many queries are as good as the last of those chosen; "" where all of them are shown."""
    last = by(chosen[-1])
    shown, same = (sum(by(query) == last for query in some) for some in (chosen, queries))
    if shown == same:
        return ""
    return f", {shown} of {same} queries with average precision {100 * last:.1f}"


def _figures(
    query: dict[str, Any], method: str, gallery: list[str], pictures: PictureStore
) -> Iterator[Figure]:
    """The query's photo, and then the first photos of its ranking by a method: not those behind the
    last right one, where nothing is left to find, and at least one right photo if the run has it.
    """
    found = query["methods"][method]
    photo = Path(query["photo"])
    precision = f"average precision {100 * found['average_precision']:.1f}"
    yield Figure("query", pictures.number(photo, query), f"{photo.name}, {precision}")
    ranked = [number for number in found["ranking"] if number not in query["ignored"]]
    right = np.flatnonzero(np.isin(ranked, query["relevant"])).tolist()
    # Where the files of all relevant photos are missing, there is no right one.
    all_found = right and len(right) == len(query["relevant"])
    shown = list(range(min(_PHOTOS, right[-1] + 1 if all_found else len(ranked))))
    if right and right[0] >= _PHOTOS:
        shown[-1] = right[0]
    for place in shown:
        kind = "right" if place in right else "wrong"
        photo = path_of(gallery[ranked[place]])
        yield Figure(kind, pictures.number(photo), f"rank {place + 1}, {kind}: {photo.name}")


def _faded(picture: Image.Image, query: dict[str, Any]) -> Image.Image:
    width, height = photo_size(Path(query["photo"]))
    if query["mask"] is not None:
        mask = load_mask(Path(query["mask"]), width, height)
    elif query["box"] is not None:
        x0, y0, x1, y1 = map(round, query["box"])
        mask = np.zeros((height, width), dtype=bool)
        mask[y0:y1, x0:x1] = True
    else:
        return picture
    clear = Image.fromarray(np.where(mask, 255, 80).astype(np.uint8)).resize(picture.size)
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), clear)
