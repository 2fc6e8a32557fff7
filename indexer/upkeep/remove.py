"""Taking photos out of an index by their paths."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.errors import WaldoError
from indexer.store.folder import remove_leftovers, writing
from indexer.store.lock import writer_lock
from indexer.store.manifest import Manifest, absolute_path, read_manifest, write_manifest
from indexer.store.photos import PhotoTable, read_photo_table


@dataclass(frozen=True)
class RemoveReport:
    """What `remove` did, in photos. removed: taken out. total: in the index now."""

    index_dir: Path
    removed: int
    total: int


def remove(index_dir: Path, paths: Sequence[Path]) -> RemoveReport:
    """Take the photos at or beneath some paths out of an index, in one commit.

    paths: absolute, or relative to the working directory; they need not exist any more. The photos'
    ids become tombstones; `compact` gives back their room on disk. Those that are still on disk
    come back, with new ids, when their SOURCE is indexed again.

    Raises WaldoError, with nothing removed, where a path matches no photo; IndexMissingError,
    IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    read_manifest(index_dir)  # where there is no index, nothing is made
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        files = [index_dir / file.name for file in manifest.photos]
        table = read_photo_table(files, np.array(manifest.tombstones, dtype=np.int64))
        live = np.flatnonzero(table.live).tolist()
        photos = {row: _path_of(manifest, table, row) for row in live}
        chosen: set[int] = set()
        unmatched = []
        for path in paths:
            names = _names_of(path)
            beneath = tuple(name.rstrip("/") + "/" for name in names)
            rows = {r for r, photo in photos.items() if photo in names or photo.startswith(beneath)}
            chosen |= rows
            if not rows:
                unmatched.append(str(path))
        if unmatched:
            raise WaldoError(
                f"{', '.join(unmatched)}: no photo of {index_dir} lies there; nothing was removed; "
                f"`waldo info --index {index_dir}` says what its photos' sources are"
            )
        if chosen:
            ids = {table.number("id", row) for row in chosen}
            manifest = replace(
                manifest,
                generation=manifest.generation + 1,
                n_photos=len(live) - len(chosen),
                tombstones=tuple(sorted({*manifest.tombstones, *ids})),
            )
            write_manifest(index_dir, manifest)
        remove_leftovers(index_dir, manifest)
    return RemoveReport(index_dir, len(chosen), manifest.n_photos)


def _path_of(manifest: Manifest, table: PhotoTable, row: int) -> str:
    return absolute_path(manifest.sources[table.number("source", row)].root, table.path(row))


def _names_of(path: Path) -> set[str]:
    """The names an index may have for a path: symbolic links are resolved in its sources, not below
    them.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (".." goes, links stay)
    names = {str(absolute), os.path.realpath(path)}
    for parent in absolute.parents:
        names.add(os.path.join(os.path.realpath(parent), absolute.relative_to(parent)))  # noqa: PTH118
    return names
