"""Which photo of an index people mean by a text."""

import os
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from features.errors import WaldoError
from indexer.bucket.object_path import path_of
from indexer.reader import IndexReader
from search.query import digits


def exists(path: str | Path) -> bool:
    """Whether there is a file; False where nobody may know, and for what is too long for a path."""
    try:
        return path_of(path).exists()
    except OSError:
        return False


class KnownPhotos:
    """The photos of an index by their paths and ids. A photo need not exist any more."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._ids = dict(zip(reader.paths(), reader.ids.tolist(), strict=True))

    def with_path(self, text: str) -> int | None:
        """The id of the photo with a path, which may be relative; None where there is none.

        Systems spell accents in two ways (Unicode's NFC and NFD), which people cannot tell apart;
        of photos that differ in nothing else, the one that is spelled as the text comes first.
        """
        if not text:
            return None
        path = path_of(text)
        wanted = (str(path.absolute()), os.path.realpath(path))
        exact = (self._ids.get(each) for each in wanted)
        alike = (self._by_letters.get(normalize("NFC", each)) for each in wanted)
        return next((found for found in (*exact, *alike) if found is not None), None)

    def find(self, text: str) -> int:
        """The id of the photo that a path means, or the number of its id. Raises WaldoError."""
        found = self.with_path(text)
        if found is None and not exists(text):
            number = digits(text)
            found = number if number in self._numbers else None
        if found is None:
            raise WaldoError(
                f"{text or repr(text)}: no photo of {self._reader.place}, neither its path "
                "nor its id"
            )
        return found

    @cached_property
    def _by_letters(self) -> dict[str, int]:
        return {normalize("NFC", path): number for path, number in self._ids.items()}

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(self._ids.values())
