"""How much memory and time an evaluation takes among up to a million photos.

    python benchmarks/large_gallery.py                    # ten minutes on two cores
    python benchmarks/large_gallery.py --photos 10000

Prints the table of "Large galleries" in docs/evaluation.md. The gallery has the layout of GLDv2,
and its photos are empty files: none is decoded. Its index is written by the code that writes any
index, with maps of 4 x 4 x 32, visual words and a descriptor of 128 numbers per photo, all drawn at
random. So nothing is said of how well methods find photos, nor of a model's time. Writing and
evaluating are processes of their own. Needs Linux, and 2 GB of disk for a million photos.
"""

import csv
import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self, cast

import numpy as np
from harness import make_parser, memory_of_process, peak_memory, seconds_of
from numpy.typing import NDArray
from PIL import Image
from synthetic import SyntheticExtractor

from features.frame import Frame
from features.photo import ModelInput
from features.vision.descriptors import ImageDescriptor
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import encode_photos
from indexer.ingest.commit import PhotoContent
from indexer.ingest.sources import Found, list_photos, open_sources
from indexer.ingest.writer import IndexWriter
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.methods.methods import (
    MODEL,
    DescriptorMethod,
    MapMethod,
    Method,
    RerankedMethod,
    WordMethod,
)
from search.evaluation.report import evaluation_json, versions, write_searches_run
from search.evaluation.retrieval import run_methods
from search.evaluation.run_store import gallery_folder
from search.scoring.scores import SCORES

_QUERIES, _RELEVANT, _PATTERNS = 16, 20, 256
_DESCRIPTOR = "random"
# The cosines with all photos, visual words with all, reading 400 maps, and comparing them.
_STAGES = (_DESCRIPTOR, "words", "fetch", "consistent")


class RandomMaps(SyntheticExtractor):
    """Maps drawn at random, the same for the same pixels."""

    image_size, grid, dim = 32, 4, 32

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        random = np.random.default_rng(photo.pixels.reshape(-1))
        return tuple(random.normal(size=(2, 4, 4, 32)).astype(np.float16))  # type: ignore[return-value]

    def changed(self) -> "RandomMaps":
        return self

    def with_batch_size(self, batch_size: int) -> "RandomMaps":
        return self


class RandomDescriptor:
    """A global descriptor drawn at random, as `ImageDescriptor` has it."""

    name, dim, batch_size = _DESCRIPTOR, 128, 8

    def fingerprint(self) -> dict[str, str]:
        return {"model": _DESCRIPTOR, "revision": "1"}

    def get_ready(self) -> None:
        return

    def prepare(self, photo: Any) -> Any:
        return photo

    def describe(self, photos: Sequence[Any]) -> NDArray[np.float32]:
        return np.stack([_direction(photo.width) for photo in photos])


def _direction(seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal(RandomDescriptor.dim, dtype=np.float32)
    return found / np.linalg.norm(found)


class OwnMemory:
    """Looks twenty times per second how much memory of its own this process has, while it is open:
    without what it maps of files, which the system takes back when it needs the room.
    """

    def __init__(self) -> None:
        self.peak = 0.0  # MiB
        self._closed = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(0.05):
            self.peak = max(self.peak, memory_of_process("RssAnon"))


@dataclass(frozen=True)
class Taken:
    """What an evaluation took.

    loaded: the memory of its own when the software is loaded, MiB. own: the most of its own, MiB.
    peak: the most with what is mapped of files, MiB. listing, indexing: seconds until the gallery
    is listed, and found unchanged in its index. per_query: milliseconds of a query in each of
    _STAGES. total: seconds of all, with the run file.
    """

    loaded: float
    own: float
    peak: float
    listing: float
    indexing: float
    per_query: list[float]
    total: float


def make_gallery(root: Path, n_photos: int) -> None:
    """Empty photos in the layout of GLDv2, and queries whose photos can be decoded."""
    random = np.random.default_rng(0)
    for letters in product("0123456789abcdef", repeat=3):
        root.joinpath("index", *letters).mkdir(parents=True)
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(n_photos)]
    for name in names:
        (root / "index" / name[0] / name[1] / name[2] / f"{name}.jpg").touch()
    with (root / "retrieval_solution_v2.1.csv").open("w", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "images", "Usage"])
        for number in range(_QUERIES):
            name = f"{number:016x}"
            place = root / "test" / name[0] / name[1] / name[2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (32, 32 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{name}.jpg")
            chosen = random.choice(n_photos, _RELEVANT, replace=False)
            rows.writerow([name, " ".join(names[place] for place in chosen), "Public"])


def write_index(folder: Path, extractor: RandomMaps) -> None:
    """The index of the photos in gallery.txt, without decoding them."""
    random = np.random.default_rng(1)
    frame, descriptor = Frame(32, 32, 32, 4), RandomDescriptor()
    inputs = [
        ModelInput(random.integers(0, 256, (32, 32, 3), dtype=np.uint8), frame, str(number))
        for number in range(_PATTERNS)
    ]
    maps = extractor.extract(inputs)
    with IndexWriter.open(folder / "index", cast("Any", extractor)) as writer:
        codec = Codec.fit(writer.manifest.quality, maps, extractor.vocabulary_vectors())
        writer.use_codec(codec)
        writer.use_descriptor(descriptor)
        encoded = [encode_photos(codec, [one])[one.content_hash] for one in maps]
        sources = open_sources([folder / "gallery.txt"], folder / "index")
        for number, found in enumerate(list_photos(sources, folder / "index")):
            assert isinstance(found, Found)
            one = encoded[number % _PATTERNS]
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            vector = random.standard_normal(descriptor.dim, dtype=np.float32)
            # As the run of an index does: the vector is in the commit of its photo.
            writer.describe(digest, {_DESCRIPTOR: vector / np.linalg.norm(vector)})
            pooled = random.standard_normal(2 * extractor.dim, dtype=np.float32)
            writer.add(found, one.encoded, PhotoContent(pooled, one.words, frame, digest, None))
        writer.finish([])


def methods() -> list[Method]:
    by_descriptor = DescriptorMethod(_DESCRIPTOR, MODEL, _DESCRIPTOR)
    by_maps = MapMethod("consistent", MODEL, SCORES["consistent"])
    reranked = RerankedMethod(f"{_DESCRIPTOR}+consistent", (by_descriptor, by_maps))
    return [by_descriptor, WordMethod("words", MODEL), reranked]


def write(folder: Path, n_photos: int) -> tuple[float, float]:
    """The gallery and its index; the seconds of writing the index, and the peak memory in MiB."""
    make_gallery(folder / "root", n_photos)
    extractor = RandomMaps()
    place = gallery_folder(
        *(folder / "work", "gldv2", FilesOnDisk(_read(folder).gallery)),
        *(MODEL, extractor, "standard"),
    )
    return seconds_of(write_index, place, extractor), peak_memory()


def evaluate(folder: Path) -> Taken:
    """Evaluate what `write` has written."""
    extractor: Any = RandomMaps()
    versions()  # loads what any evaluation loads
    loaded, began = memory_of_process("RssAnon"), time.perf_counter()
    with OwnMemory() as own:
        benchmark = _read(folder)
        listing = time.perf_counter() - began
        descriptors = [cast("ImageDescriptor", RandomDescriptor())]
        found = run_methods(
            *(benchmark, methods(), extractor, folder / "work"), descriptors=descriptors
        )
        report = evaluation_json(benchmark, extractor.fingerprint(), "standard", found, None)
        write_searches_run(folder / "run.json", report, benchmark, found)
    seconds = found.seconds
    per_query = [1000 * seconds[stage] / _QUERIES for stage in _STAGES]
    total = time.perf_counter() - began
    return Taken(loaded, own.peak, peak_memory(), listing, seconds["indexing"], per_query, total)


def _read(folder: Path) -> Benchmark:
    return read_benchmark("gldv2", folder / "root")


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    print(f"{_QUERIES} queries by {', '.join(method.name for method in methods())}")
    print(
        "writing: s, peak MiB; evaluating: own MiB when loaded, own MiB at most, peak MiB; s to "
        f"list, to find the index unchanged, of all; ms per query: {', '.join(_STAGES)}"
    )
    for n_photos in given.photos:
        with tempfile.TemporaryDirectory(prefix="waldo-bench-") as name:
            seconds, peak = _alone(write, Path(name), n_photos)
            print(f"{n_photos:9}{seconds:8.0f}{peak:7.0f}", end="", flush=True)
            taken = _alone(evaluate, Path(name))
        print(
            f"{taken.loaded:8.0f}{taken.own:6.0f}{taken.peak:6.0f}"
            f"{taken.listing:8.1f}{taken.indexing:7.1f}{taken.total:7.1f}  ",
            *(f"{each:7.0f}" for each in taken.per_query),
            flush=True,
        )


if __name__ == "__main__":
    main()
