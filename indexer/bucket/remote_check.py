"""Checking an index or a fleet that lies in a bucket: every object is read there."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_state import check_parts, read_state
from indexer.bucket.transfer import OnBytes, Repair, begin_copy, codec_repair, object_key
from indexer.errors import IndexMissingError
from indexer.parts import Fleet
from indexer.store.files import StoredFile
from indexer.store.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class FleetHead:
    """What the parts of a fleet have in common.

    problems: of fleet.json and the codec, a line for each. bytes: of the files of all parts.
    """

    fleet: Fleet
    problems: list[str]
    bytes: int


def check_remote_head(url: str) -> FleetHead | None:
    """Check what the parts of a fleet in a bucket have in common, and that they are its parts; None
    for an ordinary index.

    Raises BucketError; IndexMissingError, IndexFormatError, IndexDamagedError where a manifest is.
    """
    state = read_state(Bucket(url))
    fleet, bucket, size = state.fleet, state.bucket, 0
    if fleet is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for part in state.parts:
            manifest = begin_copy(part.bucket, part.manifest, Path(folder, part.name))
            size += sum(file.bytes for file in manifest.files())
        check_parts(state, replace(fleet, index_dir=Path(folder)))
    problems = _problems(bucket, [fleet.codec], partial(codec_repair, bucket, fleet))
    return FleetHead(fleet, [*problems], size)


def verify_remote(url: str, progress: OnBytes | None = None) -> Iterator[str]:
    """Read all files of an ordinary index in a bucket, or of a part of a fleet, map shards too, and
    compare them with their digests.

    Yields one line per problem, as soon as it is found. progress: called with the bytes that were
    read, and those of all files. Raises as `check_remote_head`.
    """
    bucket = Bucket(url)
    content = bucket.get(MANIFEST_NAME)
    if content is None:
        raise IndexMissingError(f"{url}: no index here; check the address")
    with tempfile.TemporaryDirectory() as folder:
        manifest = begin_copy(bucket, content, Path(folder))
    yield from _problems(bucket, manifest.files(), manifest.repair_hint, progress)


def _problems(
    bucket: Bucket, files: Sequence[StoredFile], repair: Repair, progress: OnBytes | None = None
) -> Iterator[str]:
    done, total = 0, sum(file.bytes for file in files)
    for file in files:
        sha256, size = hashlib.sha256(), 0
        try:
            for piece in bucket.pieces(object_key(file)):
                sha256.update(piece)
                size += len(piece)
                if progress is not None:
                    progress(min(done + size, total), total)
        except FileNotFoundError:
            difference, mend = "is missing", repair(file, True)
        else:
            difference = _difference(file, size, sha256.hexdigest())
            mend = repair(file, False) if difference else ""
        done += file.bytes
        if difference:
            yield f"{bucket.url}/{object_key(file)}: {difference}; {mend}"


def _difference(file: StoredFile, size: int, sha256: str) -> str:
    """How an object differs from what was written; "" where it does not."""
    if size != file.bytes:
        return f"{size} bytes, not {file.bytes}"
    return "" if sha256 == file.sha256 else "its content is not what was written"
