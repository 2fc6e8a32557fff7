"""A working copy of an index or a fleet in a bucket."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from indexer.bucket.fleet_copy import FleetCopy
from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_index import cache_folder
from indexer.bucket.transfer import OnBytes, errors_naming
from indexer.bucket.working_copy import WorkingCopy
from indexer.errors import IndexMissingError
from indexer.store.files import writing
from indexer.store.locks import writer_lock
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME

CollectionCopy = WorkingCopy | FleetCopy


@contextlib.contextmanager
def collection_copy(
    bucket: Bucket,
    scratch: Path,
    is_fleet: bool = False,
    progress: OnBytes | None = None,
) -> Iterator[CollectionCopy]:
    """A working copy of an index or a fleet in a bucket, or of one that is to be made there; it is
    pushed when the context ends, unless by an exception.

    scratch: a folder for it, which need not exist; what is left there afterwards saves the next
    working copy in it from copying, and may be deleted. is_fleet: whether a new one is a fleet; the
    copy of a fleet is without its parts. progress: as for `WorkingCopy`. Errors name the bucket in
    place of the folder. Raises ConflictError where another writer was faster, IndexBusyError while
    another process has this scratch folder, IndexMissingError where something else lies in the
    bucket, BucketError, IndexDamagedError, IndexFormatError, IndexWriteError.
    """
    with writing(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
    folder = scratch / "index"
    with errors_naming(bucket.url, folder, scratch), writer_lock(scratch):
        copy: CollectionCopy
        stored = bucket.read(MANIFEST_NAME)
        if is_fleet and stored is not None:
            raise IndexMissingError(
                f"{bucket.url}: is an ordinary index; choose another place for a fleet"
            )
        if is_fleet or (stored is None and bucket.get(FLEET_NAME) is not None):
            copy = FleetCopy(bucket, folder)
        else:
            copy = WorkingCopy(bucket, folder, stored, progress)
        yield copy
        with writing(copy.folder):
            copy.push()


def scratch_folder(url: str) -> Path:
    """The folder in the user's cache for working copies of what lies at an address in a bucket."""
    return cache_folder("working-copies", url)
