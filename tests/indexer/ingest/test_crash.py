"""After kill -9, a power cut or a full disk, the index opens at its last commit, and the same
command finishes the work.

The kernel kills a process just before its n-th step that changes the disk (an fsync, a rename or an
unlink), for every n. So every file is caught before it is written, half written, without its name,
and no longer in use. What happens between two of these steps makes no difference to the next run.
"""

import contextlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.commit as commit
import indexer.ingest.sample as sample
import indexer.store.shards as shards
import search.recurring.linking as linking
from indexer.errors import IndexBusyError, IndexMissingError, IndexWriteError
from indexer.named_objects import NamedObject
from indexer.reader import IndexReader
from indexer.store.manifest import Manifest, read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from search.albums.album import read_albums
from search.albums.filling import fill_albums
from search.albums.verdicts import Said, say_of_photos
from search.recurring.corrections import correct_objects
from search.recurring.linking import link_photos, stored_links
from tests.helpers.killed import run_forked
from tests.helpers.linked_photos import link_regions, objects_of
from tests.helpers.names import keep_name, keep_two_names, named_view
from tests.helpers.pictures import save_photo
from tests.helpers.stores import (
    PixelDescriptor,
    PixelExtractor,
    described,
    files_of,
    ids_by_recall,
    make_photos,
    rows,
    run,
)

ROOT = Path(__file__).parents[3]
SHARD_BYTES = 3 * 2 * (4 * 4 * 6 * 2)
MAX_VECTORS = 3
NO_ROOM = OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)
    monkeypatch.setattr(commit, "_MAX_VECTORS", MAX_VECTORS)


def act(action: str, photos: Path, index: Path) -> None:
    """Do what is disturbed here: a run of `waldo index` (as on a device, where the action says so),
    of `waldo compact`, of `waldo name`, of `waldo confirm` and `refuse` at once, or of `waldo
    objects`, that compares photos or is told what is right.
    """
    if action == "compact":
        compact(index)
    elif action == "say":
        say_of_photos(index, "Max", [Said(4, True), Said(6, False)])
        fill_albums(index)
    elif action == "link":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linking, "_COMMIT_SECONDS", 0.0)
            patch.setattr(linking, "_PHOTOS", 2)
            link_photos(index)
    elif action == "correct":
        correct_objects(index, [[1, 2]], {1: [0]})
    elif action == "name":
        keep_name(index, NamedObject("Rex", (named_view(photos / "photo-000.png"),)))
    else:
        extractor = PixelExtractor(is_asynchronous=action.endswith("on a device"))
        run(photos, index, extractor, batch_size=2, descriptors=[PixelDescriptor()])


def die_before_step(step: int) -> None:
    """From now on count the steps that change the disk, and be killed before the given one.

    If this step would make a file durable, half of the file is lost, as in a power cut.
    """
    count = 0

    def counted(function: Callable) -> Callable:
        def wrapper(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                if function is fsync and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.truncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **named)

        return wrapper

    fsync = os.fsync
    os.fsync = counted(fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))


def copy_of(before: Path, index: Path) -> Path:
    """A copy of an index, or just the path where there is none to be copied."""
    if before.exists():
        shutil.copytree(before, index)
    return index


def drive(action: str, photos: Path, before: Path, results: Path) -> None:
    """Act on copies of an index, killed at step 1, 2, ... until a copy is finished before its step.

    results: where copy n is left under its number.
    """
    # Once without being killed: every library is imported and warm before the forks.
    act(action, photos, copy_of(before, results / "warm"))
    shutil.rmtree(results / "warm")
    status, step = -9, 0
    while status == -9:
        step += 1
        index = copy_of(before, results / str(step))
        child = os.fork()
        if child == 0:
            die_before_step(step)
            act(action, photos, index)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.rmtree(results / str(step))
    assert status == 0


def killed_everywhere(action: str, photos: Path, before: Path, results: Path) -> list[Path]:
    """`drive` in a process that forks from this one; returns the indexes that were left."""
    results.mkdir()
    assert run_forked(partial(drive, action, photos, before, results)) == 0
    return sorted(results.iterdir(), key=lambda path: int(path.name))


def assert_usable(index: Path) -> None:
    """The index opens at its last commit, if it has one, and every file of that commit is sound."""
    if not (index / "manifest.json").exists():
        return
    assert verify(index) == []
    with contextlib.suppress(IndexMissingError), IndexReader.open(index) as reader:
        assert reader.read_maps(reader.ids).damaged == []
        described(index)
        assert [reader.named(name).name for name in reader.names] == list(reader.names)
        assert ids_by_recall(reader) == reader.ids.tolist()


def assert_nothing_left_over(index: Path) -> None:
    names = {file.name for file in read_manifest(index).files()} | {"manifest.json"}
    assert set(files_of(index)) - {"failures.jsonl"} == names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos, two of them of the same content, and a broken one: two shards are enough for
    every kind of step.
    """
    folder = tmp_path / "photos"
    make_photos(folder, 6)
    shutil.copy(folder / "photo-004.png", folder / "photo-004a.png")
    (folder / "photo-002a.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def before(request: pytest.FixtureRequest, tmp_path: Path, photos: Path) -> Path:
    """The index that an action begins with; the photos are changed to what the action finds."""
    action, index = request.node.callspec.params["action"], tmp_path / "before"
    if action == "index":
        return index
    descriptors = [] if action == "describe" else [PixelDescriptor()]
    run(photos, index, descriptors=descriptors)
    if action == "describe":
        return index
    keep_name(index, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    make_photos(photos, 2, first=20)
    save_photo(photos / "photo-001.png", 50, 50, seed=90)
    (photos / "photo-002.png").unlink()
    (photos / "photo-003.png").rename(photos / "photo-030.png")
    shutil.copy(photos / "photo-005.png", photos / "photo-031.png")
    if action == "compact":
        run(photos, index, descriptors=descriptors)
        (photos / "photo-000.png").unlink()
        run(photos, index, descriptors=descriptors)
    return index


def undisturbed(action: str, photos: Path, before: Path, index: Path) -> Path:
    act(action, photos, copy_of(before, index))
    assert verify(index) == []
    return index


ALL = ("index", "describe", "update", "compact")
ACTIONS = pytest.mark.parametrize("action", ALL)


@pytest.mark.parametrize("action", [*ALL, "update on a device"])
def test_killed_at_every_step(action: str, photos: Path, before: Path, tmp_path: Path) -> None:
    whole = undisturbed(action, photos, before, tmp_path / "whole")
    expected = rows(whole), described(whole)
    assert {name: set(vectors) for name, vectors in expected[1].items()} == {
        "colours": set(expected[0])
    }
    left = killed_everywhere(action, photos, before, tmp_path / "left")
    assert len(left) > 20  # otherwise nothing was disturbed
    states = set()
    for index in left:
        assert_usable(index)
        states.add(generation(index))
        act(action, photos, index)
        assert (rows(index), described(index)) == expected
        assert verify(index) == []
        assert [record.name for record in read_manifest(index).names] == [
            record.name for record in read_manifest(whole).names
        ]
        assert_nothing_left_over(index)
        if action == "compact":
            assert files_of(index) == files_of(whole)
    # The kills lie between all the commits; otherwise this test would show little.
    commits = {"index": 6, "describe": 3, "update": 3, "compact": 2}
    assert len(states) >= commits[action.split()[0]]


def generation(index: Path) -> int:
    manifest = Manifest.load_if_present(index)
    return -1 if manifest is None else manifest.generation


def work_until_killed(photos: Path, index: Path) -> None:
    """Index, remove, update and compact, over and over."""
    names = sorted(path for path in photos.iterdir() if path.suffix == ".png")
    turn = 0
    while True:
        run(photos, index, batch_size=2)
        remove(index, [names[turn % len(names)]])
        run(photos, index, batch_size=2)
        compact(index)
        turn += 1


def drive_at_random(photos: Path, index: Path, results: Path) -> None:
    """Kill ten processes that work on one index, each after some time.

    results: where the index is copied to after each kill.
    """
    run(photos, results / "warm", batch_size=2)
    shutil.rmtree(results / "warm")
    chance = random.Random(7)
    for turn in range(10):
        child = os.fork()
        if child == 0:
            work_until_killed(photos, index)
        time.sleep(chance.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -9
        if index.exists():
            shutil.copytree(index, results / str(turn))


def test_killed_at_random(photos: Path, tmp_path: Path) -> None:
    results, index = tmp_path / "left", tmp_path / "index"
    results.mkdir()
    assert run_forked(partial(drive_at_random, photos, index, results)) == 0
    run(photos, tmp_path / "whole")
    # Removed photos come back with new ids, and an undisturbed run has none of that.
    expected = {path: row[1:] for path, row in rows(tmp_path / "whole").items()}
    left = sorted(results.iterdir())
    assert len(left) > 5
    for copy in left:
        assert_usable(copy)
        run(photos, copy)
        compact(copy)
        assert {path: row[1:] for path, row in rows(copy).items()} == expected
        assert verify(copy) == []
        assert_nothing_left_over(copy)


def test_naming_killed_at_every_step(photos: Path, tmp_path: Path) -> None:
    """No name is lost, and none is half changed."""
    before = tmp_path / "before"
    run(photos, before)
    keep_name(before, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    keep_name(before, NamedObject("Rex", (named_view(photos / "photo-002.png"),)))
    left = killed_everywhere("name", photos, before, tmp_path / "left")
    assert len(left) > 5
    counts = set()
    for index in left:
        assert_usable(index)
        with IndexReader.open(index) as reader:
            names = reader.names
            assert names["Max"] == 1
            assert len(reader.named("Rex").views) == names["Rex"]
            counts.add(names["Rex"])
        act("name", photos, index)
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert counts == {1, 2}


def test_killed_at_every_step_of_what_is_said_of_photos(photos: Path, tmp_path: Path) -> None:
    """What was said before is always there; what is said now is there whole or not at all, and
    albums follow.
    """
    before = tmp_path / "before"
    run(photos, before)
    keep_two_names(before, photos)
    whole = undisturbed("say", photos, before, tmp_path / "whole")
    left = killed_everywhere("say", photos, before, tmp_path / "left")
    assert len(left) > 10
    states = set()
    for index in left:
        assert_usable(index)
        with IndexReader.open(index) as reader:
            said = {one.photo.name: one.shows for one in reader.named("Max").verdicts}
            assert said.pop("photo-003.png") is True
            assert list(said.values()) in ([], [True, False])
            albums = read_albums(reader)
            states.add((len(said), albums["Max"].waiting == 0))
            # An album that does not follow yet shows what was said.
            assert sum(photo.said is True for photo in albums["Max"].shown) == 2 + len(said) // 2
            assert albums["Rex"].waiting == 0
        act("say", photos, index)
        assert verify(index) == []
        with IndexReader.open(index) as reader, IndexReader.open(whole) as expected:
            assert read_albums(reader) == read_albums(expected)
        assert_nothing_left_over(index)
    assert states == {(0, True), (2, False), (2, True)}


def test_killed_at_every_step_of_correcting_objects(photos: Path, tmp_path: Path) -> None:
    """What was said before is always there; what is said now is there whole or not at all."""
    before = tmp_path / "before"
    run(photos, before)
    link_regions(before, ((0, 1), (2, 3), (4, 5)))
    correct_objects(before, taken_out={3: [6]})  # what is said first: no photo 5 with photo 4
    unsaid, said = {frozenset({0, 1}), frozenset({2, 3})}, {frozenset({1, 2, 3})}
    assert objects_of(before) == unsaid
    left = killed_everywhere("correct", photos, before, tmp_path / "left")
    assert len(left) > 5
    states = []
    for index in left:
        assert_usable(index)
        states.append(objects_of(index))
        if states[-1] == unsaid:
            act("correct", photos, index)
        assert objects_of(index) == said
        # The files of a writer that was killed go with the next one.
        compact(index)
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert unsaid in states
    assert said in states


def test_linking_killed_at_every_step(photos: Path, tmp_path: Path) -> None:
    """What a person said is always there, and the run goes on to the same links."""
    before = tmp_path / "before"
    run(photos, before)
    link_regions(before, ((0, 1), (2, 3)))
    correct_objects(before, [[1, 2]])
    make_photos(photos, 2, first=20)
    run(photos, before)
    whole = undisturbed("link", photos, before, tmp_path / "whole")
    left = killed_everywhere("link", photos, before, tmp_path / "left")
    assert len(left) > 10
    for index in left:
        assert_usable(index)
        assert frozenset({0, 1, 2, 3}) in objects_of(index)
        act("link", photos, index)
        with IndexReader.open(index) as reader, IndexReader.open(whole) as expected:
            links, wanted = stored_links(reader), stored_links(expected)
            assert links.compared.all()
            np.testing.assert_array_equal(links.contents, wanted.contents)
            np.testing.assert_array_equal(links.pairs, wanted.pairs)
        assert objects_of(index) == objects_of(whole)
        # While linking the index is being read, so the next writer deletes replaced files.
        compact(index)
        assert verify(index) == []
        assert_nothing_left_over(index)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("number", "kept"), [(signal.SIGKILL, 6), (signal.SIGINT, 8)])
def test_a_signal_from_outside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    kept: int,
    on_device: bool,
) -> None:
    """Kill -9 leaves the last commit and no lock. Ctrl-C first commits what is extracted."""
    monkeypatch.setattr(sample, "_MOST_PHOTOS", 2)  # or all were extracted before any is stored
    photos, index, reached = tmp_path / "photos", tmp_path / "index", tmp_path / "reached"
    make_photos(photos, 10)
    code = (
        "import signal, sys, time, indexer.ingest.sample, indexer.store.shards\n"
        "from pathlib import Path\n"
        # The background jobs of a shell ignore Ctrl-C at first.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.helpers.stores import PixelExtractor, run\n"
        f"indexer.store.shards.SHARD_BYTES = {SHARD_BYTES}\n"
        "indexer.ingest.sample._MOST_PHOTOS = 2\n"
        "def wait(count):\n"
        "    if count >= 8:\n"
        "        Path(sys.argv[3]).touch()\n"
        "        time.sleep(600)\n"
        f"extractor = PixelExtractor(before=wait, is_asynchronous={on_device})\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), extractor, batch_size=2)"
    )
    arguments = [sys.executable, "-c", code, str(photos), str(index), str(reached)]
    writer = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (reached.exists() and read_manifest(index).generation >= 3):
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(IndexBusyError, match=str(writer.pid)):
            run(photos, index)
        with IndexReader.open(index) as reader:  # readers are not kept out
            assert reader.n_photos == 6
        writer.send_signal(number)
        writer.wait(60)
    finally:
        writer.kill()
        writer.wait()
    assert verify(index) == []
    extractor = PixelExtractor()
    report = run(photos, index, extractor)
    assert (report.new, report.unchanged) == (10 - kept, kept)
    assert sum(extractor.batches) == 10 - kept
    run(photos, tmp_path / "whole")
    assert rows(index) == rows(tmp_path / "whole")


@ACTIONS
@pytest.mark.parametrize("how", ["fsync", "write"])
def test_no_room_at_every_write(
    action: str, how: str, photos: Path, before: Path, tmp_path: Path
) -> None:
    """If the disk is full at the n-th write, there is one clear line, and nothing is lost."""
    whole = undisturbed(action, photos, before, tmp_path / "whole")
    expected = rows(whole), described(whole)
    failed, done = 0, False
    while not done:
        index = copy_of(before, tmp_path / f"{how}-{failed}")
        held = files_of(index)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, how, failed)
            said = None
            try:
                act(action, photos, index)
            except (IndexWriteError, OSError) as error:
                said = str(error)
        done = said is None
        if said is not None:
            assert "No space left on device" in said
            assert "\n" not in said
            failed += 1
        assert not list(index.rglob("*.tmp"))
        if action == "compact" and not done:
            # What was written is deleted again, unless the commit was already done.
            assert files_of(index) == held or generation(index) > generation(before)
        assert_usable(index)
        act(action, photos, index)
        assert (rows(index), described(index)) == expected
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert failed > (8 if how == "fsync" else 2)


def fail_at(patch: pytest.MonkeyPatch, how: str, at: int) -> None:
    """Make the n-th call that writes fail, counted from 0: an fsync, or the writing of a file."""
    import faiss
    import pyarrow.parquet as pq
    import safetensors.numpy

    count = 0

    def counted(function: Callable, error: Exception) -> Callable:
        def wrapper(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count - 1 == at:
                raise error
            return function(*args, **named)

        return wrapper

    if how == "fsync":
        patch.setattr(os, "fsync", counted(os.fsync, NO_ROOM))
    else:
        patch.setattr(pq, "write_table", counted(pq.write_table, NO_ROOM))
        # The words of FAISS itself.
        words = RuntimeError("Error: 'ret == (1)' failed: write error: No space left on device")
        patch.setattr(faiss, "write_index", counted(faiss.write_index, words))
        refused = safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file = safetensors.numpy.save_file
        patch.setattr(safetensors.numpy, "save_file", counted(save_file, refused))


def mount(*arguments: object) -> None:
    """Mount something, or skip the test where that is not permitted."""
    try:
        command = ["mount", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("mounting is not permitted here")


@contextlib.contextmanager
def small_disk(path: Path, kib: int) -> Iterator[Path]:
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


def free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_bsize


def test_a_disk_that_fills_up_while_indexing(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole")
    with small_disk(tmp_path / "disk", 48) as disk:
        with pytest.raises((IndexWriteError, OSError), match="No space left on device"):
            run(photos, disk / "index")
        assert_usable(disk / "index")
        mount("-o", "remount,size=4096k", disk)
        run(photos, disk / "index")
        assert rows(disk / "index") == rows(tmp_path / "whole")
        assert verify(disk / "index") == []
        assert_nothing_left_over(disk / "index")


def test_a_disk_that_fills_up_while_compacting(photos: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        index = disk / "index"
        run(photos, index)
        (photos / "photo-000.png").unlink()
        run(photos, index)
        expected, held = rows(index), files_of(index)
        (disk / "filler").write_bytes(bytes(free_bytes(disk) - 3 * 4096))
        free = free_bytes(disk)
        with pytest.raises(IndexWriteError, match=r"No space left on device.*make room"):
            compact(index)
        assert files_of(index) == held
        assert free_bytes(disk) == free
        (disk / "filler").unlink()
        assert compact(index).changed
        assert rows(index) == expected
        assert verify(index) == []


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a folder read-only; for root by a mount, because root may ignore permissions."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        yield
        path.chmod(0o755)
        return
    mount("--bind", path, path)
    try:
        mount("-o", "remount,ro,bind", path)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


@pytest.mark.parametrize("lock", ["there", "missing"])
def test_a_read_only_index_is_read_and_not_written(photos: Path, tmp_path: Path, lock: str) -> None:
    index = tmp_path / "index"
    run(photos, index)
    expected = rows(index)
    (photos / "photo-000.png").unlink()
    if lock == "missing":
        (index / ".readers").unlink()
        (index / ".lock").unlink()
    with read_only(index):
        assert rows(index) == expected
        assert verify(index) == []
        actions = (
            lambda: run(photos, index),
            lambda: compact(index),
            lambda: remove(index, [photos]),
        )
        for action in actions:
            with pytest.raises(IndexWriteError, match=r"cannot be written.*same command again"):
                action()
        assert rows(index) == expected
    assert run(photos, index).removed == 1
