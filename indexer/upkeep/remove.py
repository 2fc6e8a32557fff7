"""Removing photos from an index by their paths."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from unicodedata import normalize

from features.errors import WaldoError
from indexer.bucket.object_store import url_in
from indexer.parts import parts_of
from indexer.store.files import writing
from indexer.store.filters import real_folders
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import Manifest, absolute_path, read_manifest, write_manifest
from indexer.store.photos import PhotoTable, photo_path, read_photo_table


@dataclass(frozen=True)
class RemoveReport:
    """What `remove` did, in photos. removed: removed now. total: in the index afterwards."""

    index_dir: Path
    removed: int
    total: int


def remove(index_dir: Path, paths: Sequence[Path]) -> RemoveReport:
    """Remove the photos at or beneath some paths from an index or a fleet, in one commit of the
    index or of each part.

    paths: absolute, or relative to the working directory, or URLs; they need not exist any more.
    The photos' ids become tombstones; `compact` frees their room on disk. Photos whose files are
    still there come back, with new ids, when their SOURCE is indexed again.

    Raises WaldoError, with nothing removed, where a path matches no photo; IndexMissingError,
    IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    folders = parts_of(index_dir)
    for folder in folders:
        read_manifest(folder)  # raises where there is no index, before a lock file is made
    with contextlib.ExitStack() as locks, writing(index_dir):
        parts = []
        for folder in folders:
            locks.enter_context(writer_lock(folder))
            parts.append(_Part.read(folder))
        chosen: list[set[int]] = [set() for _ in parts]
        unmatched = []
        for path in paths:
            rows = [part.rows_at(path) for part in parts]
            for own, more in zip(chosen, rows, strict=True):
                own |= more
            if not any(rows):
                unmatched.append(str(path))
        if unmatched:
            raise WaldoError(
                f"{', '.join(unmatched)}: no photo of {index_dir} lies there; nothing was removed; "
                f"`waldo info --index {index_dir}` lists the sources of its photos"
            )
        left = [part.remove(rows) for part, rows in zip(parts, chosen, strict=True)]
    return RemoveReport(index_dir, sum(map(len, chosen)), sum(left))


@dataclass(frozen=True)
class _Part:
    """An index whose lock is held. names: see `_names_of_photos`."""

    folder: Path
    manifest: Manifest
    table: PhotoTable
    names: list[tuple[int, str]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        manifest = read_manifest(folder)
        table = read_photo_table(folder, manifest)
        live = table.live.nonzero()[0].tolist()
        photos = {row: photo_path(manifest, table, row) for row in live}
        return cls(folder, manifest, table, _names_of_photos(photos))

    def rows_at(self, path: Path) -> set[int]:
        """The rows of the photos at or beneath a path."""
        names = {normalize("NFC", name) for name in _names_of(path)}
        beneath = tuple(name.rstrip("/") + "/" for name in names)
        return {row for row, name in self.names if name in names or name.startswith(beneath)}

    def remove(self, rows: set[int]) -> int:
        """Remove some rows in one commit; returns how many photos are left."""
        manifest = self.manifest
        if rows:
            ids = {self.table.number("id", row) for row in rows}
            manifest = replace(
                manifest,
                generation=manifest.generation + 1,
                n_photos=int(self.table.live.sum()) - len(rows),
                tombstones=tuple(sorted({*manifest.tombstones, *ids})),
            )
            write_manifest(self.folder, manifest)
        remove_leftovers(self.folder, manifest)
        return manifest.n_photos


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
    if url := url_in(path):
        return {url}
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (it resolves "..", not links)
    names = {str(absolute), os.path.realpath(path)}
    for parent in absolute.parents:
        names.add(os.path.join(os.path.realpath(parent), absolute.relative_to(parent)))  # noqa: PTH118
    return names
