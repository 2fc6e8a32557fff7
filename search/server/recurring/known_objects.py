"""The recurring objects of an index as of its last commit, and as JSON."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from indexer.reader import IndexReader
from search.albums.contents import Contents
from search.recurring.linking import stored_links
from search.recurring.recurrence import RecurringObject, recurring_objects
from search.server.listing import shown
from search.server.request_bodies import RequestError


@dataclass(frozen=True)
class KnownObjects:
    """The recurring objects of a reader, found when they are first asked for."""

    reader: IndexReader

    @cached_property
    def found(self) -> list[RecurringObject]:
        """The most frequent first. Raises IndexDamagedError."""
        return recurring_objects(self.reader)

    @cached_property
    def waiting(self) -> int:
        """How many photos, copies apart, were not compared with the others yet.

        Raises IndexDamagedError.
        """
        return len(Contents.of(self.reader)) - int(stored_links(self.reader).compared.sum())

    def get(self, number: int) -> RecurringObject:
        """An object by its number. Raises RequestError (404) where there is none."""
        if not 1 <= number <= len(self.found):
            raise RequestError(f"there is no recurring object {number}", 404)
        return self.found[number - 1]

    def page(self, start: int, count: int) -> dict[str, Any]:
        """The objects from a number on, as JSON."""
        some = self.found[start - 1 : start - 1 + count]
        after = start + count
        return {
            "objects": [_object_json(one) for one in some],
            "next": after if after <= len(self.found) else None,
            "n_objects": len(self.found),
            "waiting": self.waiting,
            "command": shlex.join(
                ["waldo", "objects", "--index", shown(self.reader.index_dir.absolute())]
            ),
        }


def _object_json(found: RecurringObject) -> dict[str, Any]:
    return {
        "number": found.number,
        "cover": f"/api/v1/objects/{found.number}/picture",
        "photos": [
            {
                "id": photo.record.id,
                "path": shown(photo.record.path),
                "box": photo.box,
                "width": photo.record.width,
                "height": photo.record.height,
            }
            for photo in found.photos
        ],
    }
