"""A server that stands in for S3, and a proxy before it that refuses requests or loses answers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from indexer.bucket import object_store

# What happens to a request, from its method and path: None, "lost" (it is carried out, and its
# answer is cut off), or an error: (status, code).
Fault = Callable[[str, str], "str | tuple[int, str] | None"]


def no_fault(method: str, path: str) -> None:
    return None


@dataclass
class ObjectServer:
    """url: of the proxy. s3: a client that goes round it. requests: (method, path) so far."""

    url: str
    s3: Any
    fault: Fault = no_fault
    requests: list[tuple[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Empty the bucket; from now on nothing is refused."""
        for key in self.objects():
            self.s3.delete_object(Bucket="photos", Key=key)
        self.fault = no_fault
        self.requests.clear()

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket `photos`."""
        listed = self.s3.list_objects_v2(Bucket="photos").get("Contents", [])
        return {
            one["Key"]: self.s3.get_object(Bucket="photos", Key=one["Key"])["Body"].read()
            for one in listed
        }


def point_to(server: ObjectServer, patch: pytest.MonkeyPatch) -> None:
    """Have the environment lead to a server; requests that fail are soon sent again."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "KEY-NAME",
        "AWS_SECRET_ACCESS_KEY": "VERY-SECRET",
    }.items():
        patch.setenv(name, value)
    patch.setattr(object_store, "FIRST_WAIT", 0.01)
    patch.setattr(object_store, "LONGEST_WAIT", 0.02)


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """A running server with an empty bucket `photos`, on loopback."""
    import botocore.session
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="photos")
    server = ObjectServer("", client)
    server.reset()  # the servers of a process share what is stored

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append((self.command, self.path))
            fault = server.fault(self.command, self.path)
            if isinstance(fault, tuple):
                status, code = fault
                self.answer(status, f"<Error><Code>{code}</Code></Error>".encode(), {})
                return
            connection = http.client.HTTPConnection(host, port, timeout=20)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                found = connection.getresponse()
                content, headers = found.read(), dict(found.getheaders())
            finally:
                connection.close()
            if fault == "lost":
                self.close_connection = True
                return
            self.answer(found.status, content, headers)

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield server
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()
        client.close()
