"""Published benchmarks of searches: miniatures of their folders, from the files to the numbers."""

import codecs
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from features.errors import WaldoError
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.published.ilias import named_convention
from search.evaluation.metrics.summary import summary
from search.evaluation.paper import PUBLISHED
from tests.helpers.benchmarks.published_folders import (
    save_gldv2,
    save_ilias,
    save_inshop,
    save_instre,
    save_mini_ilias,
    save_photo,
    save_pods,
    save_sop,
    save_text,
)
from tests.helpers.benchmarks.query_results import measured
from tests.helpers.command_line import CommandLine


def save_instre_from_1(root: Path) -> Path:
    return save_instre(root, 1)


SAVERS = {
    "pods": save_pods,
    "ilias": save_ilias,
    "mini_ilias": save_mini_ilias,
    "instre": save_instre_from_1,
    "gldv2": save_gldv2,
    "sop": save_sop,
    "inshop": save_inshop,
}


@pytest.mark.parametrize(
    ("protocol", "size", "metrics", "convention"),
    [
        ("pods", (12, 12), {"NDCG": 1.0}, None),
        # A positive that has no file is not found: one of two.
        ("ilias", (2, 5), {"mAP@1k": 0.75}, "3 distractors"),
        ("mini_ilias", (2, 3), {"mAP@1k": 0.75}, "1 of the 2 listed distractors"),
        ("instre", (2, 8), {"mAP_trapezoidal": None}, None),
        ("gldv2", (2, 3), {"mAP@100": None}, None),
        ("sop", (4, 5), {"Recall@100": 1.0, "Recall@1000": 1.0}, None),
        ("inshop", (2, 2), {"Recall@20": 1.0, "Recall@30": 1.0}, None),
    ],
)
def test_a_benchmark_is_evaluated_from_its_folder(
    waldo: CommandLine,
    tmp_path: Path,
    protocol: str,
    size: tuple[int, int],
    metrics: dict[str, float | None],
    convention: str | None,
) -> None:
    root = SAVERS[protocol](tmp_path / protocol)
    options = ["--root", root, "--method", "rgb-patches", "--work", tmp_path / "work"]
    result = waldo("evaluate", protocol, *options, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["n_queries"], report["n_gallery"]) == size
    assert report.get("convention") == convention
    values = report["methods"]["rgb-patches"]
    for name, wanted in metrics.items():
        assert 0 < values[name] <= 1
        assert f"{name}_interval" in values
        if wanted is not None:
            assert values[name] == pytest.approx(wanted)


def test_pods_asks_with_the_test_photos_of_test_objects(tmp_path: Path) -> None:
    benchmark = read_benchmark("pods", save_pods(tmp_path))
    assert {photo.parent.name for photo in benchmark.gallery} == {
        "mug_a",
        "mug_b",
        "shoe_a",
        "bag_a",
    }
    assert {photo.parent.parent.name for photo in benchmark.gallery} == {"train"}
    splits = ["in_distribution", "pose", "distractors", "pose_and_distractors"]
    assert benchmark.levels == splits
    assert "bag_a" not in {asked.query.photo.parent.name for asked in benchmark.queries}
    for asked in benchmark.queries:
        name = asked.query.photo.parent.name
        found = [benchmark.gallery[place].parent.name for place in asked.relevant]
        assert found == [name] * 3
        assert asked.confusable == name.startswith("mug")
        assert asked.query.box == (0, 0, 64, 48)


def test_ilias_asks_by_the_largest_box_and_counts_missing_positives(tmp_path: Path) -> None:
    benchmark = read_benchmark("ilias", save_ilias(tmp_path))
    cup, toy = benchmark.queries
    assert (cup.query.box, toy.query.box) == ((4, 6, 24, 36), (8, 2, 48, 42))
    assert (cup.missing, toy.missing) == (0, 1)
    assert toy.relevant.tolist() == [1]


def test_ids_that_a_list_of_ilias_repeats_count_once(tmp_path: Path) -> None:
    root = save_ilias(tmp_path)
    once = read_benchmark("ilias", root)
    for name in ("positive_ids.txt", "image_query_ids.txt"):
        listing = root / "image_ids" / name
        lines = listing.read_text().splitlines()
        save_text(listing, *lines, *lines)
    again = read_benchmark("ilias", root)
    assert again.gallery == once.gallery
    assert [asked.relevant.tolist() for asked in again.queries] == [[0], [1]]
    assert [asked.missing for asked in again.queries] == [0, 1]


def test_distractors_of_ilias_may_lie_behind_links(tmp_path: Path) -> None:
    root = save_ilias(tmp_path / "ilias")
    (root / "distractors").rename(tmp_path / "disk")
    (root / "distractors").mkdir()
    (root / "distractors" / "linked").symlink_to(tmp_path / "disk")
    benchmark = read_benchmark("ilias", root)
    assert benchmark.convention == "3 distractors"
    assert [photo.name for photo in benchmark.gallery[2:]] == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("protocol", SAVERS)
def test_lists_that_windows_wrote_are_read_as_others(tmp_path: Path, protocol: str) -> None:
    root = SAVERS[protocol](tmp_path)
    plain = read_benchmark(protocol, root)
    for file in root.rglob("*"):
        if file.suffix in (".txt", ".csv", ".json"):
            lines = file.read_text().splitlines()
            file.write_bytes(codecs.BOM_UTF8 + "".join(f"{line}\r\n" for line in lines).encode())
    again = read_benchmark(protocol, root)
    assert again.gallery == plain.gallery
    assert [asked.query for asked in again.queries] == [asked.query for asked in plain.queries]
    for one, other in zip(again.queries, plain.queries, strict=True):
        np.testing.assert_array_equal(one.relevant, other.relevant)


def test_published_figures_stand_beside_the_whole_of_ilias_alone() -> None:
    [known] = [found for found in PUBLISHED if found.protocol == "ilias"]
    whole = {"protocol": "ilias", "n_queries": 1232, "n_gallery": 99_904_715}
    for count, stands in ((99_900_000, True), (5_000_000, False), (3, False), (0, False)):
        report = {**whole, "convention": named_convention(count)}
        assert known.stands_beside(report) == stands
    assert [named_convention(n) for n in (0, 3, 5_000_000)] == [
        "no distractors",
        "3 distractors",
        "5 M distractors",
    ]


def test_ilias_is_reported_by_scale_and_clutter(waldo: CommandLine, tmp_path: Path) -> None:
    root = save_ilias(tmp_path / "ilias")
    options = ["--root", root, "--method", "rgb-patches", "--work", tmp_path / "work"]
    result = waldo("evaluate", "ilias", *options, "--json")
    parts = json.loads(result.out)["methods"]["rgb-patches"]["parts"]
    found = {name: (part["mAP@1k"], part["n_queries"]) for name, part in parts.items()}
    assert found == {
        "scale from 0 to 0.069": (1.0, 1),
        "scale from 0.069 to 0.14": (None, 0),
        "scale from 0.14 to 0.27": (None, 0),
        "scale from 0.27": (0.5, 2),  # the cup is found, the toy's photo is missing
        "clutter from 0 to 18": (1.0, 1),
        "clutter from 18 to 33": (1.0, 1),
        "clutter from 33 to 53": (None, 0),
        "clutter from 53": (0.0, 1),
    }
    shown = waldo("evaluate", "ilias", *options).out
    assert "mAP@1k of each part" in shown
    assert "queries with such photos: 1, 0, 0, 2, 1, 1, 0, 1" in shown


def test_a_report_of_runs_has_the_parts(waldo: CommandLine, tmp_path: Path) -> None:
    root, page = save_ilias(tmp_path / "ilias"), tmp_path / "page.html"
    runs = []
    for method in ("rgb-patches", "rgb-histogram"):
        runs.append(tmp_path / f"{method}.json")
        options = ["--root", root, "--method", method, "--work", tmp_path / "work"]
        assert waldo("evaluate", "ilias", *options, "--out", runs[-1]).code == 0
    found = waldo("report", *runs, "--markdown", "--html", page)
    _, parts, _ = found.out.split("\n\n**")
    assert parts.startswith("mAP@1k of each part of the relevant photos, the others left out**")
    assert "queries with such photos: 1, 0, 0, 2, 1, 1, 0, 1" in parts
    lines = [line for line in parts.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| run | model | method | scale from 0 to 0.069 |")
    report = json.loads(runs[0].read_text())["methods"]["rgb-patches"]["parts"]
    cells = [
        "" if part["mAP@1k"] is None else f"{100 * part['mAP@1k']:.1f}" for part in report.values()
    ]
    assert lines[2][2:-2].split(" | ") == [str(runs[0]), "tiny", "rgb-patches", *cells]
    assert len(lines) == 4
    assert "scale from 0 to 0.069" in waldo("report", *runs).out.replace("\n", " ")
    assert "<tr><td>scale from 0.27</td><td>2</td>" in page.read_text()
    # A run without parts, as of an earlier version, leaves them out of the page's table.
    content = json.loads(runs[1].read_text())
    del content["methods"]["rgb-histogram"]["parts"]
    runs[1].write_text(json.dumps(content))
    found = waldo("report", *runs, "--markdown", "--html", page)
    assert found.code == 0
    assert "scale from" not in page.read_text()
    assert found.out.count("| rgb-patches |") == 2


def test_other_positives_are_left_out_of_a_part(tmp_path: Path) -> None:
    """Against scikit-learn on a ranking from which they were deleted, as the published evaluator
    deletes them.
    """
    root = save_ilias(tmp_path)
    for number in range(2, 8):
        save_photo(root / f"ilias_core/toy/pos/P00{number}.jpg", number)
    lines = [f"toy/pos/P00{number}.jpg,{0.05 * number},{9 * number}" for number in range(8)]
    save_text(root / "image_ids/positive_ids.txt", "cup/pos/P000.jpg,0.5,60", *lines)
    benchmark = read_benchmark("ilias", root)
    [cup, toy] = np.random.default_rng(0).random((2, len(benchmark.gallery))).astype(np.float32)
    parts = summary(benchmark, measured(benchmark, np.stack([cup, toy])))["parts"]
    # The number of each of the toy's positives; None for other photos. Its P001 has no file.
    numbers = [
        int(photo.stem[1:]) if photo.parent.parent.name == "toy" else None
        for photo in benchmark.gallery
    ]
    assert sorted(n for n in numbers if n is not None) == [0, 2, 3, 4, 5, 6, 7]
    for name, of_part in (
        ("scale from 0.069 to 0.14", {2}),
        ("scale from 0.14 to 0.27", {3, 4, 5}),
        ("clutter from 0 to 18", {0, 1}),
        ("clutter from 18 to 33", {2, 3}),
    ):
        rest = [
            (number in of_part, score)
            for number, score in zip(numbers, toy, strict=True)
            if number is None or number in of_part
        ]
        hits, scores = map(np.array, zip(*rest, strict=True))
        wanted = average_precision_score(hits, scores) * hits.sum() / len(of_part)
        assert parts[name]["n_queries"] == 1
        assert parts[name]["mAP@1k"] == pytest.approx(wanted, rel=1e-6)


def test_ilias_without_scale_and_clutter_has_no_parts(tmp_path: Path) -> None:
    root = save_ilias(tmp_path)
    save_text(root / "image_ids/positive_ids.txt", "cup/pos/P000.jpg", "toy/pos/P000.jpg,1,1")
    assert read_benchmark("ilias", root).parts == {}


def test_an_object_whose_photos_are_all_missing_counts_as_nothing_found(
    waldo: CommandLine, tmp_path: Path
) -> None:
    root = save_ilias(tmp_path / "ilias")
    (root / "ilias_core/toy/pos/P000.jpg").unlink()
    options = ["--root", root, "--method", "rgb-patches", "--work", tmp_path / "work"]
    result = waldo("evaluate", "ilias", *options, "--json", "--out", tmp_path / "run.json")
    assert result.code == 0, result.err
    values = json.loads(result.out)["methods"]["rgb-patches"]
    assert {values[name] for name in ("mAP", "mAP@1k", "Recall@1", "Recall@50")} == {0.5}
    queries = json.loads((tmp_path / "run.json").read_text())["queries"]
    found = [query["methods"]["rgb-patches"]["average_precision"] for query in queries]
    assert found == [1.0, 0.0]
    (root / "ilias_core/cup/pos/P000.jpg").unlink()
    assert "are missing" in waldo.refusal("evaluate", "ilias", "--root", root)


@pytest.mark.parametrize("first", [0, 1])
def test_instre_is_read_wherever_its_numbers_start(tmp_path: Path, first: int) -> None:
    benchmark = read_benchmark("instre", save_instre(tmp_path, first))
    found = [asked.relevant.tolist() for asked in benchmark.queries]
    assert found == [[2, 3], [4, 5]]
    assert benchmark.queries[0].query.box == (8, 4, 48, 34)
    assert benchmark.cut_queries


def test_products_leave_the_query_out_and_the_single_photo(tmp_path: Path) -> None:
    benchmark = read_benchmark("sop", save_sop(tmp_path))
    first = benchmark.queries[0]
    assert first.relevant.tolist() == [1]
    assert first.ignored.tolist() == [0]
    assert len(benchmark.queries) == 4


@pytest.mark.parametrize(
    ("protocol", "listing"),
    [("sop", "Ebay_test.txt"), ("inshop", "Eval/list_eval_partition.txt")],
)
def test_a_photo_that_is_listed_twice_is_refused(
    tmp_path: Path, protocol: str, listing: str
) -> None:
    root = SAVERS[protocol](tmp_path)
    first, *rest = (root / listing).read_text().splitlines()
    lines = [first, *rest, rest[1]]
    save_text(root / listing, *([str(len(rest)), *lines[1:]] if protocol == "inshop" else lines))
    with pytest.raises(WaldoError, match=r"names .* twice; each photo must have one line"):
        read_benchmark(protocol, root)


@pytest.mark.parametrize("protocol", SAVERS)
def test_an_empty_folder_is_refused_in_one_line(
    waldo: CommandLine, tmp_path: Path, protocol: str
) -> None:
    assert "no such file" in waldo.refusal("evaluate", protocol, "--root", tmp_path)


@pytest.mark.parametrize(
    ("protocol", "name", "content", "said"),
    [
        ("pods", "pods_image_annos.json", '{"x": {"split": "new"}}', '"split" must be'),
        ("pods", "pods_info.json", "[]", "must map names"),
        ("ilias", "ilias_core/cup/query/Q000_bbox.txt", "1 2 3", "is no box"),
        ("ilias", "image_ids/positive_ids.txt", "cup", "is no id"),
        ("ilias", "image_ids/positive_ids.txt", "cup/pos/P000.jpg,big,1", "must be a number"),
        ("instre", "gnd_instre.mat", "no mat", "not a MATLAB file"),
        ("gldv2", "retrieval_solution_v2.1.csv", "a,b", "must name the columns"),
        (
            "gldv2",
            "retrieval_solution_v2.1.csv",
            "id,images,Usage\nfff0,zzz9,Public",
            "no such photo",
        ),
        ("sop", "Ebay_test.txt", "heading\n1 2 3", "line 2 must have"),
        ("inshop", "Eval/list_eval_partition.txt", "9\nheading\na b query", "another number"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(
    tmp_path: Path, protocol: str, name: str, content: str, said: str
) -> None:
    root = SAVERS[protocol](tmp_path)
    (root / name).write_text(content)
    with pytest.raises(WaldoError, match=said) as raised:
        read_benchmark(protocol, root)
    assert "\n" not in str(raised.value)
