"""The folder of an index: made only where nothing else lies, and cleared of files not in use."""

from pathlib import Path, PurePosixPath

from indexer.errors import IndexMissingError, IndexWriteError
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import TEMPORARY_SUFFIX, sync_folder
from indexer.store.locks import LOCK_NAME, ORIGIN_NAME, READERS_NAME, without_readers
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, Manifest, read_manifest

# In the folder of a fleet: its codec, and a folder for what it is fitted to.
FLEET_CODEC_NAME = "fleet-codec.safetensors"
FLEET_SAMPLE_NAME = ".fleet-sample"

_OWN_FILES = (
    "shards/*.parquet",
    "photos/*.parquet",
    "descriptors/*.parquet",
    "descriptors/*.faiss",
    "recall-*.faiss",
    "words-*.arrow",
    "words-*.safetensors",  # of an earlier version
    "codec-*.safetensors",
    "names/*.safetensors",
    "albums-*.parquet",
    "links-*.safetensors",
    "corrections-*.safetensors",
)
# What a first run leaves when it is killed before its first commit.
_FIRST_FILES = {
    *(LOCK_NAME, READERS_NAME, MANIFEST_NAME + TEMPORARY_SUFFIX),
    *(FLEET_NAME + TEMPORARY_SUFFIX, FLEET_CODEC_NAME, FLEET_CODEC_NAME + TEMPORARY_SUFFIX),
    *(FLEET_SAMPLE_NAME, ORIGIN_NAME),
}


def make_folder(index_dir: Path, mark: str = MANIFEST_NAME) -> None:
    """Make the folder of an index, or check that it is one.

    mark: the file that is in every such folder once its first commit is made. Raises
    IndexMissingError where something else lies there, IndexWriteError where it cannot be made.
    """
    try:
        index_dir.mkdir(parents=True, exist_ok=True)
        sync_folder(index_dir.parent)
        names = {path.name for path in index_dir.iterdir()}
    except OSError as error:
        raise IndexWriteError(
            f"{index_dir}: cannot be made or read ({error.strerror}); choose another folder for "
            "the index"
        ) from error
    if mark not in names and names - _FIRST_FILES:
        raise IndexMissingError(
            f"{index_dir}: holds other files and no index; choose a new or empty folder for the "
            "index"
        )


def is_own_name(name: str) -> bool:
    """Whether a path below the folder, with "/", is of the kinds an index consists of."""
    path = PurePosixPath(name)
    return any(
        path.match(pattern) and name.count("/") == pattern.count("/") for pattern in _OWN_FILES
    )


def own_files(index_dir: Path) -> list[Path]:
    """Files of the kinds an index consists of, whether or not its manifest names them.

    Temporary files are left out.
    """
    return [path for pattern in _OWN_FILES for path in index_dir.glob(pattern)]


def remove_leftovers(index_dir: Path, manifest: Manifest) -> bool:
    """Delete files of the index's own kinds that its manifest does not name.

    They were left by a writer that was killed, or by a commit that replaced them. While somebody
    has the index open they stay, for the next writer to delete (see `locks`). Returns whether all
    are gone. manifest: as the writer knows it. Where a commit failed in its last step, the one on
    disk is newer, and the files of neither are deleted. Raises OSError, and as `read_manifest`.
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
