"""Descriptors: which of them the photos of a run lack, and how they are computed and stored."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.photo import Photo
from indexer.ingest.writer import IndexWriter
from indexer.protocols import Descriptor
from indexer.recall.descriptor_vectors import has_vector
from indexer.store.photos import PhotoTable

# The inputs of descriptors for one photo, by the names of the descriptors.
Views = Mapping[str, NDArray[np.uint8]]


class Describer:
    """Gives photos the descriptors that the index lacks for them, a batch at a time.

    Threads may call `is_complete` and `views`; the other methods are for the thread that adds to
    the index. described: how many contents were given vectors.
    """

    def __init__(
        self, descriptors: Sequence[Descriptor], writer: IndexWriter, table: PhotoTable
    ) -> None:
        """table: the photos as the run begins.

        Raises as `IndexWriter.use_descriptor`, and IndexDamagedError.
        """
        for descriptor in descriptors:
            writer.use_descriptor(descriptor)
        self._descriptors = {descriptor.name: descriptor for descriptor in descriptors}
        self._writer = writer
        # Which rows of the table have a vector, by descriptor.
        self._has = {
            name: has_vector(writer.index_dir, writer.manifest.descriptor(name), table)
            for name in self._descriptors
        }
        self._seen: set[str] = set()
        # By content: what waits to be described, and what waits to be stored.
        self._waiting: dict[str, Views] = {}
        self._vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self.described = 0

    def is_complete(self, row: int) -> bool:
        """Whether a row of the table lacks no descriptor."""
        return all(has[row] for has in self._has.values())

    def views(self, photo: Photo, rows: Sequence[int]) -> Views:
        """The inputs of the descriptors that a photo lacks; raises as `load_photo`.

        rows: the rows of the table that have its content.
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
        """Put a photo in line for the next `run`, unless this content was in line before."""
        if views and content_hash not in self._seen:
            self._seen.add(content_hash)
            self._waiting[content_hash] = views

    def run(self) -> None:
        """Describe all photos that wait."""
        for name, descriptor in self._descriptors.items():
            contents = [c for c, views in self._waiting.items() if name in views]
            if contents:
                vectors = descriptor.describe([self._waiting[c][name] for c in contents])
                for content, vector in zip(contents, vectors, strict=True):
                    self._vectors.setdefault(content, {})[name] = vector
        self._waiting = {}

    def store(self, content_hash: str) -> list[str]:
        """Hand the vectors of a photo to the writer; to be called just before the photo is added.

        Returns the names of the descriptors that gave no vector for it.
        """
        found = self._vectors.pop(content_hash, {})
        sound = {name: vector for name, vector in found.items() if np.isfinite(vector).all()}
        if sound:
            self.described += 1
            self._writer.describe(content_hash, sound)
        return [name for name in found if name not in sound]
