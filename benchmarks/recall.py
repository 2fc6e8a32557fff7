"""What recall costs: ways to find the photos with the largest inner products, and visual words.

    python benchmarks/recall.py                  # up to 100,000 photos, three minutes on two cores
    python benchmarks/recall.py --full           # and a million of 256 dimensions, needs 6 GB
    python benchmarks/recall.py --photos 10000   # no collection larger than this

Prints the tables "Recall by pooled vectors" and "Recall by visual words" of docs/store.md. For each
way: the seconds to build it, its size, the median time of a query for 400 photos, and the share of
the exact 400 photos that it finds (the mean, and that of the worst query).

Collections are synthetic. A photo is a mixture of objects of some classes, in a space of 48
directions of falling variance, plus a large common mean and noise; a query is a single object and a
class vector, as in PDM. Visual words are drawn like those of the scenes, see synthetic_words.py.

Of visual words, two ways are compared in the same run: the exact score of every photo, by all lists
of each cell's words, and recall as it is used. Printed are the CPU seconds of a query (of all
threads) and its median time, and the memory that a process of its own takes to build the base. The
constants of recall were chosen on a collection of another seed.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from harness import make_parser, peak_memory
from numpy.typing import NDArray
from synthetic_words import WORDS, WordCollection

from indexer.recall.base_rule import RecallRule
from indexer.recall.faiss_base import build_base
from indexer.recall.inverted_file import load_word_recall, refresh_word_recall
from indexer.recall.vectors import RecallIndex
from indexer.recall.word_query import WordQuery
from indexer.store.files import StoredFile, describe_file
from indexer.store.manifest import Derived, Manifest, MapShard
from indexer.store.mapstore import Place
from indexer.store.photos import PhotoRow, read_words, write_photos

K = 400
QUERIES = 40
CLASSES = 400
DIRECTIONS = 48


def make_collection(count: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pooled vectors (count, dim) and queries (QUERIES, dim), float32, always the same."""
    random = np.random.default_rng(0)
    sizes = 1 / np.sqrt(np.arange(1, DIRECTIONS + 1))
    basis = random.normal(size=(DIRECTIONS, dim)) / np.sqrt(dim)
    mean = 4 * random.normal(size=dim) / np.sqrt(dim)
    classes = random.normal(size=(CLASSES, DIRECTIONS)) * sizes
    frequency = 1 / np.arange(1, CLASSES + 1)
    frequency /= frequency.sum()

    def objects(number: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        kind = random.choice(CLASSES, size=number, p=frequency)
        own = 0.6 * sizes * random.normal(size=(number, DIRECTIONS))
        return kind, classes[kind] + own

    photos = np.empty((count, dim), np.float32)
    for start in range(0, count, 20_000):
        number = min(20_000, count - start)
        shares = random.dirichlet(np.full(4, 0.7), size=number)
        mixture = sum(shares[:, i : i + 1] * objects(number)[1] for i in range(4))
        noise = random.normal(size=(number, dim), scale=0.24 / np.sqrt(dim))
        photos[start : start + number] = mean + mixture @ basis + noise
    kind, latent = objects(QUERIES)
    queries = mean + latent @ basis
    half = dim // 2
    queries[:, half:] = (classes[kind] @ basis)[:, half:]
    queries[:, half:] += random.normal(size=(QUERIES, half)) / np.sqrt(half)
    return photos, (queries / 2).astype(np.float32)


Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def report(
    name: str, search: Search, queries: NDArray[np.float32], exact: list[set[int]], built: str
) -> None:
    """Print the line of a way. exact: the photos that each query should find. built: its cost."""
    found, seconds = [], []
    for _ in range(3):
        for query in queries:
            begin = time.perf_counter()
            ids = search(query)
            seconds.append(time.perf_counter() - begin)
            found.append(len(exact[len(found) % QUERIES] & set(ids.tolist())) / K)
    print(
        f"  {name:<34}{built}{1000 * statistics.median(seconds):9.2f} ms"
        f"{np.mean(found):9.4f}{np.min(found):7.3f}",
        flush=True,
    )


def built_as(seconds: float, size: int) -> str:
    """The columns of the time to build and of the size, bytes."""
    return f"{seconds:8.1f} s{size / 1e6:8.0f} MB"


def compare(count: int, dim: int, with_graph: bool) -> None:
    """Print the lines of all ways for one collection."""
    print(f"{count} photos of {dim} dimensions: build, size, query, found (mean, worst)")
    photos, queries = make_collection(count, dim)
    flat = RecallIndex(dim, base=flat_base(np.arange(count), photos))
    exact = [set(flat.search(query, K)[0].tolist()) for query in queries]
    size = built_as(0, photos.nbytes)
    report("flat", lambda q: flat.search(q, K)[0], queries, exact, size)
    plain = faiss.IndexFlatIP(dim)
    plain.add(photos)
    report(
        "flat, FAISS's own threads", lambda q: plain.search(q[None], K)[1][0], queries, exact, size
    )
    compare_as_used(photos, queries, exact)
    compare_quantisers(photos, queries, exact)
    if with_graph:
        compare_graph(photos, queries, exact)


def compare_as_used(
    photos: NDArray[np.float32], queries: NDArray[np.float32], exact: list[set[int]]
) -> None:
    """Print the lines of the inverted file as Waldo builds it, also for parts of the photos."""
    count, dim = photos.shape
    ids = np.arange(count)
    begin = time.perf_counter()
    base = build_base(lambda: [(ids, photos)], dim, RecallRule(flat_bytes=0))
    size = built_as(time.perf_counter() - begin, 2 * photos.size)
    ivf = RecallIndex(dim, base=base)
    report(f"{ivf.kind}, as used", lambda q: ivf.search(q, K)[0], queries, exact, size)
    some = np.flatnonzero(np.random.default_rng(1).random(count) < 0.01)
    several = np.sort(np.concatenate([some, np.arange(0, count, 3)]))
    for name, allowed in (("1 %", some), ("34 %", several)):
        among = RecallIndex(dim, base=flat_base(allowed, photos[allowed]))
        wanted = [set(among.search(query, K)[0].tolist()) for query in queries]
        if len(allowed) >= K:
            report(
                f"  among {name} of the photos",
                lambda q, a=allowed: ivf.search(q, K, a)[0],  # type: ignore[misc]
                *(queries, wanted, size),
            )


def compare_quantisers(
    photos: NDArray[np.float32], queries: NDArray[np.float32], exact: list[set[int]]
) -> None:
    """Print the lines of inverted files with other quantisers and other k-means."""
    count, dim = photos.shape
    ways: dict[str, tuple[Any, bool]] = {
        "fp16": (faiss.ScalarQuantizer.QT_fp16, False),
        "sq8": (faiss.ScalarQuantizer.QT_8bit, False),
        "fp16, spherical k-means": (faiss.ScalarQuantizer.QT_fp16, True),
    }
    lists = 2 ** round(np.log2(4 * np.sqrt(count)))
    for name, (quantiser, spherical) in ways.items():
        begin = time.perf_counter()
        index = make_ivf(photos, lists, quantiser, spherical)
        bytes_each = dim if "sq8" in name else 2 * dim
        size = built_as(time.perf_counter() - begin, bytes_each * count)
        for part in (32, 16, 8, 4):
            parameters: Any = faiss.SearchParametersIVF(nprobe=lists // part)
            report(
                f"ivf{lists},{name}, 1/{part}",
                lambda q, i=index, p=parameters: i.search(q[None], K, params=p)[1][0],  # type: ignore[misc]
                *(queries, exact, size),
            )


def compare_graph(
    photos: NDArray[np.float32], queries: NDArray[np.float32], exact: list[set[int]]
) -> None:
    """Print the lines of a graph of neighbours (HNSW)."""
    count, dim = photos.shape
    graph = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    begin = time.perf_counter()
    graph.add(photos)
    size = built_as(time.perf_counter() - begin, photos.nbytes + 4 * 2 * 32 * count)
    for effort in (400, 800, 1600):
        graph.hnsw.efSearch = effort
        report(f"hnsw32, {effort}", lambda q: graph.search(q[None], K)[1][0], queries, exact, size)


def flat_base(ids: NDArray[np.int64], photos: NDArray[np.float32]) -> Any:
    """A base that is scanned, however many photos there are."""
    return build_base(lambda: [(ids, photos)], photos.shape[1], RecallRule(flat_bytes=2**62))


def make_ivf(photos: NDArray[np.float32], lists: int, quantiser: Any, spherical: bool) -> Any:
    """An inverted file with any quantiser. spherical: k-means of directions, FAISS's default."""
    dim = photos.shape[1]
    coarse: Any = (faiss.IndexFlatIP if spherical else faiss.IndexFlatL2)(dim)
    index: Any = faiss.IndexIVFScalarQuantizer(
        coarse, dim, lists, quantiser, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.spherical, index.cp.niter, index.cp.max_points_per_centroid = spherical, 10, 64
    index.cp.min_points_per_centroid = 1
    index.train(photos[:: max(1, len(photos) // (64 * lists))])
    index.add(photos)
    if not spherical:
        centroids: Any = faiss.IndexFlatIP(dim)
        centroids.add(coarse.reconstruct_n(0, lists))
        centroids.this.disown()
        index.quantizer, index.own_fields = centroids, True
    index.parallel_mode = 1
    return index


def write_word_photos(index_dir: Path, collection: WordCollection) -> Manifest:
    """Write the photo table of a collection; returns its manifest."""
    (index_dir / "photos").mkdir()
    photos, shards, first = [], [], 0
    for drawn in collection.photos():
        number = 1 + len(photos)
        rows = [
            PhotoRow(
                id=first + i,
                source=0,
                path="",
                content_hash=bytes(32),
                size=0,
                mtime_ns=0,
                width=1,
                height=1,
                place=Place(number, i, first + i),
                pooled=np.zeros(2, np.float32),
                words=own,
                taken_ns=None,
            )
            for i, own in enumerate(drawn.words)
        ]
        first += len(rows)
        name = f"photos/{number:06d}.parquet"
        write_photos(index_dir / name, rows, 1)
        photos.append(describe_file(index_dir, name, number, len(rows)))
        shards.append(MapShard("", number, len(rows), 0, "", codec=0))
    codecs = (StoredFile("", 0, 1, 0, ""),)
    return Manifest({}, 1, 1, 1, "none", codecs=codecs, shards=tuple(shards), photos=tuple(photos))


def build_words(index_dir: Path, manifest: Manifest) -> tuple[Derived | None, float, float, float]:
    """The base of visual words, the seconds it takes, and the peak memory before and after, MiB."""
    before, began = peak_memory(), time.perf_counter()
    base = refresh_word_recall(index_dir, manifest, 1)
    return base, time.perf_counter() - began, before, peak_memory()


class ExactSum:
    """The exact score of every photo, cell by cell, by all lists of each cell's words."""

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        tables = [read_words(index_dir / file.name) for file in manifest.photos]
        owners = np.repeat(
            np.arange(sum(len(table.ids) for table in tables), dtype=np.int32),
            np.concatenate([np.diff(table.starts) for table in tables]),
        )
        words = np.concatenate([table.words for table in tables])
        ends = np.cumsum(np.bincount(words, minlength=WORDS))
        self.lists = np.split(owners[np.argsort(words, kind="stable")], ends[:-1])
        self.count = int(owners[-1]) + 1

    def search(self, query: WordQuery, k: int) -> NDArray[np.int64]:
        """The k best photos; of equal ones the first."""
        scores = np.zeros(self.count, np.float32)
        best = np.empty_like(scores)
        for near, cosines in zip(query.near.tolist(), query.cosines, strict=True):
            best.fill(cosines[-1])
            for word, cosine in zip(reversed(near), cosines[::-1], strict=True):
                best[self.lists[word]] = cosine  # the nearest word is written last
            scores += best
        scores /= len(query.near)
        among = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        order: NDArray[np.int64] = among[np.lexsort((among, -scores[among]))][:k]
        return order


def words(count: int) -> None:
    """Print what recall by visual words takes: to build, to open, and to search."""
    collection = WordCollection(count, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_word_photos(folder, collection)
        queries = collection.queries(QUERIES)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            base, seconds, before, peak = process.submit(build_words, folder, manifest).result()
        assert base is not None
        began = time.perf_counter()
        recall = load_word_recall(folder, replace(manifest, words=base))
        opened = time.perf_counter() - began
        print(
            f"{count} photos by visual words: built in {seconds:.1f} s, {base.file.bytes / 1e6:.0f}"
            f" MB, peak memory {peak:.0f} MiB ({before:.0f} before), opened in "
            f"{1000 * opened:.0f} ms\nquery: CPU, wall clock, kept of the best {K} (mean, worst)"
        )
        exact = ExactSum(folder, manifest)
        wanted = report_words("the exact sum", lambda q: exact.search(q, K), queries, None)
        report_words(
            "as used",
            lambda q: recall.search(lambda _: (q.near, q.cosines), K)[0],
            *(queries, wanted),
        )


def report_words(
    name: str,
    search: Callable[[WordQuery], NDArray[np.int64]],
    queries: Sequence[WordQuery],
    wanted: Sequence[set[int]] | None,
) -> list[set[int]]:
    """Print the line of a way; returns what it finds. wanted: what it should find."""
    search(queries[0])
    found, cpu, wall = [], [], []
    for query in queries:
        began = time.process_time(), time.perf_counter()
        ids = search(query)
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
        found.append(set(ids.tolist()))
    kept = [len(a & b) / K for a, b in zip(found, wanted or found, strict=True)]
    print(
        f"  {name:<16}{1000 * np.mean(cpu):9.1f} ms{1000 * statistics.median(wall):9.1f} ms"
        f"{np.mean(kept):9.4f}{np.min(kept):8.4f}",
        flush=True,
    )
    return found


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="a million photos, too")
    parser.add_argument("--photos", type=int, default=100_000, help="the largest collection")
    given = parser.parse_args()
    compare(min(10_000, given.photos), 256, with_graph=True)
    if given.photos > 10_000:
        compare(given.photos, 256, with_graph=True)
        compare(given.photos, 1280, with_graph=False)
    words(given.photos)
    if given.full:
        compare(1_000_000, 256, with_graph=False)
        words(1_000_000)


if __name__ == "__main__":
    main()
