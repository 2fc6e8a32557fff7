"""The folder an index lives in: made with care for what lies there, and swept of leftovers."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import IndexMissingError, IndexWriteError, one_line
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import TEMPORARY_SUFFIX, sync_folder
from indexer.store.manifest import MANIFEST_NAME, Manifest, read_manifest
from indexer.store.readers import READERS_NAME, without_readers

LOCK_NAME = ".lock"
_OWN_FILES = (
    "shards/*.parquet",
    "photos/*.parquet",
    "descriptors/*.parquet",
    "descriptors/*.faiss",
    "recall-*.faiss",
    "words-*.safetensors",
    "codec-*.safetensors",
    "statistics-*.safetensors",  # of format 1
)
# What a first run that is killed before its first commit leaves.
_FIRST_FILES = {LOCK_NAME, READERS_NAME, MANIFEST_NAME + TEMPORARY_SUFFIX}


def make_folder(index_dir: Path) -> None:
    """Make the folder of an index, or see that it is one.

    Raises IndexMissingError where something else lies there, IndexWriteError where it cannot be
    made.
    """
    try:
        index_dir.mkdir(parents=True, exist_ok=True)
        sync_folder(index_dir.parent)
        names = {path.name for path in index_dir.iterdir()}
    except OSError as error:
        raise IndexWriteError(
            f"{index_dir}: cannot be made or read ({error.strerror}); choose another folder "
            "with --index"
        ) from error
    if MANIFEST_NAME not in names and names - _FIRST_FILES:
        raise IndexMissingError(
            f"{index_dir}: not empty, and no index; choose a new or empty folder with --index"
        )


def own_files(index_dir: Path) -> list[Path]:
    """Files of the index's own kinds, named by its manifest or not; temporary ones are left out."""
    return [path for pattern in _OWN_FILES for path in index_dir.glob(pattern)]


def remove_leftovers(index_dir: Path, manifest: Manifest) -> bool:
    """Delete files of the index's own kinds that its manifest does not name.

    A writer that was killed leaves them, and so does a commit that replaced them. While somebody
    has the index open they stay, for the next writer to delete (see `readers`). Returns whether
    all are gone. manifest: as the writer knows it; where a commit failed in its last step, the one
    on disk is newer, and neither's files are touched. Raises OSError, and as `read_manifest`.
    """
    for pattern in _OWN_FILES:
        for path in index_dir.glob(pattern + TEMPORARY_SUFFIX):
            path.unlink(missing_ok=True)
    for name in (MANIFEST_NAME, FAILURES_NAME):
        (index_dir / (name + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
    states = (manifest, read_manifest(index_dir))
    named = {index_dir / file.name for state in states for file in state.files()}
    leftovers = [path for path in own_files(index_dir) if path not in named]
    with without_readers(index_dir) as alone:
        if alone:
            for path in leftovers:
                path.unlink(missing_ok=True)
    return alone or not leftovers


@contextlib.contextmanager
def writing(index_dir: Path) -> Iterator[None]:
    """Say what to do where the disk takes no more.

    FAISS reports that as a RuntimeError, and safetensors by an error of its own.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise IndexWriteError(
            f"{index_dir}: cannot be written ({one_line(error)}); make room or set its permissions "
            "right and run the same command again: it goes on from the last commit"
        ) from error
