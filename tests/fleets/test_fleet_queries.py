"""One collection as an index and as a fleet of four parts: the same answers, bit for bit."""

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput
from features.vision.descriptors import ImageDescriptor
from indexer.bucket.remote_index import cached_index
from indexer.collection import Collection
from indexer.fleet.cluster_reader import ClusterReader
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import FleetReader, open_collection
from indexer.parts import part_of_id, read_fleet
from indexer.ray_cluster import ClusterError, RayCluster
from indexer.reader import IndexReader
from indexer.store.filters import PhotoFilter
from search.answer import Answer, Match
from search.clock import Clock
from search.index import Index, open_index
from search.late_fusion import search_indexes
from search.query import Query, SearchOptions
from search.reference import make_reference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES, bind_score
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, point_to
from tests.helpers.servers.server import running_server

if TYPE_CHECKING:
    from tests.conftest import MadeOnce

DEMO = Path(__file__).parents[2] / "data" / "demo"
PHOTOS = 28
PARTS = 4


class Remembering:
    """An extractor that extracts each content once, for all indexes that are made with it."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._maps: dict[str, FeatureMaps] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        new = [photo for photo in inputs if photo.content_hash not in self._maps]
        for maps in self._extractor.extract(new) if new else ():
            self._maps[maps.content_hash] = maps
        return lambda: [self._maps[photo.content_hash] for photo in inputs]


def make(small_tiny: FeatureExtractor, descriptor: ImageDescriptor, folder: Path) -> None:
    """The collection in photos, as index and as fleet; two photos have a copy."""
    (folder / "photos" / "copies").mkdir(parents=True)
    names = sorted((DEMO / "photos").iterdir())[::2][:PHOTOS]
    for path in names:
        shutil.copy2(path, folder / "photos")
    for path in (names[3], names[20]):
        shutil.copy2(path, folder / "photos" / "copies" / f"again-{path.name}")
    extractor: Any = Remembering(small_tiny)
    for name, parts in (("index", None), ("fleet", PARTS)):
        index_collection(
            *([folder / "photos"], folder / name, extractor),
            parts=parts,
            batch_size=4,
            descriptors=[descriptor],
        )


@pytest.fixture(scope="module")
def folder(
    small_tiny: FeatureExtractor, made_once: "MadeOnce", descriptor_folder: Callable[[str], Path]
) -> Path:
    descriptor = ImageDescriptor.load(str(descriptor_folder("dinov2")), "cpu", batch_size=4)
    return made_once("fleet", partial(make, small_tiny, descriptor))


@pytest.fixture(scope="module")
def both(folder: Path, small_tiny: FeatureExtractor) -> Iterator[tuple[Index, Index]]:
    with (
        Index(IndexReader.open(folder / "index"), small_tiny) as one,
        Index(open_collection(folder / "fleet"), small_tiny) as many,
    ):
        yield one, many


@pytest.fixture(scope="module")
def object_of(folder: Path) -> Callable[[int], Query]:
    """A query for what the n-th photo of the collection shows in a box."""
    photos = sorted((folder / "photos").glob("*.*"))
    return lambda number: Query(photos[number], box=(30, 20, 200, 150))


def test_the_fleet_has_several_parts(folder: Path) -> None:
    with open_collection(folder / "fleet") as reader:
        assert isinstance(reader, FleetReader)
        counts = np.bincount(part_of_id(reader.ids), minlength=PARTS)
        assert reader.n_photos == PHOTOS + 2
        assert (counts > 3).all()


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(),
        SearchOptions(top=7, candidates=25),
        SearchOptions(top=12, min_confidence=0.1),
        SearchOptions(score="pdm", candidates=25),
        SearchOptions(rerank=False, top=9),
        SearchOptions(filter=PhotoFilter(("*[0-4].*",))),
        SearchOptions(filter=PhotoFilter(("copies",)), top=3),
    ],
    ids=["default", "cut", "confidence", "pdm", "recall", "filter", "narrow filter"],
)
def test_answers_are_those_of_a_single_index(
    both: tuple[Index, Index], object_of: Callable[[int], Query], options: SearchOptions
) -> None:
    one, many = both
    for number in (2, 13, 27):  # whose photos tie with none: ties follow the ids, which differ
        query = object_of(number)
        expected, found = one.search(query, options), many.search(query, options)
        assert_same(found, expected)
        assert expected.matches


def test_so_they_are_for_several_photos_names_and_points(
    both: tuple[Index, Index], object_of: Callable[[int], Query], folder: Path
) -> None:
    one, many = both
    queries = [
        replace(object_of(2), also=(object_of(4),), unlike=(object_of(20),)),
        Query(object_of(5).photo, class_name="cat"),
        Query(object_of(9).photo, class_name="car"),
        Query(object_of(7).photo, class_name="dog", box=(20, 20, 150, 140)),
        Query(object_of(7).photo, point=(90, 80)),
        Query(DEMO / "query" / sorted(p.name for p in (DEMO / "query").iterdir())[0], "cat"),
    ]
    for query in queries:
        assert_same(many.search(query), one.search(query))
        shown, expected = many.preview(query), one.preview(query)
        np.testing.assert_array_equal(shown.cells, expected.cells)


def test_and_for_candidates_by_a_descriptor(
    both: tuple[Index, Index], object_of: Callable[[int], Query]
) -> None:
    one, many = both
    [name] = one.reader.descriptors
    assert many.reader.descriptors == one.reader.descriptors
    for options in (SearchOptions(recall=name), SearchOptions(recall=name, rerank=False, top=6)):
        assert_same(many.search(object_of(3), options), one.search(object_of(3), options))


def test_maps_held_in_memory_answer_alike(
    both: tuple[Index, Index],
    folder: Path,
    small_tiny: FeatureExtractor,
    object_of: Callable[[int], Query],
) -> None:
    import torch

    read = []
    with Index(open_collection(folder / "fleet"), small_tiny) as many:
        many.reader.hold_maps(torch.device("cpu"), lambda done, total: read.append((done, total)))
        assert_same(many.search(object_of(2)), both[0].search(object_of(2)))
    assert read == sorted(read)
    assert read[-1][0] <= read[-1][1] == PHOTOS + 2


def test_all_photos_score_alike_as_in_an_evaluation(
    both: tuple[Index, Index], object_of: Callable[[int], Query], small_tiny: FeatureExtractor
) -> None:
    reference = make_reference(object_of(8), small_tiny).for_scoring(small_tiny.device)
    score = bind_score(SCORES["consistent"], small_tiny, [reference])
    found = []
    for index in both:
        reader = index.reader
        place = {str(record.path): record.id for record in reader.photos(reader.ids)}
        ids = np.array([place[path] for path in sorted(place)])
        scored = score_references(reader, ids, [reference], [score], Clock())
        found.append(scored.by_score["consistent"])
    np.testing.assert_array_equal(found[1], found[0])


def test_a_damaged_row_of_a_part_is_named_and_left_out(
    both: tuple[Index, Index],
    folder: Path,
    small_tiny: FeatureExtractor,
    object_of: Callable[[int], Query],
    tmp_path: Path,
) -> None:
    fleet = shutil.copytree(folder / "fleet", tmp_path / "fleet")
    best = both[1].search(object_of(2)).matches[1]
    part = read_fleet(fleet).folder(part_of_id(best.id))  # type: ignore[union-attr]
    [shard] = (part / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with Index(open_collection(fleet), small_tiny) as many:
        answer = many.search(object_of(2), SearchOptions(top=50))
    [line] = answer.damaged
    assert str(part) in line
    assert "its checksum differs" in line
    assert len(answer.matches) == PHOTOS - 1


def test_the_command_line_asks_a_fleet(
    folder: Path, waldo: CommandLine, object_of: Callable[[int], Query]
) -> None:
    query = object_of(2)
    box, found = box_of(query), {}
    for name in ("index", "fleet"):
        shown = waldo("query", query.photo, "--box", box, "--index", folder / name, "--json")
        assert shown.code == 0, shown
        answer = json.loads(shown.out)
        found[name] = [(m["path"], m["score"], m["box"]) for m in answer["matches"]]
    assert found["fleet"] == found["index"]


@pytest.fixture
def in_place(folder: Path, both: tuple[Index, Index]) -> Iterator[None]:
    """The photos lie where they lay when they were indexed, before `made_once` moved them."""
    root = Path(both[0].reader.manifest.sources[0].root).parent
    root.symlink_to(folder)
    yield
    root.unlink()


@pytest.mark.usefixtures("in_place")
def test_masks_pages_and_pictures_of_a_fleet(
    folder: Path, waldo: CommandLine, object_of: Callable[[int], Query], tmp_path: Path
) -> None:
    query = object_of(2)
    ask = ("query", query.photo, "--box", box_of(query), "--json", "--top", 4)
    found = {}
    for name in ("index", "fleet"):
        files = ("--masks", tmp_path / name, "--html", tmp_path / f"{name}.html")
        shown = waldo(*ask, "--index", folder / name, *files)
        assert shown.code == 0, shown
        matches = json.loads(shown.out)["matches"]
        found[name] = [(m["path"], Path(m["mask"]).read_bytes()) for m in matches]
        assert (tmp_path / f"{name}.html").stat().st_size > 0
        picture = tmp_path / f"{name}.png"
        looked = waldo(
            "show", query.photo, "--box", box_of(query), "--out", picture, "--index", folder / name
        )
        assert looked.code == 0, looked
    assert found["fleet"] == found["index"]
    assert (tmp_path / "fleet.png").read_bytes() == (tmp_path / "index.png").read_bytes()


def test_a_fleet_and_an_index_rank_together(
    both: tuple[Index, Index], object_of: Callable[[int], Query]
) -> None:
    one, many = both
    expected = search_indexes([one, one], object_of(2))
    assert expected.matches
    for pair in ([one, many], [many, one], [many, many]):
        assert_same(search_indexes(pair, object_of(2)), expected)


def test_the_page_serves_a_fleet(folder: Path, object_of: Callable[[int], Query]) -> None:
    query = object_of(2)
    found = []
    for name in ("index", "fleet"):
        with running_server(folder / name) as client:
            told = client.get("/api/v1/collection").json
            photos = client.get("/api/v1/photos?limit=100").json["photos"]
            [last] = [photo["id"] for photo in photos if photo["name"] == query.photo.name]
            assert client.get(f"/api/v1/photos/{last}").json["id"] == last
            sent = client.post("/api/v1/uploads", query.photo.read_bytes()).json["upload"]
            asked = {"photo": {"upload": sent}, "box": query.box}
            reply = client.post("/api/v1/searches", {"object": asked})
            assert reply.status == 200, reply.content
            rows = [(m["path"], m["score"], m["box"]) for m in reply.json["matches"]]
            found.append((told["n_photos"], {photo["name"] for photo in photos}, rows))
    assert found[0] == found[1]
    assert found[0][2]


def test_it_answers_alike_from_a_bucket(
    both: tuple[Index, Index],
    folder: Path,
    object_of: Callable[[int], Query],
    waldo: CommandLine,
    store: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url, query = "s3://photos/fleet", object_of(2)
    store.reset()
    point_to(store, monkeypatch)
    copied = waldo("export", "--index", folder / "fleet", "--to", url)
    assert copied.code == 0, copied
    with open_index(url, "cpu") as there:
        for options in (SearchOptions(), SearchOptions(filter=PhotoFilter(("*[0-4].*",)))):
            found, expected = there.search(query, options), both[1].search(query, options)
            assert_same(found, expected)
            assert [m.id for m in found.matches] == [m.id for m in expected.matches]
    box = box_of(query)
    shown = waldo("query", query.photo, "--box", box, "--json", "--index", url, "--masks", tmp_path)
    assert len(json.loads(shown.out)["matches"]) == 20
    picture = tmp_path / "picture.png"
    looked = waldo("show", query.photo, "--box", box, "--out", picture, "--index", url)
    assert looked.code == 0, looked
    assert picture.stat().st_size > 0
    described = json.loads(waldo("info", "--json", "--index", url).out)
    assert (described["parts"], described["photos"]) == (PARTS, PHOTOS + 2)
    checked = waldo("verify", "--index", url)
    assert (checked.code, checked.out.strip()) == (0, "no problem found")
    with running_server(cached_index(url)) as client:
        assert client.get("/api/v1/collection").json["n_photos"] == PHOTOS + 2
    assert "nothing to do" in waldo("compact", "--index", url).out
    for command in ("named", "objects"):
        assert "error: " in waldo.refusal(command, "--index", url)


def test_workers_that_hold_the_parts_answer_alike_until_the_last_is_gone(
    both: tuple[Index, Index],
    folder: Path,
    small_tiny: FeatureExtractor,
    there: RayCluster,
    object_of: Callable[[int], Query],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "float32")  # as workers have it
    one, many = both
    [descriptor] = one.reader.descriptors
    box = object_of(2)
    with Index(ClusterReader.open_on(folder / "fleet", there), small_tiny) as held:
        for query, options in (
            (box, SearchOptions()),
            (box, SearchOptions(top=12, candidates=25, min_confidence=0.1)),
            (box, SearchOptions(filter=PhotoFilter(("copies",)), top=3)),
            (box, SearchOptions(score="pdm", candidates=25)),
            (box, SearchOptions(rerank=False, top=9)),
            (box, SearchOptions(recall=descriptor, candidates=9)),
            (replace(box, also=(object_of(4),), unlike=(object_of(20),)), SearchOptions()),
            (Query(object_of(5).photo, class_name="cat"), SearchOptions(score="fused")),
            (Query(object_of(7).photo, point=(90, 80)), SearchOptions(score="late")),
        ):
            found, expected = held.search(query, options), one.search(query, options)
            assert_same(found, expected)
            ids = [match.id for match in many.search(query, options).matches]
            assert [match.id for match in found.matches] == ids
        workers = who_holds(held)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert_same(held.search(box), one.search(box))
        assert who_holds(held) == workers[1:]
        os.kill(workers[1], signal.SIGKILL)
        with pytest.raises(ClusterError, match="all workers that held parts"):
            held.search(box)


def who_holds(index: Index) -> list[int]:
    """The processes that hold the maps of all photos, each photo by one of them."""
    ids = index.reader.ids[::-1]
    pieces = index.reader.near_maps(ids, process_and_photos)
    assert pieces is not None
    assert sorted(number for _, own in pieces for number in own) == sorted(ids.tolist())
    return [process for process, _ in pieces]


def process_and_photos(reader: Collection, ids: NDArray[np.int64]) -> tuple[int, list[int]]:
    assert set(ids.tolist()) <= set(reader.ids.tolist())
    return os.getpid(), ids.tolist()


def test_the_command_line_asks_workers(
    folder: Path,
    waldo: CommandLine,
    object_of: Callable[[int], Query],
    there: RayCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "float32")
    query = object_of(2)
    ask = ("query", query.photo, "--box", box_of(query), "--json", "--ray", there.address)
    answers = [json.loads(waldo(*ask[:5], "--index", folder / "fleet").out)]
    answers.append(json.loads(waldo(*ask, "--index", folder / "fleet").out))
    assert answers[1]["matches"] == answers[0]["matches"] != []
    several = ["--index", folder / "fleet"] * 2  # which the workers hold side by side
    answers = [json.loads(waldo(*asked, *several).out) for asked in (ask[:5], ask)]
    assert answers[1]["matches"] == answers[0]["matches"] != []
    assert "is no fleet" in waldo.refusal(*ask, "--index", folder / "index")
    assert "is no fleet" in waldo.refusal(*ask, "--index", folder / "fleet", "--index", folder)
    assert "choose disk" in waldo.refusal(*ask, "--index", folder / "fleet", "--maps", "ram")


def test_what_a_fleet_cannot_do_is_refused(
    folder: Path, waldo: CommandLine, object_of: Callable[[int], Query]
) -> None:
    fleet, photo = folder / "fleet", object_of(2).photo
    keeps_no = "is a fleet of indexes, which keeps no names"
    assert keeps_no in waldo.refusal("name", "Rex", photo, "--box", "1,1,90,90", "--index", fleet)
    assert keeps_no in waldo.refusal("named", "--index", fleet)
    assert keeps_no in waldo.refusal("forget", "Rex", "--index", fleet)
    assert "Rex" in waldo.refusal("query", "@Rex", "--index", fleet)


def box_of(query: Query) -> str:
    return ",".join(map(str, query.box or ()))


def assert_same(found: Answer, expected: Answer) -> None:
    """Two answers are equal in all but ids and times."""
    assert found.n_photos == expected.n_photos
    assert found.best_confidence == expected.best_confidence
    assert found.damaged == expected.damaged == []
    assert len(found.matches) == len(expected.matches)
    for one, other in zip(found.matches, expected.matches, strict=True):
        assert values(one) == values(other)


def values(match: Match) -> dict[str, Any]:
    named = {field.name: getattr(match, field.name) for field in dataclasses.fields(match)}
    del named["id"]
    return {**named, "heatmap": match.heatmap.tobytes()}
