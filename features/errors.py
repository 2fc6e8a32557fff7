"""Errors meant for people: each message says what is wrong, where, and how to mend it."""

from typing import Literal


class WaldoError(Exception):
    """Bad input or an unusable index or model; the command line prints it on one line, exit 2."""


class PhotoError(WaldoError):
    """A file that claims to be a picture cannot be decoded, or has too many pixels."""


class UnreadableError(PhotoError):
    """A photo's file cannot be read: it is missing, it is a folder, or its disk fails."""


class NotAPictureError(WaldoError):
    """Neither the content nor the name of a file is that of a picture format that Waldo reads.

    kind: of a file that photographers keep beside their pictures, and None of any other.
    """

    def __init__(self, message: str, kind: Literal["video", "raw file"] | None = None) -> None:
        super().__init__(message)
        self.kind = kind


class ModelError(WaldoError):
    """A model is missing or incomplete, or of a kind that Waldo cannot use."""


class RegionError(WaldoError):
    """A mask, box, point or class name does not select anything in the reference photo."""


def is_full_memory(error: BaseException) -> bool:
    """Whether torch raised an error because a device's memory is full; it is not imported for this
    question.
    """
    return type(error).__name__ == "OutOfMemoryError"


class LittleMemoryWarning(UserWarning):
    """A device's memory is too small for the work at hand, which goes on in smaller parts."""
