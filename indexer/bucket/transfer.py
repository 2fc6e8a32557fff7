"""Copying an index into an object store and back.

In a bucket an index has the same manifest.json as in a folder, byte for byte. Its other files have
the first 16 digits of their SHA-256 in their names, so that no copy overwrites another's. Of a
fleet, fleet.json is the same, and each part is an index below it.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock

from features.errors import WaldoError
from indexer.bucket.object_store import Bucket, ConflictError, url_in
from indexer.bucket.remote_state import of_every_part, read_state
from indexer.errors import IndexDamagedError, IndexWriteError
from indexer.parts import Fleet, part_name, parts_of, read_fleet
from indexer.store.failures import FAILURES_NAME
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
# Says how to repair a file that is damaged, or, where the flag is set, missing
# (`Manifest.repair_hint`).
Repair = Callable[[StoredFile, bool], str]


def export_index(source: str, target: str, progress: OnBytes | None = None) -> None:
    """Copy an index or a fleet. One of the two is a folder, the other a URL (`url_in`).

    What an earlier, interrupted call copied is not copied again. failures.jsonl goes with it.
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
        fleet = read_fleet(Path(source))
        if fleet is None:
            _upload(Path(source), Bucket(target_url), progress)
        else:
            _upload_fleet(fleet, Bucket(target_url), progress)
    if source_url is not None:
        _download(Bucket(source_url), Path(target), progress)


def object_key(file: StoredFile) -> str:
    """The name of a file of an index in a bucket: shards/000001-<digest>.parquet."""
    name = PurePosixPath(file.name)
    return str(name.with_name(f"{name.stem}-{file.sha256[:16]}{name.suffix}"))


def _upload(folder: Path, bucket: Bucket, progress: OnBytes | None) -> None:
    """An ordinary index, or a part of a fleet."""
    read_manifest(folder)  # raises where there is no index, before a lock file is made
    lock = ReaderLock(folder)
    try:
        manifest = read_manifest(folder)
        content = (folder / MANIFEST_NAME).read_bytes()
        there = bucket.get(MANIFEST_NAME)
        if there == content:
            _upload_failures(folder, bucket)
            return
        sizes = bucket.sizes()
        if there is not None or FLEET_NAME in sizes:
            raise _taken(bucket)
        for file in counted(manifest.files(), progress):
            if sizes.get(object_key(file)) != file.bytes:
                put_sound(bucket, file, folder, _repair(folder))
        _create(bucket, MANIFEST_NAME, content)
        _upload_failures(folder, bucket)
    finally:
        lock.close()


def _upload_fleet(fleet: Fleet, bucket: Bucket, progress: OnBytes | None) -> None:
    """Every part, and fleet.json last."""
    content = (fleet.index_dir / FLEET_NAME).read_bytes()
    there = bucket.get(FLEET_NAME)
    if there not in (None, content) or bucket.get(MANIFEST_NAME) is not None:
        raise _taken(bucket)
    parts = parts_of(fleet.index_dir)
    sizes = [sum(file.bytes for file in read_manifest(part).files()) for part in parts]
    for number, told in enumerate(_of_parts(progress, sizes)):
        _upload(parts[number], bucket.below(part_name(number)), told)
    if there is None:
        put_sound(bucket, fleet.codec, fleet.index_dir, _repair(fleet.index_dir))
        _create(bucket, FLEET_NAME, content)
    _upload_failures(fleet.index_dir, bucket)


def _upload_failures(folder: Path, bucket: Bucket) -> None:
    """Upload failures.jsonl, after the manifest: where the manifest is refused, because somebody
    else's index lies there, their list of failures stays.
    """
    path = folder / FAILURES_NAME
    if path.exists() and path.read_bytes() != bucket.get(FAILURES_NAME):
        bucket.put(FAILURES_NAME, path)


def fetch_failures(bucket: Bucket, folder: Path) -> None:
    """Copy failures.jsonl, which no manifest names, out of a bucket into the folder of the index or
    fleet there. Raises BucketError, IndexWriteError.
    """
    content = bucket.get(FAILURES_NAME)
    with writing(folder):
        if content is None:
            (folder / FAILURES_NAME).unlink(missing_ok=True)
        else:
            write_bytes_atomically(folder / FAILURES_NAME, content)


def _repair(folder: Path) -> str:
    return f"run `waldo verify --index {folder}`, and index the photos again"


def put_sound(bucket: Bucket, file: StoredFile, folder: Path, repair: str) -> None:
    """Store a file of an index, if it has the content that the manifest says.

    repair: what to do where it has not. Raises IndexDamagedError, BucketError, OSError.
    """
    if not is_sound(folder / file.name, file):
        raise IndexDamagedError(f"{folder / file.name}: is missing or damaged; {repair}")
    bucket.put(object_key(file), folder / file.name)


def _create(bucket: Bucket, key: str, content: bytes) -> None:
    try:
        bucket.create(key, content)
    except ConflictError:
        raise _taken(bucket) from None


def _download(bucket: Bucket, folder: Path, progress: OnBytes | None) -> None:
    state = read_state(bucket)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if all(_has(folder / name, content) for name, content in state.heads.items()):
            return
        raise WaldoError(f"{folder}: holds something else; choose a new or empty folder")
    unfinished = folder.with_name(folder.name + _UNFINISHED)
    (unfinished / FLEET_NAME).unlink(missing_ok=True)  # of another copy, before it was stopped
    if state.fleet is not None and state.fleet_json is not None:
        copy_head(bucket, state.fleet_json, state.fleet, unfinished)
    manifests = [
        begin_copy(part.bucket, part.manifest, unfinished / part.name) for part in state.parts
    ]
    sizes = [sum(file.bytes for file in manifest.files()) for manifest in manifests]
    together = zip(state.parts, manifests, _of_parts(progress, sizes), strict=True)
    for part, manifest, told in together:
        for file in counted(manifest.files(), told):
            fetch(part.bucket, file, unfinished / part.name, manifest.repair_hint)
    parts_of(unfinished)  # raises where they are not the parts of one fleet
    of_every_part(lambda part: fetch_failures(part.bucket, unfinished / part.name), state.parts)
    if state.fleet is not None:
        fetch_failures(bucket, unfinished)
    with writing(folder):
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)


def _has(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _of_parts(progress: OnBytes | None, sizes: Sequence[int]) -> Iterator[OnBytes | None]:
    """For each part, a listener that is told the progress of this part, and tells `progress` that
    of all parts.

    sizes: bytes of each part.
    """
    total, before = sum(sizes), 0
    for size in sizes:
        yield progress and partial(_add, progress, before, total)
        before += size


def _add(progress: OnBytes, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


class Together:
    """Adds up the progress of parts that are copied at the same time."""

    def __init__(self, listener: OnBytes | None) -> None:
        self._listener = listener
        self._last: dict[str, tuple[int, int]] = {}
        self._lock = Lock()

    def report(self, part: str, done: int, total: int) -> None:
        """A part, by its name, has come so far."""
        with self._lock:
            self._last[part] = done, total
            if self._listener is not None:
                self._listener(*map(sum, zip(*self._last.values(), strict=True)))


def begin_copy(bucket: Bucket, content: bytes, folder: Path) -> Manifest:
    """Begin a copy of the index in a bucket: a folder with its manifest, of this content.

    The manifest of a bucket may be anybody's: a name that leads out of the folder is refused.
    Raises IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(folder / MANIFEST_NAME, content)
    with errors_naming(bucket.url, folder):
        manifest = read_manifest(folder)
    for file in manifest.files():
        _check_name(bucket, file)
    return manifest


@contextlib.contextmanager
def errors_naming(url: str, *folders: Path) -> Iterator[None]:
    """Have errors name a place in a bucket, by its URL, and not the folders that stand for it."""
    try:
        yield
    except IndexWriteError:
        raise  # The disk is full where the folder is.
    except WaldoError as error:
        for folder in folders:
            error.args = tuple(str(said).replace(str(folder), url) for said in error.args)
        raise


def copy_head(bucket: Bucket, content: bytes, fleet: Fleet, folder: Path) -> None:
    """Copy what the parts of a fleet have in common: fleet.json, of this content, and the codec.

    Raises as `fetch`, and as `begin_copy`.
    """
    _check_name(bucket, fleet.codec)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(folder / FLEET_NAME, content)
    fetch(bucket, fleet.codec, folder, partial(codec_repair, bucket, fleet))


def codec_repair(bucket: Bucket, fleet: Fleet, *_: object) -> str:
    """What to do where the codec of a fleet in a bucket is damaged or missing."""
    return f"copy {bucket.url}/{part_name(0)}/{object_key(fleet.part_codec)} to it"


def _check_name(bucket: Bucket, file: StoredFile) -> None:
    name = PurePosixPath(file.name)
    if name.is_absolute() or ".." in name.parts or "\\" in file.name or ":" in file.name:
        raise IndexDamagedError(
            f"{bucket.url}: its manifest names {file.name}, which is no file; delete what lies "
            "there, and export or index the photos again"
        )


def counted(files: Sequence[StoredFile], progress: OnBytes | None) -> Iterator[StoredFile]:
    """Files one by one; when the work on each is done, progress is told of its bytes."""
    done, total = 0, sum(file.bytes for file in files)
    for file in files:
        yield file
        done += file.bytes
        if progress is not None:
            progress(done, total)


def fetch_usable(bucket: Bucket, manifest: Manifest, file: StoredFile, folder: Path) -> None:
    """As `fetch`, but a damaged file of a named object is left out: only searches by this name need
    it, and the name can still be forgotten.
    """
    try:
        fetch(bucket, file, folder, manifest.repair_hint)
    except IndexDamagedError:
        if file not in (record.file for record in manifest.names):
            raise
        (folder / file.name).unlink(missing_ok=True)


def fetch(bucket: Bucket, file: StoredFile, folder: Path, repair: Repair) -> None:
    """Copy a file of an index into a folder (`begin_copy`) unless it is there; check its digest.

    Raises BucketError, IndexDamagedError, IndexWriteError.
    """
    path = folder / file.name
    if is_sound(path, file):
        return

    def write(temporary: Path) -> None:
        sha256, place = hashlib.sha256(), f"{bucket.url}/{object_key(file)}"
        try:
            with temporary.open("wb") as out:
                for piece in bucket.pieces(object_key(file)):
                    sha256.update(piece)
                    out.write(piece)
        except FileNotFoundError:
            raise IndexDamagedError(f"{place}: is missing; {repair(file, True)}") from None
        if sha256.hexdigest() != file.sha256:
            raise IndexDamagedError(
                f"{place}: its content is not what was written; {repair(file, False)}"
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
