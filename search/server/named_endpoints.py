"""Objects with a name over HTTP: the list of them, their pictures and albums, naming and forgetting
them, and what people say of photos.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.collection import Collection
from indexer.named_objects import NamedObject, NamedView
from indexer.upkeep.naming import forget_object, name_object
from search.albums.album import read_album, read_albums
from search.albums.filling import fill_unless_busy
from search.albums.known_photos import exists
from search.albums.verdicts import Said, say_of_photos
from search.index import Index
from search.presentation.album_json import album_json
from search.server.drawings import crop_jpeg, size_for
from search.server.endpoints import json_reply, read_json
from search.server.listing import shown
from search.server.objects import to_query
from search.server.request_bodies import (
    RequestError,
    SearchRequest,
    read_named,
    read_verdicts,
    whole_number,
)
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
        return json_reply(await asyncio.to_thread(self._listing))

    def _listing(self) -> dict[str, Any]:
        reader = self._worker.reader()
        albums = read_albums(reader)
        return {
            "names": [
                {"name": name, "n_photos": count, "n_shown": len(albums[name].shown)}
                for name, count in reader.names.items()
            ]
        }

    async def album(self, request: "Request") -> "Response":
        """GET /api/v1/names/{name}/album"""
        name = request.path_params["name"]
        return json_reply(await asyncio.to_thread(lambda: _album(self._worker.reader(), name)))

    async def say(self, request: "Request") -> "Response":
        """POST /api/v1/names/{name}/verdicts"""
        name, asked = request.path_params["name"], read_verdicts(await read_json(request))
        said = [Said(number, shows, box) for shows, number, box in asked]
        return json_reply(await self._worker.run(lambda index: self._say(index, name, said)))

    def _say(self, index: Index, name: str, said: list[Said]) -> dict[str, Any]:
        directory = index.reader.index_dir
        say_of_photos(directory, name, said)
        fill_unless_busy(directory, str(index.extractor.device))
        return _album(self._worker.reader(), name)

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
        directory = index.reader.index_dir
        kept = name_object(directory, named, index.reader.fingerprint)
        fill_unless_busy(directory, str(index.extractor.device))
        shown = read_album(self._worker.reader(), name).shown
        return {"name": name, "n_photos": len(kept.views), "n_shown": len(shown)}

    def _without_upload(self, view: NamedView) -> NamedView:
        """What is kept of a photo; an upload has no file that outlives the server."""
        return replace(view, photo=_UPLOADED) if self._uploads.holds(view.photo) else view

    async def forget(self, request: "Request") -> "Response":
        """DELETE /api/v1/names/{name}"""
        name = request.path_params["name"]
        await asyncio.to_thread(lambda: forget_object(self._worker.reader().index_dir, name))
        return json_reply({"name": name})


def _album(reader: Collection, name: str) -> dict[str, Any]:
    """An album as JSON. Raises WaldoError for a name that is not known."""
    album = read_album(reader, name)
    records = reader.photos([photo.id for photo in album.photos])
    told = album_json(album, records)
    for row, record in zip(told["photos"], records, strict=True):
        row["path"] = shown(record.path)
        row["width"], row["height"] = record.width, record.height
    return told


def _cover(reader: Collection, name: str, size: int) -> bytes:
    """The object in the first of its photos that is still what it was, as a JPEG.

    Raises RequestError (404) where none is, WaldoError for a name that is not known.
    """
    named: NamedObject = reader.named(name)
    for view in named.views:
        number = reader.find(view.maps.content_hash)
        if number is None:
            continue
        [record] = reader.photos([number])
        if exists(record.path) and not record.is_changed():
            return crop_jpeg(record.path, view.maps.frame.box_of(view.cells), size)
    raise RequestError(f"no photo of {shown(Path(name))} is in the index", 404)
