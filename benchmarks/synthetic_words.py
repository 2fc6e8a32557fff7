"""Collections of visual words of any size, drawn like those of the scenes; how alike they are.

    python benchmarks/synthetic_words.py --root data/scenes    # a minute or two on two cores

Indexes the scenes with the bundled model, and prints side by side what is known of their words and
of those drawn here: how many words a photo and an object have, how frequent words are, how near the
16 nearest words of an object's cells are, and how often a photo has them: one that shows the
object, and any other.

Words and surfaces lie in a space of 64 dimensions, in kinds (grass, fur), and kinds in groups. The
cells of a surface scatter around it; a cell's word is the nearest one. A photo has 24 surfaces: two
objects of six each, and a background that it partly shares with three photos taken beside it. An
object is in eight photos on average. In each of them most of its surfaces have turned into others
of their kind, as pose and light change. Queries are the cells of an object as one more photo would
show it.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import make_parser
from numpy.typing import NDArray

from indexer.recall.word_query import WordQuery

WORDS, DIMENSIONS = 8192, 64
KINDS, GROUPS, SURFACES_PER_KIND = 512, 40, 12
# How far groups lie apart, kinds of a group, words of a kind, surfaces of a kind, and cells of a
# surface.
APART = (0.72, 0.45, 0.53, 0.65, 0.55)
# Cells of each surface that photos draw from, and the fewest and most cells of it in one photo.
POOL, DRAWN = 64, (14, 56)
# How many cells queries have.
CELLS = (48, 146)
OBJECTS, PARTS, BACKGROUND = 2, 6, 12
PHOTOS_PER_OBJECT, PHOTOS_PER_PLACE = 8, 4
# How often a part of an object is another surface of its kind, and a surface of the background
# is not that of the place.
TURNED, ELSEWHERE = 0.8, 0.3
WORDS_PER_CELL = 16
# Photos, and surfaces, that are drawn together.
PHOTOS_PER_PART, SURFACES_PER_PART = 10_000, 256


@dataclass(frozen=True, eq=False)
class ObjectQuery(WordQuery):
    """The cells of an object, with the 16 nearest words of each. shows: the object."""

    shows: int


@dataclass(frozen=True, eq=False)
class WordPhotos:
    """Some photos. words: of each, rising. objects: (n, 2), what each shows."""

    words: list[NDArray[np.uint16]]
    objects: NDArray[np.int64]


class WordCollection:
    """`count` photos; the same seed gives the same collection."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._random = np.random.default_rng(seed)
        self._sizes = 1 / np.sqrt(np.arange(1, DIMENSIONS + 1))
        groups = self._directions(GROUPS)[self._random.integers(GROUPS, size=KINDS)]
        kinds = APART[0] * groups + APART[1] * self._directions(KINDS)
        own = self._random.integers(KINDS, size=WORDS)
        self._words = _unit(kinds[own] + APART[2] * self._directions(WORDS))
        every = np.repeat(kinds, SURFACES_PER_KIND, axis=0)
        self._surfaces = _unit(every + APART[3] * self._directions(len(every)))
        own = np.arange(len(every)).repeat(POOL).reshape(-1, POOL * SURFACES_PER_PART)
        pools = [self._nearest(self._cells(surfaces), 1)[0] for surfaces in own]
        self._pools = np.concatenate(pools).reshape(-1, POOL)
        frequency = np.arange(1, KINDS + 1) ** -0.35
        self._frequency = frequency / frequency.sum()
        self._objects = self._some_surfaces((max(1, count * OBJECTS // PHOTOS_PER_OBJECT), PARTS))

    def photos(self) -> Iterator[WordPhotos]:
        """All photos, some thousands at a time."""
        for start in range(0, self.count, PHOTOS_PER_PART):
            n = min(PHOTOS_PER_PART, self.count - start)
            shown = self._random.integers(len(self._objects), size=(n, OBJECTS))
            parts = self._turned(self._objects[shown].reshape(n, -1))
            places = self._some_surfaces((-(-n // PHOTOS_PER_PLACE), BACKGROUND))
            behind = np.repeat(places, PHOTOS_PER_PLACE, axis=0)[:n]
            changed = self._random.random(behind.shape) < ELSEWHERE
            behind = np.where(changed, self._some_surfaces(behind.shape), behind)
            surfaces = np.concatenate([parts, behind], axis=1)
            drawn = self._random.integers(POOL, size=(*surfaces.shape, DRAWN[1]))
            cells = self._random.integers(*DRAWN, size=(n, 1, 1), endpoint=True)
            drawn = np.where(np.arange(DRAWN[1]) < cells, drawn, drawn[..., :1])
            words = np.sort(self._pools[surfaces[..., None], drawn].reshape(n, -1), axis=1)
            first = np.ones(words.shape, dtype=bool)
            first[:, 1:] = words[:, 1:] != words[:, :-1]
            own = np.split(words[first], np.cumsum(first.sum(axis=1))[:-1])
            yield WordPhotos(own, shown)

    def queries(self, count: int) -> list[ObjectQuery]:
        """The cells of some objects, each as another photo of it would show them."""
        found = []
        for shows in self._random.integers(len(self._objects), size=count).tolist():
            parts = self._turned(self._objects[shows])
            cells = self._cells(self._random.choice(parts, self._random.integers(*CELLS)))
            found.append(ObjectQuery(*self._nearest(cells, WORDS_PER_CELL), shows))
        return found

    def _directions(self, count: int) -> NDArray[np.float64]:
        """Random directions (count, 64) of falling variance, of length 1."""
        drawn = self._random.normal(size=(count, DIMENSIONS)) * self._sizes
        directions: NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return directions

    def _some_surfaces(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Random surfaces; some kinds are more frequent than others."""
        kinds = self._random.choice(KINDS, size=shape, p=self._frequency)
        return SURFACES_PER_KIND * kinds + self._random.integers(SURFACES_PER_KIND, size=shape)

    def _turned(self, surfaces: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each surface as it is, or another of its kind."""
        other = self._random.integers(SURFACES_PER_KIND, size=surfaces.shape)
        other += surfaces - surfaces % SURFACES_PER_KIND
        return np.where(self._random.random(surfaces.shape) < TURNED, other, surfaces)

    def _cells(self, surfaces: NDArray[np.int64]) -> NDArray[np.float32]:
        """One cell of each of some surfaces, (n, 64)."""
        return _unit(self._surfaces[surfaces] + APART[4] * self._directions(len(surfaces)))

    def _nearest(
        self, cells: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """The nearest words of (n, 64) cells and their cosines, (n, count) each."""
        cosines = cells @ self._words.T
        if count == 1:
            near = cosines.argmax(axis=1)[:, None]
        else:
            near = np.argpartition(-cosines, count, axis=1)[:, :count]
            order = np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1)
            near = np.take_along_axis(near, order, axis=1)
        return near.astype(np.uint16), np.take_along_axis(cosines, near, axis=1)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def read_scenes(root: Path) -> tuple[WordPhotos, list[ObjectQuery]]:
    """The words of the scenes in a folder, and of their queries; the model is run."""
    from features.extractor import FeatureExtractor
    from features.frame import Frame
    from features.regions import load_mask, mask_cells
    from indexer.ingest.build import index_photos
    from indexer.reader import IndexReader
    from indexer.store.manifest import read_manifest
    from indexer.store.photos import read_words

    labels: dict[str, Any] = json.loads((root / "labels.json").read_text(encoding="utf-8"))
    shown = {
        Path(scene["photo"]).name: [item["instance"] for item in scene["objects"]]
        for scene in labels["gallery"]
    }
    numbers = {name: i for i, name in enumerate(sorted({n for own in shown.values() for n in own}))}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        index_photos([root / "photos"], index, FeatureExtractor.load("tiny"))
        manifest = read_manifest(index)
        [codec], tables = manifest.codecs, [read_words(index / f.name) for f in manifest.photos]
        words = {
            photo: table.words[table.starts[row] : table.starts[row + 1]]
            for table in tables
            for row, photo in enumerate(table.ids.tolist())
        }
        with IndexReader.open(index) as reader:
            records = {record.path.name: record for record in reader.photos(reader.ids)}
            queries = []
            for query in labels["queries"]:
                record = records[Path(query["photo"]).name]
                frame = Frame(record.width, record.height, reader.image_size, reader.grid)
                mask = load_mask(root / query["mask"], record.width, record.height)
                appearance, _ = reader.decode(reader.read_maps([record.id]))
                cells = appearance[0].numpy()[mask_cells(frame, mask).reshape(-1)]
                near = reader.words_in(cells, codec.number)
                queries.append(ObjectQuery(*near, numbers[query["instance"]]))
    most = max(map(len, shown.values()))
    objects = np.full((len(shown), most), -1)
    for row, own in enumerate(shown.values()):
        objects[row, : len(own)] = [numbers[name] for name in own]
    return WordPhotos([words[records[name].id] for name in shown], objects), queries


def describe(photos: WordPhotos, queries: Sequence[ObjectQuery]) -> dict[str, NDArray[np.float64]]:
    """Names and values of what is known of a collection."""
    has = np.zeros((len(photos.words), WORDS), dtype=bool)
    for row, own in enumerate(photos.words):
        has[row, own] = True
    counts, frequency = has.sum(axis=1), has.mean(axis=0)
    showing, others = [], []
    for query in queries:
        shows = (photos.objects == query.shows).any(axis=1)
        if shows.any():
            showing.append(has[shows][:, query.near].mean(axis=(0, 1)))
            others.append(has[~shows][:400][:, query.near].mean(axis=(0, 1)))
    distinct = [np.unique(query.near) for query in queries]
    ranks = [0, 1, 3, 7, 15]
    return {
        "words per photo: mean, deviation": np.array([counts.mean(), counts.std()]),
        "share of photos that have the word of rank 1, 100, 1,000, 3,000, 8,000": np.sort(
            frequency
        )[::-1][[0, 99, 999, 2999, 7999]],
        "cells per object: mean": np.array([np.mean([len(query.near) for query in queries])]),
        "words near to an object: mean": np.array([np.mean([len(words) for words in distinct])]),
        "of these, how many a photo has: mean": np.array(
            [np.mean([frequency[words].sum() for words in distinct])]
        ),
        "cosine of the word of rank 1, 2, 4, 8, 16": np.mean(
            [query.cosines.mean(axis=0) for query in queries], axis=0
        )[ranks],
        "share of photos of the object that have it": np.mean(showing, axis=0)[ranks],
        "share of other photos that have it": np.mean(others, axis=0)[ranks],
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/scenes"))
    root = parser.parse_args().root
    collection = WordCollection(PHOTOS_PER_PART, seed=0)
    [photos] = collection.photos()
    drawn = describe(photos, collection.queries(200))
    for name, values in describe(*read_scenes(root)).items():
        print(f"{name}\n  scenes {values.round(3)}\n  drawn  {drawn[name].round(3)}")


if __name__ == "__main__":
    main()
