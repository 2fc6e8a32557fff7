"""Objects that recur over HTTP: the list of them, their pictures, and giving one a name."""

import asyncio
from typing import TYPE_CHECKING, Any

from indexer.reader import IndexReader
from indexer.upkeep.naming import check_name, name_object
from search.albums.album import read_album
from search.albums.filling import fill_unless_busy
from search.index import Index
from search.recurring.recurrence import as_named
from search.server.drawings import crop_jpeg, size_for
from search.server.endpoints import json_reply, number_in, read_json
from search.server.listing import photo_state
from search.server.recurring.known_objects import KnownObjects
from search.server.request_bodies import MOST_LISTED, RequestError, read_object_name, whole_number
from search.server.worker import SearchWorker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_LARGEST = 640
_LARGEST_NUMBER = 10**9


class ObjectEndpoints:
    """The functions behind the addresses of recurring objects."""

    def __init__(self, worker: SearchWorker) -> None:
        self._worker = worker
        self._known: KnownObjects | None = None

    async def listing(self, request: "Request") -> "Response":
        """GET /api/v1/objects"""
        start = whole_number(request.query_params, "after", 1, _LARGEST_NUMBER)
        count = whole_number(request.query_params, "limit", 60, MOST_LISTED)
        return json_reply(await asyncio.to_thread(lambda: self._current().page(start, count)))

    async def picture(self, request: "Request") -> "Response":
        """GET /api/v1/objects/{number}/picture"""
        from starlette.responses import Response

        number = number_in(request, "number")
        size = size_for(whole_number(request.query_params, "size", 320, _LARGEST))
        picture = await asyncio.to_thread(self._picture, number, size)
        # Another object has this number once photos come.
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    def _picture(self, number: int, size: int) -> bytes:
        for photo in self._current().get(number).photos:
            if photo_state(photo.record) == "unchanged":
                return crop_jpeg(photo.record.path, photo.box, size)
        raise RequestError(f"no photo of object {number} is what was indexed", 404)

    async def keep(self, request: "Request") -> "Response":
        """POST /api/v1/objects/{number}/name"""
        number = number_in(request, "number")
        name, cover = read_object_name(await read_json(request))
        told = await self._worker.run(lambda index: self._keep(index, number, name, cover))
        return json_reply(told, 201)

    def _keep(self, index: Index, number: int, name: str, cover: int) -> dict[str, Any]:
        check_name(name)
        found = self._current().get(number)
        if found.cover.record.id != cover:
            raise RequestError("the recurring objects have changed; load them again", 409)
        reader = self._current().reader
        kept = name_object(reader.index_dir, as_named(reader, found, name), reader.fingerprint)
        fill_unless_busy(reader.index_dir, str(index.extractor.device))
        shown = read_album(self._current().reader, name).shown
        return {"name": name, "n_photos": len(kept.views), "n_shown": len(shown)}

    def _current(self) -> KnownObjects:
        """The objects as of the last commit. Raises RequestError (404) for a fleet."""
        reader = self._worker.reader()
        if not isinstance(reader, IndexReader):
            raise RequestError("a fleet of indexes keeps no recurring objects yet", 404)
        known = self._known
        if known is None or reader is not known.reader:
            self._known = known = KnownObjects(reader)
        return known
