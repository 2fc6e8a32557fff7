"""The collection, photo by photo: by folder and name, in pages; and what is known of a photo."""

import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.object_path import path_of
from indexer.collection import Collection, PhotoRecord
from indexer.store.filters import PhotoFilter
from search.server.request_bodies import RequestError


@dataclass(frozen=True)
class Page:
    """Some photos of the listing. following: the id of the next page's first photo, or None."""

    photos: list[PhotoRecord]
    following: int | None


class Listing:
    """All photos of a reader in the order of their folders and names."""

    def __init__(self, reader: Collection) -> None:
        self.reader = reader

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        paths = list(self.reader.paths())
        order = sorted(range(len(paths)), key=lambda at: paths[at].rpartition("/"))
        return self.reader.ids[order]

    @cached_property
    def folders(self) -> dict[str, int]:
        """The folders that hold photos, sorted, each with the number of photos beneath it."""
        counts = Counter(os.path.dirname(path) for path in self.reader.paths())  # noqa: PTH120
        beneath = dict(sorted(counts.items()))
        for folder, count in counts.items():
            for above in map(str, path_of(folder).parents):
                if above in beneath:
                    beneath[above] += count
        return beneath

    def page(self, wanted: PhotoFilter | None, start: int | None, count: int) -> Page:
        """Photos that pass a filter, from the photo with the id `start` on.

        Raises WaldoError for a bad filter, RequestError where that photo is not listed any more.
        """
        ids = self._sorted
        if wanted is not None:
            ids = ids[np.isin(ids, self.reader.matching(wanted))]
        found = np.zeros(1, np.intp) if start is None else np.flatnonzero(ids == start)
        if len(found) == 0:
            raise RequestError("the collection has changed; load it again", 409)
        some = ids[found[0] : found[0] + count + 1].tolist()
        following = some[count] if len(some) > count else None
        return Page(self.reader.photos(some[:count]), following)


def find_photo(reader: Collection, number: int) -> PhotoRecord:
    """A photo of the index. Raises RequestError (404) where there is none of this number."""
    try:
        [record] = reader.photos([number])
    except KeyError:
        raise RequestError(f"the index has no photo of the number {number}", 404) from None
    return record


def unchanged_photo(reader: Collection, number: int) -> PhotoRecord:
    """A photo of the index whose file is what was indexed.

    So nothing but what was indexed is shown, wherever a link leads to by now. Raises RequestError
    where the photo is unknown or gone (404) or has another content (409).
    """
    record = find_photo(reader, number)
    state = photo_state(record)
    if state == "gone":
        raise RequestError(f"{record.path.name} is gone since it was indexed", 404)
    if state == "changed":
        raise RequestError(
            f"{record.path.name} was changed since it was indexed; run `waldo index` again", 409
        )
    return record


def photo_state(record: PhotoRecord) -> str:
    """Whether a photo's file is "unchanged", "changed" or "gone"."""
    if not record.can_be_read():
        return "gone"
    return "changed" if record.is_changed() else "unchanged"


def photo_json(record: PhotoRecord) -> dict[str, Any]:
    """A photo for programs; names need not be valid Unicode, but JSON must be."""
    path = shown(record.path)
    return {
        "id": record.id,
        "path": path,
        "name": shown(Path(record.path.name)),
        "folder": shown(record.path.parent),
        "width": record.width,
        "height": record.height,
        "taken": None if record.taken_ns is None else _day(record.taken_ns),
    }


def shown(path: Path) -> str:
    """A path as text that can be sent: bytes that are no Unicode are replaced."""
    return str(path).encode("utf-8", "replace").decode()


def _day(taken_ns: int) -> str:
    return datetime.fromtimestamp(taken_ns // 10**9, UTC).strftime("%Y-%m-%d")
