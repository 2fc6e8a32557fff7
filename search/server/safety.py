"""Who may ask the server: this machine's own page; beyond this machine, whoever has the link."""

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "waldo"
TOKEN_HEADER = "x-waldo-token"

_READING = frozenset({"GET", "HEAD"})
# Nothing but this server's own files: no inline script or style, no other machine, no frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    # Pages of other origins must not learn of photos by showing them.
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def new_secret() -> str:
    """A secret for a link or a page that nobody can guess."""
    return secrets.token_urlsafe(24)


class Gate:
    """Lets in requests that may be answered, and adds the headers of safety to every response.

    Where the server listens on this machine alone, the Host header must name this machine, so that
    no foreign name that leads here (DNS rebinding) is served. Where others can reach it, a secret
    is needed instead: once in the link, then in a cookie, or as a bearer token. Requests that may
    change anything need the page's own token, which pages of other origins cannot read.
    """

    def __init__(self, app: App, secret: str | None) -> None:
        """secret: what the link holds, where others can reach the server; None on loopback."""
        self.page_token = new_secret()
        self._app = app
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self._secret is not None and self._is_link(scope):
            headers = {"location": "/", "set-cookie": self._cookie()}
            await _respond(send_safely, 303, headers)
            return
        problem = self._problem(scope["method"], headers)
        if problem is None:
            scope["waldo.page_token"] = self.page_token
            await self._app(scope, receive, send_safely)
        else:
            status, text = problem
            await _respond(send_safely, status, {}, {"error": text})

    def _problem(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is refused: a status and a line; None where it is not."""
        if self._secret is None:
            if _host_name(headers.get("host", "")) not in LOOPBACK:
                return 421, "this server answers under the names localhost and 127.0.0.1 alone"
        elif not self._knows_secret(headers):
            return 401, "open the link that `waldo serve` printed; it holds the key to this page"
        if method in _READING:
            return None
        origin = headers.get("origin")
        if origin is not None and _host_in(origin) != headers.get("host", ""):
            return 403, "requests of other pages are not answered"
        if not _same(headers.get(TOKEN_HEADER, ""), self.page_token):
            return 403, "the page is of an earlier run of the server; load it again"
        return None

    def _is_link(self, scope: Scope) -> bool:
        """Whether a request is the link with the secret."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return scope["path"] == "/" and _same(given[0], self._secret or "")

    def _knows_secret(self, headers: dict[str, str]) -> bool:
        secret = self._secret or ""
        if _same(headers.get("authorization", ""), f"Bearer {secret}"):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, secret)

    def _cookie(self) -> str:
        return f"{COOKIE}={self._secret}; HttpOnly; SameSite=Strict; Path=/"


async def _respond(
    send: Send, status: int, headers: dict[str, str], content: dict[str, str] | None = None
) -> None:
    body = b"" if content is None else json.dumps(content).encode()
    every = {**headers, "content-type": "application/json", "content-length": str(len(body))}
    encoded = [(name.encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _host_in(origin: str) -> str | None:
    """The name and port in an Origin header."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _same(given: str, expected: str) -> bool:
    """Whether a secret was given, in a time that says nothing about it."""
    return hmac.compare_digest(given.encode(), expected.encode())
