"""Copying an index into an object store and back.

In a bucket an index has the same manifest.json as in a folder, byte for byte. Its other files have
the first 16 digits of their SHA-256 in their names, so that no copy overwrites another's.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from features.errors import WaldoError
from indexer.bucket.object_store import Bucket, ConflictError, url_in
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.store.files import (
    StoredFile,
    digest,
    write_atomically,
    write_bytes_atomically,
    writing,
)
from indexer.store.locks import ReaderLock
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, Manifest, read_manifest

# A folder is filled under this name and then renamed: what has the name it was given is whole.
_UNFINISHED = ".part"

OnBytes = Callable[[int, int], None]


def export_index(source: str, target: str, progress: OnBytes | None = None) -> None:
    """Copy an ordinary index. One of the two is a folder, the other a URL (`url_in`).

    What an earlier, interrupted call copied is not copied again. failures.jsonl stays behind.
    progress: called with the bytes that are there, and the bytes of all files. Raises WaldoError
    where something else lies at the target, BucketError, IndexMissingError, IndexDamagedError for
    a file whose digest differs from the manifest's, IndexWriteError.
    """
    source_url, target_url = url_in(source), url_in(target)
    if (source_url is None) == (target_url is None):
        raise WaldoError(
            f"{source} to {target}: one must be a folder, and the other an address in a bucket, as "
            "in s3://bucket/pictures"
        )
    if target_url is not None:
        _upload(Path(source), Bucket(target_url), progress)
    if source_url is not None:
        _download(Bucket(source_url), Path(target), progress)


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
        for file in counted(manifest.files(), progress):
            if sizes.get(object_key(file)) != file.bytes:
                if not is_sound(folder / file.name, file):
                    raise IndexDamagedError(
                        f"{folder / file.name}: is missing or damaged; run `waldo verify --index "
                        f"{folder}`, and index the photos again"
                    )
                bucket.put(object_key(file), folder / file.name)
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
    manifest = begin_copy(bucket, content, unfinished)
    for file in counted(manifest.files(), progress):
        fetch(bucket, file, unfinished)
    with writing(folder):
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)


def begin_copy(bucket: Bucket, content: bytes, folder: Path) -> Manifest:
    """Begin a copy of the index in a bucket: a folder with its manifest, of this content.

    The manifest of a bucket may be anybody's: a name that leads out of the folder is refused.
    Raises IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(folder / MANIFEST_NAME, content)
    manifest = read_manifest(folder)
    for file in manifest.files():
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or "\\" in file.name or ":" in file.name:
            raise IndexDamagedError(
                f"{bucket.url}: its manifest names {file.name}, which is no file"
            )
    return manifest


def counted(files: Sequence[StoredFile], progress: OnBytes | None) -> Iterator[StoredFile]:
    """Files one by one; when the work on each is done, progress is told of its bytes."""
    done, total = 0, sum(file.bytes for file in files)
    for file in files:
        yield file
        done += file.bytes
        if progress is not None:
            progress(done, total)


def fetch(bucket: Bucket, file: StoredFile, folder: Path) -> None:
    """Copy a file of an index into a folder (`begin_copy`) unless it is there; check its digest.

    Raises BucketError, IndexDamagedError, IndexWriteError.
    """
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
