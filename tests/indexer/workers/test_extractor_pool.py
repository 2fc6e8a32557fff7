"""Several worker processes fill the index that one process fills, and none outlives the run."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import indexer.ingest.sample as sample
from features.errors import ModelError
from features.extractor import FeatureExtractor
from features.models import find_extractor
from features.photo import load_model_input
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import encode_photos
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.ingest.build import index_photos
from indexer.ingest.progress import Progress
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.workers.extractor_pool import ExtractorPool, gpus
from indexer.workers.messages import Message
from indexer.workers.worker_process import WorkerProcess
from tests.helpers.stores import files_of, make_photos, rows

ROOT = Path(__file__).parents[3]
BATCH = 2
N_PHOTOS = 18


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most photos are extracted after the codec is fitted."""
    monkeypatch.setattr(sample, "_MOST_PHOTOS", 4)


@pytest.fixture(scope="module")
def one(tiny: FeatureExtractor) -> Iterator[FeatureExtractor]:
    """The bundled model with small maps, in this process.

    One thread, here as in workers: the last bits of a model's numbers depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield FeatureExtractor(tiny.model, replace(tiny.settings, image_size=96), BATCH)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pool(one: FeatureExtractor) -> Iterator[ExtractorPool]:
    """The same in two worker processes."""
    with ExtractorPool(one, workers=2) as found:
        found.get_ready()
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder, N_PHOTOS)
    return folder


@pytest.fixture(scope="module")
def whole(one: FeatureExtractor, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the photos."""
    folder = tmp_path_factory.mktemp("whole") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_MOST_PHOTOS", 4)
        index_photos([photos], folder, one)
    return folder


def test_the_index_is_the_same_byte_for_byte(
    pool: ExtractorPool, photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[WorkerProcess] = Counter()
    ask = WorkerProcess.ask

    def counted(worker: WorkerProcess, message: Message) -> object:
        asked[worker] += len(message.arrays)
        return ask(worker, message)

    monkeypatch.setattr(WorkerProcess, "ask", counted)
    assert (pool.n_workers, pool.is_asynchronous, pool.batch_size) == (2, True, BATCH)
    assert index_photos([photos], tmp_path / "index", pool).new == N_PHOTOS
    assert verify(tmp_path / "index") == []
    assert files_of(tmp_path / "index") == files_of(whole)
    # Nine batches, in turn. The model was not read in this process.
    assert sorted(asked.values()) == [4, 5]


def test_maps_are_those_of_one_process(
    one: FeatureExtractor, pool: ExtractorPool, photos: Path
) -> None:
    inputs = [load_model_input(p, one.image_size, one.grid) for p in sorted(photos.iterdir())[:3]]
    begun = [pool.begin(inputs), pool.begin(inputs[:1]), pool.begin([])]
    for maps, count in reversed(list(zip(begun, (3, 1, 0), strict=True))):
        found, expected = maps(), one.extract(inputs[:count])
        assert len(found) == count
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine.frame, mine.content_hash) == (theirs.frame, theirs.content_hash)
            np.testing.assert_array_equal(mine.appearance, theirs.appearance)
            np.testing.assert_array_equal(mine.semantic, theirs.semantic)


def test_workers_encode_by_the_codec_that_is_given(
    one: FeatureExtractor, pool: ExtractorPool, photos: Path
) -> None:
    inputs = [load_model_input(p, one.image_size, one.grid) for p in sorted(photos.iterdir())[:3]]
    maps = one.extract(inputs)
    for quality in ("none", DEFAULT_QUALITY):
        codec = Codec.fit(quality, maps, one.vocabulary_vectors()[:8])
        begun = [pool.begin_encoded(inputs, codec), pool.begin_encoded(inputs[1:], codec)]
        for encoded, its_maps in zip(begun, (maps, maps[1:]), strict=True):
            found, expected = encoded(), encode_photos(codec, its_maps)
            assert list(found) == list(expected) == [each.content_hash for each in its_maps]
            for content, its in expected.items():
                np.testing.assert_array_equal(found[content].encoded, its.encoded)
                np.testing.assert_array_equal(found[content].pooled, its.pooled)
                np.testing.assert_array_equal(found[content].words, its.words)


def test_one_worker_is_this_process(one: FeatureExtractor) -> None:
    pool = ExtractorPool(FeatureExtractor(one.model, one.settings))
    pool.get_ready()
    assert (pool.n_workers, pool.is_asynchronous, pool.batch_size) == (1, False, 8)


def test_every_gpu_has_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert gpus(torch.device("cuda")) == ["cuda:0", "cuda:1", "cuda:2"]
    assert gpus(torch.device("cuda:1")) == ["cuda:1"]
    assert gpus(torch.device("cpu")) == ["cpu"]


def broken_model(folder: Path) -> None:
    """Its weights are whole, and those of something else, which shows when they are loaded."""
    weights = next((folder / "unet").glob("*.safetensors"))
    save_file({"other": np.zeros(1, dtype=np.float32)}, weights)


def test_a_model_that_cannot_be_read_is_told_in_one_line(
    pipeline_folder: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pipeline_folder("sd1"), tmp_path / "model"))
    broken_model(folder)
    with ExtractorPool(find_extractor(str(folder), "cpu"), workers=2) as pool:
        with pytest.raises(ModelError, match="model") as raised:
            index_photos([photos], tmp_path / "index", pool)
        assert "\n" not in str(raised.value)
        with pytest.raises(ModelError):  # whoever asks again is told again
            pool.vocabulary_vectors()
    assert not (tmp_path / "index" / "manifest.json").exists()


def children() -> set[int]:
    """The processes that this one has started, and that run."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(number) for each in lists for number in each.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_worker_costs_what_is_not_done(
    one: FeatureExtractor, photos: Path, whole: Path, tmp_path: Path
) -> None:
    before = children()

    def kill_one(progress: Progress) -> None:
        if progress.stage == "index" and progress.done:
            os.kill(max(children() - before), signal.SIGKILL)

    with ExtractorPool(one, workers=2) as pool:
        with pytest.raises(ModelError, match="worker process on cpu was killed") as raised:
            index_photos([photos], tmp_path / "index", pool, on_progress=kill_one)
        assert "\n" not in str(raised.value)
    assert children() == before
    assert verify(tmp_path / "index") == []
    report = index_photos([photos], tmp_path / "index", one)
    assert report.unchanged >= BATCH
    assert report.unchanged + report.new == N_PHOTOS
    assert rows(tmp_path / "index") == rows(whole)


# `waldo index` by two workers, stopped when it has indexed some photos. The signal goes to all
# processes of the terminal's job, as Ctrl-C does, or to this one alone.
STOPPED = """
import os, signal, sys
import indexer.ingest.sample as sample
from search.commands.app import main
from search.commands.terminal.progress_bar import ProgressDisplay

sample._MOST_PHOTOS = 4
show, stop = ProgressDisplay.__call__, sys.argv.pop(1)

def stop_at(self, progress):
    if progress.stage == "index" and progress.done >= 4:
        ProgressDisplay.__call__ = show
        if stop == "ctrl-c":
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    show(self, progress)

ProgressDisplay.__call__ = stop_at
main()
"""


@pytest.mark.parametrize(("stop", "status"), [("ctrl-c", 130), ("kill", -signal.SIGKILL)])
def test_no_worker_outlives_the_run(photos: Path, tmp_path: Path, stop: str, status: int) -> None:
    index = tmp_path / "index"
    options = ("--index", index, "--device", "cpu", "--workers", 2, "--batch-size", BATCH)
    # This waits until the last process has ended that has this pipe for its messages.
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, stop, *map(str, ("index", photos, *options))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        start_new_session=True,
    )
    assert stopped.returncode == status, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert verify(index) == []
    if stop == "ctrl-c":
        assert "what is done is kept" in stopped.stderr
        assert read_manifest(index).n_photos >= 4
