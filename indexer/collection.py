"""A collection that can be searched: the contract of whoever reads one, and what all share."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from indexer.codec.codec import Codec
from indexer.codec.tokens import TokenMap
from indexer.named_objects import NamedObject, read_named_object, unknown_name
from indexer.recall.searching import VectorRecall, WordsRecall
from indexer.store.filters import PhotoFilter
from indexer.store.manifest import Manifest
from indexer.store.photos import first_of_each

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

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

    def can_be_read(self) -> bool:
        """Whether the file is there, and may be read."""
        try:
            with self.path.open("rb"):
                return True
        except OSError:
            return False

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

    ids: (n,) int64. encoded: (n, photo_bytes) uint8, see `Collection.decode`; where maps are held
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


class Collection(ABC):
    """A frozen snapshot of photos and their maps, safe to share between threads.

    They lie in an index (`indexer.reader`), or in the parts of a fleet
    (`indexer.fleet.fleet_reader`); `open_collection` there opens either. Until it is closed, or its
    process ends, no writer deletes the files it was opened on.
    """

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        """manifest: says what the collection was made with."""
        self.index_dir = index_dir
        self._manifest = manifest

    @abstractmethod
    def close(self) -> None:
        """Stop the reading threads, and let writers delete the files they replaced.

        Nothing can be read afterwards.
        """

    @property
    def place(self) -> Path | str:
        """Where people know it to lie: its folder, or the address in a bucket that the folder
        stands for.
        """
        return self.index_dir

    @abstractmethod
    def is_current(self) -> bool:
        """Whether no writer has committed since this state was opened.

        Raises IndexMissingError, IndexFormatError, IndexDamagedError.
        """

    @property
    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """(n_photos,) int64, rising: the ids of all photos."""

    @property
    @abstractmethod
    def content_hashes(self) -> NDArray[np.uint8]:
        """(n_photos, 32) uint8: the SHA-256 of each photo's file, in the order of `ids`."""

    @property
    @abstractmethod
    def recall(self) -> VectorRecall:
        """Recall by pooled vectors, over all photos; read when first used."""

    @property
    @abstractmethod
    def word_recall(self) -> WordsRecall | None:
        """Recall by visual words; None where some photos have none. It is read when first used."""

    @property
    @abstractmethod
    def descriptors(self) -> dict[str, dict[str, Any]]:
        """The fingerprint of each global descriptor that photos have, by its name."""

    @abstractmethod
    def descriptor_recall(self, name: str) -> VectorRecall:
        """Recall by a descriptor, over the photos that have it; read when first used.

        Raises KeyError for a descriptor that the collection does not have, IndexDamagedError.
        """

    @abstractmethod
    def photos(self, ids: Sequence[int] | NDArray[np.int64]) -> list[PhotoRecord]:
        """The records of some photos, in order. Raises KeyError for an id not in the index."""

    @abstractmethod
    def paths(self) -> Iterator[str]:
        """The absolute path of every photo, in the order of `ids`; few are in memory at a time."""

    @abstractmethod
    def with_paths(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The ids of the photos at some absolute paths, (n,) int64; -1 where there is none."""

    @abstractmethod
    def hold_maps(
        self, device: "torch.device", progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Read the maps of all photos into a device's memory, where `read_maps` then finds them.

        progress: called with the number of photos whose maps are read, and the number of all.
        Raises WaldoError where the device has too little memory.
        """

    @abstractmethod
    def read_maps(self, ids: Sequence[int] | NDArray[np.int64]) -> MapBatch:
        """The maps of some photos. Raises KeyError for an id not in the index.

        A map whose checksum differs, or whose shard cannot be read, is never returned: its photo
        is left out and reported in `damaged`.
        """

    def near_maps(
        self, ids: NDArray[np.int64], work: "Callable[[Collection, NDArray[np.int64]], Result]"
    ) -> "list[Result] | None":
        """What others make of photos, who hold their maps; None where this process reads them.

        work: is called with a collection and with those of the photos that it has, in the order of
        ids (n,). It is pickled, and its tensors come to be on the device of whoever does it.
        """
        return None

    @abstractmethod
    def matching(self, photo_filter: PhotoFilter) -> NDArray[np.int64]:
        """Ids of the photos that pass a filter, rising. Raises WaldoError for a bad glob."""

    @property
    @abstractmethod
    def _codecs(self) -> Mapping[int, Codec]:
        """The codecs by the numbers that a `MapBatch` gives."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def manifest(self) -> Manifest:
        """The committed state that was opened; of a fleet, that of its first part, which has the
        settings of all parts, and no names.
        """
        return self._manifest

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
        return len(self.ids)

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
            raise unknown_name(self.place, list(self.names), name)
        return replace(read_named_object(self.index_dir / record.file.name), name=name)

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

    def distinct(self, ids: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """One photo for each content: the lowest id of those that have it.

        ids: among which photos; None for all. Returns None where all photos are meant and no two
        have the same content.
        """
        if ids is None:
            return None if len(self._contents) == self.n_photos else self._contents
        return np.sort(ids[first_of_each(self.hashes_of(ids))])

    @cached_property
    def _contents(self) -> NDArray[np.int64]:
        return np.sort(self.ids[first_of_each(self.content_hashes)])

    def copies_of(self, photo_id: int) -> list[int]:
        """The ids of the other photos that have the same content as a photo, rising."""
        if len(self._contents) == self.n_photos:
            return []
        [wanted] = self.hashes_of(np.array([photo_id]))
        same = (self.content_hashes == wanted).all(axis=1)
        return [number for number in self.ids[same].tolist() if number != photo_id]

    def has_content(
        self, ids: NDArray[np.int64], content_hashes: Iterable[str]
    ) -> NDArray[np.bool_]:
        """Which photos, (n,), have one of these contents (as in `PhotoRecord`), (n,) bool."""
        wanted = np.frombuffer(bytes.fromhex("".join(content_hashes)), np.uint8).reshape(-1, 32)
        hashes = self.hashes_of(ids)
        found: NDArray[np.bool_] = (hashes[:, None] == wanted).all(axis=2).any(axis=1)
        return found

    def find(self, content_hash: str) -> int | None:
        """The id of a photo with this content (as in `PhotoRecord`); None where there is none."""
        wanted = np.frombuffer(bytes.fromhex(content_hash), np.uint8)
        places = np.flatnonzero((self.content_hashes == wanted).all(axis=1))
        return int(self.ids[places[0]]) if len(places) else None

    def hashes_of(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The contents, (n, 32) uint8, of (n,) photos of the collection."""
        hashes: NDArray[np.uint8] = self.content_hashes[np.searchsorted(self.ids, ids)]
        return hashes

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
