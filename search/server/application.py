"""The server as a whole: its addresses, its errors in one line, and how it starts and ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import (
    NotAPictureError,
    PhotoError,
    RegionError,
    UnreadableError,
    WaldoError,
)
from indexer.errors import IndexBusyError, IndexMissingError, UnknownNameError
from search.server.endpoints import Endpoints, no_such_address
from search.server.named_endpoints import NamedEndpoints
from search.server.recurring.object_endpoints import ObjectEndpoints
from search.server.request_bodies import RequestError
from search.server.safety import Gate
from search.server.worker import SearchWorker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from uvicorn import Server

STATIC = Path(__file__).parent / "static"

# What the errors of the library mean over HTTP; RequestError says it itself.
_STATUS: tuple[tuple[type[WaldoError], int], ...] = (
    (RegionError, 422),
    (UnreadableError, 404),
    (UnknownNameError, 404),
    (IndexBusyError, 503),
    (IndexMissingError, 410),
    (PhotoError, 422),
    (NotAPictureError, 415),
    (WaldoError, 400),
)


def create_application(worker: SearchWorker, secret: str | None = None) -> Gate:
    """The ASGI application that answers for an index; it closes the worker when it ends.

    secret: what people must know where others can reach the server (`safety`); None on loopback.
    """
    from jinja2 import Environment, FileSystemLoader
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    endpoints = Endpoints(worker)
    names = NamedEndpoints(worker, endpoints.uploads)
    objects = ObjectEndpoints(worker)
    page = Environment(loader=FileSystemLoader(STATIC), autoescape=True).get_template("page.html")

    async def home(request: "Request") -> "Response":
        text = page.render(token=request.scope["waldo.page_token"])
        return HTMLResponse(text, headers={"cache-control": "no-store"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        endpoints.close()

    routes = [
        Route("/", home),
        Mount("/static", StaticFiles(directory=STATIC)),
        *_api_routes(endpoints, names, objects),
    ]
    handlers = {
        WaldoError: _told(endpoints),
        ClientDisconnect: _gone,
        404: _nothing_there,
        405: _nothing_there,
        Exception: _failed,
    }
    application = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return Gate(application, secret)


def _api_routes(
    endpoints: Endpoints, names: NamedEndpoints, objects: ObjectEndpoints
) -> "list[Route]":
    from starlette.routing import Route

    version = "/api/v1"
    match = f"{version}/searches/{{key}}/matches/{{rank}}"
    return [
        Route(f"{version}/collection", endpoints.collection),
        Route(f"{version}/photos", endpoints.photos),
        Route(f"{version}/photos/{{id}}", endpoints.photo),
        Route(f"{version}/photos/{{id}}/picture", endpoints.photo_picture),
        Route(f"{version}/photos/{{id}}/features", endpoints.photo_features),
        Route(f"{version}/uploads", endpoints.upload, methods=["POST"]),
        Route(f"{version}/uploads/{{key}}/picture", endpoints.upload_picture),
        Route(f"{version}/uploads/{{key}}/features", endpoints.upload_features),
        Route(f"{version}/words", endpoints.words),
        Route(f"{version}/names", names.listing),
        Route(f"{version}/names", names.keep, methods=["POST"]),
        Route(f"{version}/names/{{name}}", names.forget, methods=["DELETE"]),
        Route(f"{version}/names/{{name}}/picture", names.picture),
        Route(f"{version}/names/{{name}}/album", names.album),
        Route(f"{version}/names/{{name}}/verdicts", names.say, methods=["POST"]),
        Route(f"{version}/objects", objects.listing),
        Route(f"{version}/objects/{{number}}/picture", objects.picture),
        Route(f"{version}/objects/{{number}}/name", objects.keep, methods=["POST"]),
        Route(f"{version}/preview", endpoints.preview, methods=["POST"]),
        Route(f"{version}/searches", endpoints.search, methods=["POST"]),
        Route(f"{match}/heatmap", endpoints.heatmap),
        Route(f"{match}/mask", endpoints.mask),
        Route(f"{match}/pairs", endpoints.pairs),
    ]


def create_server(application: Gate) -> "Server":
    """The server of an application; its `run(sockets=[...])` answers until it is told to stop."""
    import uvicorn

    settings = uvicorn.Config(
        application, log_level="error", server_header=False, timeout_graceful_shutdown=5
    )
    return uvicorn.Server(settings)


def _told(endpoints: Endpoints) -> "Callable[[Request, Exception], Awaitable[Response]]":
    """The handler of our own errors: the line that says what is wrong, and its status."""

    async def told(_: "Request", error: Exception) -> "Response":
        from starlette.responses import JSONResponse

        status = next(number for kind, number in _STATUS if isinstance(error, kind))
        if isinstance(error, RequestError):
            status = error.status
        headers = {"retry-after": "1"} if status == 503 else None
        line = endpoints.uploads.without_files(" ".join(str(error).split()))
        line = line.encode("utf-8", "replace").decode()  # it may name a file
        return JSONResponse({"error": line}, status, headers=headers)

    return told


async def _nothing_there(request: "Request", _: Exception) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse({"error": str(no_such_address(request))}, 404)


async def _failed(_: "Request", __: Exception) -> "Response":
    from starlette.responses import JSONResponse

    # Starlette raises the error again after this reply, and uvicorn writes its trace to stderr.
    line = "the server failed; what it printed says how"
    return JSONResponse({"error": line}, 500)


async def _gone(_: "Request", __: Exception) -> "Response":
    from starlette.responses import Response

    return Response(status_code=499)  # nobody reads it: the sender went away half way
