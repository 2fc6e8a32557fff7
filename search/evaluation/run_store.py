"""The work folder of evaluations: indexes for later runs, and what an unfinished run has done.

The name of each folder in it holds a digest of everything that decides the content, so nothing is
reused that was made from other inputs. A run stores its results file by file, and each file is
written atomically: if it exists and can be read, that part of the work is done.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from features.errors import WaldoError
from features.user_cache import user_cache
from indexer.errors import IndexBusyError
from indexer.protocols import Extractor
from indexer.store.files import (
    write_atomically,
    write_bytes_atomically,
    write_text_atomically,
)
from indexer.store.locks import writer_lock
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.metrics.measured import Measured, QueryResult

# Raise this number when a change of the code changes an evaluation's results for the same inputs:
# runs that were interrupted before the change then start again.
RESULTS_VERSION = 6

# An interrupted run loses the results of at most this many queries.
QUERIES_PER_BATCH = 64

# A batch has fewer queries where a method would give it more scores, which are in memory at once.
SCORES_PER_BATCH = 2**24

# So many of each query's best photos are kept.
DEPTH = 1000

_SECONDS = "seconds.json"

# What reading a file of results raises where it is missing or damaged.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile)

_LONGEST_NAME = 200  # characters; file systems allow 255 bytes


def default_work_folder() -> Path:
    """The work folder in the user's cache folder."""
    return user_cache("evaluate")


def gallery_folder(
    work: Path,
    protocol: str,
    photos: FilesOnDisk,
    maps: str,
    extractor: Extractor,
    quality: str,
    parts: int | None = None,
) -> Path:
    """The folder for an index of a benchmark's gallery, made if it is missing.

    The extractor, the codec's quality, the number of parts of a fleet (None for an ordinary index)
    and the photos (by path, size and modification time) decide the folder's name, which starts with
    the protocol and `maps`, the name of the extractor's maps. The folder holds `gallery.txt`, a
    list of the photos to index; the index goes to `index`.

    Raises OSError where the folder cannot be written.
    """
    decides = [extractor.fingerprint(), quality, *(() if parts is None else (parts,))]
    folder = work / f"{protocol}-{maps}-{photos.digest(decides)}"
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "gallery.txt"
    if not listing.exists():  # else it is this list, by the folder's name
        write_atomically(listing, partial(_write_lines, photos))
    return folder


def _write_lines(photos: FilesOnDisk, file: Path) -> None:
    with file.open("wb") as lines:
        lines.writelines(f"{place}\n".encode() for place in photos.resolved())


def run_folder(work: Path, benchmark: Benchmark, gallery: FilesOnDisk, settings: list[Any]) -> Path:
    """The folder for what is kept of the scores of a benchmark's queries.

    gallery: its photos. settings: JSON-ready; everything else that decides scores, except the
    method. What is relevant decides too, because metrics are kept in place of scores. Raises
    WaldoError for a missing photo or mask of a query.
    """
    asked = [query.query for query in benchmark.queries]
    masks = [query.mask for query in asked if query.mask is not None]
    questions = [[q.class_name, q.box, q.point, q.mask is not None] for q in asked]
    own = FilesOnDisk([*(query.photo for query in asked), *masks]).digest([])
    decides = [settings, own, questions, benchmark.cut_queries, _digest_of_answers(benchmark)]
    return results_folder(work, benchmark.protocol, gallery, decides)


def results_folder(work: Path, protocol: str, files: FilesOnDisk, settings: list[Any]) -> Path:
    """The folder for the results of a benchmark.

    files: the benchmark's photos and masks. settings: JSON-ready; everything else that decides
    results, except the method.
    """
    digest = files.digest([RESULTS_VERSION, np.__version__, settings])
    return work / f"{protocol}-run-{digest}"


class RunScores:
    """What is kept of the scores of a run, one file per method and batch of queries; use
    `open_scores`.

    clock: its seconds include those of the run before it was interrupted.
    """

    def __init__(self, folder: Path, n_queries: int, n_gallery: int, depth: int = DEPTH) -> None:
        self._folder = folder
        self._n_queries, self._n_kept = n_queries, min(depth, n_gallery)
        self._per_batch = max(1, min(QUERIES_PER_BATCH, SCORES_PER_BATCH // n_gallery))
        self.clock = Clock(seconds=_read_json(folder / _SECONDS))

    @property
    def n_queries(self) -> int:
        return self._n_queries

    @property
    def n_batches(self) -> int:
        return -(-self._n_queries // self._per_batch)

    def queries(self, batch: int) -> slice:
        """The queries of a batch, as places in the benchmark."""
        start = batch * self._per_batch
        return slice(start, min(start + self._per_batch, self._n_queries))

    def batch_of(self, query: int) -> int:
        """The batch of the query at a place in the benchmark."""
        return query // self._per_batch

    def is_done(self, method: str, batch: int) -> bool:
        """Whether a batch has results by a method; a file that cannot be read does not count."""
        try:
            self.batch(method, batch)
        except _UNREADABLE:
            return False
        return True

    def keep(self, batch: int, method: str, results: Sequence[QueryResult]) -> None:
        """Store the results of a batch by a method, one per query.

        They are durable on return. Raises OSError.
        """
        content = io.BytesIO()  # a full disk is reported as such only for plain bytes
        measured = json.dumps([result.measured.as_json() for result in results])
        np.savez(
            content,
            best=np.stack([result.best for result in results]),
            scores=np.stack([result.scores for result in results]),
            measured=np.frombuffer(measured.encode(), dtype=np.uint8),
        )
        write_bytes_atomically(self._path(method, batch), content.getvalue())
        write_text_atomically(self._folder / _SECONDS, json.dumps(self.clock.seconds))

    def of(self, method: str) -> Sequence[QueryResult]:
        """The results of every query by a method whose batches are all done.

        Memory holds those of one batch, the last that was looked at.
        """
        return _StoredResults(self, method)

    def batch(self, method: str, batch: int) -> list[QueryResult]:
        """The results of a batch by a method.

        Raises one of `_UNREADABLE` for a file that is missing or damaged.
        """
        place = self.queries(batch)
        shape = place.stop - place.start, self._n_kept
        stored = np.load(io.BytesIO(self._path(method, batch).read_bytes()))
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("one array")
        best, scores = stored["best"], stored["scores"]
        measured = json.loads(stored["measured"].tobytes())
        if not best.shape == scores.shape == shape or len(measured) != len(best):
            raise ValueError("another shape")
        return [
            QueryResult(places, row, Measured.from_json(values))
            for places, row, values in zip(best, scores, measured, strict=True)
        ]

    def _path(self, method: str, batch: int) -> Path:
        return self._folder / f"{batch:05}-{_file_name(method)}.npz"


class _StoredResults(Sequence[QueryResult]):
    """The results of every query by a method, read batch by batch."""

    def __init__(self, scores: RunScores, method: str) -> None:
        self._scores, self._method = scores, method
        self._read: tuple[int, list[QueryResult]] = (-1, [])

    def __len__(self) -> int:
        return self._scores.n_queries

    def __getitem__(self, query: Any) -> Any:
        if not 0 <= query < len(self):
            raise IndexError(query)
        batch = self._scores.batch_of(query)
        if self._read[0] != batch:
            self._read = batch, self._scores.batch(self._method, batch)
        return self._read[1][query - self._scores.queries(batch).start]


class RunResults:
    """The results of a run, one file per item (an object, a video); use `open_results`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, item: str) -> dict[str, Any]:
        """The results of an item by method; empty for an item that is not done."""
        return _read_json(self._path(item))

    def keep(self, item: str, results: dict[str, Any]) -> None:
        """Store the results of an item by method, JSON-ready, in place of those stored before.

        They are durable on return. Raises OSError.
        """
        write_text_atomically(self._path(item), json.dumps(results))

    def count(self, items: list[str], methods: list[str]) -> int:
        """The number of items that have results by all the methods."""
        return sum(self.of(item).keys() >= set(methods) for item in items)

    def _path(self, item: str) -> Path:
        return self._folder / f"{_file_name(item)}.json"


@contextmanager
def open_scores(
    folder: Path, n_queries: int, n_gallery: int, depth: int = DEPTH
) -> Iterator[RunScores]:
    """What is kept of the scores of a run, open for one process at a time; the folder is made if it
    is missing.

    depth: so many of each query's best photos are kept. Raises WaldoError while another process
    has it open, OSError where it cannot be written.
    """
    with _locked(folder):
        yield RunScores(folder, n_queries, n_gallery, depth)


@contextmanager
def open_results(folder: Path) -> Iterator[RunResults]:
    """The results of a run, open for one process at a time; raises as `open_scores`."""
    with _locked(folder):
        yield RunResults(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(folder))
        except IndexBusyError:
            raise WaldoError(
                f"{folder}: another process is running this evaluation; wait until it is done, or "
                "choose another work folder"
            ) from None
        yield


def _read_json(path: Path) -> dict[str, Any]:
    """What a run wrote; empty where there is no file, or none that can be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _file_name(name: str) -> str:
    """A file name for any text, such as a folder or a prompt; long ones end in their digest."""
    safe = quote(name, safe="+@= ", errors="surrogateescape")
    return safe if len(safe) < _LONGEST_NAME else f"{safe[:150]}-{_digest(name)}"


def _digest_of_answers(benchmark: Benchmark) -> str:
    """Of all that `measured.query_result` reads of a benchmark beside the queries."""
    text = hashlib.sha256(json.dumps(benchmark.metrics).encode())
    for classes in benchmark.gallery_classes or ():
        text.update(json.dumps(sorted(classes)).encode())
    for asked in benchmark.queries:
        text.update(json.dumps(_answer(asked)).encode())
    for name, queries in benchmark.parts.items():
        answers = [None if part is None else _answer(part) for part in queries]
        text.update(json.dumps([name, answers]).encode())
    return text.hexdigest()[:16]


def _answer(asked: BenchmarkQuery) -> list[Any]:
    """The true answer of a query, JSON-ready."""
    places = [asked.relevant, asked.ignored, asked.hard]
    lists = [None if one is None else one.tolist() for one in places]
    return [*lists, asked.missing, sorted(asked.boxes.items())]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
