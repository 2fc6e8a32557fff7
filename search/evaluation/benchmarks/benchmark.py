"""What a benchmark of searches is, whatever its folder looks like."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import load_photo
from features.regions import Box
from search.query import Query


@dataclass(frozen=True)
class BenchmarkQuery:
    """A query with its true answer.

    query: as a user would ask it: the photo, the object's region, chosen in the same way for every
    method, and the class name if the benchmark gives one.
    relevant, ignored: int64 places in the gallery, rising, each once, none in both; ignored photos
    are left out of the ranking. At least one is relevant, unless the benchmark is graded or
    relevant photos are missing.
    confusable: whether the gallery holds other instances of the class.
    level: the benchmark's own grade of difficulty, or None.
    hard: those of the relevant places whose photos are hard to find; None where the benchmark does
    not grade its photos.
    missing: further relevant photos whose files the benchmark lacks. The metrics in
    `Benchmark.metrics` count them as never found.
    boxes: by the place of a relevant photo, where it truly shows the object: at least one box, in
    pixels of the upright photo; without the photos whose boxes are not known.
    """

    query: Query
    relevant: NDArray[np.int64]
    ignored: NDArray[np.int64]
    confusable: bool
    level: str | None = None
    hard: NDArray[np.int64] | None = None
    missing: int = 0
    boxes: Mapping[int, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TextQuery:
    """A query that is a text, with its true answer, as in BenchmarkQuery.

    name: of the text in its benchmark.
    """

    name: str
    text: str
    relevant: NDArray[np.int64]
    missing: int


def flags(places: NDArray[np.int64], n_gallery: int) -> NDArray[np.bool_]:
    """Whether each photo of the gallery is at one of the places, (n_gallery,) bool.

    Queries hold places, because flags of every query would fill the memory for a large gallery.
    """
    flagged = np.zeros(n_gallery, dtype=bool)
    flagged[places] = True
    return flagged


@dataclass(frozen=True)
class LabelledScene:
    """A gallery photo with the masks of its objects.

    mask: a file whose pixels are 0 in the background, and k in the k-th object. classes: the class
    name of each object.
    """

    photo: Path
    mask: Path
    classes: list[str]


@dataclass(frozen=True)
class Benchmark:
    """A labelled gallery with its queries.

    protocol: the benchmark's name. gallery: photo files. gallery_classes: the classes that each
    photo shows, or None where those of some photo are unknown; methods that need class names cannot
    run then. queries: at least one. scenes: the gallery's photos, where their objects' masks are
    known. cut_queries: methods see only the part of a query's photo that is in its box. convention:
    what is searched, in a few words, where a protocol is used with different galleries, else "";
    only results of the same convention can be compared. metrics: names in
    `search.evaluation.metrics.cut_ranking.CUT_METRICS`, which are reported as well. parts: by name,
    the queries with a part of their relevant photos, the others ignored; None for a query that has
    none in that part. These metrics are reported for each part. n_distractors: how many of the
    gallery's photos, its last, were put behind it and answer no query. indexed: the files of the
    gallery's index where it has more, of which the gallery lacks some; else empty.
    """

    protocol: str
    gallery: Sequence[Path]
    gallery_classes: list[set[str]] | None
    queries: list[BenchmarkQuery]
    scenes: list[LabelledScene]
    cut_queries: bool = False
    convention: str = ""
    metrics: tuple[str, ...] = ()
    parts: dict[str, list[BenchmarkQuery | None]] = field(default_factory=dict)
    n_distractors: int = 0
    indexed: Sequence[Path] = field(default_factory=list)

    @property
    def levels(self) -> list[str]:
        """The queries' levels, in the order in which they first occur."""
        return list(dict.fromkeys(q.level for q in self.queries if q.level is not None))

    def shows(self, class_name: str | None) -> NDArray[np.bool_]:
        """Whether each photo of a gallery with classes shows a class, (n_gallery,) bool."""
        places = self._places_by_class.get(class_name or "", [])
        return flags(np.array(places, dtype=np.int64), len(self.gallery))

    @cached_property
    def _places_by_class(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, names in enumerate(self.gallery_classes or ()):
            for name in names:
                places.setdefault(name, []).append(place)
        return places

    @property
    def graded(self) -> bool:
        """Whether every query grades its relevant photos; the metrics are then those of
        `search.evaluation.metrics.graded_ranking`.
        """
        return all(query.hard is not None for query in self.queries)


@dataclass(frozen=True)
class TextBenchmark:
    """A labelled gallery that is asked by texts.

    gallery: without queries. queries: at least one.
    """

    gallery: Benchmark
    queries: list[TextQuery]


def with_cut_queries(benchmark: Benchmark, folder: Path) -> Benchmark:
    """The benchmark with each query's photo cut to its box, as a file in a folder; the region is
    the whole of that photo.
    """
    queries = []
    for number, asked in enumerate(benchmark.queries):
        box, photo = asked.query.box, asked.query.photo
        assert box is not None  # a benchmark whose queries are cut asks by boxes
        x0, y0, x1, y1 = map(round, box)
        # Not compressed: a photo's bytes seed its noise, and compressors differ by version.
        path = folder / f"{number:04}-{photo.stem}.bmp"
        load_photo(photo).image.crop((x0, y0, x1, y1)).save(path)
        whole = (0.0, 0.0, float(x1 - x0), float(y1 - y0))
        queries.append(replace(asked, query=replace(asked.query, photo=path, box=whole)))
    return replace(benchmark, queries=queries)


def read_json(path: Path) -> Any:
    """The content of a benchmark's JSON file. Raises WaldoError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise WaldoError(f"{path}: not JSON ({error})") from None
