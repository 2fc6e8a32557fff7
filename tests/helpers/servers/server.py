"""A running server of `waldo serve` within the tests' process, and a client for it."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.server.application import create_application, create_server
from search.server.worker import SearchWorker


@dataclass(frozen=True)
class Reply:
    """A response. headers: by lower-case names."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        """The line of an error, which is one."""
        line = self.json["error"]
        assert isinstance(line, str)
        assert line
        assert "\n" not in line
        return line


@dataclass(frozen=True)
class Client:
    """Asks a server at a port of this machine, each time by a connection of its own."""

    port: int
    token: str = ""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, content: Any, **headers: str) -> Reply:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, **{"X_Waldo_Token": self.token, **headers})


@contextmanager
def running_server(index: Path, secret: str | None = None) -> Iterator[Client]:
    """A server of an index on the CPU, at a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)
        application = create_application(SearchWorker(index, "cpu"), secret)
        server = create_server(application)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Client(listening.getsockname()[1], application.page_token)
        finally:
            server.should_exit = True
            thread.join()
