"""Keeping what a person said of recurring objects in an index: one commit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexer.object_corrections import (
    Correction,
    corrections_name,
    read_corrections,
    write_corrections,
)
from indexer.store.files import describe_file, writing
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import (
    Fingerprint,
    check_fingerprint,
    read_manifest,
    write_manifest,
)


def commit_corrections(
    index_dir: Path, said: Sequence[Correction], fingerprint: Fingerprint
) -> None:
    """Keep at least one correction, after those that an index has.

    fingerprint: of the features that the objects were found by. Raises FingerprintError where the
    index was made anew with another model since, IndexMissingError, IndexBusyError,
    IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        check_fingerprint(index_dir, manifest, fingerprint)
        known = manifest.corrections
        before = () if known is None else read_corrections(index_dir / known.name)
        number = manifest.generation + 1
        name = corrections_name(number)
        write_corrections(index_dir / name, (*before, *said))
        file = describe_file(index_dir, name, number, len(before) + len(said))
        changed = replace(manifest, generation=number, corrections=file)
        write_manifest(index_dir, changed)
        remove_leftovers(index_dir, changed)
