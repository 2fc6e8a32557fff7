"""An index or a fleet that is read where it lies, in a bucket.

All of its files but the map shards, which are most of it, are copied into the user's cache: a
folder that opens as an ordinary index. The maps of photos are read from the bucket, as they are
asked for. The folder of a fleet has links to those of its parts, so a part that stays as it is
stays in the cache when another one changes.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.user_cache import user_cache
from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_state import (
    RemotePart,
    RemoteState,
    check_parts,
    of_every_part,
    read_state,
)
from indexer.bucket.transfer import (
    OnBytes,
    Together,
    begin_copy,
    copy_head,
    counted,
    errors_naming,
    fetch_usable,
    is_sound,
    object_key,
)
from indexer.errors import IndexDamagedError
from indexer.parts import Fleet
from indexer.store.files import StoredFile, write_atomically, write_bytes_atomically, writing
from indexer.store.locks import BUCKET_NAME, LOCK_NAME, ORIGIN_NAME, without_readers
from indexer.store.manifest import Manifest, MapShard, fleet_refusal, parse_manifest
from indexer.store.mapstore import OpenShard
from indexer.store.shards import Shard, open_shard

# A request takes some 20 ms, in which one of many at a time gets this many bytes. So two rows are
# read by one request where fewer bytes than this lie between them: benchmarks/bucket_reads.py.
REQUEST_BYTES = 256 * 2**10

# A state stays in the cache for so many seconds after `cached_index` has given its folder: until
# then whoever asked for it has opened it, and holds its reader's lock.
_KEPT_SECONDS = 600


def cached_index(url: str, progress: OnBytes | None = None, may_be_fleet: bool = True) -> Path:
    """The folder in the user's cache that stands for the last state of an index, or a fleet, in a
    bucket.

    Its files are compared with their digests when they are copied; those that an earlier state had
    too are not copied again, and earlier states that nobody has open are deleted. progress: called
    with the bytes that are there, and the bytes of all files but map shards; of a fleet, of the
    parts that the cache lacks. Raises IndexMissingError, also for a fleet unless it may be one,
    BucketError, IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    state = read_state(Bucket(url))
    if state.fleet is not None:
        if not may_be_fleet:
            raise fleet_refusal(state.bucket.url)
        return _cached_fleet(state, state.fleet, progress)
    [part] = state.parts
    return _cached_part(part, progress)


def _cached_fleet(state: RemoteState, fleet: Fleet, progress: OnBytes | None) -> Path:
    together = Together(progress)
    for part in state.parts:
        folder = _state_folder(part.bucket, part.manifest)
        if not folder.exists():
            with errors_naming(part.bucket.url, folder):
                files = _small_files(parse_manifest(folder, part.manifest))
            together.report(part.name, 0, sum(file.bytes for file in files))
    found = of_every_part(
        lambda part: _cached_part(part, partial(together.report, part.name)), state.parts
    )
    places = [place.absolute() for place in found]
    folder = _state_folder(state.bucket, repr((state.fleet_json, places)).encode())
    with _filling(folder) as is_missing:
        if is_missing:
            unfinished = folder.with_name(folder.name + ".part")
            assert state.fleet_json is not None
            copy_head(state.bucket, state.fleet_json, fleet, unfinished)
            with writing(unfinished):
                mark(unfinished, BUCKET_NAME, state.bucket)
                for part, place in zip(state.parts, places, strict=True):
                    link = unfinished / part.name
                    link.parent.mkdir(exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        link.symlink_to(place, target_is_directory=True)
            check_parts(state, replace(fleet, index_dir=unfinished))
            _take_place(state.bucket, unfinished, folder)
    return folder


def _cached_part(part: RemotePart, progress: OnBytes | None) -> Path:
    """The cached folder of an ordinary index, or of one part of a fleet."""
    bucket = part.bucket
    folder = _state_folder(bucket, part.manifest)
    with _filling(folder) as is_missing:
        if is_missing:
            unfinished = folder.with_name(folder.name + ".part")
            manifest = begin_copy(bucket, part.manifest, unfinished)
            with writing(unfinished):
                mark(unfinished, BUCKET_NAME, bucket)
            cached = cached_states(bucket)
            for file in counted(_small_files(manifest), progress):
                if not link(file, cached, unfinished):
                    fetch_usable(bucket, manifest, file, unfinished)
            _take_place(bucket, unfinished, folder)
    return folder


def _small_files(manifest: Manifest) -> list[StoredFile]:
    """The files of an index without its map shards."""
    shards = {file.name for file in manifest.shards}
    return [file for file in manifest.files() if file.name not in shards]


@contextlib.contextmanager
def _filling(folder: Path) -> Iterator[bool]:
    """Lock the place of a state in the cache, and yield whether the state is missing there.

    Of several processes or threads that want it, one fills it, and the others wait. Whoever dies
    lets go, and the next one goes on. Raises IndexWriteError.
    """
    import fcntl

    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder.parent / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield not folder.exists()
        with writing(folder):
            os.utime(folder)  # see `_take_place`
    finally:
        os.close(descriptor)


def _state_folder(bucket: Bucket, content: bytes) -> Path:
    """The folder in the cache for a state of what lies at a place. content: tells it apart."""
    return cache_folder("buckets", bucket.url) / hashlib.sha256(content).hexdigest()[:12]


def cached_states(bucket: Bucket) -> list[Path]:
    """The states of what lies at a place that the user's cache has, each whole."""
    try:
        there = list(cache_folder("buckets", bucket.url).iterdir())
    except FileNotFoundError:
        return []
    return [folder for folder in there if folder.is_dir() and folder.suffix != ".part"]


def _take_place(bucket: Bucket, unfinished: Path, folder: Path) -> None:
    """Give a complete state its name, and delete earlier states, but for those that somebody has
    open or may be about to open (`_KEPT_SECONDS`). Raises IndexWriteError.
    """
    with writing(folder):
        unfinished.rename(folder)
    for left in folder.parent.glob("*.part"):  # by copies of other states, which were killed
        shutil.rmtree(left, ignore_errors=True)
    for other in cached_states(bucket):
        if other == folder:
            continue
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime < _KEPT_SECONDS:
                continue
        with contextlib.suppress(OSError), without_readers(other) as alone:
            if alone:
                shutil.rmtree(other)


def shard_opener(index_dir: Path, bucket: Bucket | None = None) -> OpenShard:
    """What opens the map shards of an index. Where the folder stands for an index in a bucket, the
    shards that it lacks are read there.

    bucket: that bucket; None for `bucket_of`, which takes 50 ms to connect. Raises BucketError,
    IndexDamagedError.
    """
    bucket = bucket or bucket_of(index_dir)
    return open_shard if bucket is None else RemoteShards(bucket)


def bucket_of(index_dir: Path) -> Bucket | None:
    """The bucket that an index or a fleet in a folder stands for; None where it stands for none.

    Raises BucketError, IndexDamagedError.
    """
    for name in (BUCKET_NAME, ORIGIN_NAME):
        try:
            said = json.loads((index_dir / name).read_bytes())
            return Bucket(str(said["url"]))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError):
            raise IndexDamagedError(f"{index_dir / name}: is damaged; delete the folder") from None
    return None


def mark(folder: Path, name: str, bucket: Bucket) -> None:
    """Say in a folder which index in a bucket it stands for. Raises OSError."""
    write_bytes_atomically(folder / name, json.dumps({"url": bucket.url}).encode())


def leave_hole(path: Path, size: int) -> None:
    """Make a file of the right size without content, which takes no room on disk. It stands for a
    map shard that lies in the bucket alone, so that the shard does not count as lost. Raises
    OSError.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.truncate(size)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)  # whoever reads the file now has its content


def cache_folder(kind: str, url: str) -> Path:
    """Where the user's cache has what belongs to an address in a bucket."""
    place = hashlib.sha256(url.encode()).hexdigest()[:12]
    readable = re.sub(r"[^a-z0-9]+", "-", url.lower())[-40:]
    return user_cache(kind) / f"{readable}-{place}"


@dataclass(frozen=True)
class RemoteShard(Shard):
    """A map shard in a bucket. path: of the file that it would be in the folder, and that a writer
    has there until it has stored it. key: of the object.
    """

    bucket: Bucket
    key: str

    def read_ready(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> list[int]:
        """No row is in memory, so none is ready."""
        return list(range(len(rows)))

    def read(self, rows: Sequence[int], out: Sequence[NDArray[np.uint8]]) -> None:
        """As `Shard.read`. Rows that lie near each other share a request.

        Raises IndexDamagedError where the object is missing, BucketError.
        """
        if _has_content(self.path):
            super().read(rows, out)
            if _has_content(self.path):
                return
        starts = [self.offset + row * self.width for row in rows]
        found = self.bucket.get_ranges(self.key, starts, self.width, REQUEST_BYTES)
        for content, target in zip(found, out, strict=True):
            target[:] = np.frombuffer(content, np.uint8)


@dataclass(frozen=True)
class RemoteShards:
    """Opens the map shards of an index in a bucket, as `open_shard` does those of a folder; also
    those that a writer has in its folder and is about to store.
    """

    bucket: Bucket

    def __call__(self, index_dir: Path, file: MapShard, photo_bytes: int) -> Shard:
        path, key = index_dir / file.name, object_key(file)
        if _has_content(path):
            local = open_shard(index_dir, file, photo_bytes)
            if _has_content(path):
                where = (path, local.ids, local.checksums, photo_bytes, local.offset)
                return RemoteShard(*where, bucket=self.bucket, key=key)
        layout = file.layout
        if layout is None:
            raise IndexDamagedError(
                "is of an earlier version; copy the index into a folder and run `waldo compact`"
            )
        [head] = self.bucket.get_ranges(key, [0], layout.maps, REQUEST_BYTES)
        try:
            ids = np.frombuffer(head, "<i8", file.rows, layout.ids)
            checksums = np.frombuffer(head, "<u4", file.rows, layout.checksums)
        except ValueError:
            raise IndexDamagedError("its columns lie elsewhere than the manifest says") from None
        where = (path, ids, checksums, photo_bytes, layout.maps)
        return RemoteShard(*where, bucket=self.bucket, key=key)


def _has_content(path: Path) -> bool:
    """Whether a map shard is there, and not only its size (`leave_hole`)."""
    try:
        with path.open("rb") as file:
            return any(file.read(4))  # Parquet's first bytes are PAR1
    except FileNotFoundError:
        return False


def link(file: StoredFile, folders: Sequence[Path], folder: Path) -> bool:
    """Link a file, of which nobody changes the content, from one of some folders that has it;
    whether that was possible.
    """
    for other in folders:
        if is_sound(other / file.name, file):
            with contextlib.suppress(OSError):
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.name).hardlink_to(other / file.name)
                return True
    return False
