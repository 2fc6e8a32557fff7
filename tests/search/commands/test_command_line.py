"""The command line's contract: output, JSON, exit codes, errors in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        save_photo(folder / f"photo {i}.jpg", 120, 90, seed=i)
    (folder / "broken.jpg").write_bytes((folder / "photo 0.jpg").read_bytes()[:500])
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read alone; copy it for anything else."""
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([photos], directory, tiny)
    return directory


def with_flipped_bit(index: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of an index whose only shard has one bit changed; the copy and the shard."""
    damaged = tmp_path / "damaged"
    shutil.copytree(index, damaged)
    [shard] = (damaged / "shards").glob("*.parquet")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0x10
    shard.write_bytes(data)
    return damaged, shard


def test_index_reports_and_runs_again(waldo: CommandLine, photos: Path, tmp_path: Path) -> None:
    first = waldo("index", photos, "--index", tmp_path / "index", "--json")
    assert first.code == 0
    report = json.loads(first.out)
    assert (report["new"], report["failed"], report["passed_over"]) == (6, 1, 1)
    [failure] = (tmp_path / "index" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["path"] == str(photos / "broken.jpg")

    again = waldo("index", photos, "--index", tmp_path / "index")
    assert again.code == 0
    assert "6 photos" in again.out
    assert "0 new" in again.out
    assert "1 failed" in again.out


def test_query_json(waldo: CommandLine, photos: Path, index: Path, tmp_path: Path) -> None:
    photo = photos / "photo 2.jpg"
    result = waldo(
        *("query", photo, "--index", index, "--class", "dog", "--box", "10,10,80,60"),
        *("--top", 3, "--json", "--html", tmp_path / "answer.html"),
    )
    assert result.code == 0
    answer = json.loads(result.out)
    assert set(answer) == {"query", "matches", "timing"}
    assert answer["query"]["class"] == "dog"
    assert answer["query"]["box"] == [10, 10, 80, 60]
    assert [match["rank"] for match in answer["matches"]] == [1, 2, 3]
    best = answer["matches"][0]
    assert set(best) >= {"rank", "path", "id", "score", "recall_score", "box"}
    assert best["path"] == str(photo)
    assert best["is_query"]
    assert len(best["box"]) == 4
    assert "page:" in result.err


def test_several_searches_share_one_model(
    waldo: CommandLine, photos: Path, index: Path, tmp_path: Path
) -> None:
    first, second = photos / "photo 1.jpg", photos / "photo 2.jpg"
    (tmp_path / "list.txt").write_text(
        f"{first}\n{photos / 'broken.jpg'}\n"
        + json.dumps({"photo": str(second), "box": [9, 9, 70, 60]})
    )
    result = waldo(
        *("query", tmp_path / "list.txt", first, "--index", index, "--point", "60,45"),
        *("--top", 2, "--json"),
    )
    assert result.code == 2  # one photo is broken; the others are answered
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [answer["query"]["photo"] for answer in answers] == [str(first), str(second), str(first)]
    assert [answer["query"]["box"] for answer in answers] == [None, [9, 9, 70, 60], None]
    assert answers[0]["matches"] == answers[2]["matches"]
    assert [answer["matches"][0]["is_query"] for answer in answers] == [True] * 3
    [line] = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert "broken.jpg" in line

    refused = waldo("query", first, second, "--index", index, "--html", tmp_path / "a.html")
    assert refused.code == 2
    assert "--html shows one search" in refused.err


def test_more_photos_of_the_object_and_one_of_another(
    waldo: CommandLine, photos: Path, index: Path
) -> None:
    names = [photos / f"photo {number}.jpg" for number in range(1, 4)]
    plain = ("query", names[0], "--index", index, "--box", "10,10,80,60", "--json")
    alone = json.loads(waldo(*plain).out)
    both = json.loads(waldo(*plain, "--also", f"{names[1]}@10,10,80,60").out)
    [view] = both["query"]["also"]
    assert (view["photo"], view["box"]) == (str(names[1]), [10, 10, 80, 60])
    # What was taken lies in the box that was asked for, but for parts of cells.
    for taken in (view["taken"], both["query"]["taken"]):
        assert 0 <= taken[0] < taken[2] <= 80 + 5
        assert 0 <= taken[1] < taken[3] <= 60 + 5
    assert {match["path"] for match in both["matches"][:2]} == {str(names[0]), str(names[1])}
    assert [match["is_query"] for match in both["matches"][:3]] == [True, True, False]
    scores = {match["path"]: match["score"] for match in alone["matches"]}
    assert all(match["score"] >= scores[match["path"]] - 1e-6 for match in both["matches"])
    without = json.loads(waldo(*plain, "--not", f"{names[2]}@10,10,80,60").out)
    less = {match["path"]: match["score"] for match in without["matches"]}
    assert less[str(names[2])] < scores[str(names[2])]
    assert less[str(names[0])] == pytest.approx(scores[str(names[0])])


def test_query_table_has_a_line_a_match(waldo: CommandLine, photos: Path, index: Path) -> None:
    result = waldo("query", photos / "photo 1.jpg", "--index", index, "--point", "60,45")
    lines = result.out.splitlines()
    assert len(lines) == 1 + 6
    assert lines[1].split()[0] == "1"
    assert lines[1].endswith(f"{photos / 'photo 1.jpg'}  (the query photo)")


def test_no_rerank_gives_recalls_order(waldo: CommandLine, photos: Path, index: Path) -> None:
    result = waldo(
        "query", photos / "photo 1.jpg", "--index", index, "--class", "dog", "--no-rerank", "--json"
    )
    matches = json.loads(result.out)["matches"]
    assert [match["score"] for match in matches] == [match["recall_score"] for match in matches]
    scores = [match["score"] for match in matches]
    assert scores == sorted(scores, reverse=True)


def test_bad_sources(waldo: CommandLine, tmp_path: Path) -> None:
    index = tmp_path / "index"
    missing = tmp_path / "nowhere"
    assert str(missing) in waldo.refusal("index", missing, "--index", index)
    (tmp_path / "empty").mkdir()
    assert "empty" in waldo.refusal("index", tmp_path / "empty", "--index", index)
    assert not index.exists()


def test_bad_queries(waldo: CommandLine, photos: Path, index: Path, tmp_path: Path) -> None:
    photo = photos / "photo 0.jpg"
    ask = ("query", photo, "--index", index)
    assert "say which object" in waldo.refusal(*ask)
    assert "knows none of its words" in waldo.refusal(*ask, "--class", "qwzx")
    assert "reaches beyond the photo" in waldo.refusal(*ask, "--box", "0,0,500,20")
    assert "must be X0,Y0,X1,Y1" in waldo.refusal(*ask, "--box", "0,0,5")
    assert "outside the photo" in waldo.refusal(*ask, "--point", "130,20")
    assert "no such score" in waldo.refusal(*ask, "--class", "dog", "--score", "best")
    mask = tmp_path / "mask.png"
    Image.new("L", (90, 120), 255).save(mask)
    assert "is 90 x 120 pixels, the photo 120 x 90" in waldo.refusal(*ask, "--mask", mask)
    broken = ("query", photos / "broken.jpg", "--index", index, "--class", "dog")
    assert "broken.jpg: broken picture" in waldo.refusal(*broken)
    absent = ("query", tmp_path / "absent.jpg", "--index", index, "--class", "dog")
    assert "absent.jpg" in waldo.refusal(*absent)
    nowhere = ("query", photo, "--index", tmp_path / "no-index", "--class", "dog")
    assert "no index here" in waldo.refusal(*nowhere)


def test_errors_under_json_leave_standard_output_empty(
    waldo: CommandLine, photos: Path, index: Path
) -> None:
    waldo.refusal("query", photos / "photo 0.jpg", "--index", index, "--json")


def test_index_of_another_model_is_refused(
    waldo: CommandLine, photos: Path, index: Path, pipeline_folder: Callable[[str], Path]
) -> None:
    other = pipeline_folder("sd1")
    line = waldo.refusal("index", photos, "--index", index, "--model", other)
    assert "tiny" in line
    assert str(other) in line


def test_index_whose_model_is_gone(
    waldo: CommandLine, photos: Path, tmp_path: Path, pipeline_folder: Callable[[str], Path]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(pipeline_folder("sd1"), model)
    index = tmp_path / "index"
    assert waldo("index", photos, "--index", index, "--model", model).code == 0
    shutil.rmtree(model)
    line = waldo.refusal("query", photos / "photo 0.jpg", "--index", index, "--class", "dog")
    assert str(model) in line


def test_info_and_verify(waldo: CommandLine, index: Path, tmp_path: Path) -> None:
    info = json.loads(waldo("info", "--index", index, "--json").out)
    assert info["photos"] == 6
    text = waldo("info", "--index", index).out
    assert text.startswith(f"{index}: 6 photos, ")
    assert f"photos from {info['sources'][0]}\n" in text
    assert "1 file could not be read" in text
    sound = waldo("verify", "--index", index)
    assert (sound.code, sound.out) == (0, "no problem found\n")

    damaged, shard = with_flipped_bit(index, tmp_path)
    found = waldo("verify", "--index", damaged, "--json")
    assert found.code == 1
    assert shard.name in " ".join(json.loads(found.out)["problems"])


def test_info_of_the_machine_needs_no_index(
    waldo: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = json.loads(waldo("info", "--machine", "--json").out)
    assert {"cpu", "features", "cores", "threads", "gpu", "kernels", "choices"} <= set(described)
    table = waldo("info", "--machine").out
    for name in described["kernels"]:
        assert f"{name} ms" in table
    monkeypatch.setenv("WALDO_KERNEL", "abacus")
    refused = waldo("info", "--machine")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("error: WALDO_KERNEL=abacus: abacus is no kernel")


def test_a_damaged_row_is_named_and_left_out(
    waldo: CommandLine, photos: Path, index: Path, tmp_path: Path
) -> None:
    damaged, shard = with_flipped_bit(index, tmp_path)
    result = waldo("query", photos / "photo 0.jpg", "--index", damaged, "--class", "dog", "--json")
    assert result.code == 0
    assert len(json.loads(result.out)["matches"]) == 5
    [warning] = [line for line in result.err.splitlines() if line.startswith("warning:")]
    assert shard.name in warning


def test_models_lists_every_preset(waldo: CommandLine) -> None:
    listed = json.loads(waldo("models", "--json").out)["models"]
    shapes = {model["name"]: model["map"] for model in listed}
    assert shapes["sdxl-turbo"] == [32, 32, 640]
    assert shapes["sd15"] == [64, 64, 320]
    assert set(shapes) >= {"tiny", "sd14", "sd15", "sd21-base", "sdxl", "sdxl-turbo"}
    assert all(model["flops_per_photo"] > 1e9 and model["licence"] for model in listed)
    table = waldo("models").out
    assert all(name in table for name in shapes)
    assert "TFLOP" in table


# `waldo`, interrupted when it extracts the third batch of photos.
INTERRUPTED = """
import os, signal
from features.extractor import FeatureExtractor
from search.commands.app import main

begin, batches = FeatureExtractor.begin, []

def interrupted(self, inputs):
    batches.append(inputs)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return begin(self, inputs)

FeatureExtractor.begin = interrupted
main()
"""


def test_ctrl_c_keeps_what_is_done_and_goes_on(
    tmp_path: Path, waldo: CommandLine, photos: Path, index: Path
) -> None:
    # An index that has a codec, so that extracted photos are stored at once.
    copy = tmp_path / "index"
    shutil.copytree(index, copy)
    more = tmp_path / "more"
    more.mkdir()
    for i in range(10):
        save_photo(more / f"{i}.jpg", 120, 90, seed=100 + i)
    arguments = ("index", photos, more, "--index", copy, "--batch-size", 2)
    stopped = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert waldo("verify", "--index", copy).code == 0
    # Two batches of two photos were extracted before the interrupt.
    assert json.loads(waldo("info", "--index", copy, "--json").out)["photos"] == 6 + 4

    report = json.loads(waldo(*arguments, "--json").out)
    assert (report["total"], report["unchanged"], report["new"]) == (16, 10, 6)
