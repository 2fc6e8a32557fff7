"""Photos that are published in tars: they are unpacked once, into the work folder."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from features.errors import WaldoError
from features.photo import is_picture
from indexer.errors import IndexBusyError
from indexer.store.files import sync_folder
from indexer.store.locks import writer_lock

_BLOCK = 512  # bytes; a tar ends with blocks of zeros


def photo_id(name: str) -> str:
    """The id of a packed photo: its file's name up to the first dot, without folders."""
    return PurePosixPath(name).name.split(".")[0]


def unpack_photos(
    tars: list[Path],
    work: Path,
    chosen: Collection[str] | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """The photos in tars, as files in a folder for each tar in `work`; sorted, tar by tar.

    chosen: the ids (`photo_id`) of those that are wanted; None for all. on_step: called with what
    is being done, the tars done and their number. A tar that was unpacked before is not unpacked
    again, unless it changed. A folder gets its name when all of the tar is in it, so what a killed
    run leaves is never taken for whole.

    Raises WaldoError for a tar that is broken or cannot be read, that would write outside its
    folder, where the disk is full, and while another process unpacks into `work`.
    """
    wanted = None if chosen is None else frozenset(chosen)
    photos: list[Path] = []
    work.mkdir(parents=True, exist_ok=True)
    try:
        with writer_lock(work):
            for done, tar in enumerate(tars):
                if on_step is not None:
                    on_step(f"unpacking {tar.name}", done, len(tars))
                folder = work / _folder_name(tar, wanted)
                if not folder.is_dir():
                    _unpack(tar, folder, wanted)
                photos += sorted(path for path in folder.rglob("*") if path.is_file())
    except IndexBusyError:
        raise WaldoError(
            f"{work}: another process is unpacking photos into it; wait until it is done"
        ) from None
    return photos


def _folder_name(tar: Path, wanted: frozenset[str] | None) -> str:
    """A name for the content of a tar: it holds a digest of what decides it."""
    try:
        stat = tar.stat()
    except OSError as error:
        raise WaldoError(f"{tar}: cannot be read ({error.strerror})") from None
    ids = None if wanted is None else hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()
    decides = json.dumps([str(tar.resolve()), stat.st_size, stat.st_mtime_ns, ids])
    return f"{tar.stem}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}"


def _unpack(tar: Path, folder: Path, wanted: frozenset[str] | None) -> None:
    """Fill a temporary folder, and give it its name when it is whole."""
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        with tarfile.open(tar, "r:") as packed:
            for member in packed:
                if member.isfile() and (wanted is None or photo_id(member.name) in wanted):
                    packed.extract(member, unfinished, set_attrs=False, filter="data")
            _check_end(packed)
        for path in unfinished.rglob("*"):
            if path.is_file() and not is_picture(path):  # labels beside the photos
                path.unlink()
        unfinished.rename(folder)
        sync_folder(folder.parent)
    except (tarfile.TarError, EOFError) as error:
        raise WaldoError(f"{tar}: is broken, or no tar ({error}); get it anew") from None
    except OSError as error:
        raise WaldoError(f"{tar}: cannot be unpacked to {folder} ({error.strerror})") from None


def _check_end(packed: tarfile.TarFile) -> None:
    """Raise ReadError where a tar does not end as tars do: reading alone takes one that was cut
    between two files for whole.
    """
    assert packed.fileobj is not None
    packed.fileobj.seek(packed.offset)
    if packed.fileobj.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError("it ends early")
