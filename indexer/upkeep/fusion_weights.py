"""Weights of a search's kinds of evidence, stored in the index of the collection they fit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from indexer.store.files import writing
from indexer.store.locks import writer_lock
from indexer.store.manifest import read_manifest, write_manifest


def store_weights(index_dir: Path, weights: Mapping[str, float] | None) -> None:
    """Store weights by name, in place of those that were stored; None removes them. One commit.

    Raises IndexMissingError, IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    read_manifest(index_dir)  # raises where there is no index, before a lock file is made
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        if manifest.weights == weights:
            return
        generation = manifest.generation + 1
        write_manifest(index_dir, replace(manifest, generation=generation, weights=weights))
