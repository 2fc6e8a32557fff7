"""What a benchmark is, whatever its folder looks like."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.photo import load_photo
from search.query import Query


@dataclass(frozen=True)
class BenchmarkQuery:
    """One question with its true answer.

    query: as a user would ask it: the photo, the object's region, by one rule for every method,
    and its class name where the benchmark knows one.
    relevant, ignored: (n_gallery,) bool; ignored photos are left out of the ranking. Something is
    relevant, unless the benchmark is graded.
    confusable: the gallery holds other instances of the class.
    level: how hard the benchmark says it is, or None.
    hard: (n_gallery,) bool, which of the relevant photos are hard to find; None where the benchmark
    does not grade its photos.
    """

    query: Query
    relevant: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    confusable: bool
    level: str | None = None
    hard: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class LabelledScene:
    """What lies where in one gallery photo.

    mask: a file whose pixels are 0 for background, k for the k-th of `classes`, the objects' class
    names.
    """

    photo: Path
    mask: Path
    classes: list[str]


@dataclass(frozen=True)
class Benchmark:
    """A labelled gallery with its questions.

    protocol: its name. gallery: photo files. gallery_classes: the classes that each shows, or None
    where not every photo's are known; methods that need class names cannot run then.
    queries: at least one. scenes: the gallery's photos where their objects' masks are known.
    cut_queries: methods are shown no more of a query's photo than what is in its box.
    """

    protocol: str
    gallery: list[Path]
    gallery_classes: list[set[str]] | None
    queries: list[BenchmarkQuery]
    scenes: list[LabelledScene]
    cut_queries: bool = False

    @property
    def levels(self) -> list[str]:
        """The queries' levels, in the order in which they first occur."""
        return list(dict.fromkeys(q.level for q in self.queries if q.level is not None))

    @property
    def graded(self) -> bool:
        """Whether every query says which of its photos are hard, and the metrics are those of
        `search.evaluation.benchmarks.revisited`.
        """
        return all(query.hard is not None for query in self.queries)


def with_cut_queries(benchmark: Benchmark, folder: Path) -> Benchmark:
    """The same questions by photos that hold nothing but what was in the boxes, as files in a
    folder; the region is the whole of such a photo.
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
