"""Writing an index that lies in a bucket.

A working copy is a folder in which whatever writes an index works as it always does. It has all
files but map shards, which are read from the bucket where somebody needs them. After each commit
the new files are stored in the bucket, under names that hold their digest, and last the manifest,
in place of the one that was read. So of two writers at once one is refused, and none undoes what
the other did.
"""

import shutil
from datetime import timedelta
from pathlib import Path

from indexer.bucket.object_store import Bucket, ConflictError, ObjectVersion, StoredObject
from indexer.bucket.remote_index import cached_states, leave_hole, link, mark
from indexer.bucket.transfer import (
    OnBytes,
    begin_copy,
    counted,
    fetch_usable,
    object_key,
    put_sound,
)
from indexer.errors import IndexMissingError
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import StoredFile, write_bytes_atomically, writing
from indexer.store.folder import is_own_name
from indexer.store.locks import ORIGIN_NAME
from indexer.store.manifest import MANIFEST_NAME, MapShard, read_manifest

# Objects that no manifest names are deleted when they are so old: another writer may be about to
# name them, and a reader may have the state before open.
_GRACE = timedelta(days=1)

# What to do where a file of a working copy is damaged.
RUN_AGAIN = "run the same command again"


class WorkingCopy:
    """A folder that holds the state of an index in a bucket; made by `collection_copy`.

    folder: of the index; without a manifest where the bucket has none. bucket: its place there.
    """

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        stored: StoredObject | None,
        progress: OnBytes | None = None,
    ) -> None:
        """Bring the folder to the state of the bucket, whatever an earlier writer left in it.

        stored: the manifest in the bucket; None where it has none. progress: called with the bytes
        that are there, and the bytes of all files but map shards. Raises as `collection_copy` does.
        """
        self.folder = folder
        self.bucket = bucket
        self._stored = stored
        # What the manifest in the bucket names, now and when the working copy was made.
        self._files: set[StoredFile] = set()
        sizes = bucket.sizes()
        if self._stored is None:
            _check_place(bucket, sizes)
        with writing(folder):
            if self._stored is None and folder.exists():
                shutil.rmtree(folder)  # what was begun there and reached no bucket
            folder.mkdir(parents=True, exist_ok=True)
            mark(folder, ORIGIN_NAME, bucket)
            if self._stored is not None:
                self._files = self._hydrate(self._stored.content, sizes, progress)
            self._first_files = self._files
            failures = bucket.get(FAILURES_NAME) if FAILURES_NAME in sizes else None
            self._failures = StoredFailures(bucket, folder, failures)

    def push(self) -> None:
        """Store in the bucket what was committed in the folder since it was read or pushed. Map
        shards then lie in the bucket alone.

        Raises ConflictError where another writer has changed the bucket since, which then stays as
        it is; BucketError, IndexDamagedError, OSError.
        """
        path = self.folder / MANIFEST_NAME
        if not path.exists():
            return  # nothing was made
        content = path.read_bytes()
        if self._stored is None or content != self._stored.content:
            files = set(read_manifest(self.folder).files())
            for file in files - self._files:
                put_sound(self.bucket, file, self.folder, RUN_AGAIN)
            self._stored = StoredObject(content, self._put_manifest(content))
            new, self._files = files - self._files, files
            for file in new:
                if isinstance(file, MapShard):  # most of an index, and the bucket has them
                    leave_hole(self.folder / file.name, file.bytes)
        self._failures.push()

    def delete_unnamed(self) -> None:
        """Delete the objects of this index that have not been named by its manifest for long.

        Those that the working copy began with stay, for readers who have them open. Raises
        BucketError.
        """
        named = {object_key(file) for file in self._files | self._first_files}
        for key in self.bucket.older_than(_GRACE):
            if is_own_name(key) and key not in named:
                self.bucket.delete(key)

    def _hydrate(
        self, content: bytes, sizes: dict[str, int], progress: OnBytes | None
    ) -> set[StoredFile]:
        """Copy a state of the index out of the bucket, but for map shards; returns its files.

        What a search has copied into the user's cache is taken from there. What is missing in the
        bucket is missing in the folder: writers know how to make it again.
        """
        manifest = begin_copy(self.bucket, content, self.folder)
        shards, wanted = set(manifest.shards), []
        for file in manifest.files():
            path = self.folder / file.name
            if sizes.get(object_key(file)) != file.bytes:
                path.unlink(missing_ok=True)
            elif file in shards:
                leave_hole(path, file.bytes)
            else:
                wanted.append(file)
        cached = cached_states(self.bucket)
        for file in counted(wanted, progress):
            if (self.folder / file.name).exists() or not link(file, cached, self.folder):
                fetch_usable(self.bucket, manifest, file, self.folder)
        return set(manifest.files())

    def _put_manifest(self, content: bytes) -> ObjectVersion:
        try:
            if self._stored is None:
                return self.bucket.create(MANIFEST_NAME, content)
            return self.bucket.replace(MANIFEST_NAME, content, self._stored.version)
        except ConflictError:
            raise ConflictError(
                f"{self.bucket.url}: another run has written this index meanwhile, and what it "
                "did holds; run the same command again to add what this one did"
            ) from None


class StoredFailures:
    """failures.jsonl, which no manifest names, in a working copy and in its bucket."""

    def __init__(self, bucket: Bucket, folder: Path, content: bytes | None) -> None:
        """Bring the file to what the bucket has.

        content: that, or None where it has none. Raises OSError.
        """
        self._bucket = bucket
        self._path = folder / FAILURES_NAME
        self._content = content
        self._path.unlink(missing_ok=True)
        if content is not None:
            write_bytes_atomically(self._path, content)

    def push(self) -> None:
        """Store the file where it has changed. Raises BucketError, OSError."""
        content = self._path.read_bytes() if self._path.exists() else None
        if content is not None and content != self._content:
            self._bucket.put(FAILURES_NAME, self._path)
            self._content = content


def _check_place(bucket: Bucket, sizes: dict[str, int]) -> None:
    """Raise IndexMissingError where an index cannot be made in a bucket."""
    if not all(is_own_name(key) or key == FAILURES_NAME for key in sizes):
        raise IndexMissingError(
            f"{bucket.url}: holds other objects and no index; choose a new place for the index"
        )
