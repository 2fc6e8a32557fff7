"""Weights of a search's kinds of evidence, kept with the index whose collection they suit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from indexer.store.folder import writing
from indexer.store.lock import writer_lock
from indexer.store.manifest import read_manifest, write_manifest


def store_weights(index_dir: Path, weights: Mapping[str, float] | None) -> None:
    """Keep weights, by name, in place of those there are; None keeps none. One commit.

    Raises IndexMissingError, IndexBusyError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    read_manifest(index_dir)  # where there is no index, nothing is made
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        if manifest.weights == weights:
            return
        generation = manifest.generation + 1
        write_manifest(index_dir, replace(manifest, generation=generation, weights=weights))
