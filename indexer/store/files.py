"""Files of an index: each is written whole or not at all, even when the power fails."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import IndexWriteError, one_line

TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class StoredFile:
    """A file of the index as its manifest names it.

    name: path below the index folder, with "/". number: the generation that wrote it.
    rows: photos or maps in it. bytes: size. sha256: hexadecimal digest of the content.
    """

    name: str
    number: int
    rows: int
    bytes: int
    sha256: str


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, make it durable, and rename it to `path`.

    Raises whatever `write` raises, and OSError; `path` is then as it was.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        write(temporary)
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_bytes_atomically(path: Path, content: bytes | bytearray) -> None:
    """`write_atomically` for bytes. Raises OSError."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text. Raises OSError."""
    write_bytes_atomically(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the platform lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(index_dir: Path, name: str, number: int, rows: int) -> StoredFile:
    """The manifest's entry for a file that was just written. Raises OSError."""
    path = index_dir / name
    return StoredFile(name, number, rows, path.stat().st_size, digest(path))


@contextlib.contextmanager
def writing(index_dir: Path) -> Iterator[None]:
    """Turn a failed write into an IndexWriteError that says what to do.

    FAISS reports a full disk as a RuntimeError, and safetensors by an error of its own.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise IndexWriteError(
            f"{index_dir}: cannot be written ({one_line(error)}); make room or set its permissions "
            "right and run the same command again: it goes on from the last commit"
        ) from error
