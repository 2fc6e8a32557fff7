"""The file of albums: how like the object of each name the photos are that may show it.

All of it follows from the names and the photos, so a file that is lost is made again. Photos are
known by their content, so their rows stay right whatever happens to files and ids.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.store.files import StoredFile
from indexer.store.manifest import Manifest
from indexer.store.parquet_files import read_columns, store_table

_METADATA = b"albums"
# The columns of a row, as they are stored.
_COLUMNS = {
    "listed": "bool",
    "score": "float32",
    "reference": "int32",
    "x0": "int32",
    "y0": "int32",
    "x1": "int32",
    "y1": "int32",
}


@dataclass(frozen=True)
class AlbumRows:
    """Photos that were compared with the object of a name, m of them, each content once.

    contents: (m, 32) uint8, SHA-256 of each photo's file. listed: (m,) bool, whether the photo may
    show the object; the others were compared to know how chance scores. scores: (m,) float32.
    references: (m,) int32, the number of the object's reference that the photo resembles most.
    boxes: (m, 4) int32, x0, y0, x1, y1 of the object, in pixels of the upright photo; -1 where
    nobody needed to know yet.
    """

    contents: NDArray[np.uint8]
    listed: NDArray[np.bool_]
    scores: NDArray[np.float32]
    references: NDArray[np.int32]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> "AlbumRows":
        return cls(
            np.empty((0, 32), np.uint8),
            np.empty(0, np.bool_),
            np.empty(0, np.float32),
            np.empty(0, np.int32),
            np.empty((0, 4), np.int32),
        )

    def select(self, rows: NDArray[np.bool_]) -> "AlbumRows":
        """Some of the rows; rows: (m,) bool."""
        return AlbumRows(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, *parts: "AlbumRows") -> "AlbumRows":
        """The rows of several, at least one; of equal contents the last row."""
        every = cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )
        keys = content_keys(every.contents)
        _, from_end = np.unique(keys[::-1], return_index=True)
        last = np.zeros(len(keys), np.bool_)
        last[len(keys) - 1 - from_end] = True
        return every.select(last)


@dataclass(frozen=True)
class StoredAlbum:
    """What is known of the object of a name. covers: photos of ids below it were looked at; those
    that have no row are not like the object.
    """

    covers: int
    rows: AlbumRows


@dataclass(frozen=True)
class Albums:
    """The albums of an index. basis: what the scores depend on besides names and photos. by_object:
    by the file of each named object.
    """

    basis: Mapping[str, object]
    by_object: Mapping[str, StoredAlbum]


def content_keys(contents: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(m, 32) uint8 as m values that can be sorted and looked up."""
    return np.ascontiguousarray(contents).view("S32").reshape(-1)


def store_albums(index_dir: Path, albums: Albums, number: int) -> StoredFile:
    """Write albums durably; returns the manifest's entry. number: the generation that writes it.

    Raises OSError.
    """
    import pyarrow as pa

    parts = [album.rows for album in albums.by_object.values()]
    contents = np.concatenate([np.empty((0, 32), np.uint8), *(part.contents for part in parts)])
    boxes = np.concatenate([np.empty((0, 4), np.int32), *(part.boxes for part in parts)])
    values = {
        "object": np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts]),
        "content": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), len(contents), [None, pa.py_buffer(contents.tobytes())]
        ),
        "listed": np.concatenate([np.empty(0, np.bool_), *(part.listed for part in parts)]),
        "score": np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)]),
        "reference": np.concatenate([np.empty(0, np.int32), *(part.references for part in parts)]),
        **dict(zip(("x0", "y0", "x1", "y1"), np.ascontiguousarray(boxes.T), strict=True)),
    }
    told = {
        "basis": dict(albums.basis),
        "objects": [
            {"file": name, "covers": album.covers} for name, album in albums.by_object.items()
        ],
    }
    table = pa.table(values).replace_schema_metadata({_METADATA: json.dumps(told).encode()})
    return store_table(index_dir, f"albums-{number}.parquet", number, table)


def read_albums(path: Path) -> Albums:
    """Read a file of albums. Raises IndexDamagedError where it is not what was written."""
    table = read_columns(path)
    try:
        told = json.loads(table.schema.metadata[_METADATA])
        contents = table.column("content").combine_chunks().cast("binary")
        hashes = np.frombuffer(b"".join(contents.to_pylist()), np.uint8).reshape(-1, 32)
        columns = [table.column(name).to_numpy().astype(kind) for name, kind in _COLUMNS.items()]
        listed, scores, references, *corners = columns
        rows = AlbumRows(hashes, listed, scores, references, np.stack(corners, axis=1))
        owners = table.column("object").to_numpy()
        return Albums(
            told["basis"],
            {
                one["file"]: StoredAlbum(one["covers"], rows.select(owners == number))
                for number, one in enumerate(told["objects"])
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{path}: no albums of this waldo ({error!r})"
        raise IndexDamagedError(f"{reason}; {REPAIR_HINT}") from error


def stored_albums(index_dir: Path, manifest: Manifest) -> Albums | None:
    """The albums of a committed state; None where there are none. Those that are damaged count as
    none, because they are made again.
    """
    if manifest.albums is None:
        return None
    try:
        return read_albums(index_dir / manifest.albums.name)
    except IndexDamagedError:
        return None
