"""Errors meant for people: each message says what is wrong, where, and the mend."""


class WaldoError(Exception):
    """Bad input or an unusable index or model; the command line prints it on one line, exit 2."""


class PhotoError(WaldoError):
    """A file that claims to be a picture cannot be decoded, or may not be (too many pixels)."""


class NotAPictureError(WaldoError):
    """A file's content is no picture format that Waldo reads, and its name claims none."""


class ModelError(WaldoError):
    """A model is missing, incomplete, or of a kind Waldo cannot take features from."""


class RegionError(WaldoError):
    """A mask, box, point or class name does not select anything in the reference photo."""
