"""The descriptors that a run's photos lack: which, and from decoded photos to stored vectors."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.photo import Photo
from indexer.ingest.writer import IndexWriter
from indexer.protocols import Descriptor
from indexer.recall.descriptor_vectors import has_vector
from indexer.store.photos import PhotoTable

# What descriptors are shown of a photo, by their names.
Views = Mapping[str, NDArray[np.uint8]]


class Describer:
    """Gives photos the descriptors that the index lacks of them, a batch at a time.

    `is_complete` and `views` may be called by threads, the rest by the one that adds to the index.
    described: contents that were given vectors.
    """

    def __init__(
        self, descriptors: Sequence[Descriptor], writer: IndexWriter, table: PhotoTable
    ) -> None:
        """table: the photos as the run begins. Raises as `IndexWriter.use_descriptor`, and
        IndexDamagedError.
        """
        for descriptor in descriptors:
            writer.use_descriptor(descriptor)
        self._descriptors = {descriptor.name: descriptor for descriptor in descriptors}
        self._writer = writer
        # by descriptor: which rows of the table have a vector
        self._has = {
            name: has_vector(writer.index_dir, writer.manifest.descriptor(name), table)
            for name in self._descriptors
        }
        self._seen: set[str] = set()
        # by content: what waits to be described, and what waits to be stored
        self._waiting: dict[str, Views] = {}
        self._vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self.described = 0

    def is_complete(self, row: int) -> bool:
        """Whether a row of the table lacks no descriptor."""
        return all(has[row] for has in self._has.values())

    def views(self, photo: Photo, rows: Sequence[int]) -> Views:
        """What is to be described of a photo; rows: of the table, with its content.

        Raises what `load_photo` raises.
        """
        return {
            name: descriptor.prepare(photo)
            for name, descriptor in self._descriptors.items()
            if not self._has[name][list(rows)].any()
        }

    @property
    def n_waiting(self) -> int:
        """How many contents wait for `run`."""
        return len(self._waiting)

    def collect(self, content_hash: str, views: Views) -> None:
        """Let a photo wait for the next `run`, unless its content was there before."""
        if views and content_hash not in self._seen:
            self._seen.add(content_hash)
            self._waiting[content_hash] = views

    def run(self) -> None:
        """Describe all that wait."""
        for name, descriptor in self._descriptors.items():
            contents = [c for c, views in self._waiting.items() if name in views]
            if contents:
                vectors = descriptor.describe([self._waiting[c][name] for c in contents])
                for content, vector in zip(contents, vectors, strict=True):
                    self._vectors.setdefault(content, {})[name] = vector
        self._waiting = {}

    def store(self, content_hash: str) -> list[str]:
        """Hand to the writer what `run` gave for a photo, just before the photo itself.

        Returns the names of the descriptors that gave no vector.
        """
        found = self._vectors.pop(content_hash, {})
        sound = {name: vector for name, vector in found.items() if np.isfinite(vector).all()}
        if sound:
            self.described += 1
            self._writer.describe(content_hash, sound)
        return [name for name in found if name not in sound]
