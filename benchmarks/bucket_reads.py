"""What a search of an index in a bucket asks of the object store: requests and bytes.

    python benchmarks/bucket_reads.py

400 random maps are read by the product's own map store, from shards of 64 MiB on a server of this
machine that counts requests and bytes, for maps as large as those of the models `tiny` and `sdxl`
at the codec's default quality. The maps lie among so many others that they are a share of all rows.
Each line of a table is a gap: rows share a request where fewer bytes than that lie between them.
With 0, only adjacent rows do; with "all", every row that one task wants of a shard.

The model of cost: c connections share the work evenly. Each waits LATENCY for an answer, whose
bytes then come at BANDWIDTH, its share of the network. So a search waits

    seconds = (requests * LATENCY + bytes / BANDWIDTH) / c

and it is cheaper to read what lies between two rows than to ask again where that is less than
LATENCY * BANDWIDTH, whatever c is. Printed are the connection seconds, c * seconds, and the price
of 1,000 such reads, from within the region of the bucket and from outside it, where bytes cost too.

It also prints what opening an index takes, whose map shards stay in the bucket.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from harness import make_parser
from synthetic import PixelMaps, make_photos

from features.diffusion.presets import PRESETS
from indexer.bucket import remote_index
from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_index import REQUEST_BYTES, RemoteShards, cached_index
from indexer.bucket.transfer import object_key
from indexer.codec.quality import DEFAULT_QUALITY, bytes_per_photo
from indexer.ingest.build import index_photos
from indexer.store.manifest import MANIFEST_NAME, MapShard, read_manifest
from indexer.store.mapstore import MapStore, Place
from indexer.store.shards import rows_per_shard, shard_name, store_shard

WANTED = 400
SHARES = (0.04, 0.1, 0.4, 1.0)
WHOLE = 2**40  # as a gap: all rows
GAPS = (0, 64 * 2**10, REQUEST_BYTES, 1024 * 2**10, WHOLE)

LATENCY = 0.020  # seconds until an object store begins to answer
BANDWIDTH = 13e6  # bytes per second of one of many connections
REQUEST_PRICE = 0.4e-6  # dollars, a GET of S3
BYTE_PRICE = 90e-12  # dollars, out of the region into the internet


@dataclass
class Counts:
    """What a server was asked for, and answered with. Heads of shards are requests, too."""

    requests: int = 0
    sent: int = 0


@contextmanager
def counting_server(objects: dict[str, bytes]) -> Iterator[Counts]:
    """A server that speaks as much of S3 as Waldo needs; the environment then points to it.

    objects: contents by "/bucket/key". A key with no object of its own has the content of "*", if
    there is one.
    """
    counts, lock = Counts(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = objects.get(self.path, objects.get("*"))
            if content is None:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
                return
            headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            status, part = 200, memoryview(content)
            if given := self.headers.get("Range"):
                first, last = given.removeprefix("bytes=").split("-")
                part = part[int(first) : int(last) + 1]
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                status = 206
            self.answer(status, part, headers)

        def answer(self, status: int, content: Any, headers: dict[str, str]) -> None:
            with lock:
                counts.requests += 1
                counts.sent += len(content)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    try:
        with patch.dict("os.environ", environment):
            yield counts
    finally:
        server.shutdown()
        server.server_close()


def read_rows(folder: Path, shard: MapShard, photo_bytes: int, share: float, gap: int) -> Counts:
    """What the server is asked for when a search reads WANTED random rows of a collection of which
    they are a share. Its full shards all have the content of this one.
    """
    total = round(WANTED / share)
    chosen = np.random.default_rng(0).choice(total, WANTED, replace=False).tolist()
    numbers = range(1, 2 + (total - 1) // shard.rows)
    shards = [replace(shard, name=shard_name(n), number=n) for n in numbers]
    places = [Place(1 + row // shard.rows, row % shard.rows, row % shard.rows) for row in chosen]
    content = (folder / shard.name).read_bytes()
    with (
        counting_server({"*": content}) as counts,
        patch.object(remote_index, "REQUEST_BYTES", gap),
    ):
        store = MapStore(folder / "none", shards, photo_bytes, RemoteShards(Bucket("s3://b/index")))
        maps, damaged = store.read(places)
        store.close()
    assert not damaged
    assert maps.shape == (WANTED, photo_bytes)
    return counts


def connection_seconds(counts: Counts) -> float:
    """The model of cost."""
    return counts.requests * LATENCY + counts.sent / BANDWIDTH


def dollars(counts: Counts) -> tuple[float, float]:
    """The price of 1,000 such reads, within the region of the bucket and into the internet."""
    asked = 1000 * counts.requests * REQUEST_PRICE
    return asked, asked + 1000 * counts.sent * BYTE_PRICE


def print_reads(model: str) -> None:
    """The tables of one model."""
    preset = PRESETS[model]
    photo_bytes = bytes_per_photo(DEFAULT_QUALITY, preset.grid, preset.dim)
    rows = rows_per_shard(photo_bytes)
    payload = WANTED * photo_bytes
    size = f"{photo_bytes} bytes per map, {rows} rows per shard"
    print(f"\n{model}: {size}, {WANTED} maps are {payload / 1e6:.1f} MB")
    print("wanted       gap    requests       MB  of the maps  connection s   $ per 1,000 reads")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "shards").mkdir()
        maps = np.random.default_rng(0).integers(0, 256, (rows, photo_bytes), np.uint8)
        shard = store_shard(folder, 1, np.arange(rows), maps, 1)
        for share in SHARES:
            for gap in GAPS:
                counts = read_rows(folder, shard, photo_bytes, share, gap)
                inside, outside = dollars(counts)
                name = "all" if gap == WHOLE else f"{gap // 2**10} KiB"
                print(
                    f"{share:6.0%}  {name:>8}  {counts.requests:10}  {counts.sent / 1e6:7.1f}  "
                    f"{counts.sent / payload:9.2f}  {connection_seconds(counts):12.2f}   "
                    f"{inside:.2f} inside, {outside:.2f} outside"
                )


def print_opening(photos: int) -> None:
    """What opening an index takes: of synthetic photos, with maps of 16 x 16 cells."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "photos").mkdir()
        make_photos(folder / "photos", photos)
        index_photos([folder / "photos"], folder / "index", PixelMaps())
        manifest = read_manifest(folder / "index")
        in_shards = sum(file.bytes for file in manifest.shards)
        whole = sum(file.bytes for file in manifest.files())
        objects = {
            f"/b/index/{object_key(file)}": (folder / "index" / file.name).read_bytes()
            for file in manifest.files()
        }
        objects[f"/b/index/{MANIFEST_NAME}"] = (folder / "index" / MANIFEST_NAME).read_bytes()
        with (
            counting_server(objects) as counts,
            patch.dict("os.environ", {"XDG_CACHE_HOME": str(folder / "cache")}),
        ):
            cached_index("s3://b/index")
            first = Counts(counts.requests, counts.sent)
            cached_index("s3://b/index")
        print(f"\nopening an index of {photos} photos ({manifest.photo_bytes} bytes per map)")
        print(f"all of it {whole / 1e6:.2f} MB, of which map shards {in_shards / 1e6:.2f} MB")
        print(f"first time {first.requests} requests, {first.sent / 1e6:.2f} MB")
        again = counts.requests - first.requests, counts.sent - first.sent
        print(f"again {again[0]} request, {again[1] / 1e6:.3f} MB")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=300, help="of the index that is opened")
    given = parser.parse_args()
    for model in ("tiny", "sdxl"):
        print_reads(model)
    print_opening(given.photos)


if __name__ == "__main__":
    main()
