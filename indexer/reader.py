"""Reading an index: a reader keeps the committed state it opened, whatever writers do."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from indexer.bucket.object_path import path_of
from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_index import bucket_of, shard_opener
from indexer.codec.codec import Codec, load_codec
from indexer.collection import Collection, MapBatch, PhotoRecord
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.recall.descriptor_vectors import load_descriptor_recall
from indexer.recall.inverted_file import WordRecall, load_word_recall
from indexer.recall.vectors import RecallIndex, load_recall
from indexer.store.filters import PhotoFilter
from indexer.store.locks import ReaderLock
from indexer.store.manifest import Manifest, absolute_path, read_manifest
from indexer.store.mapstore import MapStore
from indexer.store.photos import (
    PhotoTable,
    RowsByPath,
    absolute_paths,
    read_photo_table,
)
from indexer.store.resident import ResidentMaps

if TYPE_CHECKING:
    import torch

_ATTEMPTS = 3


class IndexReader(Collection):
    """A collection that lies in one index; open it with `open`."""

    def __init__(
        self,
        index_dir: Path,
        manifest: Manifest,
        table: PhotoTable,
        lock: ReaderLock,
        bucket: Bucket | None,
    ) -> None:
        super().__init__(index_dir, manifest)
        self._lock = lock
        self._table = table
        bucket = bucket or bucket_of(index_dir)
        self._place = index_dir if bucket is None else bucket.url
        self._store = MapStore(
            index_dir, manifest.shards, manifest.photo_bytes, shard_opener(index_dir, bucket)
        )
        self._maps: MapStore | ResidentMaps = self._store
        self._by_descriptor: dict[str, RecallIndex] = {}
        self._codec_of_shard = {file.number: file.codec for file in manifest.shards}

    @classmethod
    def open(
        cls, index_dir: Path, *, may_be_empty: bool = False, bucket: Bucket | None = None
    ) -> Self:
        """Open the last committed state.

        bucket: that holds its map shards; None for `bucket_of`, which takes 50 ms to connect.
        Raises IndexMissingError where there is no index, or no photo in it unless it may be empty;
        IndexFormatError, IndexDamagedError.
        """
        lock = ReaderLock(index_dir)
        try:
            manifest, table = _read_state(index_dir)
            if not (may_be_empty or table.live.any()):
                raise no_photo(index_dir)
            return cls(index_dir, manifest, table, lock, bucket)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Stop the reading threads, and let writers delete the files they replaced.

        Nothing can be read afterwards.
        """
        self._store.close()
        self._lock.close()

    @property
    def place(self) -> Path | str:
        return self._place

    @property
    def table(self) -> PhotoTable:
        """Its photo table."""
        return self._table

    def is_current(self) -> bool:
        return read_manifest(self.index_dir) == self._manifest

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        return self._table.ids[self._table.live]

    @cached_property
    def content_hashes(self) -> NDArray[np.uint8]:
        return self._table.hashes[self._table.live]

    @cached_property
    def recall(self) -> RecallIndex:
        """The recall index by pooled vectors, over all photos; read when first used."""
        return load_recall(self.index_dir, self._manifest)

    @cached_property
    def word_recall(self) -> WordRecall | None:
        """The recall index by visual words; None where some photos have none.

        It is read when it is first used.
        """
        if any(codec.words is None for codec in self._codecs.values()):
            return None
        return load_word_recall(self.index_dir, self._manifest)

    @property
    def descriptors(self) -> dict[str, dict[str, Any]]:
        """The fingerprint of each global descriptor that photos have, by its name."""
        return {column.name: dict(column.fingerprint) for column in self._manifest.descriptors}

    def descriptor_recall(self, name: str) -> RecallIndex:
        """The recall index of a descriptor over the photos that have it; read when first used.

        Raises KeyError for a descriptor that the index does not have, IndexDamagedError.
        """
        if name not in self._by_descriptor:
            column = self._manifest.descriptor(name)
            if column is None:
                raise KeyError(f"no descriptor {name}")
            self._by_descriptor[name] = load_descriptor_recall(
                self.index_dir, self._manifest, self._table, column
            )
        return self._by_descriptor[name]

    @cached_property
    def _codecs(self) -> dict[int, Codec]:
        return {f.number: load_codec(self.index_dir / f.name) for f in self._manifest.codecs}

    def photos(self, ids: Sequence[int] | NDArray[np.int64]) -> list[PhotoRecord]:
        """The records of some photos, in order. Raises KeyError for an id not in the index."""
        table = self._table
        records = []
        for row in table.rows_of(np.asarray(ids, dtype=np.int64)):
            relative = table.path(row)
            root = self._manifest.sources[table.number("source", row)].root
            records.append(
                PhotoRecord(
                    table.number("id", row),
                    path_of(absolute_path(root, relative)),
                    relative,
                    table.content_hash(row).hex(),
                    table.number("width", row),
                    table.number("height", row),
                    table.number("size", row),
                    table.number("mtime_ns", row),
                    table.taken_ns[int(row)].as_py(),
                )
            )
        return records

    def paths(self) -> Iterator[str]:
        return absolute_paths(self._table, self._manifest.sources, self._live)

    def with_paths(self, paths: Sequence[str]) -> NDArray[np.int64]:
        ids = self._by_path.rows(paths)
        found = ids >= 0
        ids[found] = self._table.ids[ids[found]]
        return ids

    @cached_property
    def _by_path(self) -> RowsByPath:
        return RowsByPath(self._table, self._manifest.sources, self._live)

    @cached_property
    def _live(self) -> NDArray[np.int64]:
        """The rows of the photos in the table, (n_photos,)."""
        return np.flatnonzero(self._table.live)

    def hold_maps(
        self, device: "torch.device", progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Read the maps of all photos into a device's memory, where `read_maps` then finds them.

        progress: called with the number of photos whose maps are read, and the number of all.
        Raises WaldoError where the device has too little memory.
        """
        places = [self._table.place(int(row)) for row in self._live]
        self._maps = ResidentMaps.load(self._store, places, device, progress)

    def read_maps(self, ids: Sequence[int] | NDArray[np.int64]) -> MapBatch:
        """The maps of some photos. Raises KeyError for an id not in the index.

        A map whose checksum differs, or whose shard cannot be read, is never returned: its photo
        is left out and reported in `damaged`.
        """
        table, grid = self._table, self.grid
        wanted = np.asarray(ids, dtype=np.int64)
        rows = table.rows_of(wanted)
        places = [table.place(row) for row in rows]
        encoded, damaged = self._maps.read(places)
        sound = np.ones(len(rows), dtype=bool)
        sound[list(damaged)] = False
        if damaged:
            encoded = encoded[sound]
        numbers = [self._codec_of_shard.get(place.shard, 0) for place in places]
        valid = np.empty((len(encoded), grid * grid), dtype=bool)
        for at, row in enumerate(rows[sound]):
            width, height = table.number("width", row), table.number("height", row)
            valid[at] = Frame(width, height, self.image_size, grid).valid().reshape(-1)
        return MapBatch(
            wanted[sound],
            encoded,
            np.array(numbers, dtype=np.int64)[sound],
            valid,
            [f"{self._place}: {damaged[at]}" for at in sorted(damaged)],
        )

    def matching(self, photo_filter: PhotoFilter) -> NDArray[np.int64]:
        """Ids of the photos that pass a filter, rising. Raises WaldoError for a bad glob."""
        passing = photo_filter.matching(self._table, self._manifest.sources)
        return self._table.ids[passing & self._table.live]


def no_photo(index_dir: Path) -> IndexMissingError:
    """What is wrong with a collection without photos."""
    return IndexMissingError(
        f"{index_dir}: no photo in this index; run `waldo index PHOTOS --index {index_dir}` first"
    )


def _read_state(index_dir: Path) -> tuple[Manifest, PhotoTable]:
    """The last committed state. Raises as `IndexReader.open`."""
    for attempt in range(_ATTEMPTS):
        manifest = read_manifest(index_dir)
        try:
            table = read_photo_table(index_dir, manifest)
            break
        except IndexDamagedError:
            # Without a lock, a writer may have replaced the files between the manifest and here.
            if attempt + 1 == _ATTEMPTS or read_manifest(index_dir) == manifest:
                raise
    return manifest, table
