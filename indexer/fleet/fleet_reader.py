"""Reading a fleet as one collection: every part is asked, and what they answer is put together.

The scores that recall and re-ranking give a photo do not depend on the other photos. So the best K
of what the parts find are the best K of the collection, and answers are those of a single index.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.remote_index import bucket_of
from indexer.codec.codec import Codec, load_codec
from indexer.collection import Collection, MapBatch, PhotoRecord
from indexer.parts import CODEC_NUMBER, Fleet, part_ids, part_name, part_of_id, read_fleet
from indexer.reader import IndexReader, no_photo
from indexer.recall.searching import Asked, Found, Recall, VectorRecall, WordsRecall, best_of, by_id
from indexer.store.filters import PhotoFilter
from indexer.store.locks import ReaderLock

if TYPE_CHECKING:
    import torch

# Parts whose maps are read at the same time; each reads with several threads itself.
_READ_TOGETHER = 8


def open_collection(index_dir: Path) -> Collection:
    """Open the last committed state of an index or of a fleet.

    Raises IndexMissingError where there is neither or no photo in it, IndexFormatError,
    IndexDamagedError.
    """
    fleet = read_fleet(index_dir)
    return IndexReader.open(index_dir) if fleet is None else FleetReader.open(fleet)


class MergedRecall(Generic[Asked]):
    """Recall of several parts, searched one after the other, as one."""

    def __init__(self, parts: Mapping[int, Recall[Asked]]) -> None:
        """parts: by their numbers."""
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def search(self, asked: Asked, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        """As `Recall.search`."""
        ids, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for number, part in self._parts.items():
            own = allowed
            if allowed is not None:
                own = allowed[slice(*np.searchsorted(allowed, part_ids(number)))]
                if len(own) == 0:
                    continue
            found = part.search(asked, k, own)
            ids.append(found[0])
            scores.append(found[1])
        return best_of(np.concatenate(ids), np.concatenate(scores), k)

    def score_all(self, asked: Asked) -> Found:
        """As `Recall.score_all`."""
        found = [part.score_all(asked) for part in self._parts.values()]
        return by_id(*(np.concatenate(column) for column in zip(*found, strict=True)))


class FleetReader(Collection):
    """A collection that lies in the parts of a fleet, each as of its last commit.

    Use `open_collection`.
    """

    def __init__(self, fleet: Fleet, parts: Mapping[int, IndexReader], lock: ReaderLock) -> None:
        """parts: by their numbers, which rise; some may have no photo."""
        super().__init__(fleet.index_dir, next(iter(parts.values())).manifest)
        self._lock = lock
        self._fleet = fleet
        self._parts = parts
        self._by_descriptor: dict[str, MergedRecall[NDArray[np.float32]]] = {}
        self._pool = ThreadPoolExecutor(_READ_TOGETHER, "parts")

    @classmethod
    def open(cls, fleet: Fleet, numbers: Iterable[int] | None = None) -> Self:
        """Open every part, or those of some numbers, which may have no photo.

        Raises as `open_collection`.
        """
        bucket = bucket_of(fleet.index_dir)
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(contextlib.closing(ReaderLock(fleet.index_dir)))
            parts = {}
            for number in range(fleet.parts) if numbers is None else sorted(numbers):
                fleet.check_part(number)
                part = IndexReader.open(
                    fleet.folder(number),
                    may_be_empty=True,
                    bucket=bucket and bucket.below(part_name(number)),
                )
                parts[number] = opened.enter_context(part)
            if numbers is None and not any(part.n_photos for part in parts.values()):
                raise no_photo(fleet.index_dir)
            opened.pop_all()
        return cls(fleet, parts, lock)

    def close(self) -> None:
        self._pool.shutdown()
        for part in self._parts.values():
            part.close()
        self._lock.close()

    @property
    def place(self) -> Path | str:
        bucket = bucket_of(self.index_dir)
        return self.index_dir if bucket is None else bucket.url

    @property
    def generations(self) -> dict[int, int]:
        """The state of each part that was opened, by the parts' numbers."""
        return {number: part.manifest.generation for number, part in self._parts.items()}

    def is_current(self) -> bool:
        return all(part.is_current() for part in self._parts.values())

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        return np.concatenate([part.ids for part in self._parts.values()])

    @cached_property
    def content_hashes(self) -> NDArray[np.uint8]:
        return np.concatenate([part.content_hashes for part in self._parts.values()])

    @cached_property
    def recall(self) -> VectorRecall:
        return MergedRecall({number: part.recall for number, part in self._parts.items()})

    @cached_property
    def word_recall(self) -> WordsRecall | None:
        recalls = {number: part.word_recall for number, part in self._parts.items()}
        found = {number: recall for number, recall in recalls.items() if recall is not None}
        return MergedRecall(found) if len(found) == len(recalls) else None

    @cached_property
    def descriptors(self) -> dict[str, dict[str, Any]]:
        return {
            name: values
            for part in self._parts.values()
            for name, values in part.descriptors.items()
        }

    def descriptor_recall(self, name: str) -> VectorRecall:
        if name not in self._by_descriptor:
            recalls = {
                number: part.descriptor_recall(name)
                for number, part in self._parts.items()
                if name in part.descriptors
            }
            if not recalls:
                raise KeyError(f"no descriptor {name}")
            self._by_descriptor[name] = MergedRecall(recalls)
        return self._by_descriptor[name]

    @cached_property
    def _codecs(self) -> dict[int, Codec]:
        return {CODEC_NUMBER: load_codec(self.index_dir / self._fleet.codec.name)}

    def photos(self, ids: Sequence[int] | NDArray[np.int64]) -> list[PhotoRecord]:
        found: dict[int, PhotoRecord] = {}
        for number, places in self._by_part(ids).items():
            own = np.asarray(ids, np.int64)[places]
            found.update(zip(places.tolist(), self._part(number).photos(own), strict=True))
        return [found[place] for place in range(len(found))]

    def paths(self) -> Iterator[str]:
        return chain.from_iterable(part.paths() for part in self._parts.values())

    def with_paths(self, paths: Sequence[str]) -> NDArray[np.int64]:
        found = np.full(len(paths), -1, np.int64)
        for part in self._parts.values():
            found = np.maximum(found, part.with_paths(paths))
        return found

    def hold_maps(
        self, device: "torch.device", progress: Callable[[int, int], None] | None = None
    ) -> None:
        done = 0
        for part in self._parts.values():

            def report(read: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + read, self.n_photos)

            part.hold_maps(device, report)
            done += part.n_photos

    def read_maps(self, ids: Sequence[int] | NDArray[np.int64]) -> MapBatch:
        wanted = np.asarray(ids, dtype=np.int64)
        by_part = self._by_part(wanted)
        parts = [self._part(number) for number in by_part]
        places = list(by_part.values())
        batches = list(self._pool.map(lambda part, own: part.read_maps(wanted[own]), parts, places))
        if len(batches) == 1:
            return batches[0]
        # Where each map belongs in the answer: the places without those of damaged maps.
        sound = [own[np.isin(wanted[own], b.ids)] for own, b in zip(places, batches, strict=True)]
        order = np.argsort(np.concatenate([np.empty(0, np.intp), *sound]))
        together = _concatenated(batches, self)
        return together.rows(order)

    def matching(self, photo_filter: PhotoFilter) -> NDArray[np.int64]:
        return np.concatenate([part.matching(photo_filter) for part in self._parts.values()])

    def _part(self, number: int) -> IndexReader:
        """A part. Raises KeyError where there is none of this number."""
        if number not in self._parts:
            raise KeyError(f"no part {number}")
        return self._parts[number]

    def _by_part(self, ids: Sequence[int] | NDArray[np.int64]) -> dict[int, NDArray[np.intp]]:
        """The places of ids, by the number of the part that they are in."""
        owners = part_of_id(np.asarray(ids, dtype=np.int64))
        return {int(number): np.flatnonzero(owners == number) for number in np.unique(owners)}


def _concatenated(batches: Sequence[MapBatch], reader: Collection) -> MapBatch:
    """The maps of several parts, one after the other."""
    encoded: Any
    if batches and not isinstance(batches[0].encoded, np.ndarray):
        import torch

        encoded = torch.cat([torch.as_tensor(batch.encoded) for batch in batches])
    else:
        empty = np.empty((0, reader.photo_bytes), np.uint8)
        encoded = np.concatenate([empty, *(np.asarray(batch.encoded) for batch in batches)])
    return MapBatch(
        np.concatenate([np.empty(0, np.int64), *(batch.ids for batch in batches)]),
        encoded,
        np.concatenate([np.empty(0, np.int64), *(batch.codecs for batch in batches)]),
        np.concatenate(
            [np.empty((0, reader.grid**2), np.bool_), *(batch.valid for batch in batches)]
        ),
        [line for batch in batches for line in batch.damaged],
    )
