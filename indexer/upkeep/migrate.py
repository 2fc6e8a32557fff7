"""Bringing an index of format 1 to this one.

Format 1 had two columns of maps, no codecs, a file of statistics, and photo tables without dates
and visual words (recall then goes by pooled vectors alone).
Its maps are kept bit for bit, as quality "none" keeps them; ids and shard numbers stay, so that the
photo table's places stay true, and the new files lie beside the old ones under other names until
the manifest is replaced. Killed at any instant, the index is of the one format or of the other.
"""

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.codec.codec import Codec, codec_name
from indexer.errors import IndexDamagedError, IndexFormatError
from indexer.store.files import StoredFile, describe_file, write_atomically
from indexer.store.folder import remove_leftovers
from indexer.store.manifest import (
    MANIFEST_NAME,
    Manifest,
    MapShard,
    SourceRoot,
    read_manifest,
    write_manifest,
)
from indexer.store.photos import rows_that_count
from indexer.store.rewrite import is_as_written, read_table, store_table
from indexer.store.shards import write_shard

_FORMAT = 1


def migrate(index_dir: Path) -> bool:
    """Bring an index of format 1 to this format; returns whether it was one.

    For who holds the writer's lock. A map shard that is damaged is left out, and the photos in it
    are extracted again by the next `waldo index`. Raises as `read_manifest`, IndexDamagedError for
    a damaged photo table, OSError where the disk takes no more; the index is then as it was.
    """
    try:
        read_manifest(index_dir)
        return False
    except IndexFormatError:
        raw = _read_raw(index_dir)
        if raw["format"] != _FORMAT:
            raise
    try:
        old = _from_json(raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexDamagedError(
            f"{index_dir / MANIFEST_NAME} lacks something ({error!r}); delete {index_dir} and "
            "index the photos again"
        ) from error
    try:
        manifest = _rewrite(index_dir, old)
        write_manifest(index_dir, manifest)
    except BaseException:
        with contextlib.suppress(OSError):
            # What failed may have come after the commit: then the new files are the index.
            if _read_raw(index_dir) == raw:
                new = [_new_name(file) for file in (*old.shards, *old.photos)]
                for name in (*new, codec_name(old.generation)):
                    (index_dir / name).unlink(missing_ok=True)
        raise
    remove_leftovers(index_dir, manifest)
    return True


def _read_raw(index_dir: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((index_dir / MANIFEST_NAME).read_text(encoding="utf-8"))
    return raw


def _from_json(raw: dict[str, Any]) -> Manifest:
    """A manifest of format 1 in the form of this one; it names the old shards and photo table."""
    generation = raw["generation"] + 1
    return Manifest(
        fingerprint=raw["fingerprint"],
        image_size=raw["image_size"],
        grid=raw["grid"],
        dim=raw["dim"],
        quality="none",
        generation=generation,
        sources=tuple(SourceRoot(**source) for source in raw["sources"]),
        shards=tuple(MapShard(**file, codec=generation) for file in raw["shards"]),
        photos=tuple(StoredFile(**file) for file in raw["photos"]),
        next_id=raw["next_id"],
        tombstones=tuple(raw["tombstones"]),
    )


def _rewrite(index_dir: Path, old: Manifest) -> Manifest:
    """Write everything in the new form; returns the manifest that names it."""
    photos, mean, count = _rewrite_table(index_dir, old)
    sound = [file for file in old.shards if is_as_written(index_dir, file)]
    shards = tuple(_rewrite_shard(index_dir, old, file) for file in sound)
    codecs: tuple[StoredFile, ...] = ()
    if shards:
        name = codec_name(old.generation)
        codec = Codec(old.quality, old.grid, old.dim, max(1, count), mean, None, None, None)
        write_atomically(index_dir / name, codec.save)
        codecs = (describe_file(index_dir, name, old.generation, codec.fitted_on),)
    return replace(old, codecs=codecs, shards=shards, photos=photos, n_photos=count)


def _rewrite_table(
    index_dir: Path, old: Manifest
) -> tuple[tuple[StoredFile, ...], NDArray[np.float32], int]:
    """The photo table with columns for dates and visual words, all unknown; the live photos' mean
    and count.
    """
    import pyarrow as pa

    # A lost one is what the mend for a damaged one asks for.
    files = [file for file in old.photos if (index_dir / file.name).exists()]
    ids = [read_table(index_dir, file).column("id").to_numpy() for file in files]
    photos = []
    total, count = np.zeros(2 * old.dim), 0
    for file, counts in zip(files, rows_that_count(ids, old.tombstones), strict=True):
        table = read_table(index_dir, file)
        pooled = table.column("pooled").combine_chunks().flatten().to_numpy()
        live = pooled.reshape(-1, 2 * old.dim)[counts]
        total += live.sum(axis=0, dtype=np.float64)
        count += len(live)
        at = table.schema.get_field_index("pooled")
        table = table.add_column(at, "taken_ns", pa.nulls(table.num_rows, pa.int64()))
        words = pa.array([[]] * table.num_rows, pa.list_(pa.uint16()))
        table = table.add_column(at + 1, "words", words)
        photos.append(store_table(index_dir, _new_name(file), file.number, table))
    return tuple(photos), (total / max(1, count)).astype(np.float32), count


def _rewrite_shard(index_dir: Path, old: Manifest, file: MapShard) -> MapShard:
    """A sound map shard with one column of maps: appearance, then semantic."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(index_dir / file.name) as stored:
        table = stored.read()
    ids, name = table.column("id").to_numpy(), _new_name(file)
    columns = [_bytes_of(table.column(name)) for name in ("appearance", "semantic")]
    maps = np.concatenate(columns, axis=1)
    write_atomically(index_dir / name, lambda path: write_shard(path, ids, maps))
    written = describe_file(index_dir, name, file.number, len(ids))
    return MapShard(**asdict(written), codec=old.generation)


def _new_name(file: StoredFile) -> str:
    return file.name.removesuffix(".parquet") + "-2.parquet"


def _bytes_of(column: Any) -> NDArray[np.uint8]:
    """(n, width) uint8 of a column of fixed-size binary without nulls."""
    values = column.combine_chunks()
    width = values.type.byte_width
    raw = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    start = values.offset * width
    return raw[start : start + len(values) * width].reshape(-1, width)
