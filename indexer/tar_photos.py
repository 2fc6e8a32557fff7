"""Photos in tars: paths that open as those of files do, without unpacking.

The path of such a photo is that of the tar, and behind it the name in the tar, such as
/photos/0.tar/2024/a.jpg.
"""

import errno
import io
import os
import stat
import tarfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from features.errors import WaldoError
from indexer.read_only_path import ReadOnlyPath

_INSIDE = f".tar{os.sep}"
_BLOCK = 512  # bytes; a tar ends with blocks of zeros

# Where the content of each file in a tar begins, and its size, in bytes.
_Contents = dict[str, tuple[int, int]]


class TarPath(ReadOnlyPath):
    """The path of a file in a tar, which can be read and looked at as that of any file.

    What fails raises OSError, also where the tar is broken.
    """

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """The size is that in the tar, the modification time that of the tar."""
        tar, name = _parts(str(self))
        whole = os.stat(tar)  # noqa: PTH116 (see `_parts`)
        _, size = self._place(tar, whole, name)
        values = (stat.S_IFREG | 0o444, 0, whole.st_dev, 1, 0, 0, size)
        times = (int(whole.st_atime), int(whole.st_mtime), int(whole.st_ctime))
        precise = {f"st_{one}time": getattr(whole, f"st_{one}time") for one in "amc"}
        nanoseconds = {f"st_{one}time_ns": getattr(whole, f"st_{one}time_ns") for one in "amc"}
        return os.stat_result((*values, *times), {**precise, **nanoseconds})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether the tar has such a file."""
        try:
            self.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read_from(self) -> IO[bytes]:
        """The file as bytes, which are read at once."""
        tar, name = _parts(str(self))
        with Path(tar).open("rb") as packed:
            start, size = self._place(tar, os.fstat(packed.fileno()), name)
            packed.seek(start)
            content = packed.read(size)
        if len(content) < size:
            raise OSError(errno.EIO, "the tar ends early", str(self))
        return io.BufferedReader(io.BytesIO(content))

    def _place(self, tar: str, whole: os.stat_result, name: str) -> tuple[int, int]:
        try:
            return _contents(tar, whole.st_size, whole.st_mtime_ns)[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file in the tar", str(self)) from None
        except tarfile.TarError as error:
            raise OSError(errno.EIO, f"the tar is broken ({error})", str(self)) from None


def tar_path_of(text: str) -> TarPath | None:
    """The path of a file in a tar; None for all other paths."""
    return TarPath(text) if _parts(text)[1] else None


def files_in_tar(tar: Path) -> list[TarPath]:
    """The files in a tar, in its order; of several with one name the last, as unpacking keeps it.

    Only what stands before each file is read. Raises WaldoError for a tar that is broken, cut short
    or compressed, cannot be read, or has a name that leads out of it.
    """
    try:
        whole = tar.stat()
        names = _contents(str(tar), whole.st_size, whole.st_mtime_ns)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise WaldoError(f"{tar}: is broken, or no tar ({error}); get it anew") from None
    except OSError as error:
        raise WaldoError(f"{tar}: cannot be read ({error.strerror})") from None
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise WaldoError(f"{tar}: holds {name!r}, which leads out of it; get it anew")
    return [TarPath(tar, name) for name in names]


def _parts(text: str) -> tuple[str, str]:
    """The tar, and the name in it, which is "" where no file above is a tar."""
    behind = 0
    while (at := text.find(_INSIDE, behind)) >= 0:
        behind = at + len(_INSIDE)
        if os.path.isfile(text[: behind - 1]):  # noqa: PTH113 (Path costs ten times as much)
            return text[: behind - 1], text[behind:].replace(os.sep, "/")
    return text, ""


@lru_cache(maxsize=8)
def _contents(tar: str, size: int, mtime_ns: int) -> _Contents:
    """Where the files in a tar lie, by their names. size, mtime_ns: what tells it from a later one.

    Raises tarfile.TarError where it is broken, OSError where it cannot be read.
    """
    found: _Contents = {}
    with tarfile.open(tar, "r:") as packed:
        while (member := packed.next()) is not None:
            packed.members.clear()  # type: ignore[attr-defined]  # else memory holds all
            if member.isfile() and not member.issparse():
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("it ends early")
                found[str(PurePosixPath(member.name))] = member.offset_data, member.size
        # Reading alone takes a tar that was cut between two files for whole.
        assert packed.fileobj is not None
        packed.fileobj.seek(packed.offset)
        if packed.fileobj.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError("it ends early")
    return found
