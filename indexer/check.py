"""What an index holds, and whether it still is what was written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import IndexDamagedError
from indexer.failures import FAILURES_NAME, read_failures
from indexer.files import StoredFile, digest
from indexer.manifest import Derived, Manifest, read_manifest
from indexer.mapstore import MEND, MapStore, Place
from indexer.photos import PhotoTable, read_photo_table, read_pooled
from indexer.recall import load_recall
from indexer.statistics import read_mean

_ROWS_AT_ONCE = 256


def describe(index_dir: Path) -> dict[str, Any]:
    """The index in numbers and names, ready to be printed or written as JSON.

    Raises IndexMissingError, IndexFormatError, IndexDamagedError.
    """
    manifest = read_manifest(index_dir)
    table = _table(index_dir, manifest)
    return {
        "index": str(index_dir),
        "format": manifest.format,
        "generation": manifest.generation,
        "model": manifest.fingerprint.get("model"),
        "fingerprint": dict(manifest.fingerprint),
        "image_size": manifest.image_size,
        "grid": manifest.grid,
        "dim": manifest.dim,
        "photos": int(table.live.sum()),
        "deleted": int((~table.live).sum()),
        "shards": len(manifest.shards),
        "map_bytes_per_photo": 2 * manifest.map_bytes,
        "bytes": sum(file.bytes for file in manifest.files()),
        "failures": len(read_failures(index_dir)),
        "sources": [str(Path(s.root, s.list_name or "")) for s in manifest.sources],
    }


def verify(index_dir: Path) -> list[str]:
    """Read the whole index and compare it with its digests, counts and checksums.

    Returns one line a problem, with the file and the mend; none when the index is sound.
    Raises IndexMissingError and IndexFormatError.
    """
    try:
        manifest = read_manifest(index_dir)
    except IndexDamagedError as error:
        return [str(error)]
    return list(_problems(index_dir, manifest))


def _problems(index_dir: Path, manifest: Manifest) -> Iterator[str]:
    for file in manifest.files():
        yield from _file_problems(index_dir, file)
    try:
        table = _table(index_dir, manifest)
        yield from _table_problems(index_dir, manifest, table)
        yield from _map_problems(index_dir, manifest, table)
        yield from _derived_problems(index_dir, manifest, table)
    except IndexDamagedError as error:
        yield str(error)
    failures = index_dir / FAILURES_NAME
    lines = failures.read_bytes().count(b"\n") if failures.exists() else 0
    if lines != len(read_failures(index_dir)):
        yield f"{failures}: lines that cannot be read; run `waldo index` again to write it anew"


def _file_problems(index_dir: Path, file: StoredFile) -> Iterator[str]:
    path = index_dir / file.name
    try:
        size = path.stat().st_size
        if size != file.bytes:
            yield f"{path}: {size} bytes, not {file.bytes}; {MEND}"
        elif digest(path) != file.sha256:
            yield f"{path}: its content is not what was written; {MEND}"
    except OSError as error:
        yield f"{path}: cannot be read ({error.strerror}); run `waldo index` again"


def _table_problems(index_dir: Path, manifest: Manifest, table: PhotoTable) -> Iterator[str]:
    for file in manifest.photos:
        ids, _ = read_pooled(index_dir / file.name, manifest.dim)
        if len(ids) != file.rows:
            yield f"{index_dir / file.name}: {len(ids)} rows, not {file.rows}; {MEND}"
    if len(table) and int(table.ids[-1]) >= manifest.next_id:
        yield f"{index_dir}: ids beyond the manifest's next; index the photos into a new folder"
    if len(table) and int(table.numbers["source"].max()) >= len(manifest.sources):
        yield f"{index_dir}: photos of an unknown source; index the photos into a new folder"


def _map_problems(index_dir: Path, manifest: Manifest, table: PhotoTable) -> Iterator[str]:
    """Every row of every shard against its checksum, and every live photo against its row."""
    names = {file.number: file.name for file in manifest.shards}
    store = MapStore(index_dir, names, manifest.map_bytes)
    try:
        for file in manifest.shards:
            try:
                ids = store.shard(file.number).ids
            except IndexDamagedError as error:
                yield f"{index_dir / file.name}: {error}; {MEND}"
                continue
            if len(ids) != file.rows:
                yield f"{index_dir / file.name}: {len(ids)} rows, not {file.rows}; {MEND}"
            for start in range(0, len(ids), _ROWS_AT_ONCE):
                rows = range(start, min(start + _ROWS_AT_ONCE, len(ids)))
                _, _, damaged = store.read([Place(file.number, r, int(ids[r])) for r in rows])
                yield from (f"{index_dir}: {damaged[i]}" for i in sorted(damaged))
        for row in np.flatnonzero(table.live).tolist():
            place = table.place(row)
            try:
                ids = store.shard(place.shard).ids
                found = place.row < len(ids) and ids[place.row] == place.maps_id
            except IndexDamagedError:
                found = place.shard in names  # reported above
            if not found:
                yield (
                    f"{index_dir}: the maps of {table.path(row)} are lost (shard {place.shard} row "
                    f"{place.row}); run `waldo index` again over the same photos"
                )
    finally:
        store.close()


def _derived_problems(index_dir: Path, manifest: Manifest, table: PhotoTable) -> Iterator[str]:
    """The recall index and the mean against the photo table."""
    for derived in (manifest.recall, manifest.statistics):
        if derived is not None and derived.covers > manifest.last_photos:
            yield f"{index_dir / derived.file.name}: covers photos that are not there; {MEND}"
    live = table.ids[table.live]
    recall = load_recall(index_dir, manifest)
    if not np.array_equal(np.sort(recall.ids), table.ids):
        yield f"{index_dir / _name(manifest.recall)}: its ids are not the photo table's; {MEND}"
    saved = read_mean(index_dir, manifest, len(live))
    if saved is not None and not np.allclose(saved, recall.mean(), rtol=1e-4, atol=1e-6):
        yield f"{index_dir / _name(manifest.statistics)}: not the photos' mean; {MEND}"


def _name(derived: Derived | None) -> str:
    return derived.file.name if derived is not None else "photos"


def _table(index_dir: Path, manifest: Manifest) -> PhotoTable:
    files = [index_dir / file.name for file in manifest.photos]
    return read_photo_table(files, np.array(manifest.tombstones, dtype=np.int64))
