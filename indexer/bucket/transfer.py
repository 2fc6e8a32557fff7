"""Copying an index into an object store and back.

In a bucket an index has the same manifest.json as in a folder, byte for byte. Its other files have
the first 16 digits of their SHA-256 in their names, so that no copy overwrites another's.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from features.errors import WaldoError
from indexer.bucket.object_store import Bucket, ConflictError, is_url
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.store.files import (
    StoredFile,
    digest,
    write_atomically,
    write_bytes_atomically,
    writing,
)
from indexer.store.locks import ReaderLock
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, read_manifest

# A folder is filled under this name and then renamed: what has the name it was given is whole.
_UNFINISHED = ".part"

OnBytes = Callable[[int, int], None]


def export_index(source: str, target: str, progress: OnBytes | None = None) -> None:
    """Copy an ordinary index. One of the two is a folder, the other a URL (`is_url`).

    What an earlier, interrupted call copied is not copied again. failures.jsonl stays behind.
    progress: called with the bytes that are there, and the bytes of all files. Raises WaldoError
    where something else lies at the target, BucketError, IndexMissingError, IndexDamagedError for
    a file whose digest differs from the manifest's, IndexWriteError.
    """
    if is_url(source) == is_url(target):
        raise WaldoError(
            f"{source} to {target}: one must be a folder, and the other an address in a bucket, as "
            "in s3://bucket/pictures"
        )
    if is_url(target):
        _upload(Path(source), Bucket(target), progress)
    else:
        _download(Bucket(source), Path(target), progress)


def object_key(file: StoredFile) -> str:
    """The name of a file of an index in a bucket: shards/000001-<digest>.parquet."""
    name = PurePosixPath(file.name)
    return str(name.with_name(f"{name.stem}-{file.sha256[:16]}{name.suffix}"))


def _upload(folder: Path, bucket: Bucket, progress: OnBytes | None) -> None:
    if (folder / FLEET_NAME).exists():
        raise WaldoError(f"{folder}: is a fleet; only ordinary indexes can be exported yet")
    read_manifest(folder)  # A lock would be made where no index is.
    lock = ReaderLock(folder)
    try:
        manifest = read_manifest(folder)
        content = (folder / MANIFEST_NAME).read_bytes()
        there = bucket.get(MANIFEST_NAME)
        if there == content:
            return
        if there is not None:
            raise _taken(bucket)
        sizes = bucket.sizes()
        files = manifest.files()
        done = 0
        for file in files:
            if sizes.get(object_key(file)) != file.bytes:
                if not is_sound(folder / file.name, file):
                    raise IndexDamagedError(
                        f"{folder / file.name}: is missing or damaged; run `waldo verify --index "
                        f"{folder}`, and index the photos again"
                    )
                bucket.put(object_key(file), folder / file.name)
            done += file.bytes
            if progress is not None:
                progress(done, sum(file.bytes for file in files))
        try:
            bucket.create(MANIFEST_NAME, content)
        except ConflictError:
            raise _taken(bucket) from None
    finally:
        lock.close()


def _download(bucket: Bucket, folder: Path, progress: OnBytes | None) -> None:
    content = bucket.get(MANIFEST_NAME)
    if content is None:
        raise IndexMissingError(f"{bucket.url}: no index here; check the address")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        mine = folder / MANIFEST_NAME
        if mine.is_file() and mine.read_bytes() == content:
            return
        raise WaldoError(f"{folder}: holds something else; choose a new or empty folder")
    unfinished = folder.with_name(folder.name + _UNFINISHED)
    with writing(unfinished):
        unfinished.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(unfinished / MANIFEST_NAME, content)
    files = read_manifest(unfinished).files()
    done = 0
    for file in files:
        fetch(bucket, file, unfinished)
        done += file.bytes
        if progress is not None:
            progress(done, sum(file.bytes for file in files))
    with writing(folder):
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)


def fetch(bucket: Bucket, file: StoredFile, folder: Path) -> None:
    """Copy a file of an index into a folder unless it is there, and check its digest."""
    check_name(bucket, file)
    path = folder / file.name
    if is_sound(path, file):
        return

    def write(temporary: Path) -> None:
        sha256 = hashlib.sha256()
        with temporary.open("wb") as out:
            for piece in bucket.stream(object_key(file)):
                sha256.update(piece)
                out.write(piece)
        if sha256.hexdigest() != file.sha256:
            raise IndexDamagedError(
                f"{bucket.url}/{object_key(file)}: is not what was written; export the index again "
                "to another place"
            )

    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)


def check_name(bucket: Bucket, file: StoredFile) -> None:
    """Raise IndexDamagedError for a name that leads out of the folder of an index: the manifest of
    a bucket may be anybody's.
    """
    name = PurePosixPath(file.name)
    if name.is_absolute() or ".." in name.parts or "\\" in file.name or ":" in file.name:
        raise IndexDamagedError(f"{bucket.url}: its manifest names {file.name}, which is no file")


def is_sound(path: Path, file: StoredFile) -> bool:
    """Whether a file is there and has the content that the manifest says."""
    try:
        return path.stat().st_size == file.bytes and digest(path) == file.sha256
    except OSError:
        return False


def _taken(bucket: Bucket) -> WaldoError:
    return WaldoError(
        f"{bucket.url}: holds another index, or another state of this; choose a new place"
    )
