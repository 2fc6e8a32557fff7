"""Removing photos from an index by their paths."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from unicodedata import normalize

from features.errors import WaldoError
from indexer.bucket.object_store import url_in
from indexer.store.files import writing
from indexer.store.filters import real_folders
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import Manifest, absolute_path, read_manifest, write_manifest
from indexer.store.photos import PhotoTable, photo_path, read_photo_table

# All the names by which an index may know one path.
Names = frozenset[str]


@dataclass(frozen=True)
class RemoveReport:
    """What `remove` did, in photos. removed: removed now. total: in the index afterwards."""

    index_dir: Path
    removed: int
    total: int


@dataclass(frozen=True)
class Matches:
    """Which of some paths an index has photos at, in their order. photos: of the whole index."""

    has: tuple[bool, ...]
    photos: int

    @property
    def any(self) -> bool:
        """Whether it has photos at one of the paths."""
        return True in self.has

    def of(self, paths: Sequence[Names]) -> list[Names]:
        """The paths that the index has photos at. paths: those that were looked for."""
        return [names for names, has in zip(paths, self.has, strict=True) if has]


def remove(index_dir: Path, paths: Sequence[Path]) -> RemoveReport:
    """Remove the photos at or beneath some paths from an index, in one commit.

    paths: absolute, or relative to the working directory, or URLs; they need not exist any more.
    The photos' ids become tombstones; `compact` frees their room on disk. Photos whose files are
    still there come back, with new ids, when their SOURCE is indexed again.

    Raises WaldoError, with nothing removed, where a path matches no photo; IndexMissingError,
    IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    names = [names_of(path) for path in paths]
    check_matches(str(index_dir), paths, [find_matches(index_dir, names)])
    return remove_matches(index_dir, names)


def check_matches(index: str, paths: Sequence[Path], matches: Sequence[Matches]) -> None:
    """Raise WaldoError where a path matches no photo in an index, or in any part of a fleet.

    index: its name, for people.
    """
    found = zip(*(one.has for one in matches), strict=True)
    unmatched = [str(path) for path, has in zip(paths, found, strict=True) if not any(has)]
    if unmatched:
        raise WaldoError(
            f"{', '.join(unmatched)}: no photo of {index} lies there; nothing was removed; "
            f"`waldo info --index {index}` lists the sources of its photos"
        )


def find_matches(index_dir: Path, paths: Sequence[Names]) -> Matches:
    """Look which paths an index has photos at. paths: by all their names (`names_of`).

    Only the manifest and the photo table are read. Raises IndexMissingError, IndexFormatError,
    IndexDamagedError.
    """
    photos = _Photos.read(index_dir)
    return Matches(tuple(bool(photos.rows_at(names)) for names in paths), photos.count)


def remove_matches(index_dir: Path, paths: Sequence[Names]) -> RemoveReport:
    """As `remove`, of paths by all their names, where some may match no photo."""
    read_manifest(index_dir)  # raises where there is no index, before a lock file is made
    with writer_lock(index_dir), writing(index_dir):
        photos = _Photos.read(index_dir)
        rows: set[int] = set().union(*map(photos.rows_at, paths))
        return RemoveReport(index_dir, len(rows), photos.remove(rows))


@dataclass(frozen=True)
class _Photos:
    """The photos of an index. names: see `_names_of_photos`."""

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

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.table.live.sum())

    def rows_at(self, names: Names) -> set[int]:
        """The rows of the photos at or beneath a path."""
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
                n_photos=self.count - len(rows),
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


def names_of(path: Path) -> Names:
    """The names by which an index may know a path, in one normal form of Unicode.

    Symbolic links are resolved in the path of a source, and below it where a photo has a real path.
    """
    if url := url_in(path):
        return frozenset([normalize("NFC", url)])
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (it resolves "..", not links)
    names = {str(absolute), os.path.realpath(path)}
    for parent in absolute.parents:
        names.add(os.path.join(os.path.realpath(parent), absolute.relative_to(parent)))  # noqa: PTH118
    return frozenset(normalize("NFC", name) for name in names)
