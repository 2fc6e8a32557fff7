"""Which row of the photo table each photo gets: its old one, a new one, or none."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.photo import is_raw_name
from indexer.bucket.object_path import path_of
from indexer.bucket.object_store import url_in
from indexer.codec.encoded_maps import EncodedMaps
from indexer.ingest.commit import PhotoContent
from indexer.ingest.decode import Decoded, Failed, Item, PassedOver, Reused
from indexer.ingest.describing import Describer
from indexer.ingest.failure_log import FailureLog
from indexer.ingest.known import KnownPhotos
from indexer.ingest.sources import Coverage, Found, Unreadable
from indexer.ingest.writer import IndexWriter
from indexer.store.mapstore import Place

# The counts of files that are passed over, by their kind (see `NotAPictureError`).
COUNTED_KINDS = {"video": "videos", "raw file": "raw_files"}

_EMPTIED = (
    "is empty, but {} of its photos are in the index; they stay, in case a drive is not mounted "
    "there: delete the folder, or run `waldo remove`, if they are gone for good"
)


class PhotoRecorder:
    """Records the files of a run in the index, one after the other in order of listing.

    One thread may call `record`, and another one `record_if_unchanged`. counts: photos by the
    fields of `IndexReport`, without those that `record_if_unchanged` has recorded; n_unopened: how
    many these are.
    """

    def __init__(
        self,
        writer: IndexWriter,
        known: KnownPhotos,
        describer: Describer,
        coverage: Coverage,
        failures: FailureLog,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._writer = writer
        self._known = known
        self._describer = describer
        self._coverage = coverage
        self._failures = failures
        # Rows of the table whose photo was found at its path, or has moved from it.
        self._found = np.zeros(len(known.table), dtype=bool)
        # Where this run has stored maps, by content hash: a copy found later shares them.
        self._stored_now: dict[str, Place] = {}
        self.n_unopened = 0
        # Unchanged photos that were given descriptors.
        self._only_described = 0

    @property
    def n_new(self) -> int:
        """Photos that were extracted, described or given a row."""
        counts = self.counts
        return counts["new"] + counts["changed"] + counts["moved"] + self._only_described

    @property
    def n_skipped(self) -> int:
        """Unchanged photos that were opened, and files that are no pictures."""
        return self.counts["unchanged"] + self.counts["passed_over"] - self._only_described

    def is_stored_now(self, content_hash: str) -> bool:
        """Whether this run has already stored maps of a content."""
        return content_hash in self._stored_now

    def record_if_unchanged(self, found: Found) -> bool:
        """Record a photo that has the size and time in the table, without opening it.

        Returns False, and does nothing, if there is something to be done with the photo.
        """
        row = self._known.by_path(found.path)
        if row is None or not self._known.has_maps[row] or not self._describer.is_complete(row):
            return False
        if not self._known.is_recorded(row, found) or is_raw_name(found.path):
            return False
        self._found[row] = True
        self._failures.forget(found.path)
        self.n_unopened += 1
        return True

    def record(self, item: Item, new_maps: Mapping[str, EncodedMaps]) -> None:
        """Record a file, after all that were listed before it.

        new_maps: of the photos that were extracted for it and its neighbours, by content hash.
        """
        if isinstance(item, Unreadable):
            self._failures.add(item.path, item.reason, item.source)
            if item.may_exist:
                self._coverage.exclude(item.path)
            return
        row = self._known.by_path(item.found.path)
        if row is not None:
            self._found[row] = True
        if isinstance(item, Failed):
            self._failures.add(item.found.path, item.reason, item.found.source)
            if item.broken:
                self._delete(row)
            return
        self._failures.forget(item.found.path)
        if isinstance(item, PassedOver):
            self.counts["passed_over"] += 1
            if item.kind is not None:
                self.counts[COUNTED_KINDS[item.kind]] += 1
            self.counts["removed"] += row is not None
            self._delete(row)
        elif isinstance(item, Reused):
            self._record_reused(item, row)
        else:
            self._record_decoded(item, row, new_maps)

    def missing_ids(self, first_unlisted: int | None) -> list[int]:
        """Ids of the photos that this run, now that it is over, should have found and did not.

        Photos whose folder could not be looked at, or is empty now, stay: a drive may be away.
        first_unlisted: as for `index_photos`.
        """
        table, known = self._known.table, self._known
        gone: list[int] = []
        emptied: Counter[str] = Counter()
        nearest: dict[str, str | None] = {}
        missing = table.live & ~self._found
        if first_unlisted is not None:
            missing &= table.ids < first_unlisted
        for row in np.flatnonzero(missing).tolist():
            path, list_path, root = known.path(row), known.list_path(row), known.root(row)
            if self._coverage.excludes(path):
                self.counts["kept"] += 1
            elif self._coverage.includes(path, list_path, root):
                parent = os.path.dirname(path)  # noqa: PTH120 (Path is slower)
                if parent not in nearest:
                    nearest[parent] = _emptied(parent)
                folder = nearest[parent]
                if folder is None:
                    gone.append(table.number("id", row))
                else:
                    emptied[folder] += 1
        for folder, count in emptied.items():
            self.counts["kept"] += count
            self._failures.add(folder, _EMPTIED.format(count))
        return gone

    def _delete(self, row: int | None) -> None:
        if row is not None:
            self._writer.delete(self._known.table.number("id", row))

    def _record_reused(self, item: Reused, row: int | None) -> None:
        if self._is_up_to_date(item, row):
            self.counts["unchanged"] += 1
            self._only_described += bool(item.views)
            self._store_descriptors(item)
            return
        self._store_descriptors(item)
        pooled, words = self._writer.pooled_and_words(item.photo_id)
        content = PhotoContent(pooled, words, item.frame, item.content_hash, item.taken_ns)
        self._store(item.found, row, content, item.place)

    def _record_decoded(
        self, item: Decoded, row: int | None, new_maps: Mapping[str, EncodedMaps]
    ) -> None:
        photo, content_hash = item.input, item.content_hash
        maps: Place | NDArray[np.uint8]
        if content_hash in self._stored_now:
            maps = self._stored_now[content_hash]
            pooled, words = self._writer.pooled_and_words(maps.maps_id)
        elif content_hash in new_maps:
            new = new_maps[content_hash]
            maps, pooled, words = new.encoded, new.pooled, new.words
        else:
            reason = "the model gave no finite features for it"
            self._failures.add(item.found.path, reason, item.found.source)
            return
        self._store_descriptors(item)
        content = PhotoContent(pooled, words, photo.frame, content_hash, photo.taken_ns)
        self._store(item.found, row, content, maps)

    def _is_up_to_date(self, item: Reused, row: int | None) -> bool:
        """Whether the row of a photo already says what would be written."""
        if row is None or not self._known.is_recorded(row, item.found):
            return False
        table = self._known.table
        content = bytes.fromhex(item.content_hash)
        return table.content_hash(row) == content and table.place(row) == item.place

    def _store_descriptors(self, item: Decoded | Reused) -> None:
        """Hand a photo's new descriptors to the writer, in the commit of its row."""
        for name in self._describer.store(item.content_hash):
            reason = f"{name} gave no finite numbers for it"
            self._failures.add(item.found.path, reason, item.found.source)

    def _store(
        self, found: Found, row: int | None, content: PhotoContent, maps: Place | NDArray[np.uint8]
    ) -> None:
        """Give a photo its row.

        row: of the photo that the index knows at this path. maps: where the maps lie, or encoded
        maps that are to be written.
        """
        table, content_hash = self._known.table, bytes.fromhex(content.content_hash)
        own_id = replaced_id = None
        if row is not None and table.content_hash(row) == content_hash:
            self.counts["unchanged" if isinstance(maps, Place) else "changed"] += 1
            own_id = table.number("id", row)
        elif row is not None:
            self.counts["changed"] += 1
            replaced_id = table.number("id", row)
        else:
            origin = self._moved_from(content_hash, found)
            self.counts["new" if origin is None else "moved"] += 1
            own_id = None if origin is None else table.number("id", origin)
        if isinstance(maps, Place):
            self._writer.add_shared(found, content, maps, photo_id=own_id, replaces=replaced_id)
        else:
            place = self._writer.add(found, maps, content, photo_id=own_id, replaces=replaced_id)
            self._stored_now[content.content_hash] = place

    def _moved_from(self, content_hash: bytes, found: Found) -> int | None:
        """The row of a photo with this content that is no longer at its path, or is the file that
        was found, by another name.

        The path may lie outside the sources of this run, because a SOURCE itself may have been
        renamed.
        """
        for row in self._known.by_content(content_hash):
            is_missing = self._known.table.live[row] and not self._found[row]
            if is_missing and (_is_gone(self._known.path(row)) or self._is_renamed(row, found)):
                self._found[row] = True
                return row
        return None

    def _is_renamed(self, row: int, found: Found) -> bool:
        """Whether a row has a found file by a name through a link to its folder.

        Walking finds it by one name alone; a list may give both.
        """
        path, other = Path(self._known.path(row)), Path(found.path)
        return (
            (found.source.kind, self._known.list_path(row)) == ("folder", None)
            and path.name == other.name
            and path.parent.resolve() == other.parent.resolve()
        )


def _emptied(folder: str) -> str | None:
    """The nearest folder that exists, at or above a path, if there is nothing in it."""
    if url_in(folder):
        return None  # no drive: there are no folders but for the objects in them
    while True:
        try:
            with os.scandir(folder) as listing:
                return None if any(listing) else folder
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(folder)  # noqa: PTH120
        except OSError:
            return folder


def _is_gone(path: str) -> bool:
    """Whether nothing is at a path; False for something that cannot be looked at."""
    try:
        path_of(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
