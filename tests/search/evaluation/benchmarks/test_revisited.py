"""Revisited Oxford and Paris: miniatures of their folders, and ground truth that is refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.evaluation.benchmarks.revisited import read_revisited
from search.evaluation.metrics.graded_ranking import positives_and_junk
from search.query import Query
from tests.helpers.benchmarks.benchmark_folders import (
    ground_truth,
    save_revisited,
)
from tests.helpers.refusal import refusal


@pytest.fixture
def oxford(tmp_path: Path) -> Path:
    return save_revisited(tmp_path / "roxford5k", ground_truth())


def test_revisited(oxford: Path) -> None:
    for root in (oxford, oxford.parent):
        benchmark = read_revisited(root, "roxford5k")
        assert benchmark.protocol == "roxford5k"
        assert benchmark.graded
        assert benchmark.cut_queries
        assert benchmark.gallery_classes is None
        assert [path.name for path in benchmark.gallery] == [
            f"all_souls_{number:06}.jpg" for number in range(5)
        ]
        first, second = benchmark.queries
        assert first.query == Query(
            oxford / "jpg" / "hertford_000001.jpg", box=(2.5, 3.0, 30.0, 25.5)
        )
        # Cut to the photo.
        assert second.query.box == (0.0, 0.0, 40.0, 30.0)
        labels = {
            difficulty: tuple(
                sorted(part.tolist()) for part in positives_and_junk(first, difficulty)
            )
            for difficulty in ("easy", "medium", "hard")
        }
        assert labels == {
            "easy": ([3], [0, 1, 4]),
            "medium": ([0, 3, 4], [1]),
            "hard": ([0, 4], [1, 3]),
        }
        positives, junk = positives_and_junk(second, "easy")
        assert (positives.tolist(), junk.tolist()) == ([], [2])
        assert positives.dtype == junk.dtype == np.int64


def test_revisited_as_json_goes_before_the_pickle(oxford: Path) -> None:
    truth = ground_truth()
    truth["gnd"][1]["hard"] = [0, 1]
    (oxford / "gnd_roxford5k.json").write_text(json.dumps(truth))
    second = read_revisited(oxford, "roxford5k").queries[1]
    assert second.hard is not None
    assert second.hard.tolist() == [0, 1]


def test_paris(tmp_path: Path) -> None:
    save_revisited(tmp_path / "rparis6k", ground_truth(), "rparis6k")
    assert read_revisited(tmp_path, "rparis6k").protocol == "rparis6k"
    line = refusal(read_revisited, tmp_path, "roxford5k")
    assert "holds no gnd_roxford5k.pkl" in line


class Touch:
    """Unpickled as usual, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_does_not_run_code(oxford: Path, tmp_path: Path) -> None:
    path, trace = oxford / "gnd_roxford5k.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({**ground_truth(), "extra": Touch(trace)}))
    line = refusal(read_revisited, oxford, "roxford5k")
    assert line.startswith(str(path))
    assert "mkdir" in line
    assert "gnd_roxford5k.json" in line
    assert not trace.exists()
    # It would have.
    pickle.loads(path.read_bytes())
    assert trace.exists()


def test_a_pickle_of_arrays_is_refused_with_the_mend(oxford: Path) -> None:
    truth = ground_truth()
    truth["gnd"][0]["easy"] = np.array([3])
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    line = refusal(read_revisited, oxford, "roxford5k")
    assert "numpy" in line
    assert "gnd_roxford5k.json" in line


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("gnd_roxford5k.pkl", b"\x80\x04no pickle", "not a pickle"),
        ("gnd_roxford5k.pkl", b"", "not a pickle"),
        ("gnd_roxford5k.pkl", pickle.dumps([1, 2]), '"imlist"'),
        ("gnd_roxford5k.json", b"{", "not JSON"),
        ("gnd_roxford5k.json", b"\xff\xfe", "not JSON"),
        ("gnd_roxford5k.json", b'{"imlist": []}', '"qimlist"'),
    ],
)
def test_unreadable_ground_truth(oxford: Path, file: str, content: bytes, said: str) -> None:
    (oxford / file).write_bytes(content)
    line = refusal(read_revisited, oxford, "roxford5k")
    assert line.startswith(f"{oxford / file}: ")
    assert said in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("easy", [3, 5], '"easy" names photo 5, but "imlist" goes from 0 to 4'),
        ("hard", [-1], '"hard" names photo -1'),
        ("junk", [3], 'photo 3 is in "easy" and "junk"'),
        ("hard", [0, 0], 'photo 0 is in "hard" and "hard"'),
        ("easy", [1.0], '"easy" must be a list of integers'),
        ("easy", [True], '"easy" must be a list of integers'),
        ("easy", None, '"easy" must be a list of integers'),
        ("bbx", [0, 0, 5], '"bbx" must be four numbers'),
        ("bbx", [0, 0, 5, float("nan")], '"bbx" must be four numbers'),
        ("bbx", [0, 0, 5, float("inf")], '"bbx" must be four numbers'),
        ("bbx", [0, 0, 5, "9"], '"bbx" must be four numbers'),
        ("bbx", [9, 0, 5, 9], "empty or off the photo, which is 40 x 30 pixels"),
        ("bbx", [0, 0, 5, 0], "empty or off the photo"),
        ("bbx", [6.6, 0, 7.4, 9], "empty or off the photo"),
        ("bbx", [39.6, 0, 40.2, 9], "empty or off the photo"),
        ("bbx", [136.5, 34.1, 648.5, 955.7], "empty or off the photo"),
    ],
)
def test_labels_that_make_no_sense(oxford: Path, key: str, value: Any, said: str) -> None:
    truth = ground_truth()
    truth["gnd"][0][key] = value
    save_revisited(oxford, truth)
    line = refusal(read_revisited, oxford, "roxford5k")
    assert line.startswith(f"{oxford / 'gnd_roxford5k.pkl'}: query hertford_000001: ")
    assert said in line


def test_lists_of_names_that_make_no_sense(oxford: Path) -> None:
    for key, value, said in (
        ("imlist", [], '"imlist" must be a list of at least one name'),
        ("qimlist", ["a", 3], '"qimlist" must be a list of at least one name'),
        ("gnd", ground_truth()["gnd"][:1], '"gnd" must be a list with an entry for each'),
        ("gnd", [1, 2], "query hertford_000001: must hold"),
    ):
        save_revisited(oxford, {**ground_truth(), key: value})
        assert said in refusal(read_revisited, oxford, "roxford5k")


def test_a_benchmark_in_which_nothing_is_to_be_found(oxford: Path) -> None:
    truth = ground_truth()
    for entry in truth["gnd"]:
        entry["junk"] = [*entry["easy"], *entry["hard"], *entry["junk"]]
        entry["easy"] = entry["hard"] = []
    save_revisited(oxford, truth)
    assert "there is nothing to find" in refusal(read_revisited, oxford, "roxford5k")


def test_missing_photos_are_counted(oxford: Path) -> None:
    (oxford / "jpg" / "all_souls_000003.jpg").unlink()
    (oxford / "jpg" / "all_souls_000001.jpg").unlink()
    line = refusal(read_revisited, oxford, "roxford5k")
    assert line.startswith(str(oxford / "jpg" / "all_souls_000001.jpg"))
    assert "2 of the 7" in line
