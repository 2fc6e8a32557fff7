"""Objects with a name over HTTP: the list of them, their pictures, naming and forgetting them."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.named_objects import NamedObject, NamedView
from indexer.reader import IndexReader
from indexer.upkeep.naming import forget_object, name_object
from search.index import Index
from search.server.drawings import crop_jpeg, size_for
from search.server.endpoints import json_reply, read_json
from search.server.listing import shown
from search.server.objects import to_query
from search.server.request_bodies import RequestError, SearchRequest, read_named, whole_number
from search.server.uploads import Uploads
from search.server.worker import SearchWorker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_LARGEST = 640
# What stands for the file of an upload among the photos of a name.
_UPLOADED = Path("an uploaded photo")


class NamedEndpoints:
    """The functions behind the addresses of names."""

    def __init__(self, worker: SearchWorker, uploads: Uploads) -> None:
        self._worker = worker
        self._uploads = uploads

    async def listing(self, _: "Request") -> "Response":
        """GET /api/v1/names"""
        reader = await asyncio.to_thread(self._worker.reader)
        names = [{"name": name, "n_photos": count} for name, count in reader.names.items()]
        return json_reply({"names": names})

    async def picture(self, request: "Request") -> "Response":
        """GET /api/v1/names/{name}/picture"""
        from starlette.responses import Response

        size = size_for(whole_number(request.query_params, "size", 160, _LARGEST))
        name = request.path_params["name"]
        picture = await asyncio.to_thread(lambda: _cover(self._worker.reader(), name, size))
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    async def keep(self, request: "Request") -> "Response":
        """POST /api/v1/names"""
        name, asked = read_named(await read_json(request))
        return json_reply(await self._worker.run(lambda index: self._keep(index, name, asked)), 201)

    def _keep(self, index: Index, name: str, asked: SearchRequest) -> dict[str, Any]:
        with self._uploads.scratch() as scratch:
            query = to_query(asked, index, self._uploads, Path(scratch))
            named = index.object_named(name, query)
        named = replace(
            named,
            views=tuple(map(self._without_upload, named.views)),
            unlike=tuple(map(self._without_upload, named.unlike)),
        )
        kept = name_object(index.reader.index_dir, named, index.reader.fingerprint)
        return {"name": name, "n_photos": len(kept.views)}

    def _without_upload(self, view: NamedView) -> NamedView:
        """What is kept of a photo; an upload has no file that outlives the server."""
        return replace(view, photo=_UPLOADED) if self._uploads.holds(view.photo) else view

    async def forget(self, request: "Request") -> "Response":
        """DELETE /api/v1/names/{name}"""
        name = request.path_params["name"]
        await asyncio.to_thread(lambda: forget_object(self._worker.reader().index_dir, name))
        return json_reply({"name": name})


def _cover(reader: IndexReader, name: str, size: int) -> bytes:
    """The object in the first of its photos that is still what it was, as a JPEG.

    Raises RequestError (404) where none is, WaldoError for a name that is not known.
    """
    named: NamedObject = reader.named(name)
    for view in named.views:
        number = reader.find(view.maps.content_hash)
        if number is None:
            continue
        [record] = reader.photos([number])
        if record.path.exists() and not record.is_changed():
            return crop_jpeg(record.path, view.maps.frame.box_of(view.cells), size)
    raise RequestError(f"no photo of {shown(Path(name))} is in the index", 404)
