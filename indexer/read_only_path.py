"""Paths of photos that are no files of the system, and open as those of files do."""

import errno
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # that of this system


class ReadOnlyPath(_Path, ABC):
    """What is at the path can be read as bytes, and not written. A subclass says how: `read_from`,
    `exists` and `stat`.
    """

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """As `exists`."""
        return self.exists()

    def open(  # type: ignore[override]
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As `read_from`. Raises OSError for every mode but "rb"."""
        if mode != "rb":
            raise OSError(errno.EROFS, "is only read, as bytes", str(self))
        return self.read_from()

    @abstractmethod
    def read_from(self) -> IO[bytes]:
        """The content as a file of bytes. Raises OSError."""
