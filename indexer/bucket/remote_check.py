"""Checking an index or a fleet that lies in a bucket: every object is read there."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_state import RemoteState, check_parts, read_state
from indexer.bucket.transfer import OnBytes, Repair, begin_copy, codec_repair, object_key
from indexer.store.files import StoredFile


def verify_remote(url: str, progress: OnBytes | None = None) -> Iterator[str]:
    """Read all files of an index or a fleet in a bucket, map shards too, and compare them with
    their digests.

    Yields one line per problem, as soon as it is found. progress: called with the bytes that were
    read, and those of all files. Raises BucketError, also when some problems were found already;
    IndexMissingError, IndexFormatError, IndexDamagedError where a manifest is.
    """
    state = read_state(Bucket(url))
    files = _files(state)
    done, total = 0, sum(file.bytes for _, file, _ in files)
    for bucket, file, repair in files:
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


def _files(state: RemoteState) -> list[tuple[Bucket, StoredFile, Repair]]:
    """Every file but the manifests, where it lies, and how it is repaired."""
    files: list[tuple[Bucket, StoredFile, Repair]] = []
    if state.fleet is not None:
        files.append(
            (state.bucket, state.fleet.codec, partial(codec_repair, state.bucket, state.fleet))
        )
    with tempfile.TemporaryDirectory() as folder:
        for part in state.parts:
            manifest = begin_copy(part.bucket, part.manifest, Path(folder, part.name))
            files += [(part.bucket, file, manifest.repair_hint) for file in manifest.files()]
        if state.fleet is not None:
            check_parts(state, replace(state.fleet, index_dir=Path(folder)))
    return files


def _difference(file: StoredFile, size: int, sha256: str) -> str:
    """How an object differs from what was written; "" where it does not."""
    if size != file.bytes:
        return f"{size} bytes, not {file.bytes}"
    return "" if sha256 == file.sha256 else "its content is not what was written"
