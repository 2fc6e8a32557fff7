"""Benchmarks whose photos lie in tars: ILIAS, and distractors behind any gallery."""

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from features.errors import WaldoError
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.published.ilias import read_ilias_texts
from search.evaluation.benchmarks.published.packed_photos import photos_of
from search.evaluation.distractors import find_distractors
from search.evaluation.paper import published_rows
from tests.helpers.benchmarks.published_folders import (
    save_ilias,
    save_mini_ilias,
    save_text,
)
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.tars import save_tar


def save_list(root: Path, n_listed: int) -> None:
    lines = "".join(f"yfcc100m/{number}.jpg\n" for number in range(n_listed))
    path = root / "image_ids/distractor_ids.txt.gz"
    path.write_bytes(gzip.compress(lines.encode()))


def names(photos: list[Path], folder: Path) -> list[str]:
    return [photo.relative_to(folder).as_posix() for photo in photos]


def test_photos_are_found_and_labels_are_not(tmp_path: Path) -> None:
    tars = [
        save_tar(tmp_path / "0.tar", ["a.jpg", "deep/b.x.jpg"]),
        save_tar(tmp_path / "1.tar", ["a.jpg"]),
    ]
    steps: list[tuple[str, int, int]] = []
    photos = photos_of(tars, on_listing=lambda *step: steps.append(step))
    assert names(photos, tmp_path) == ["0.tar/a.jpg", "0.tar/deep/b.x.jpg", "1.tar/a.jpg"]
    assert steps == [("listing 0.tar", 0, 2), ("listing 1.tar", 1, 2)]
    assert names(photos_of(tars, {"b"}), tmp_path) == ["0.tar/deep/b.x.jpg"]


@pytest.mark.parametrize("name", ["0.tar.gz", "0.TGZ", "0.tar.xz"])
def test_a_compressed_tar_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(WaldoError, match=r"is a compressed tar, .*; unpack it"):
        find_distractors(tmp_path, tmp_path / "work")


def test_ilias_has_the_distractors_of_its_tars(tmp_path: Path) -> None:
    root = save_mini_ilias(tmp_path / "ilias")
    save_tar(root / "yfcc100m/yfcc100m-000.tar", ["77.jpg", "78.jpg"])
    save_tar(root / "distractors/mini.tar", ["79.jpg"])
    whole = read_benchmark("ilias", root)
    assert whole.convention == "6 distractors"
    mini = read_benchmark("mini_ilias", root)
    assert sorted(photo.name for photo in mini.gallery[2:]) == ["1.jpg", "77.jpg"]
    assert mini.convention == "2 distractors"
    assert [query.relevant.tolist() for query in mini.queries] == [[0], [1]]


def test_ilias_says_where_distractors_are_missing(tmp_path: Path) -> None:
    root = save_mini_ilias(tmp_path)
    save_text(root / "image_ids/text_query_ids.txt", "cup/query/T000.txt")
    save_text(root / "ilias_core/cup/query/T000.txt", "a cup")
    save_list(root, n_listed=3)
    assert read_benchmark("ilias", root).convention == "3 distractors"
    save_list(root, n_listed=1_000_000)
    told = "3 of the 1,000,000 listed distractors"
    assert read_benchmark("ilias", root).convention == told
    assert read_ilias_texts(root).gallery.convention == told
    report = {"protocol": "ilias", "convention": told, "n_queries": 1232, "n_gallery": 4718}
    assert not list(published_rows(report))
    assert read_benchmark("mini_ilias", root).convention == "1 of the 2 listed distractors"


def test_a_broken_list_is_named(tmp_path: Path) -> None:
    root = save_ilias(tmp_path)
    save_list(root, n_listed=100)
    path = root / "image_ids/distractor_ids.txt.gz"
    for content in (path.read_bytes()[:20], b"no gzip file", path.read_bytes()[:-3] + b"???"):
        path.write_bytes(content)
        with pytest.raises(WaldoError, match=r"distractor_ids\.txt\.gz: not readable") as raised:
            read_benchmark("ilias", root)
        assert "\n" not in str(raised.value)


def test_distractors_are_searched_in_their_tars(waldo: CommandLine, tmp_path: Path) -> None:
    """A miniature: three loose photos and four in tars, one of them half, one a copy."""
    root, packed = tmp_path / "labelled", tmp_path / "packed"
    packed.mkdir()
    for seed, name in enumerate(("mug", "kettle")):
        (root / name).mkdir(parents=True)
        for number in range(2):
            save_photo(root / name / f"{number}.jpg", 64, 48, 10 * seed + number)
    save_photo(packed / "loose.jpg", 64, 48, 30)
    for number, names_inside in enumerate((["7.jpg", "8.jpg"], ["7.jpg"])):
        save_tar(packed / "deep" / f"{number}.tar", names_inside)
    with tarfile.open(packed / "2.tar", "w") as tar:
        tar.add(root / "mug" / "0.jpg", "copy.jpg")
        half = tmp_path / "half.jpg"
        half.write_bytes((root / "mug" / "1.jpg").read_bytes()[:300])
        tar.add(half, "half.jpg")
    unpacked = tmp_path / "unpacked"
    for tar_file in packed.rglob("*.tar"):
        with tarfile.open(tar_file) as tar:
            tar.extractall(unpacked / tar_file.stem, filter="data")
    save_photo(unpacked / "loose.jpg", 64, 48, 30)
    options = ["evaluate", "folders", "--root", root, "--work", tmp_path / "work", "--json"]
    options += ["--method", "rgb-patches", "--distractors"]
    reports = []
    for folder in (packed, unpacked):
        result = waldo(*options, folder)
        assert result.code == 0, result.err
        reports.append(json.loads(result.out))
    of_tars, of_files = reports
    # The first photo of both tars is the same, which counts twice, as it does in folders.
    assert of_tars["n_distractors"] == of_files["n_distractors"] == 4
    assert of_tars["methods"]["rgb-patches"]["mAP"] == of_files["methods"]["rgb-patches"]["mAP"]
    left_out = of_tars["distractors_left_out"]
    assert left_out["copies"] == of_files["distractors_left_out"]["copies"] == 1
    [broken] = left_out["broken"]
    assert broken.startswith(f"{packed / '2.tar'}/half.jpg: ")
    assert not list((tmp_path / "work").rglob("*.jpg"))  # nothing is unpacked


def test_a_broken_tar_of_distractors_is_refused(waldo: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "labelled" / "mug").mkdir(parents=True)
    for number in range(2):
        save_photo(tmp_path / "labelled" / "mug" / f"{number}.jpg", 64, 48, number)
    tar = save_tar(tmp_path / "others" / "0.tar", ["a.jpg"])
    tar.write_bytes(tar.read_bytes()[:700])
    options = ["evaluate", "folders", "--root", tmp_path / "labelled", "--work", tmp_path / "work"]
    line = waldo.refusal(*options, "--method", "rgb-patches", "--distractors", tar.parent)
    assert f"{tar}: is broken, or no tar" in line
