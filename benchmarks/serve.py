"""How fast the server of `waldo serve` answers, how much memory it takes, and how it bears a crowd.

    python benchmarks/serve.py                    # some five minutes on two cores
    python benchmarks/serve.py --photos 500       # shorter

The collection is synthetic: photos of the sample collection cut differently, with maps that mix
cells of its real maps, under the name of the bundled model, which extracts the query photos. The
server is the real command in a process of its own, on the CPU. Prints the median and the 95th
percentile of a photo sent, what was taken as the object, a search by box with each of its stages,
and a search by a photo of the index; then the memory over 200 searches in a row; then 20 clients at
once, who ask again where they are told to. docs/page.md quotes the results.
"""

import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import make_parser
from numpy.typing import NDArray
from PIL import Image
from synthetic import SyntheticExtractor

from features.extractor import FeatureExtractor
from features.photo import ModelInput, load_model_input
from indexer.ingest.build import index_photos

SAMPLE = Path(__file__).parent.parent / "data" / "demo" / "photos"
SIDE = 640
REPETITIONS = 30
IN_A_ROW = 200
CLIENTS, EACH = 20, 5


class MixedMaps(SyntheticExtractor):
    """Maps of the bundled model's shape and fingerprint: two photos' real maps, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self._real = FeatureExtractor.load("tiny", "cpu", 8)
        self.image_size = self._real.image_size
        self.grid, self.dim = self._real.grid, self._real.dim
        paths = sorted(SAMPLE.iterdir())
        inputs = [load_model_input(path, self.image_size, self.grid) for path in paths]
        self._maps = self._real.extract(inputs)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {**self._real.fingerprint()}

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        return self._real.vocabulary_vectors()

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        generator = np.random.default_rng(int(photo.content_hash[:8], 16))
        one, other = generator.choice(len(self._maps), 2, replace=False).tolist()
        shift, cut = generator.integers(0, self.grid, 2).tolist()
        mixed = []
        for name in ("appearance", "semantic"):
            both = (getattr(self._maps[at], name).astype(np.float32) for at in (one, other))
            left, right = next(both), next(both)
            left = np.roll(left, shift, axis=(0, 1))
            noise = generator.normal(0, 0.05 * left.std(), left.shape)
            mixed.append(np.where(np.arange(self.grid)[:, None] < cut, left, right) + noise)
        return mixed[0].astype(np.float16), mixed[1].astype(np.float16)


def make_collection(folder: Path, count: int) -> None:
    """Write JPEGs, each another part of a photo of the sample collection."""
    folder.mkdir()
    photos = [Image.open(path).convert("RGB") for path in sorted(SAMPLE.iterdir())]
    generator = random.Random(1)
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = generator.uniform(0, 0.3), generator.uniform(0, 0.3)
        box = (left * photo.width, top * photo.height, photo.width, photo.height)
        small = photo.resize((SIDE, SIDE * 3 // 4), Image.Resampling.BILINEAR, box)
        small.save(folder / f"{number:06}.jpg", quality=80)


@dataclass
class Server:
    """A running `waldo serve`."""

    process: subprocess.Popen[str]
    link: str
    token: str = ""

    @classmethod
    def start(cls, index: Path) -> "Server":
        command = [sys.executable, "-m", "search.commands.app", "serve", "--device", "cpu"]
        process = subprocess.Popen(
            [*command, "--index", str(index)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        threading.Thread(target=process.stderr.read, daemon=True).start()
        server = cls(process, line.split()[-1])
        server.token = server.ask("api/v1/collection")["token"]
        return server

    def ask(self, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
        """A reply's JSON; asks again where the server is busy."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"{self.link}{path}", data)
        request.add_header("X-Waldo-Token", self.token)
        while True:
            try:
                with urllib.request.urlopen(request) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(float(error.headers["Retry-After"]))

    def memory(self) -> float:
        """The memory that the process holds, MiB. Needs Linux."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def new_photo(number: int) -> bytes:
    """A photo that no index holds and nobody has sent yet, of 12 megapixels."""
    paths = sorted(SAMPLE.iterdir())
    photo = Image.open(paths[number % len(paths)]).convert("RGB").resize((4000, 3000))
    photo.putpixel((0, 0), (number % 256, number // 256 % 256, 7))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def search_of(photo: dict[str, Any]) -> dict[str, Any]:
    return {"object": {"photo": photo, "box": [800, 600, 2600, 2200]}, "top": 40}


def print_times(name: str, seconds: list[float]) -> None:
    middle, most = np.percentile(seconds, [50, 95])
    print(f"{name:<44} {1000 * middle:7.0f} {1000 * most:7.0f}", flush=True)


def print_stages(server: Server) -> None:
    """One client: a photo is sent, marked and searched for."""
    print(f"{'milliseconds':<44} {'median':>7} {'95 %':>7}")
    sent, marked, searched, whole = [], [], [], []
    stages: dict[str, list[float]] = {}
    for number in range(REPETITIONS):
        photo = new_photo(number)
        begin = time.perf_counter()
        upload = {"upload": server.ask("api/v1/uploads", photo)["upload"]}
        after_upload = time.perf_counter()
        server.ask("api/v1/preview", search_of(upload)["object"])
        after_preview = time.perf_counter()
        answer = server.ask("api/v1/searches", search_of(upload))
        end = time.perf_counter()
        if number == 0:
            continue  # files are read into memory, kernels are chosen
        sent.append(after_upload - begin)
        marked.append(after_preview - after_upload)
        searched.append(end - after_preview)
        whole.append(end - begin)
        for stage, value in answer["timing"].items():
            stages.setdefault(stage, []).append(value)
    print_times("a photo of 12 megapixels is sent", sent)
    print_times("what is taken as the object is shown", marked)
    print_times("search by a box in it, to the reply", searched)
    for stage, values in stages.items():
        print_times(f"    {stage}", values)
    print_times("all three", whole)
    stored = []
    for number in range(REPETITIONS):
        begin = time.perf_counter()
        asked = search_of({"id": number})
        asked["object"]["box"] = [100, 100, 400, 400]
        server.ask("api/v1/searches", asked)
        stored.append(time.perf_counter() - begin)
    print_times("search by a box in a photo of the index", stored)


def print_memory(server: Server) -> None:
    """The memory over many searches in a row, each with a photo of its own."""
    held = []
    for number in range(IN_A_ROW):
        upload = server.ask("api/v1/uploads", new_photo(1000 + number))["upload"]
        server.ask("api/v1/searches", search_of({"upload": upload}))
        held.append(server.memory())
    parts = ", ".join(f"{held[at]:.0f}" for at in (9, 49, 99, 149, 199))
    print(f"\nMiB after 10, 50, 100, 150 and 200 searches: {parts}")


def print_crowd(server: Server) -> None:
    """Clients who ask at the same time, each one search after the other."""
    keys = [server.ask("api/v1/uploads", new_photo(5000 + n))["upload"] for n in range(CLIENTS)]
    seconds: list[float] = []

    def ask(key: str) -> int:
        for _ in range(EACH):
            begin = time.perf_counter()
            server.ask("api/v1/searches", search_of({"upload": key}))
            seconds.append(time.perf_counter() - begin)
        return EACH

    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        answered = sum(clients.map(ask, keys))
    rate = answered / (time.perf_counter() - begin)
    print(f"\n{CLIENTS} clients at once: {answered} of {CLIENTS * EACH} searches answered")
    print(f"{rate:.1f} searches per second; milliseconds for each, with waiting:")
    print_times("a search", seconds)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        photos, index = Path(name) / "photos", Path(name) / "index"
        make_collection(photos, given.photos)
        index_photos([photos], index, MixedMaps(), batch_size=32)
        server = Server.start(index)
        try:
            print(f"{given.photos} photos\n")
            print_stages(server)
            print_memory(server)
            print_crowd(server)
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
