"""How busy indexing keeps a device that extracts by itself: a stub in place of a GPU.

    python benchmarks/pipeline.py [--photos 240] [--ms 50] [--workers 1]

The stub needs 50 ms per photo, in which it only sleeps, and then gives maps of the shape of SDXL
(32 x 32 cells of 640 numbers). A first run fits the codec; a second one adds the photos that are
measured. Several workers are processes with a stub each. Prints which share of the time, from its
first batch to its last, the stub was busy (of one worker), and how long the main thread, the thread
that records, and all threads of this process computed per photo.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import make_parser
from PIL import Image

from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.ingest import build
from indexer.ingest.build import _Run, index_photos
from indexer.protocols import Extractor
from indexer.workers import worker_process
from indexer.workers.extractor_pool import ExtractorPool

FITTED = 102  # photos that the codec is fitted on, at this shape
SIDE = 640  # of the photos, pixels


class StubDevice(Extractor):
    """Maps that do not depend on the photo, after a time that does not depend on this machine.

    work: when each batch began and ended.
    """

    image_size, grid, dim = 512, 32, 640
    is_asynchronous = True

    def __init__(self, ms: float, batch_size: int | None = None) -> None:
        self.work: list[tuple[float, float]] = []
        self.given_batch_size = batch_size
        self._ms = ms
        self._device = ThreadPoolExecutor(1)
        rng = np.random.default_rng(0)
        basis = rng.normal(size=(64, self.dim)).astype(np.float32) / 8
        cells = rng.normal(size=(8, self.grid, self.grid, 64)).astype(np.float32) @ basis
        noise = rng.normal(size=cells.shape).astype(np.float32)
        self._maps = (cells + 0.3 * noise).astype(np.float16)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"model": "stub", "revision": "1", "ms": self._ms}

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        return self._device.submit(self._work, list(inputs)).result

    def _work(self, inputs: list[ModelInput]) -> list[FeatureMaps]:
        begin = time.perf_counter()
        time.sleep(self._ms / 1000 * len(inputs))
        self.work.append((begin, time.perf_counter()))
        numbers = [int(photo.content_hash[:4], 16) for photo in inputs]
        return [
            FeatureMaps(self._maps[n % 8], self._maps[n // 8 % 8], photo.frame, photo.content_hash)
            for n, photo in zip(numbers, inputs, strict=True)
        ]


def make_photos(folder: Path, first: int, count: int) -> None:
    """Write photos with the detail of real ones, as JPEG."""
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((SIDE, SIDE * 2 // 3), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05}.jpg", quality=90)


def timed(settle: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """The same function, which notes how long it computes."""

    def timed_settle(*batch: Any) -> Any:
        begin = time.thread_time()
        counts = settle(*batch)
        times.append(time.thread_time() - begin)
        return counts

    return timed_settle


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--ms", type=float, default=50.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    vars(worker_process)["_PROGRAM"] = "stub_worker"
    stub = StubDevice(options.ms, options.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        ExtractorPool(stub, options.workers) as extractor,
    ):
        photos, index = Path(folder) / "photos", Path(folder) / "index"
        photos.mkdir()
        make_photos(photos, 0, FITTED)
        index_photos([photos], index, stub)
        make_photos(photos, FITTED, options.photos)
        extractor.get_ready()
        stub.work.clear()
        times: list[float] = []
        vars(build)["_Run"] = type("_Run", (_Run,), {"_settle": timed(_Run._settle, times)})
        begin, own, whole = time.perf_counter(), time.thread_time(), time.process_time()
        report = index_photos([photos], index, extractor, batch_size=options.batch_size)
        seconds = time.perf_counter() - begin
        own, whole = time.thread_time() - own, time.process_time() - whole
    assert report.new == options.photos
    # By the photos, not by the clock: the stub may oversleep.
    busy = report.new * options.ms / 1000
    print(
        f"{report.new} photos, {options.ms:g} ms each, {options.batch_size} per batch, "
        f"{options.workers} at a time"
    )
    if stub.work:
        between = stub.work[-1][1] - stub.work[0][0]
        print(f"busy between first and last batch   {100 * busy / between:6.1f} %")
    print(f"busy in the whole run               {100 * busy / options.workers / seconds:6.1f} %")
    print(f"photos per second                   {report.new / seconds:6.1f}")
    print(f"main thread, per photo              {1000 * own / report.new:6.1f} ms")
    print(f"thread that records, per photo      {1000 * sum(times) / report.new:6.1f} ms")
    print(f"all threads here, per photo         {1000 * whole / report.new:6.1f} ms")


if __name__ == "__main__":
    main()
