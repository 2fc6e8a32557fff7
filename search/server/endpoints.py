"""What each address of the API answers; docs/server.md describes them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.diffusion.vocabulary import nouns
from features.errors import WaldoError
from indexer.bucket.object_path import path_of
from indexer.collection import PhotoRecord
from indexer.store.filters import PhotoFilter, time_span
from search.answer import Answer
from search.index import Index
from search.presentation.class_notes import class_note, presence_note
from search.presentation.feature_pictures import class_map, principal_components
from search.query import SearchOptions
from search.segmentation.match_masks import segment_matches
from search.segmentation.overlay import heat_layer, thumbnail
from search.server.answers import KeptAnswers
from search.server.drawings import LAYER_SIDE, Photos, mask_layer, png, size_for
from search.server.listing import (
    Listing,
    find_photo,
    photo_json,
    photo_state,
    shown,
    unchanged_photo,
)
from search.server.objects import to_query, to_view
from search.server.replies import pairs_json, query_command, reference_json, search_json
from search.server.request_bodies import (
    MOST_LISTED,
    ObjectRequest,
    RequestError,
    SearchRequest,
    digits,
    read_object,
    read_search,
    text_of,
    whole_number,
)
from search.server.uploads import Uploads
from search.server.worker import SearchWorker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_MOST_JSON = 1 << 20
_MOST_WORDS = 20
_LONGEST_SIDE = 100_000
_LARGEST_ID = 10**15


class Endpoints:
    """The functions behind the API's addresses, and what they share."""

    def __init__(self, worker: SearchWorker) -> None:
        self.worker = worker
        self.uploads = Uploads()
        self._answers = KeptAnswers()
        self._photos = Photos()
        self._listing = Listing(worker.reader())

    def close(self) -> None:
        self.worker.close()
        self.uploads.close()

    async def collection(self, request: "Request") -> "Response":
        """GET /api/v1/collection"""
        return json_reply(
            await asyncio.to_thread(self._collection, request.scope["waldo.page_token"])
        )

    def _collection(self, page_token: str) -> dict[str, Any]:
        listing = self._current_listing()
        reader = listing.reader
        return {
            "index": shown(reader.index_dir.absolute()),
            "model": reader.fingerprint["model"],
            "n_photos": reader.n_photos,
            "folders": [
                {"path": shown(path_of(path)), "name": shown(Path(Path(path).name)), "n_photos": n}
                for path, n in listing.folders.items()
            ],
            "token": page_token,
        }

    async def photos(self, request: "Request") -> "Response":
        """GET /api/v1/photos"""
        asked = request.query_params
        wanted = _filter(*(text_of(asked.get(name), name) for name in ("folder", "since", "until")))
        count = whole_number(asked, "limit", 60, MOST_LISTED)
        start = (
            whole_number(asked, "after", 0, _LARGEST_ID, least=0) if asked.get("after") else None
        )
        return json_reply(await asyncio.to_thread(self._page, wanted, start, count))

    def _page(self, wanted: PhotoFilter | None, start: int | None, count: int) -> dict[str, Any]:
        page = self._current_listing().page(wanted, start, count)
        return {"photos": [photo_json(photo) for photo in page.photos], "next": page.following}

    def _current_listing(self) -> Listing:
        reader = self.worker.reader()
        if reader is not self._listing.reader:
            self._listing = Listing(reader)
        return self._listing

    async def photo(self, request: "Request") -> "Response":
        """GET /api/v1/photos/{id}"""
        return json_reply(await asyncio.to_thread(self._photo, number_in(request, "id")))

    def _photo(self, number: int) -> dict[str, Any]:
        reader = self.worker.reader()
        record = find_photo(reader, number)
        copies = reader.photos(reader.copies_of(number))
        return {
            **photo_json(record),
            "state": photo_state(record),
            "copies": [{"id": copy.id, "path": shown(copy.path)} for copy in copies],
        }

    async def photo_picture(self, request: "Request") -> "Response":
        """GET /api/v1/photos/{id}/picture"""
        number = number_in(request, "id")

        def find() -> PhotoRecord:
            return unchanged_photo(self.worker.reader(), number)

        record = await asyncio.to_thread(find)
        return await self._picture(request, record.path, record.content_hash)

    async def upload_picture(self, request: "Request") -> "Response":
        """GET /api/v1/uploads/{key}/picture"""
        upload = self.uploads.get(request.path_params["key"])
        return await self._picture(request, upload.path, upload.content_hash)

    async def _picture(self, request: "Request", path: Path, content_hash: str) -> "Response":
        from starlette.responses import Response

        size = size_for(whole_number(request.query_params, "size", 640, _LONGEST_SIDE))
        headers = {"etag": f'"{content_hash[:32]}-{size}"', "cache-control": "private, no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        picture = await asyncio.to_thread(self._photos.jpeg, path, content_hash, size)
        return Response(picture, media_type="image/jpeg", headers=headers)

    async def photo_features(self, request: "Request") -> "Response":
        """GET /api/v1/photos/{id}/features"""
        number = number_in(request, "id")
        return await self._features(
            request, lambda index: unchanged_photo(index.reader, number).path
        )

    async def upload_features(self, request: "Request") -> "Response":
        """GET /api/v1/uploads/{key}/features"""
        upload = self.uploads.get(request.path_params["key"])
        return await self._features(request, lambda _: upload.path)

    async def _features(self, request: "Request", find: Callable[[Index], Path]) -> "Response":
        name = text_of(request.query_params.get("class"), "class")

        def draw(index: Index) -> bytes:
            path = find(index)
            maps = index.maps_of(path)
            if name is None:
                return png(principal_components([maps], LAYER_SIDE)[0])
            index.extractor.check_class_name(name)
            vector = index.extractor.class_vector(name)
            if vector is None:
                raise RequestError("the model of this index knows no words", 404)
            return png(class_map(maps, vector, thumbnail(path, LAYER_SIDE)))

        return _layer(await self.worker.run(draw), "no-cache")

    async def upload(self, request: "Request") -> "Response":
        """POST /api/v1/uploads"""
        upload = await self.uploads.receive(request.stream())
        known = await asyncio.to_thread(lambda: self.worker.reader().find(upload.content_hash))
        told = {"width": upload.width, "height": upload.height, "id": known}
        return json_reply({"upload": upload.key, **told}, 201)

    async def words(self, request: "Request") -> "Response":
        """GET /api/v1/words"""
        prefix = request.query_params.get("prefix", "").strip().lower()
        found = [word for word in nouns() if word.startswith(prefix)]
        return json_reply(
            {"words": sorted(found, key=lambda word: (len(word), word))[:_MOST_WORDS]}
        )

    async def preview(self, request: "Request") -> "Response":
        """POST /api/v1/preview"""
        asked = read_object(await read_json(request))
        return json_reply(await self.worker.run(lambda index: self._preview(index, asked)))

    def _preview(self, index: Index, asked: ObjectRequest) -> dict[str, Any]:
        with self.uploads.scratch() as scratch:
            query = to_view(asked, index, self.uploads, Path(scratch))
            reference = index.preview(query)
        note = presence_note(index.extractor, query, reference)
        return {
            **reference_json(reference),
            "warning": None if note is None else self.uploads.without_files(note),
            "command": query_command(SearchRequest(asked), index.reader),
        }

    async def search(self, request: "Request") -> "Response":
        """POST /api/v1/searches"""
        asked = read_search(await read_json(request))
        return json_reply(await self.worker.run(lambda index: self._search(index, asked)))

    def _search(self, index: Index, asked: SearchRequest) -> dict[str, Any]:
        wanted = _filter(asked.folder, asked.since, asked.until)
        with self.uploads.scratch() as scratch:
            query = to_query(asked, index, self.uploads, Path(scratch))
            answer = index.search(query, SearchOptions(top=asked.top, filter=wanted))
        note = class_note(index, answer)
        notes = [] if note is None else [self.uploads.without_files(note)]
        key = self._answers.keep(answer)
        return search_json(key, asked, answer, index.reader, self.uploads, notes)

    async def heatmap(self, request: "Request") -> "Response":
        """GET /api/v1/searches/{key}/matches/{rank}/heatmap"""
        answer, rank = self._match(request)
        match = answer.matches[rank - 1]
        return _layer(
            await asyncio.to_thread(lambda: png(heat_layer(match.heatmap, match.frame, LAYER_SIDE)))
        )

    async def mask(self, request: "Request") -> "Response":
        """GET /api/v1/searches/{key}/matches/{rank}/mask"""
        answer, rank = self._match(request)
        match = answer.matches[rank - 1]

        def draw(index: Index) -> bytes:
            device = index.extractor.device
            [(_, found)] = segment_matches(index.reader, answer.references, device, [match])
            if isinstance(found, WaldoError):
                raise found
            return png(mask_layer(found.mask))

        return _layer(await self.worker.run(draw))

    async def pairs(self, request: "Request") -> "Response":
        """GET /api/v1/searches/{key}/matches/{rank}/pairs"""
        return json_reply(pairs_json(*self._match(request)))

    def _match(self, request: "Request") -> tuple[Answer, int]:
        rank = number_in(request, "rank")
        return self._answers.get(request.path_params["key"], rank), rank


def _filter(folder: str | None, since: str | None, until: str | None) -> PhotoFilter | None:
    """The photos beneath a folder, between two dates; None for all. Raises WaldoError."""
    wanted = PhotoFilter(
        () if folder is None else (folder,),
        None if since is None else time_span("since", since)[0],
        None if until is None else time_span("until", until)[1],
    )
    return None if wanted == PhotoFilter() else wanted


def number_in(request: "Request", name: str) -> int:
    """A number that is a part of an address. Raises RequestError (404) where it is none."""
    number = digits(request.path_params[name])
    if number is None:
        raise no_such_address(request)
    return number


def no_such_address(request: "Request") -> RequestError:
    """The error of an address that is not one of the API's."""
    return RequestError(f"{request.method} {request.scope['path'][:200]}: no such address", 404)


async def read_json(request: "Request") -> Any:
    """The JSON that a request holds. Raises RequestError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_JSON:
            raise RequestError("the request has more than 1 MiB", 413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("the request must be JSON") from None


def json_reply(content: dict[str, Any], status: int = 200) -> "Response":
    """A response that holds JSON."""
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers={"cache-control": "no-store"})


def _layer(picture: bytes, caching: str = "max-age=3600") -> "Response":
    """A picture to lay over a photo. That of a search never changes under its address."""
    from starlette.responses import Response

    headers = {"cache-control": f"private, {caching}"}
    return Response(picture, media_type="image/png", headers=headers)
