"""Reading an index: a reader keeps the committed state it opened, whatever writers do."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from features.frame import Frame
from indexer.codec.codec import Codec, load_codec
from indexer.codec.tokens import TokenMap
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.named_objects import NamedObject, read_named_object, unknown_name
from indexer.recall.descriptor_vectors import load_descriptor_recall
from indexer.recall.inverted_file import WordRecall, load_word_recall
from indexer.recall.vectors import RecallIndex, load_recall
from indexer.store.filters import PhotoFilter
from indexer.store.locks import ReaderLock
from indexer.store.manifest import Manifest, absolute_path, read_manifest
from indexer.store.mapstore import MapStore
from indexer.store.photos import PhotoTable, first_of_each, read_photo_table
from indexer.store.resident import ResidentMaps

if TYPE_CHECKING:
    import torch

_ATTEMPTS = 3
# The nearest visual words that a cell of a query is compared with.
_WORDS_PER_CELL = 16


@dataclass(frozen=True)
class PhotoRecord:
    """A photo of the index.

    id: never changes. path: absolute, as of when it was indexed. relative_path: below its source,
    "/" between folders. content_hash: SHA-256 of the file, hexadecimal. width, height: in pixels,
    of the upright photo. size: of the file, bytes. mtime_ns: its modification time, nanoseconds
    since 1970. taken_ns: the date taken, as `Photo.taken_ns` has it.
    """

    id: int
    path: Path
    relative_path: str
    content_hash: str
    width: int
    height: int
    size: int
    mtime_ns: int
    taken_ns: int | None

    def is_changed(self) -> bool:
        """Whether the file has another content now; False where it cannot be read.

        It is read only if its time alone has changed.
        """
        try:
            status = self.path.stat()
            if status.st_size != self.size:
                return True
            if status.st_mtime_ns == self.mtime_ns:
                return False
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() != self.content_hash
        except OSError:
            return False


@dataclass(frozen=True)
class MapBatch:
    """The encoded maps of n photos, in the order they were asked for, without damaged ones.

    ids: (n,) int64. encoded: (n, photo_bytes) uint8, see `IndexReader.decode`; where maps are held
    in memory, a tensor on the device that holds them. codecs: (n,) int64, the number of the codec
    of each. valid: (n, grid * grid) bool, False where a cell is padding. damaged: one line for each
    photo left out, with the shard, the row, what is wrong and what to do.
    """

    ids: NDArray[np.int64]
    encoded: "NDArray[np.uint8] | torch.Tensor"
    codecs: NDArray[np.int64]
    valid: NDArray[np.bool_]
    damaged: list[str]

    def by_codec(self) -> list[tuple[NDArray[np.intp], "MapBatch"]]:
        """The photos of each codec as a batch, with their rows in this one."""
        numbers = np.unique(self.codecs)
        if len(numbers) == 1:
            return [(np.arange(len(self.ids)), self)]
        rows = [np.flatnonzero(self.codecs == number) for number in numbers]
        return [(own, self.rows(own)) for own in rows]

    def rows(self, rows: slice | NDArray[np.intp]) -> "MapBatch":
        """Some of the photos."""
        if isinstance(rows, slice) or isinstance(self.encoded, np.ndarray):
            encoded = self.encoded[rows]
        else:  # without waiting for the device
            encoded = self.encoded.index_select(0, upload(rows, self.encoded.device))
        return MapBatch(self.ids[rows], encoded, self.codecs[rows], self.valid[rows], self.damaged)


class IndexReader:
    """A frozen snapshot of an index, safe to share between threads; open it with `open`.

    Until it is closed, or its process ends, no writer deletes the files it was opened on.
    """

    def __init__(
        self, index_dir: Path, manifest: Manifest, table: PhotoTable, lock: ReaderLock
    ) -> None:
        self.index_dir = index_dir
        self._lock = lock
        self._manifest = manifest
        self._table = table
        self._store = MapStore(index_dir, manifest.shards, manifest.photo_bytes)
        self._maps: MapStore | ResidentMaps = self._store
        self._by_descriptor: dict[str, RecallIndex] = {}
        self._codec_of_shard = {file.number: file.codec for file in manifest.shards}

    @classmethod
    def open(cls, index_dir: Path) -> Self:
        """Open the last committed state.

        Raises IndexMissingError where there is no index or no photo in it, IndexFormatError,
        IndexDamagedError.
        """
        lock = ReaderLock(index_dir)
        try:
            manifest, table = _read_state(index_dir)
            if not table.live.any():
                raise IndexMissingError(
                    f"{index_dir}: no photo in this index; run `waldo index PHOTOS --index "
                    f"{index_dir}` first"
                )
            return cls(index_dir, manifest, table, lock)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Stop the reading threads, and let writers delete the files they replaced.

        Nothing can be read afterwards.
        """
        self._store.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def is_current(self) -> bool:
        """Whether no writer has committed since this state was opened.

        Raises IndexMissingError, IndexFormatError, IndexDamagedError.
        """
        return read_manifest(self.index_dir) == self._manifest

    @property
    def manifest(self) -> Manifest:
        """The committed state that was opened."""
        return self._manifest

    @property
    def table(self) -> PhotoTable:
        """Its photo table."""
        return self._table

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the features depend on: model, revision, block, timestep, ..."""
        return dict(self._manifest.fingerprint)

    @property
    def weights(self) -> Mapping[str, float] | None:
        """Fitted weights of a search's kinds of evidence, as stored and unchecked, if any."""
        return self._manifest.weights

    @property
    def image_size(self) -> int:
        """Side of the model's square input, pixels."""
        return self._manifest.image_size

    @property
    def grid(self) -> int:
        """Side of a feature map, cells."""
        return self._manifest.grid

    @property
    def dim(self) -> int:
        """d, channels of one map."""
        return self._manifest.dim

    @property
    def quality(self) -> str:
        """The codec's quality, one of `QUALITIES`."""
        return self._manifest.quality

    @property
    def photo_bytes(self) -> int:
        """Bytes of one photo's encoded maps."""
        return self._manifest.photo_bytes

    @property
    def n_photos(self) -> int:
        return int(self._table.live.sum())

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n_photos,) int64, rising: the ids of all photos."""
        return self._table.ids[self._table.live]

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

    @property
    def names(self) -> dict[str, int]:
        """The objects that are known by name, sorted, each with the number of its photos."""
        return {record.name: record.file.rows for record in self._manifest.names}

    def named(self, name: str) -> NamedObject:
        """An object that is known by name.

        Raises WaldoError for a name that is not known, IndexDamagedError.
        """
        record = self._manifest.named(name)
        if record is None:
            raise unknown_name(self.index_dir, list(self.names), name)
        return replace(read_named_object(self.index_dir / record.file.name), name=name)

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

    def words_in(
        self, cells: NDArray[np.float32], codec: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """The visual words of a codec nearest to (n, d) cells of an appearance map, as
        `VisualWords.nearest` gives them; none where the codec has no words.
        """
        words = self._codecs[codec].words
        if words is None:
            return np.empty((0, 0), np.uint16), np.empty((0, 0), np.float32)
        return words.nearest(cells, _WORDS_PER_CELL)

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
                    Path(absolute_path(root, relative)),
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

    def paths(self) -> list[str]:
        """The absolute path of every photo, in the order of `ids`."""
        table, roots = self._table, [source.root for source in self._manifest.sources]
        rows = zip(
            *(table.numbers["source"].tolist(), table.paths.to_pylist(), table.live.tolist()),
            strict=True,
        )
        return [absolute_path(roots[source], path) for source, path, live in rows if live]

    def distinct(self, ids: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """Of some photos, or of all for None, one for each content: the lowest id. None where all
        photos are meant and no two have the same content.
        """
        if ids is None:
            return None if len(self._contents) == self.n_photos else self._contents
        rows = self._table.rows_of(ids)
        return np.sort(ids[first_of_each(self._table.hashes[rows])])

    @cached_property
    def _contents(self) -> NDArray[np.int64]:
        live = self._table.live
        return np.sort(self._table.ids[live][first_of_each(self._table.hashes[live])])

    def copies_of(self, photo_id: int) -> list[int]:
        """The ids of the other photos that have the same content as a photo, rising."""
        if len(self._contents) == self.n_photos:
            return []
        [row] = self._table.rows_of(np.array([photo_id]))
        same = (self._table.hashes == self._table.hashes[row]).all(axis=1) & self._table.live
        return [number for number in self._table.ids[same].tolist() if number != photo_id]

    def has_content(
        self, ids: NDArray[np.int64], content_hashes: Collection[str]
    ) -> NDArray[np.bool_]:
        """Which photos, (n,), have one of these contents (as in `PhotoRecord`), (n,) bool."""
        wanted = np.frombuffer(bytes.fromhex("".join(content_hashes)), np.uint8).reshape(-1, 32)
        hashes = self._table.hashes[self._table.rows_of(ids)]
        found: NDArray[np.bool_] = (hashes[:, None] == wanted).all(axis=2).any(axis=1)
        return found

    def find(self, content_hash: str) -> int | None:
        """The id of a photo with this content (as in `PhotoRecord`); None where there is none."""
        wanted = np.frombuffer(bytes.fromhex(content_hash), np.uint8)
        rows = np.flatnonzero((self._table.hashes == wanted).all(axis=1) & self._table.live)
        return int(self._table.ids[rows[0]]) if len(rows) else None

    def hold_maps(
        self, device: "torch.device", progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Read the maps of all photos into a device's memory, where `read_maps` then finds them.

        progress: called with the number of photos whose maps are read, and the number of all.
        Raises WaldoError where the device has too little memory.
        """
        places = [self._table.place(int(row)) for row in np.flatnonzero(self._table.live)]
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
            [f"{self.index_dir}: {damaged[at]}" for at in sorted(damaged)],
        )

    def decode(
        self, batch: MapBatch, device: "torch.device | str" = "cpu"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Appearance and semantic maps of a batch, on a device.

        Each is float32 (n, grid * grid, d), cells row-major from the top left. Raises
        IndexDamagedError for a damaged codec.
        """
        import torch

        shape = (len(batch.ids), self.grid**2, self.dim)
        appearance, semantic = torch.empty(shape, device=device), torch.empty(shape, device=device)
        for rows, part in batch.by_codec():
            encoded = torch.as_tensor(part.encoded, device=device)
            at = torch.from_numpy(rows).to(device)
            appearance[at], semantic[at] = self._codecs[int(part.codecs[0])].decode(encoded)
        return appearance, semantic

    def tokens(
        self, batch: MapBatch, device: "torch.device | str" = "cpu"
    ) -> tuple[TokenMap, TokenMap]:
        """Appearance and semantic maps of photos of one codec, still encoded, on a device.

        Raises IndexDamagedError for a damaged codec.
        """
        import torch

        [number] = set(batch.codecs.tolist())
        encoded = batch.encoded
        if isinstance(encoded, np.ndarray):
            return self._codecs[number].tokens(upload(encoded, torch.device(device)))
        return self._codecs[number].tokens(encoded.to(device))

    def matching(self, photo_filter: PhotoFilter) -> NDArray[np.int64]:
        """Ids of the photos that pass a filter, rising. Raises WaldoError for a bad glob."""
        passing = photo_filter.matching(self._table, self._manifest.sources)
        return self._table.ids[passing & self._table.live]


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
