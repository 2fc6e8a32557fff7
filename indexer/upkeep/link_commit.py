"""Storing links between regions in an index: one commit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from indexer.region_links import RegionLinks, links_name, write_links
from indexer.store.files import describe_file, writing
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import check_fingerprint, read_manifest, write_manifest


def commit_links(
    index_dir: Path, links: RegionLinks, basis: dict[str, Any], fingerprint: Any
) -> None:
    """Store links in place of those that an index has.

    fingerprint: of the features that they were found by. Raises FingerprintError where the index
    was made anew with another model since, IndexMissingError, IndexBusyError, IndexFormatError,
    IndexDamagedError, IndexWriteError.
    """
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        check_fingerprint(index_dir, manifest, fingerprint)
        number = manifest.generation + 1
        name = links_name(number)
        write_links(index_dir / name, links, basis)
        file = describe_file(index_dir, name, number, len(links.contents))
        changed = replace(manifest, generation=number, links=file)
        write_manifest(index_dir, changed)
        remove_leftovers(index_dir, changed)
