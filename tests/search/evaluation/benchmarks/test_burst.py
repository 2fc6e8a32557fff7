"""The frames of BURST that become PerMIR, against plain loops and by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.evaluation.benchmarks.burst import choose_frames, prepare_permir
from search.evaluation.benchmarks.permir import ChosenVideo
from search.evaluation.benchmarks.run_lengths import decode_rle
from tests.helpers.benchmarks.benchmark_folders import (
    HEIGHT,
    N_FRAMES,
    WIDTH,
    Mask,
    box_mask,
    plain_video,
    save_burst,
    save_streets,
    video,
)
from tests.helpers.refusal import refusal


def test_chosen_frames_by_hand(tmp_path: Path) -> None:
    path = save_burst(tmp_path, [plain_video("street", 2)])
    # Both cars are side by side in 39 frames, but the tie's lot makes either the chosen one.
    by_track: dict[int, ChosenVideo] = {}
    for seed in range(20):
        [found] = choose_frames(path, seed)
        by_track.setdefault(found.track, found)
    assert by_track.keys() == {1, 2}
    car = by_track[1]
    assert (car.name, car.class_name) == ("val/BDD/street", "car")
    assert (car.width, car.height) == (WIDTH, HEIGHT)
    # Frame 7 is too near to frame 2; frame 39, where the car is alone, does not count.
    assert [frame.index for frame in car.frames] == [2, 18, 22]
    assert [frame.image for frame in car.frames] == [
        f"val/BDD/street/{index:04}.jpg" for index in (2, 18, 22)
    ]
    assert car.query == 0
    assert [frame.classes for frame in car.frames] == [["car"], ["car", "traffic light"], ["car"]]
    np.testing.assert_array_equal(decode_rle(car.frames[1].rle, HEIGHT, WIDTH), box_mask(36))


def random_video(seed: int) -> dict[str, Any]:
    """Three cars and two lights that come and go; boxes of one track are all different."""
    random = np.random.default_rng(seed)
    widths = [random.permutation(N_FRAMES) + 8 for _ in range(5)]
    often = random.choice([0.3, 0.7, 0.95], 5)
    shown: list[dict[str, Mask]] = [{} for _ in range(N_FRAMES)]
    for track in range(5):
        for index in np.flatnonzero(random.random(N_FRAMES) < often[track]):
            mask = box_mask(int(widths[track][index]), hollow=bool(random.random() < 0.05))
            shown[index][str(track)] = mask
    return video(f"video{seed}", shown, t1=9, t3=9)


def naive_choices(source: dict[str, Any]) -> dict[int, tuple[list[int], int] | None]:
    """For each track that may be chosen, its frames and query; None where the video is skipped."""
    category = source["track_category_ids"]
    frames: dict[str, list[int]] = {track: [] for track in category}
    for index, shown in enumerate(source["segmentations"]):
        for track in shown:
            others = [other for other in shown if other != track]
            if any(category[other] == category[track] for other in others):
                frames[track].append(index)
    choices: dict[int, tuple[list[int], int] | None] = {}
    for track, indices in frames.items():
        if len(indices) != max(map(len, frames.values())):
            continue
        masks = {
            index: decode_rle(source["segmentations"][index][track]["rle"], HEIGHT, WIDTH)
            for index in indices
        }
        widths = {index: int(np.argwhere(mask)[:, 1].max()) for index, mask in masks.items()}
        ordered = sorted(indices, key=lambda index: -widths[index])
        chosen = [index for index in ordered if index == ordered[0] or abs(index - ordered[0]) > 15]
        chosen = chosen[:3]
        areas = [int(masks[index].sum()) for index in chosen]
        whole = len(chosen) == 3 and min(areas) >= 0.005 * WIDTH * HEIGHT
        choices[int(track)] = (chosen, areas.index(max(areas))) if whole else None
    return choices


@pytest.mark.parametrize("seed", range(12))
def test_chosen_frames_are_a_plain_loops(tmp_path: Path, seed: int) -> None:
    sources = [random_video(10 * seed + number) for number in range(3)]
    found = {one.name: one for one in choose_frames(save_burst(tmp_path, sources))}
    for source in sources:
        choices = naive_choices(source)
        one = found.get(f"val/BDD/{source['seq_name']}")
        if one is None:
            assert None in choices.values()
        else:
            assert choices[one.track] == ([frame.index for frame in one.frames], one.query)


def test_videos_that_are_skipped(tmp_path: Path) -> None:
    pair = {"1": box_mask(20), "2": box_mask(30)}
    different = [pair] * 40
    corners = [{"1": box_mask(20, hollow=True), "2": box_mask(30, hollow=True)}] * 40
    nothing = [{"1": box_mask(0), "2": box_mask(0)}] * 40
    sources = [
        *(video(name, [pair] * 40, dataset=name) for name in ("HACS", "AVA", "LaSOT")),
        video("no look-alike", different, t2=9),
        video("too short", [pair] * 17),
        video("alone", [{"1": box_mask(20)}] * 40),
        video("small", corners),
        video("empty", nothing),
        video("unseen", []),
        video("good", [pair] * 40, dataset="ArgoVerse"),
    ]
    found = choose_frames(save_burst(tmp_path, sources))
    assert [one.name for one in found] == ["val/ArgoVerse/good"]


def test_ties_fall_by_the_seed_and_the_videos_name_alone(tmp_path: Path) -> None:
    same = [{"1": box_mask(20), "2": box_mask(20)}] * 60
    good, other = video("good", same), video("other", same)

    def choice(seed: int, *sources: dict[str, Any]) -> ChosenVideo:
        return choose_frames(save_burst(tmp_path, list(sources)), seed)[-1]

    first = choice(5, good)
    assert choice(5, good) == first
    assert choice(5, other, good) == first
    varied = [choice(seed, good) for seed in range(8)]
    assert len({one.track for one in varied}) == 2
    assert len({one.frames[0].index for one in varied}) > 4
    names = ("good", "other")
    both = [choice(0, video(name, same)) for name in names]
    assert [f.index for f in both[0].frames] != [f.index for f in both[1].frames]


@pytest.fixture
def burst(tmp_path: Path) -> Path:
    return save_streets(tmp_path / "BURST")


def test_burst_that_is_none(burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    assert "holds no annotations/SPLIT/all_classes.json" in refusal(prepare_permir, tmp_path, out)
    annotations = burst / "annotations" / "test" / "all_classes.json"
    whole = annotations.read_text()
    content = json.loads(whole)
    for damage, said in (
        ("[", "not JSON"),
        ("{}", "not laid out as BURST's all_classes.json"),
        ("[1]", "not laid out as BURST's all_classes.json"),
        (whole.replace('"height"', '"hoehe"'), "KeyError('height')"),
        (whole.replace('"street"', '"../street"'), "leads out of its folder"),
    ):
        annotations.write_text(damage)
        line = refusal(prepare_permir, burst, out)
        assert said in line
    content["sequences"][0]["segmentations"][17]["1"]["rle"] = "1 1"
    annotations.write_text(json.dumps(content))
    line = refusal(prepare_permir, burst, out)
    assert line.startswith(f"{annotations}: test/BDD/street, annotated frame 17, track 1: ")
    annotations.write_text(whole)
    for index in (17, 21):
        (burst / "frames/test/BDD/street" / f"{index:04}.jpg").unlink()
    line = refusal(prepare_permir, burst, out)
    assert line.startswith(str(burst / "frames/test/BDD/street/0017.jpg"))
    assert "2 of the 6" in line
    save_burst(burst, [], "test")
    save_burst(burst, [], "val")
    assert "no video qualifies" in refusal(prepare_permir, burst, out)
    assert not out.exists()
