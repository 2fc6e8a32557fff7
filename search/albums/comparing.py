"""How like named objects photos are, by stored maps alone, for many names and photos at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.device import find_device
from indexer.named_objects import NamedObject, NamedView
from indexer.reader import IndexReader
from indexer.store.album_rows import AlbumRows
from search.clock import Clock
from search.ranking.localise import localise
from search.reference import Reference
from search.scoring.candidates import ScoringReference
from search.scoring.fusion import weights_of
from search.scoring.rerank import combine, score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES

if TYPE_CHECKING:
    import torch

# Photos are compared by their maps whose words are as near as this to those of the object (see
# `WordRecall.nearness`). benchmarks/albums.py measures what is lost.
_NEAR = 0.45


@dataclass(frozen=True, eq=False)
class ComparedName:
    """A named object, ready to be compared.

    wanted, unlike: what it is looked for by, and what it is told apart from, on the scoring device.
    wanted_contents, unlike_contents: (r, 32) and (m, 32) uint8, the photos of these. said: (s, 32)
    uint8, the contents that a person said something of.
    """

    named: NamedObject
    wanted: list[ScoringReference]
    unlike: list[ScoringReference]
    wanted_contents: NDArray[np.uint8]
    unlike_contents: NDArray[np.uint8]
    said: NDArray[np.uint8]

    @classmethod
    def of(cls, named: NamedObject, device: "torch.device") -> "ComparedName":
        return cls(
            named,
            [_reference(view).for_scoring(device) for view in named.references],
            [_reference(view).for_scoring(device) for view in named.others],
            _contents([view.maps.content_hash for view in named.references]),
            _contents([view.maps.content_hash for view in named.others]),
            _contents([one.content_hash for one in named.verdicts]),
        )

    def combined(
        self, by_reference: NDArray[np.float32], contents: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """One score per photo, and the number of the reference that it resembles most.

        A photo is not compared with itself: references of its own content do not count for it, as
        long as there is another. by_reference: (r + m, n) float32. contents: (n, 32) uint8.
        """
        wanted, unwanted = np.split(by_reference, [len(self.wanted)])
        own = _same(self.wanted_contents, contents)
        wanted = np.where(own & ~own.all(axis=0), -np.inf, wanted).astype(np.float32)
        unwanted = np.where(_same(self.unlike_contents, contents), -np.inf, unwanted)
        scores = combine(wanted, unwanted.astype(np.float32))
        return scores, wanted.argmax(axis=0).astype(np.int32)


@dataclass(frozen=True)
class Found:
    """What a comparison found. rows: of each name, in their order. damaged: ids of photos whose
    maps are damaged, so that they could not be compared.
    """

    rows: list[AlbumRows]
    damaged: NDArray[np.int64]


class Comparison:
    """Compares photos of an index with named objects, by the score that searches use.

    No model is needed: the score `consistent` without class evidence takes stored maps alone.
    """

    def __init__(self, reader: IndexReader, device: str) -> None:
        """Raises IndexDamagedError where the weights of the index are damaged."""
        self._reader = reader
        self._score = SCORES[DEFAULT_SCORE].bound(weights_of(reader))
        self.device = find_device(device)

    def compare(
        self,
        names: Sequence[ComparedName],
        ids: NDArray[np.int64],
        sample: NDArray[np.int64],
    ) -> Found:
        """The photos that may show each object, and those of the sample, which tell how chance
        scores.

        names: at least one. ids, sample: (n,) and (k,) int64, rising. Whether a photo may show an
        object, and its score, depend on nothing but these two.
        """
        found, lost = [], [np.empty(0, np.int64)]
        for name, chosen in zip(names, self._listed(names, ids), strict=True):
            wanted = np.union1d(ids[chosen], sample)
            every, by_reference = self._scores(name, wanted)
            contents = self._contents(every)
            scores, likest = name.combined(by_reference, contents)
            listed = np.isin(every, ids[chosen])
            boxes = np.full((len(every), 4), -1, np.int32)
            found.append(AlbumRows(contents, listed, scores, likest, boxes))
            lost.append(np.setdiff1d(wanted, every))
        return Found(found, np.unique(np.concatenate(lost)))

    def place(
        self, name: ComparedName, ids: NDArray[np.int64], which: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where the object is in some photos: the ids without damaged ones, and its cells,
        (n, grid, grid) bool.

        which: (n,), the reference by which each photo is judged.
        """
        maps = self._reader.read_maps(ids)
        sound = np.isin(ids, maps.ids)
        least = np.full(len(maps.ids), np.inf, dtype=np.float32)  # one place is enough
        evidence = localise(
            self._reader, maps, name.wanted, which[sound], self._score, least, name.unlike
        )
        grid = self._reader.grid
        return maps.ids, evidence.places[:, 0].reshape(-1, grid, grid)

    def likest(self, name: ComparedName, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The reference that each photo resembles most, (n,) int64; 0 where maps are damaged."""
        sound, by_reference = self._scores(name, ids)
        _, found = name.combined(by_reference, self._contents(sound))
        likest = np.zeros(len(ids), np.int64)
        likest[np.isin(ids, sound)] = found
        return likest

    def _listed(self, names: Sequence[ComparedName], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which photos may show each object, (names, n) bool: those with near words, and those that
        a person said something of.
        """
        words = self._reader.word_recall
        contents = self._contents(ids)
        if words is None:
            return np.ones((len(names), len(ids)), np.bool_)
        asked = [
            partial(self._reader.words_in, view.maps.appearance[view.cells].astype(np.float32))
            for name in names
            for view in name.named.references
        ]
        near = words.nearness(asked, ids) >= _NEAR
        bounds = np.cumsum([len(name.wanted) for name in names])[:-1]
        return np.stack(
            [
                some.any(axis=0)
                | _same(name.wanted_contents, contents).any(axis=0)
                | _same(name.said, contents).any(axis=0)
                for name, some in zip(names, np.split(near, bounds), strict=True)
            ]
        )

    def _scores(
        self, name: ComparedName, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ids of the photos that could be read, and (r + m, n) scores by a name's references.

        Names do not share products here: which kernel compares cells depends on how many tokens are
        compared at once, and a photo is to have the same score in every run.
        """
        references = [*name.wanted, *name.unlike]
        scored = score_references(self._reader, ids, references, [self._score], Clock())
        return scored.ids, scored.by_score[self._score.name]

    def _contents(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        table = self._reader.table
        return table.hashes[table.rows_of(ids)]


def _reference(view: NamedView) -> Reference:
    return Reference(view.maps, view.cells, view.class_vector)


def _contents(hashes: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)


def _same(these: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of (r, 32) and of (n, 32) contents are the same, (r, n) bool."""
    same: NDArray[np.bool_] = (these[:, None] == others).all(axis=2)
    return same
