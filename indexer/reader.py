"""Reading an index: one committed state of it, whatever writers do meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.manifest import Manifest, read_manifest
from indexer.mapstore import MapStore
from indexer.photos import PhotoTable, read_photo_table
from indexer.recall import RecallIndex, load_recall
from indexer.sources import absolute_path
from indexer.statistics import read_mean

_ATTEMPTS = 3


@dataclass(frozen=True)
class PhotoRecord:
    """A photo of the index.

    id: stable. path: absolute, where it was when indexed. relative_path: below its source, "/"
    between folders. content_hash: SHA-256 of the file, hexadecimal. width, height: upright, pixels.
    """

    id: int
    path: Path
    relative_path: str
    content_hash: str
    width: int
    height: int


@dataclass(frozen=True)
class MapBatch:
    """The maps of n photos, in the order they were asked for, damaged ones left out.

    ids: (n,) int64. appearance, semantic: (n, grid * grid, d) float16, cells row-major from the top
    left. valid: (n, grid * grid) bool, False where a cell is padding. damaged: a line for each
    photo left out: shard, row, what is wrong and the mend.
    """

    ids: NDArray[np.int64]
    appearance: NDArray[np.float16]
    semantic: NDArray[np.float16]
    valid: NDArray[np.bool_]
    damaged: list[str]


class IndexReader:
    """A frozen snapshot of an index, safe to share between threads; open it with `open`."""

    def __init__(self, index_dir: Path, manifest: Manifest, table: PhotoTable) -> None:
        self.index_dir = index_dir
        self._manifest = manifest
        self._table = table
        names = {file.number: file.name for file in manifest.shards}
        self._maps = MapStore(index_dir, names, manifest.map_bytes)

    @classmethod
    def open(cls, index_dir: Path) -> Self:
        """Open the last committed state.

        Raises IndexMissingError where there is no index or no photo in it, IndexFormatError,
        IndexDamagedError.
        """
        for attempt in range(_ATTEMPTS):
            manifest = read_manifest(index_dir)
            files = [index_dir / file.name for file in manifest.photos]
            try:
                table = read_photo_table(files, np.array(manifest.tombstones, dtype=np.int64))
                break
            except IndexDamagedError:
                # A writer may have replaced the files between the manifest and here.
                if attempt + 1 == _ATTEMPTS or read_manifest(index_dir) == manifest:
                    raise
        if not table.live.any():
            raise IndexMissingError(
                f"{index_dir}: no photo in this index; run `waldo index PHOTOS --index "
                f"{index_dir}` first"
            )
        return cls(index_dir, manifest, table)

    def close(self) -> None:
        """Stop the reading threads; maps cannot be read afterwards."""
        self._maps.close()

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
    def fingerprint(self) -> dict[str, Any]:
        """What decided the features: model, revision, block, timestep, ..."""
        return dict(self._manifest.fingerprint)

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
    def n_photos(self) -> int:
        return int(self._table.live.sum())

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n_photos,) int64, rising: the ids of all photos."""
        return self._table.ids[self._table.live]

    @cached_property
    def recall(self) -> RecallIndex:
        """The recall index over all photos; read when first used."""
        return load_recall(self.index_dir, self._manifest)

    @cached_property
    def mean_pooled(self) -> NDArray[np.float32]:
        """(2 d,) float32: mean of all photos' pooled vectors, [mean(F_A) ; mean(F_S)]."""
        saved = read_mean(self.index_dir, self._manifest, self.n_photos)
        return self.recall.mean() if saved is None else saved

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
                )
            )
        return records

    def read_maps(self, ids: Sequence[int] | NDArray[np.int64]) -> MapBatch:
        """The maps of some photos. Raises KeyError for an id not in the index.

        A map whose checksum differs, or whose shard cannot be read, is never returned: its photo
        is left out and reported in `damaged`.
        """
        table, grid = self._table, self.grid
        wanted = np.asarray(ids, dtype=np.int64)
        rows = table.rows_of(wanted)
        appearance, semantic, damaged = self._maps.read([table.place(row) for row in rows])
        sound = np.ones(len(rows), dtype=bool)
        sound[list(damaged)] = False
        if damaged:
            appearance, semantic = appearance[sound], semantic[sound]
        shape = (len(appearance), grid * grid, self.dim)
        valid = np.empty(shape[:2], dtype=bool)
        for place, row in enumerate(rows[sound]):
            width, height = table.number("width", row), table.number("height", row)
            valid[place] = Frame(width, height, self.image_size, grid).valid().reshape(-1)
        return MapBatch(
            wanted[sound],
            appearance.view("<f2").reshape(shape),
            semantic.view("<f2").reshape(shape),
            valid,
            [f"{self.index_dir}: {damaged[place]}" for place in sorted(damaged)],
        )
