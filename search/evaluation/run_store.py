"""What an evaluation keeps on disk: indexes for later runs, and what an unfinished run has done.

Everything lies in one work folder, below names that hold a digest of what decided it, so that
nothing made under other circumstances is ever picked up.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.errors import IndexBusyError
from indexer.protocols import Extractor
from indexer.store.files import sync_folder, write_text_atomically
from indexer.store.lock import writer_lock
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark

# An unfinished run loses this many queries' scores at most.
QUERIES_A_BATCH = 64

_STATE = "state.json"


def default_work_folder() -> Path:
    """In the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "waldo" / "evaluate"


def gallery_folder(
    work: Path, benchmark: Benchmark, maps: str, extractor: Extractor, quality: str
) -> Path:
    """The folder of the index of exactly these photos by this extractor and codec, made if need be;
    a photo is known by its path, size and time. maps: what the extractor's maps are called.

    It holds `gallery.txt`, a list of the photos to be indexed, and the index as `index`. Raises
    WaldoError for a photo that is not there, OSError where nothing can be written.
    """
    decides = [_files(benchmark.gallery), extractor.fingerprint(), quality]
    folder = work / f"{benchmark.protocol}-{maps}-{_digest(decides)}"
    folder.mkdir(parents=True, exist_ok=True)
    listing = "\n".join(str(path.resolve()) for path in benchmark.gallery)
    write_text_atomically(folder / "gallery.txt", listing)
    return folder


def run_folder(work: Path, benchmark: Benchmark, settings: list[Any]) -> Path:
    """The folder for scores of this benchmark, by this program's very source.

    settings: JSON-ready, all else that decides scores but the method. Raises WaldoError for a photo
    or a mask that is not there.
    """
    asked = [query.query for query in benchmark.queries]
    masks = [query.mask for query in asked if query.mask is not None]
    questions = [[q.class_name, q.box, q.point, q.mask is not None] for q in asked]
    decides = [settings, len(benchmark.gallery), questions, benchmark.cut_queries]
    files = [*benchmark.gallery, *(query.photo for query in asked), *masks]
    return results_folder(work, benchmark.protocol, files, decides)


def results_folder(work: Path, protocol: str, files: list[Path], settings: list[Any]) -> Path:
    """The folder for results on a benchmark's files, by this program's very source.

    settings: JSON-ready, all else that decides results but the method. Raises WaldoError for a file
    that is not there.
    """
    decides = [_source_digest(), np.__version__, settings, _files(files)]
    return work / f"{protocol}-run-{_digest(decides)}"


class RunScores:
    """The scores of a run by every method, kept batch by batch; use `open_scores`.

    clock: its seconds are kept too, and go on from those of the run that was interrupted.
    """

    def __init__(self, folder: Path, n_queries: int, n_gallery: int) -> None:
        self._folder = folder
        self._shape = n_queries, n_gallery
        state = _read(folder / _STATE) or {"done": {}, "seconds": {}}
        self._done: dict[str, list[int]] = {
            method: batches
            for method, batches in state["done"].items()
            if self._is_whole(self._path(method))
        }
        self.clock = Clock(seconds=state["seconds"])

    @property
    def n_batches(self) -> int:
        return -(-self._shape[0] // QUERIES_A_BATCH)

    def queries(self, batch: int) -> slice:
        """The places of a batch's queries."""
        return slice(batch * QUERIES_A_BATCH, min((batch + 1) * QUERIES_A_BATCH, self._shape[0]))

    def is_done(self, method: str, batch: int) -> bool:
        return batch in self._done.get(method, [])

    def keep(self, batch: int, scores: dict[str, NDArray[np.float32]]) -> None:
        """Keep a batch's scores by some methods, (batch, n_gallery) each; durable on return.

        Raises OSError.
        """
        for method, values in scores.items():
            path = self._path(method)
            if method not in self._done:
                open_memmap(path, "w+", np.float32, self._shape)
                sync_folder(self._folder)
                self._done[method] = []
            self._write(path, self.queries(batch).start, values)
            self._done[method].append(batch)
        state = {"done": self._done, "seconds": self.clock.seconds}
        write_text_atomically(self._folder / _STATE, json.dumps(state))

    def of(self, method: str) -> NDArray[np.float32]:
        """A method's scores, (n_queries, n_gallery), read from the disk as they are looked at."""
        return open_memmap(self._path(method), "r")

    def _path(self, method: str) -> Path:
        return self._folder / _file_name(method, ".npy")

    def _write(self, path: Path, first: int, values: NDArray[np.float32]) -> None:
        """Write rows from the first on. Not through a map of the file: where the disk is full, that
        ends the process.
        """
        offset = open_memmap(path, "r").offset
        with path.open("r+b") as file:
            file.seek(offset + first * values[0].nbytes)
            file.write(values.astype(np.float32).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _is_whole(self, path: Path) -> bool:
        try:
            return bool(open_memmap(path, "r").shape == self._shape)
        except (OSError, ValueError):  # gone; cut short
            return False


class RunResults:
    """The results of a run by every method, kept item by item (an object, a video); use
    `open_results`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, item: str) -> dict[str, Any]:
        """What was kept of an item, by method."""
        return _read(self._path(item)) or {}

    def keep(self, item: str, results: dict[str, Any]) -> None:
        """Keep an item's results by method, JSON-ready, for what was kept of it; durable on return.

        Raises OSError.
        """
        write_text_atomically(self._path(item), json.dumps(results))

    def count(self, items: list[str], methods: list[str]) -> int:
        """How many of the items have results by all of the methods."""
        return sum(self.of(item).keys() >= set(methods) for item in items)

    def _path(self, item: str) -> Path:
        return self._folder / _file_name(item, ".json")


@contextmanager
def open_scores(folder: Path, n_queries: int, n_gallery: int) -> Iterator[RunScores]:
    """A run's scores as far as they go, for one process at a time.

    Raises WaldoError while another is at it, OSError where the folder cannot be written.
    """
    with _held(folder):
        yield RunScores(folder, n_queries, n_gallery)


@contextmanager
def open_results(folder: Path) -> Iterator[RunResults]:
    """A run's results as far as they go; as `open_scores`."""
    with _held(folder):
        yield RunResults(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder of a run, made if need be, for one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(writer_lock(folder))
        except IndexBusyError:
            raise WaldoError(
                f"{folder}: this very evaluation is under way in another process; wait until it "
                "is done, or choose another folder with --work"
            ) from None
        yield


def _read(path: Path) -> dict[str, Any] | None:
    """What a run wrote; None where there is nothing, or nothing that can be used."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _file_name(name: str, suffix: str) -> str:
    """Of what any text may name, a folder or a prompt; long ones end in their digest."""
    safe = quote(name, safe="+@= ", errors="surrogateescape")
    return f"{safe if len(safe) < 200 else safe[:150] + '-' + _digest(name)}{suffix}"


def _files(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Paths, sizes and times, as an index knows unchanged files by."""
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


def _source_digest() -> str:
    """Of Waldo's own source: scores that other code gave are other scores."""
    found = hashlib.sha256()
    for room in ("features", "indexer", "search"):
        [folder] = importlib.import_module(room).__path__
        for path in sorted(Path(folder).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
