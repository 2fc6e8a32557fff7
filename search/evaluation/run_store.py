"""The work folder of evaluations: indexes for later runs, and what an unfinished run has done.

The name of each folder in it holds a digest of everything that decides the content, so nothing is
reused that was made from other inputs. A run stores its results file by file, and each file is
written atomically: if it exists and can be read, that part of the work is done.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.errors import IndexBusyError
from indexer.protocols import Extractor
from indexer.store.files import write_bytes_atomically, write_text_atomically
from indexer.store.locks import writer_lock
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark

# Raise this number when a change of the code changes an evaluation's results for the same inputs:
# runs that were interrupted before the change then start again.
RESULTS_VERSION = 3

# An interrupted run loses the scores of at most this many queries.
QUERIES_PER_BATCH = 64

_SECONDS = "seconds.json"
_LONGEST_NAME = 200  # characters; file systems allow 255 bytes


def default_work_folder() -> Path:
    """The work folder in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "waldo" / "evaluate"


def gallery_folder(
    work: Path, benchmark: Benchmark, maps: str, extractor: Extractor, quality: str
) -> Path:
    """The folder for an index of the benchmark's gallery, made if it is missing.

    The extractor, the codec's quality and the photos (by path, size and modification time) decide
    the folder's name, which starts with the protocol and `maps`, the name of the extractor's maps.
    The folder holds `gallery.txt`, a list of the photos to index; the index goes to `index`.

    Raises WaldoError for a missing photo, OSError where the folder cannot be written.
    """
    photos = benchmark.indexed or benchmark.gallery
    decides = [_files(photos), extractor.fingerprint(), quality]
    folder = work / f"{benchmark.protocol}-{maps}-{_digest(decides)}"
    folder.mkdir(parents=True, exist_ok=True)
    listing = "\n".join(str(path.resolve()) for path in photos)
    write_text_atomically(folder / "gallery.txt", listing)
    return folder


def run_folder(work: Path, benchmark: Benchmark, settings: list[Any]) -> Path:
    """The folder for the scores of a benchmark's queries.

    settings: JSON-ready; everything else that decides scores, except the method. Raises WaldoError
    for a missing photo or mask.
    """
    asked = [query.query for query in benchmark.queries]
    masks = [query.mask for query in asked if query.mask is not None]
    questions = [[q.class_name, q.box, q.point, q.mask is not None] for q in asked]
    decides = [settings, len(benchmark.gallery), questions, benchmark.cut_queries]
    files = [*benchmark.gallery, *(query.photo for query in asked), *masks]
    return results_folder(work, benchmark.protocol, files, decides)


def results_folder(work: Path, protocol: str, files: list[Path], settings: list[Any]) -> Path:
    """The folder for the results of a benchmark.

    files: the benchmark's photos and masks. settings: JSON-ready; everything else that decides
    results, except the method. Raises WaldoError for a missing file.
    """
    decides = [RESULTS_VERSION, np.__version__, settings, _files(files)]
    return work / f"{protocol}-run-{_digest(decides)}"


class RunScores:
    """The scores of a run, one file per method and batch of queries; use `open_scores`.

    clock: its seconds include those of the run before it was interrupted.
    """

    def __init__(self, folder: Path, n_queries: int, n_gallery: int) -> None:
        self._folder = folder
        self._n_queries, self._n_gallery = n_queries, n_gallery
        self.clock = Clock(seconds=_read_json(folder / _SECONDS))

    @property
    def n_batches(self) -> int:
        return -(-self._n_queries // QUERIES_PER_BATCH)

    def queries(self, batch: int) -> slice:
        """The queries of a batch, as places in the benchmark."""
        start = batch * QUERIES_PER_BATCH
        return slice(start, min(start + QUERIES_PER_BATCH, self._n_queries))

    def is_done(self, method: str, batch: int) -> bool:
        """Whether a batch has scores by a method; a file that cannot be read does not count."""
        try:
            self._batch(method, batch)
        except (OSError, ValueError, EOFError):
            return False
        return True

    def keep(self, batch: int, scores: dict[str, NDArray[np.float32]]) -> None:
        """Store the scores of a batch by each method, (batch, n_gallery) each.

        They are durable on return. Raises OSError.
        """
        for method, values in scores.items():
            content = io.BytesIO()  # a full disk is reported as such only for plain bytes
            np.save(content, values.astype(np.float32, copy=False))
            write_bytes_atomically(self._path(method, batch), content.getvalue())
        write_text_atomically(self._folder / _SECONDS, json.dumps(self.clock.seconds))

    def of(self, method: str) -> list[NDArray[np.float32]]:
        """The scores of every query by a method whose batches are all done, (n_gallery,) each.

        They are mapped from the files, so memory holds only what is looked at.
        """
        batches = (self._batch(method, batch) for batch in range(self.n_batches))
        return [scores for batch in batches for scores in batch]

    def _batch(self, method: str, batch: int) -> NDArray[np.float32]:
        """Raises OSError for a missing file, ValueError or EOFError for a damaged one."""
        scores: NDArray[np.float32] = np.load(self._path(method, batch), mmap_mode="r")
        place = self.queries(batch)
        if scores.shape != (place.stop - place.start, self._n_gallery):
            raise ValueError("another shape")
        return scores

    def _path(self, method: str, batch: int) -> Path:
        return self._folder / f"{batch:05}-{_file_name(method)}.npy"


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
def open_scores(folder: Path, n_queries: int, n_gallery: int) -> Iterator[RunScores]:
    """The scores of a run, open for one process at a time; the folder is made if it is missing.

    Raises WaldoError while another process has it open, OSError where it cannot be written.
    """
    with _locked(folder):
        yield RunScores(folder, n_queries, n_gallery)


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


def _files(paths: list[Path]) -> list[tuple[str, int, int]]:
    """The path, size and modification time of each file."""
    known = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise WaldoError(
                f"{path}: cannot be read ({error.strerror}); a benchmark needs all its photos"
            ) from None
        known.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns))
    return known


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
