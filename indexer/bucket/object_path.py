"""Photos in a bucket: paths that open as those of files do, whoever reads the photo.

A photo's path in an index is its URL, such as s3://photos/2024/a.jpg.
"""

import contextlib
import errno
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from indexer.bucket.object_store import Bucket, BucketError, ObjectInfo, url_in
from indexer.read_only_path import ReadOnlyPath
from indexer.tar_photos import tar_path_of

# Most photos arrive in one piece or a few; of an object that is no picture, the first one is read.
_PIECE = 64 * 2**10
# More of an object than this waits on disk.
_IN_MEMORY = 32 * 2**20

# The variables that a client of a store is made by.
_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")


class ObjectPath(ReadOnlyPath):
    """The path of an object, or of a place in a bucket; its text is the URL.

    It can be read and looked at as that of a file: what fails raises OSError, of which
    `refusal_behind` finds the BucketError. There are no links in a bucket.
    """

    def __str__(self) -> str:
        text = super().__str__().replace(os.sep, "/")
        return url_in(text) or text

    @property
    def bucket(self) -> Bucket:
        """Its whole bucket. Raises BucketError."""
        scheme, _, place = str(self).partition("://")
        own = (item for item in os.environ.items() if item[0].startswith(_PREFIXES))
        return _bucket(f"{scheme}://{place.partition('/')[0]}", tuple(sorted(own)))

    @property
    def key(self) -> str:
        """The key of the object; "" for the whole bucket."""
        return str(self).partition("://")[2].partition("/")[2]

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and modification time, which take one request."""
        with self._as_system():
            found = self.bucket.info(self.key)
        seconds = found.mtime_ns // 10**9
        values = (stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, found.size, seconds, seconds, seconds)
        precise = {f"st_{one}time": float(seconds) for one in "amc"}
        nanoseconds = {f"st_{one}time_ns": found.mtime_ns for one in "amc"}
        return os.stat_result(values, {**precise, **nanoseconds})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object. Raises OSError where nobody knows."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """No object is a folder."""
        return False

    def is_absolute(self) -> bool:
        """A URL is."""
        return True

    def absolute(self) -> "ObjectPath":
        """The path itself, because a URL is absolute."""
        return self

    def resolve(self, strict: bool = False) -> "ObjectPath":
        """The path itself, because there are no links in a bucket."""
        return self

    def read_from(self) -> IO[bytes]:
        """The object as a file of bytes, in one request; no more is read than is asked for."""
        pieces = self._pieces()
        file = _ObjectFile(pieces)
        file.fetch(1)  # what is missing is missing now
        return io.BufferedReader(file, _PIECE)

    def _pieces(self) -> Iterator[bytes]:
        with self._as_system():
            yield from self.bucket.pieces(self.key, _PIECE)

    @contextlib.contextmanager
    def _as_system(self) -> Iterator[None]:
        """Turn errors of the store into those that the system gives for files."""
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from error
        except BucketError as error:
            reason = str(error).removeprefix(f"{self}: ")
            raise OSError(errno.EIO, reason, str(self)) from error


class _ObjectFile(io.RawIOBase):
    """The content of an object, piece by piece, as a file that can go back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._kept = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed by `close`)
        self._size = 0
        self._at = 0

    def fetch(self, most: int | None) -> None:
        """Have the first `most` bytes, or all."""
        self._kept.seek(self._size)
        while most is None or self._size < most:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._kept.write(piece)
            self._size += len(piece)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            self.fetch(None)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self.fetch(self._at + len(buffer))
        self._kept.seek(self._at)
        content = self._kept.read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._kept.close()
        super().close()


def path_of(address: Path | str) -> Path:
    """The path of a file, also in a tar, or of an object by its URL. All open alike."""
    return _elsewhere(address) or Path(address)


def status_of(address: Path | str) -> os.stat_result:
    """What `path_of(address).stat()` gives, sooner: for a file, to make a Path takes as long as the
    look itself. Raises as `Path.stat`.
    """
    elsewhere = _elsewhere(address)
    return os.stat(address) if elsewhere is None else elsewhere.stat()  # noqa: PTH116


def _elsewhere(address: Path | str) -> Path | None:
    """The path of an object, or of a file in a tar; None for all others."""
    if url := url_in(address):
        return ObjectPath(url)
    return tar_path_of(str(address))


def refusal_behind(error: BaseException) -> BucketError | None:
    """The BucketError that an error comes of: not this object, but the store, is the matter."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BucketError):
        cause = cause.__cause__
    return cause


def objects_below(place: ObjectPath) -> Iterator[tuple[str, ObjectInfo]]:
    """Every object below a place in a bucket, with the rest of its key, in the order of keys.

    Raises BucketError.
    """
    above = place.key
    for found in place.bucket.files(above):
        yield found.key[len(above) + 1 if above else 0 :], found


@lru_cache(maxsize=16)
def _bucket(url: str, variables: tuple[tuple[str, str], ...]) -> Bucket:
    """A client, kept with its connections: to make one takes as long as some ten requests.

    variables: by which it is made, so that others make another.
    """
    return Bucket(url, may_be_whole=True)
