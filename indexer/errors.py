"""What can be wrong with an index or its sources; every message says what to do about it."""

from features.errors import WaldoError

# How to repair a damaged file of an index.
REPAIR_HINT = "delete that file and run `waldo index` again over the same photos"
# What helps where a file is missing.
INDEX_AGAIN = "run `waldo index` again over the same photos"
# What helps where a file that has what people said is lost: nothing can make it again.
NAME_AGAIN = "forget this name (`waldo forget`), and name the object again"
FROM_A_COPY = (
    "put back a copy of this file; or delete it and run `waldo index` again, which forgets what "
    "was merged and split"
)


class SourceError(WaldoError):
    """A SOURCE is missing, cannot be read, or holds no picture."""


class IndexMissingError(WaldoError):
    """There is no index in this folder, or no photo in it."""


class IndexFormatError(WaldoError):
    """The index was written in a format that this version cannot read."""


class IndexDamagedError(WaldoError):
    """A file of the index is missing, or is not what was written."""


class IndexWriteError(WaldoError):
    """The disk refused a write."""


class IndexBusyError(WaldoError):
    """Another run is writing to the index."""


class UnknownNameError(WaldoError):
    """The index knows no object of this name."""


class FingerprintError(WaldoError):
    """The index was made by another model, or with other settings, than those in use."""


def one_line(error: Exception) -> str:
    """The message of an exception, without its line breaks."""
    return " ".join(str(error).split())
