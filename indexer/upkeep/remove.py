"""Removing photos from an index by their paths."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from features.errors import WaldoError
from indexer.store.files import writing
from indexer.store.filters import real_folders
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import absolute_path, read_manifest, write_manifest
from indexer.store.photos import photo_path, read_photo_table


@dataclass(frozen=True)
class RemoveReport:
    """What `remove` did, in photos. removed: removed now. total: in the index afterwards."""

    index_dir: Path
    removed: int
    total: int


def remove(index_dir: Path, paths: Sequence[Path]) -> RemoveReport:
    """Remove the photos at or beneath some paths from an index, in one commit.

    paths: absolute, or relative to the working directory; they need not exist any more. The photos'
    ids become tombstones; `compact` frees their room on disk. Photos whose files are still there
    come back, with new ids, when their SOURCE is indexed again.

    Raises WaldoError, with nothing removed, where a path matches no photo; IndexMissingError,
    IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    read_manifest(index_dir)  # raises where there is no index, before a lock file is made
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        table = read_photo_table(index_dir, manifest)
        live = table.live.nonzero()[0].tolist()
        photos = {row: photo_path(manifest, table, row) for row in live}
        named = _names_of_photos(photos)
        chosen: set[int] = set()
        unmatched = []
        for path in paths:
            names = {normalize("NFC", name) for name in _names_of(path)}
            beneath = tuple(name.rstrip("/") + "/" for name in names)
            rows = {row for row, name in named if name in names or name.startswith(beneath)}
            chosen |= rows
            if not rows:
                unmatched.append(str(path))
        if unmatched:
            raise WaldoError(
                f"{', '.join(unmatched)}: no photo of {index_dir} lies there; nothing was removed; "
                f"`waldo info --index {index_dir}` lists the sources of its photos"
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


def _names_of_photos(photos: Mapping[int, str]) -> list[tuple[int, str]]:
    """Rows with the absolute path of each photo, and with the one that links lead to, in one normal
    form of Unicode.
    """
    folders = {row: os.path.split(path) for row, path in photos.items()}
    real = real_folders({folder for folder, _ in folders.values()})
    linked = [
        (row, absolute_path(real[folder], name))
        for row, (folder, name) in folders.items()
        if folder in real
    ]
    return [(row, normalize("NFC", path)) for row, path in (*photos.items(), *linked)]


def _names_of(path: Path) -> set[str]:
    """The paths by which an index may know a path.

    Symbolic links are resolved in the path of a source, and below it where a photo has a real path.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (it resolves "..", not links)
    names = {str(absolute), os.path.realpath(path)}
    for parent in absolute.parents:
        names.add(os.path.join(os.path.realpath(parent), absolute.relative_to(parent)))  # noqa: PTH118
    return names
