"""The folder an index lives in: made with care for what lies there, and swept of leftovers."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import IndexMissingError, IndexWriteError, one_line
from indexer.failures import FAILURES_NAME
from indexer.files import TEMPORARY_SUFFIX, sync_folder
from indexer.manifest import MANIFEST_NAME, Manifest

LOCK_NAME = ".lock"
_OWN_FILES = ("shards/*.parquet", "photos/*.parquet", "recall-*.faiss", "statistics-*.safetensors")
# What a first run that is killed before its first commit leaves.
_FIRST_FILES = {LOCK_NAME, MANIFEST_NAME + TEMPORARY_SUFFIX}


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


def remove_leftovers(index_dir: Path, manifest: Manifest) -> None:
    """Delete files of the index's own kinds that its manifest does not name.

    A writer that was killed leaves them, and so does a commit that replaced them.
    """
    named = {index_dir / file.name for file in manifest.files()}
    for pattern in _OWN_FILES:
        for path in index_dir.glob(pattern):
            if path not in named:
                path.unlink(missing_ok=True)
        for path in index_dir.glob(pattern + TEMPORARY_SUFFIX):
            path.unlink(missing_ok=True)
    for name in (MANIFEST_NAME, FAILURES_NAME):
        (index_dir / (name + TEMPORARY_SUFFIX)).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(index_dir: Path) -> Iterator[None]:
    """Say what to do where the disk takes no more. FAISS reports that as a RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise IndexWriteError(
            f"{index_dir}: cannot be written ({one_line(error)}); make room or set its permissions "
            "right and run the same command again: it goes on from the last commit"
        ) from error
