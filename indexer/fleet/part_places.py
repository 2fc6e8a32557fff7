"""Where the parts of a fleet are written: in its folder, or in a bucket.

A part in a bucket is written through a working copy of its own, on the disk of the machine that
brings it up to date. So only the small files of one part, and map shards that are not stored yet,
take room there, and each commit looks at its own part alone.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from indexer.bucket.collection_copy import CollectionCopy, collection_copy, scratch_folder
from indexer.bucket.object_store import Bucket, ConflictError
from indexer.bucket.remote_state import of_every_part
from indexer.bucket.transfer import fetch_failures, object_key
from indexer.parts import Fleet, parse_fleet, part_name, read_fleet
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, write_manifest


def is_there(fleet: Fleet, url: str | None) -> bool:
    """Whether this machine sees a fleet: that in its folder, or at an address in a bucket.

    Raises BucketError, IndexFormatError, IndexDamagedError.
    """
    if url is None:
        return read_fleet(fleet.index_dir) == fleet
    content = Bucket(url).get(FLEET_NAME)
    return content is not None and parse_fleet(fleet.index_dir, content) == fleet


def prepare_parts(fleet: Fleet, bucket: Bucket | None) -> None:
    """Make every part ready that is not, also in a bucket; the folder of the fleet then has the
    manifests of all parts. Raises OSError, BucketError, IndexDamagedError, IndexFormatError.
    """
    if bucket is None:
        for number in range(fleet.parts):
            fleet.prepare(number)
        return

    def prepare(number: int) -> None:
        path = fleet.folder(number) / MANIFEST_NAME
        if not path.exists():
            manifest = fleet.first_manifest(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_manifest(path.parent, manifest)
            part = bucket.below(part_name(number))
            for codec in manifest.codecs:
                part.put(object_key(codec), fleet.index_dir / fleet.codec.name)
            with contextlib.suppress(ConflictError):  # another run has done this meanwhile
                part.create(MANIFEST_NAME, path.read_bytes())
        fleet.check_part(number)

    of_every_part(prepare, range(fleet.parts))


@contextlib.contextmanager
def part_to_write(
    fleet: Fleet, url: str | None, number: int
) -> Iterator[tuple[Path, CollectionCopy | None]]:
    """The folder to write a part in; of a fleet in a bucket also the working copy that it is, which
    is pushed at the end too.

    url: of a fleet in a bucket. Raises ConflictError where another run has written the part since
    it was opened, IndexBusyError while another process of this machine writes it, and as
    `collection_copy`.
    """
    if url is None:
        yield fleet.folder(number), None
        return
    part = Bucket(url).below(part_name(number))
    with collection_copy(part, _scratch(url, number)) as copy:
        yield copy.folder, copy
        copy.push()
        # Here, where this process has the scratch folder alone. `collection_copy` then finds
        # nothing left to push.
        shutil.rmtree(copy.folder)


def part_folder(fleet: Fleet, url: str | None, number: int) -> Path:
    """Where `part_to_write` has the part on this machine."""
    return fleet.folder(number) if url is None else _scratch(url, number) / "index"


def copy_failures_of_parts(fleet: Fleet, bucket: Bucket) -> None:
    """`fetch_failures` of every part."""

    def fetch(number: int) -> None:
        fetch_failures(bucket.below(part_name(number)), fleet.folder(number))

    of_every_part(fetch, range(fleet.parts))


def _scratch(url: str, number: int) -> Path:
    return scratch_folder(url) / part_name(number)
