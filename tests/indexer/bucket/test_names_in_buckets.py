"""Names, albums, recurring objects and fitted weights of an index that lies in a bucket."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

import search.recurring.linking as linking
import search.scoring.fusion as fusion
from features.extractor import FeatureExtractor
from indexer.bucket.collection_copy import collection_copy
from indexer.bucket.object_store import Bucket, BucketError, ConflictError
from indexer.bucket.remote_check import verify_remote
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import UnknownNameError
from indexer.fleet.fleet_build import index_collection
from indexer.named_objects import NamedObject
from indexer.reader import IndexReader
from indexer.store.manifest import MANIFEST_NAME, read_manifest
from indexer.upkeep.naming import forget_object, merge_objects, rename_object
from search.albums.album import read_albums
from search.albums.filling import fill_albums
from search.albums.verdicts import Said, say_of_photos
from search.recurring.corrections import correct_objects
from search.recurring.linking import link_photos, stored_links
from search.scoring.fusion import FusionWeights
from tests.helpers.command_line import CommandLine
from tests.helpers.linked_photos import link_regions, objects_of
from tests.helpers.names import keep_name, keep_two_names, named_view
from tests.helpers.pictures import smooth_pixels
from tests.helpers.servers.object_server import Fault, ObjectServer, no_fault
from tests.helpers.stores import PixelExtractor, make_photos, run

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_maps")

URL = "s3://photos/one/index"
PREFIX = "one/index/"
BOX = "20,20,180,180"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_photos(folder, 10)
    return folder


@pytest.fixture
def local(server: ObjectServer, photos: Path, tmp_path: Path) -> Path:
    """An index in a folder that knows two names and three objects, and its copy at URL."""
    index = tmp_path / "local"
    run(photos, index)
    keep_two_names(index, photos)
    link_regions(index, ((0, 1), (2, 3), (4, 5)))
    export_index(str(index), URL)
    make_photos(photos, 2, first=20)
    return index


def act(action: str, index: Path) -> None:
    """What a command does in the folder of an index, up to its first push."""
    if action == "confirm and refuse":
        say_of_photos(index, "Max", [Said(4, True), Said(6, False)])
    elif action == "name":
        keep_name(index, NamedObject("Tom", (named_view(Path(_photo_of(index)), row=2),)))
    elif action == "rename":
        rename_object(index, "Rex", "Roy")
    elif action == "merge":
        merge_objects(index, "Rex", "Max")
    elif action == "forget":
        forget_object(index, "Rex")
    else:
        correct_objects(index, [[1, 2]], {3: [4]})


def _photo_of(index: Path) -> str:
    with IndexReader.open(index) as reader:
        return list(reader.paths())[5]


def act_in_bucket(action: str, scratch: Path) -> None:
    with collection_copy(Bucket(URL), scratch) as copy:
        act(action, copy.folder)
        copy.push()
        fill_albums(copy.folder)


def state_of(index: Path) -> tuple[object, ...]:
    """All that people said, and the albums and objects that follow."""
    with IndexReader.open(index) as reader:
        said = {
            name: [(one.photo.name, one.shows) for one in reader.named(name).verdicts]
            for name in reader.names
        }
        return said, read_albums(reader), objects_of(index)


@pytest.mark.parametrize(
    "action", ["name", "confirm and refuse", "rename", "merge", "forget", "correct"]
)
def test_the_bucket_has_what_a_folder_has(
    server: ObjectServer, local: Path, tmp_path: Path, action: str
) -> None:
    """Byte for byte; no map shard is stored or copied whole."""
    server.requests.clear()
    act_in_bucket(action, tmp_path / "scratch")
    assert not [path for method, path in server.requests if method == "PUT" and "/shards/" in path]
    act(action, local)
    fill_albums(local)
    stored = server.objects()
    assert stored[PREFIX + MANIFEST_NAME] == (local / MANIFEST_NAME).read_bytes()
    for file in read_manifest(local).files():
        assert stored[PREFIX + object_key(file)] == (local / file.name).read_bytes()


@pytest.mark.parametrize(
    ("action", "writes"),  # a file of what is said, one of albums, the manifests
    [("confirm and refuse", 4), ("rename", 1), ("correct", 2)],
)
def test_cut_off_at_every_request_that_writes(
    server: ObjectServer, local: Path, tmp_path: Path, action: str, writes: int
) -> None:
    """What was said before is there, what is said now is there whole or not at all, and the same
    command finishes it.
    """
    start, before = server.objects(), state_of(local)
    act(action, local)
    said = state_of(local)[0]
    fill_albums(local)
    after = state_of(local)
    for number in range(1, writes + 1):
        put_back(server, start)
        server.fault = refuse_from(number)
        with pytest.raises(BucketError, match="have expired"):
            act_in_bucket(action, tmp_path / f"scratch-{number}")
        server.fault = no_fault
        assert [*verify_remote(URL)] == []
        reached = state_of(cached_index(URL))[0]
        assert reached == (before[0] if number <= min(writes, 2) else said)
        if reached == before[0]:
            act_in_bucket(action, tmp_path / f"scratch-{number}")
        else:  # it is said; the album follows
            with collection_copy(Bucket(URL), tmp_path / f"scratch-{number}") as copy:
                fill_albums(copy.folder)
        assert state_of(cached_index(URL)) == after
    put_back(server, start)
    server.fault = refuse_from(writes + 1)
    act_in_bucket(action, tmp_path / "scratch")


def put_back(server: ObjectServer, objects: dict[str, bytes]) -> None:
    server.reset()
    for key, content in objects.items():
        server.s3.put_object(Bucket="photos", Key=key, Body=content)


def refuse_from(number: int) -> Fault:
    """Refuse the request of this number, among those that write, and all after it."""
    allowed = iter(range(number - 1))

    def fault(method: str, path: str) -> tuple[int, str] | None:
        return (403, "ExpiredToken") if method == "PUT" and next(allowed, None) is None else None

    return fault


@pytest.mark.parametrize("number", [2, 3])
def test_killed_before_and_after_what_is_said_is_stored(
    server: ObjectServer, local: Path, tmp_path: Path, number: int
) -> None:
    """The same scratch folder is used again, whatever the killed process left in it."""
    scratch, action = tmp_path / "scratch", "confirm and refuse"
    program = (
        "import sys; from pathlib import Path; "
        "from tests.indexer.bucket.test_names_in_buckets import act_in_bucket as act; "
        "act(sys.argv[1], Path(sys.argv[2]))"
    )
    before = state_of(local)
    act(action, local)
    fill_albums(local)
    allowed = iter(range(number - 1))

    def kill(method: str, path: str) -> tuple[int, str] | None:
        if method != "PUT" or next(allowed, None) is not None:
            return None
        process.kill()
        return 503, "SlowDown"

    server.fault = kill
    process = subprocess.Popen([sys.executable, "-c", program, action, scratch], cwd=ROOT)
    assert process.wait(120) == -signal.SIGKILL
    server.fault = no_fault
    assert [*verify_remote(URL)] == []
    expected = before if number <= 2 else state_of(local)
    assert state_of(cached_index(URL))[0] == expected[0]
    act_in_bucket(action, scratch)
    assert state_of(cached_index(URL)) == state_of(local)


def test_linking_is_stored_as_it_goes(
    server: ObjectServer, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each commit, so a run that is cut off goes on from there to the links of a folder."""
    photos = tmp_path / "photos"
    with collection_copy(Bucket(URL), tmp_path / "scratch") as copy:
        run(photos, copy.folder)
        correct_objects(copy.folder, [[1, 2]])
    run(photos, local)
    correct_objects(local, [[1, 2]])
    link_photos(local)
    monkeypatch.setattr(linking, "_COMMIT_SECONDS", 0.0)
    start = server.objects()
    for number in (2, 4, 6):  # the manifests of two steps, and that of the end
        put_back(server, start)
        server.fault = refuse_from(number)
        scratch = tmp_path / f"scratch-{number}"
        with pytest.raises(BucketError, match="have expired"):
            link_in_bucket(scratch)
        server.fault = no_fault
        assert [*verify_remote(URL)] == []
        link_in_bucket(scratch)
        found = cached_index(URL)
        with IndexReader.open(found) as reader, IndexReader.open(local) as expected:
            links, wanted = stored_links(reader), stored_links(expected)
            assert links.compared.all()
            assert links.pairs.tolist() == wanted.pairs.tolist()
        assert objects_of(found) == objects_of(local)


def link_in_bucket(scratch: Path) -> int:
    with collection_copy(Bucket(URL), scratch) as copy:
        return link_photos(copy.folder, on_commit=copy.push)


def test_of_two_writers_the_slower_is_refused(
    server: ObjectServer, local: Path, tmp_path: Path
) -> None:
    """Also where the answer to the commit of either is lost; what both say is kept in the end."""

    def write_both() -> None:
        with collection_copy(Bucket(URL), tmp_path / "mine") as copy:
            act("confirm and refuse", copy.folder)
            act_in_bucket("rename", tmp_path / "theirs")

    with pytest.raises(ConflictError, match=f"{URL}: another run has written") as caught:
        write_both()
    assert "\n" not in str(caught.value)
    assert [*verify_remote(URL)] == []
    said = state_of(cached_index(URL))[0]
    assert said == {"Max": [("photo-003.png", True)], "Roy": []}
    lost = iter([True])
    server.fault = lambda method, path: (
        "lost" if method == "PUT" and path.endswith(MANIFEST_NAME) and next(lost, False) else None
    )
    act_in_bucket("confirm and refuse", tmp_path / "mine")
    act("rename", local)
    act("confirm and refuse", local)
    fill_albums(local)
    assert state_of(cached_index(URL)) == state_of(local)


def test_from_the_terminal(server: ObjectServer, tmp_path: Path, waldo: CommandLine) -> None:
    """Every command answers as it does on a folder, and `waldo index` fills albums."""
    folder, index = tmp_path / "photos", tmp_path / "index"
    folder.mkdir()
    every = sorted((ROOT / "data/demo/photos").glob("*.jpg"))[:5]
    first, second, third, fourth, last = [folder / path.name for path in every]
    for path in every[:-1]:
        shutil.copy2(path, folder)
    assert waldo("index", folder, "--index", index).code == 0
    export_index(str(index), URL)
    for command in (
        ("name", "Rex", first, "--box", BOX),
        ("name", "Max", second, "--box", BOX),
        ("named", "--json"),
        ("confirm", "Rex", third),
        ("refuse", "@Rex", f"{fourth}@{BOX}"),
        ("album", "Rex", "--json"),
        ("objects", "--json"),
        ("rename", "Max", "Moritz"),
        ("index", folder, "--json"),
        ("album", "Moritz", "--json"),
        ("query", "@Rex", "--json"),
        ("merge", "Rex", "Moritz"),
        ("named",),
        ("forget", "Rex"),
        ("named", "--json"),
    ):
        if command[0] == "index":
            shutil.copy2(every[-1], last)
        here, there = (waldo(*command, "--index", where) for where in (index, URL))
        assert (here.code, there.code) == (0, 0), (command, there)
        if command[0] != "index":  # which may tell how far it is
            assert there.err == here.err, command
        if command[-1] != "--json":
            assert there.out == here.out
            continue
        expected, found = json.loads(here.out), json.loads(there.out)
        for values in (expected, found):
            for name in ("index_dir", "index", "seconds", "timing"):
                values.pop(name, None)
        assert found == expected, command
        if command[0] == "album":
            assert found["waiting"] == 0
    assert [*verify_remote(URL)] == []
    line = waldo.refusal("album", "Rex", "--index", URL)
    assert line == f"error: @Rex: {URL} knows no object of this name; " + (
        "it knows none; `waldo name Rex PHOTO` adds one"
    )
    assert "no index here" in waldo.refusal("forget", "Rex", "--index", "s3://photos/none")
    assert not [key for key in server.objects() if not key.startswith(PREFIX)]


def test_readers_ask_for_nothing_that_they_have(
    server: ObjectServer, local: Path, waldo: CommandLine
) -> None:
    for command in (("album", "Max"), ("named",), ("album", "Rex", "--json")):
        server.requests.clear()
        here, there = (waldo(*command, "--index", where) for where in (local, URL))
        assert (there.code, there.out) == (0, here.out)
        if command[0] == "album" and command[1] == "Max":
            assert not [path for _, path in server.requests if "/shards/" in path]
        else:
            assert server.requests == [("GET", f"/photos/{PREFIX}{MANIFEST_NAME}")]
    with (
        IndexReader.open(cached_index(URL)) as reader,
        pytest.raises(UnknownNameError, match=f"^@Tom: {URL} knows no object"),
    ):
        reader.named("Tom")
    assert {method for method, _ in server.requests} == {"GET"}


def test_fleets_keep_no_names_there_either(
    server: ObjectServer, photos: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    """Which is told before anything large is copied."""
    fleet = tmp_path / "fleet"
    index_collection([photos], fleet, PixelExtractor(), parts=2)
    export_index(str(fleet), URL)
    for command in (
        ("named",),
        ("album", "Rex"),
        ("name", "Rex", photos / "photo-001.png", "--box", "1,1,20,20"),
        ("confirm", "Rex", photos / "photo-001.png"),
        ("rename", "Rex", "Max"),
        ("objects",),
        ("fit-weights", "folders", "--root", photos),
    ):
        server.requests.clear()
        line = waldo.refusal(*command, "--index", URL)
        assert line.startswith(f"error: {URL}: is a fleet of indexes, which keeps no names")
        asked = {Path(path).name.split("-")[0] for _, path in server.requests}
        assert asked <= {MANIFEST_NAME, "fleet.json", "fleet", "failures.jsonl"}


def test_weights_are_fitted_to_an_index_there(
    server: ObjectServer, tmp_path: Path, waldo: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another writer is faster, what was measured is kept, and the same command stores it."""
    labelled, index = tmp_path / "labelled", tmp_path / "index"
    for seed in range(6):
        for number, light in enumerate((0.97, 1.03)):
            path = labelled / f"object{seed}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(smooth_pixels(60, 45, seed))
            ImageEnhance.Brightness(picture).enhance(light).save(path)
    classes = {f"object{seed}": ("mug", "kettle")[seed % 2] for seed in range(6)}
    (labelled / "classes.json").write_text(json.dumps(classes))
    assert waldo("index", labelled, "--index", index, "--device", "cpu").code == 0
    export_index(str(index), URL)
    monkeypatch.setitem(fusion._MODEL_WEIGHTS, "tiny", FusionWeights(0.2, 1000.0))
    ask = ("fit-weights", "folders", "--root", labelled, "--index", URL, "--device", "cpu")
    first = iter([True])

    def intrude(method: str, path: str) -> None:
        if method == "PUT" and path.endswith(MANIFEST_NAME) and next(first, False):
            theirs = {**json.loads((index / MANIFEST_NAME).read_bytes()), "generation": 99}
            server.s3.put_object(
                Bucket="photos", Key=PREFIX + MANIFEST_NAME, Body=json.dumps(theirs).encode()
            )

    server.fault = intrude
    refused = waldo(*ask)
    assert refused.code == 2
    assert f"error: {URL}: another run has written this index" in refused.err.splitlines()[-1]
    monkeypatch.setattr(FeatureExtractor, "extract", None)
    report = json.loads(waldo(*ask, "--json").out)
    assert (report["index_dir"], report["changed"]) == (URL, True)
    stored = read_manifest(cached_index(URL))
    assert stored.weights == {n: report["fitted"][n] for n in ("agreement", "class_evidence")}
    assert stored.generation == 100
