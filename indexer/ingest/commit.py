"""One commit of an index: what it will add, gathered in memory, and the files that are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from indexer.recall.descriptor_vectors import vectors_name, write_vectors
from indexer.store.files import StoredFile, describe_file, write_atomically
from indexer.store.manifest import DescriptorColumn, Manifest, SourceRoot
from indexer.store.photos import PhotoRow, photos_name, write_photos
from indexer.store.shards import store_shard

# Photos that share the maps of others fill no shard: their rows are committed at this number.
_MAX_ROWS = 20_000
# Photos that are only given descriptors fill none either. A large model needs minutes for so many.
_MAX_VECTORS = 1000


@dataclass(frozen=True)
class PhotoContent:
    """What the photo table keeps of the content of a photo.

    pooled: (2 d,) float32, see `FeatureMaps.pooled`. words: (m,) uint16, rising, the visual words
    of the codec that encoded the maps. frame, content_hash: as in FeatureMaps. taken_ns: date
    taken, nanoseconds since 1970; None if unknown.
    """

    pooled: NDArray[np.float32]
    words: NDArray[np.uint16]
    frame: Frame
    content_hash: str
    taken_ns: int | None


@dataclass(frozen=True)
class NewRow:
    """A row to commit. has_maps: whether the commit has maps for it. replaces: an id to delete."""

    row: PhotoRow
    has_maps: bool
    replaces: int | None


@dataclass
class PendingCommit:
    """What the next commit will write.

    number: its generation. encoded: (capacity, photo_bytes) uint8, of which the first `n_maps` rows
    are filled: one for each new row that has maps, in order. vectors: descriptors by name and
    content hash. deleted: ids to delete, beside those that new rows replace.
    """

    number: int
    encoded: NDArray[np.uint8]
    new_rows: list[NewRow] = field(default_factory=list)
    n_maps: int = 0
    vectors: dict[str, dict[bytes, NDArray[np.float32]]] = field(default_factory=dict)
    deleted: list[int] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        n_rows = len(self.new_rows)
        most_vectors = max((len(vectors) for vectors in self.vectors.values()), default=0)
        return (
            self.n_maps >= len(self.encoded)
            or n_rows >= _MAX_ROWS
            or most_vectors >= n_rows + _MAX_VECTORS
        )


def store_file(
    index_dir: Path, name: str, number: int, rows: int, write: Callable[[Path], None]
) -> StoredFile:
    """Write a file durably; returns its entry in the manifest. Raises OSError."""
    write_atomically(index_dir / name, write)
    return describe_file(index_dir, name, number, rows)


def write_files(
    index_dir: Path, manifest: Manifest, pending: PendingCommit, sources: Sequence[SourceRoot]
) -> Manifest:
    """Write the files of a commit; returns the manifest that names them, to be written last.

    manifest: of the commit before. sources: what the photos of the index are relative to.
    """
    number = pending.number
    rows = [new.row for new in pending.new_rows]
    replaced = [new.replaces for new in pending.new_rows if new.replaces is not None]
    ids = np.array([new.row.id for new in pending.new_rows if new.has_maps], dtype=np.int64)
    shards, photos = manifest.shards, manifest.photos
    if len(ids):
        maps, codec = pending.encoded[: len(ids)], manifest.codecs[-1].number
        shards = (*shards, store_shard(index_dir, number, ids, maps, codec))
    if rows:
        write = partial(write_photos, rows=rows, dim=manifest.dim)
        photos = (*photos, store_file(index_dir, photos_name(number), number, len(rows), write))
    return replace(
        manifest,
        generation=number if rows or pending.vectors else manifest.generation,
        sources=tuple(sources),
        shards=shards,
        photos=photos,
        descriptors=_write_vectors(index_dir, manifest.descriptors, pending),
        next_id=max([manifest.next_id, *(row.id + 1 for row in rows)]),
        tombstones=tuple(sorted({*manifest.tombstones, *pending.deleted, *replaced})),
    )


def _write_vectors(
    index_dir: Path, columns: Sequence[DescriptorColumn], pending: PendingCommit
) -> tuple[DescriptorColumn, ...]:
    """Write the new vectors of each column; returns the columns with these files."""
    written, number = [], pending.number
    for place, column in enumerate(columns):
        vectors = pending.vectors.get(column.name)
        if vectors:
            name = vectors_name(number, place)
            write = partial(write_vectors, vectors=vectors)
            file = store_file(index_dir, name, number, len(vectors), write)
            column = replace(column, files=(*column.files, file))
        written.append(column)
    return tuple(written)
