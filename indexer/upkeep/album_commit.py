"""Storing albums in an index: one commit, which changes nothing that people said."""

from dataclasses import replace
from pathlib import Path

from indexer.store.album_rows import Albums, store_albums, stored_albums
from indexer.store.files import writing
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import read_manifest, write_manifest


def commit_albums(index_dir: Path, found: Albums) -> None:
    """Store the albums of some names beside those of the others.

    Names that were forgotten or changed meanwhile are left out, and an album that another run has
    brought further stays. Raises IndexMissingError, IndexBusyError, IndexFormatError,
    IndexDamagedError, IndexWriteError.
    """
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        stored = stored_albums(index_dir, manifest)
        albums = dict(stored.by_object) if stored and stored.basis == found.basis else {}
        for name, album in found.by_object.items():
            if name not in albums or albums[name].covers <= album.covers:
                albums[name] = album
        known = [record.file.name for record in manifest.names]
        kept = Albums(found.basis, {name: albums[name] for name in known if name in albums})
        number = manifest.generation + 1
        file = store_albums(index_dir, kept, number) if kept.by_object else None
        changed = replace(manifest, generation=number, albums=file)
        write_manifest(index_dir, changed)
        remove_leftovers(index_dir, changed)
