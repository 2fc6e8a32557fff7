"""The published benchmarks' folders: miniatures of each are read, and broken ones refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from features.errors import WaldoError
from features.regions import load_mask
from search.evaluation.benchmarks.burst import choose_frames, prepare_permir
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import (
    MaskedPhoto,
    read_annotation,
    read_mask,
)
from search.evaluation.benchmarks.permir import ChosenVideo, read_permir, read_permis
from search.evaluation.benchmarks.perseg import read_perseg
from search.evaluation.benchmarks.revisited import read_revisited
from search.evaluation.benchmarks.run_lengths import decode_rle
from search.evaluation.metrics.graded_ranking import positives_and_junk
from search.query import Query
from tests.helpers.benchmark_folders import (
    HEIGHT,
    N_FRAMES,
    WIDTH,
    Mask,
    box_mask,
    encode_rle,
    ground_truth,
    plain_video,
    save_burst,
    save_ids,
    save_photo,
    save_revisited,
    save_streets,
    video,
)


def refusal(call: Any, *arguments: Any) -> str:
    """The one line that a call ends with."""
    with pytest.raises(WaldoError) as refused:
        call(*arguments)
    line = str(refused.value)
    assert "\n" not in line
    return line


# Revisited Oxford and Paris


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


# PerSeg


@pytest.fixture
def perseg(tmp_path: Path) -> Path:
    """Two objects: masks with a palette, in colours, in grey; one photo lies on its side."""
    root = tmp_path / "perseg"
    for name, n_photos in (("red_teapot", 3), ("cat2", 2)):
        for number in range(n_photos):
            save_photo(root / "Images" / name / f"{number:02}.jpg")
            ids = np.zeros((30, 40), dtype=np.uint8)
            ids[5:10, 2 : 10 + number] = 38
            save_ids(root / "Annotations" / name / f"{number:02}.png", ids)
    folder = root / "Annotations" / "red_teapot"
    colours = np.zeros((30, 40, 4), dtype=np.uint8)
    colours[:, :, 3] = 255
    colours[4:6, 7:9, 2] = 1
    Image.fromarray(colours).save(folder / "01.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 40)).save(root / "Images" / "red_teapot" / "02.jpg", exif=turned)
    Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(folder / "02.png")
    (root / "Images" / ".DS_Store").write_bytes(b"")
    (root / "Images" / ".cache").mkdir()
    (root / "Images" / "cat2" / "._00.jpg").write_bytes(b"")
    return root


def test_perseg(perseg: Path) -> None:
    cat, teapot = read_perseg(perseg)
    assert (cat.name, cat.class_name) == ("cat2", None)
    images, annotations = perseg / "Images" / "cat2", perseg / "Annotations" / "cat2"
    assert cat.reference == MaskedPhoto(images / "00.jpg", annotations / "00.png")
    assert cat.targets == [MaskedPhoto(images / "01.jpg", annotations / "01.png")]
    assert teapot.name == "red_teapot"
    assert [target.photo.name for target in teapot.targets] == ["01.jpg", "02.jpg"]
    expected = np.zeros((30, 40), dtype=bool)
    expected[5:10, 2:10] = True
    np.testing.assert_array_equal(read_mask(cat.reference.mask), expected)
    coloured, grey = (read_mask(target.mask) for target in teapot.targets)
    assert coloured.dtype == grey.dtype == bool
    assert np.argwhere(coloured).tolist() == [[4, 7], [4, 8], [5, 7], [5, 8]]
    np.testing.assert_array_equal(grey, np.eye(30, 40, dtype=bool))


def test_perseg_that_is_none(perseg: Path, tmp_path: Path) -> None:
    assert "holds no folder Images" in refusal(read_perseg, tmp_path)
    (tmp_path / "Images").mkdir()
    assert "holds no folder Annotations" in refusal(read_perseg, tmp_path)
    (tmp_path / "Annotations").mkdir()
    assert "holds no object's folder" in refusal(read_perseg, tmp_path)
    mask = perseg / "Annotations" / "cat2" / "01.png"
    Image.new("L", (40, 31)).save(mask)
    line = refusal(read_perseg, perseg)
    assert line.startswith(str(mask))
    assert "40 x 31" in line
    assert "40 x 30" in line
    mask.write_bytes(b"no picture")
    assert refusal(read_perseg, perseg).startswith(f"{mask}: not a readable")
    assert refusal(read_mask, mask).startswith(f"{mask}: not a readable")
    mask.unlink()
    assert f"01.jpg: has no mask {mask}" in refusal(read_perseg, perseg)
    (perseg / "Images" / "cat2" / "01.jpg").unlink()
    assert "must hold the reference 00.jpg and at least one other" in refusal(read_perseg, perseg)
    (perseg / "Images" / "cat2" / "00.jpg").unlink()
    assert "00.png: has no photo" in refusal(read_perseg, perseg)


# DAVIS


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    for name in ("goat", "bmx-trees", "unlisted"):
        for number in range(4):
            save_photo(root / "JPEGImages" / "480p" / name / f"{number:05}.jpg")
            ids = np.zeros((30, 40), dtype=np.uint8)
            ids[:, 30:] = 255
            ids[5:10, 2:10] = 1
            if name == "bmx-trees":
                ids[12:20, 2:10] = 3
                ids[22:25, 2:10] = 4 if number > 0 else 0
            save_ids(root / "Annotations" / "480p" / name / f"{number:05}.png", ids)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("goat\nbmx-trees\n\n")
    return root


def test_davis(davis: Path) -> None:
    goat, trees = read_davis(davis)
    assert [goat.name, trees.name] == ["goat", "bmx-trees"]
    assert goat.objects == [1]
    assert trees.objects == [1, 3]  # the fourth comes up later
    assert [path.name for path in goat.frames] == [f"{number:05}.jpg" for number in range(4)]
    assert [path.stem for path in goat.annotations] == [path.stem for path in goat.frames]
    ids = read_annotation(trees.annotations[1])
    assert ids.dtype == np.uint8
    assert ids.shape == (30, 40)
    # Palette entries 1 to 255 have one colour; void is background.
    assert [int(ids[y, x]) for y, x in ((0, 0), (5, 2), (12, 9), (24, 2), (0, 35))] == [
        0,
        1,
        3,
        4,
        0,
    ]


def test_annotations_without_palette(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 2, 255]], dtype=np.uint8)).save(path)
    assert read_annotation(path).tolist() == [[0, 2, 0]]
    Image.new("RGB", (4, 4)).save(path)
    assert "has colours (mode RGB)" in refusal(read_annotation, path)
    noise = np.random.default_rng(0).integers(0, 9, (50, 50), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:300])
    assert "not a readable PNG" in refusal(read_annotation, path)


def test_davis_that_is_none(davis: Path, tmp_path: Path) -> None:
    assert "holds no readable ImageSets/2017/val.txt" in refusal(read_davis, tmp_path)
    annotation = davis / "Annotations" / "480p" / "goat" / "00002.png"
    save_ids(annotation, np.ones((30, 39), dtype=np.uint8))
    assert "is 39 x 30 pixels, its photo 00002.jpg 40 x 30" in refusal(read_davis, davis)
    annotation.unlink()
    line = refusal(read_davis, davis)
    assert "goat: 1 of its frames lack" in line
    assert "00002" in line
    (davis / "JPEGImages" / "480p" / "goat" / "00002.jpg").unlink()
    first = davis / "Annotations" / "480p" / "goat" / "00000.png"
    save_ids(first, np.full((30, 40), 255, dtype=np.uint8))
    assert "shows no object" in refusal(read_davis, davis)
    (davis / "JPEGImages" / "480p" / "goat" / "00003.jpg").unlink()
    assert "holds 2 frames" in refusal(read_davis, davis)
    (davis / "ImageSets" / "2017" / "val.txt").write_text("\n")
    assert "names no sequence" in refusal(read_davis, davis)


# BURST, PerMIR and PerMIS


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=100, deadline=None)
def test_run_lengths_round_trip(mask: Mask) -> None:
    decoded = decode_rle(encode_rle(mask), *mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


def test_run_lengths_by_hand() -> None:
    # 1 background, 1 object, 4 background, down the columns.
    assert decode_rle("114", 2, 3).astype(int).tolist() == [[0, 0, 0], [1, 0, 0]]
    # 40 = 8 + 32, so digits 8 and 1; then 50 - 0 = 18 + 32; the fourth run is 40 - 50 = -10,
    # whose digit is 22: bit 16 says that it is negative.
    mask = decode_rle("X1b1" + "0" + chr(48 + 22), 13, 10)
    flat = mask.reshape(-1, order="F")
    assert np.flatnonzero(np.diff(flat.astype(int))).tolist() == [39]
    assert flat.sum() == 90


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ("113", "ends after 5 pixels of 3 x 2"),
        ("11T", "ends within a number"),
        ("114T", "ends within a number"),
        ("", "ends after 0 pixels"),
        ("117", "a run of 7 pixels"),
        ("1@1", "a run of -16 pixels"),
        ("1 4", "is no character"),
        ("1\u00e94", "is no character"),
    ],
)
def test_run_lengths_that_are_none(counts: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_rle(counts, 2, 3)


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


def test_permir_and_permis(burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    videos = prepare_permir(burst, out)
    assert [one.name for one in videos] == ["test/BDD/street", "val/BDD/street"]
    assert [[frame.index for frame in one.frames] for one in videos] == [[1, 17, 21], [3, 19, 23]]
    content = json.loads((out / "permir.json").read_text())
    assert content["seed"] == 0
    assert content["videos"][0]["track"] == 1
    assert content["videos"][0]["frames"][2]["image"] == "test/BDD/street/0021.jpg"
    assert not list(out.glob("*.partial"))
    # The folder is all that a run needs.
    burst.rename(tmp_path / "elsewhere")

    benchmark = read_permir(out)
    assert benchmark.protocol == "permir"
    photos = out / "photos"
    assert benchmark.gallery == [
        *(photos / "test/BDD/street" / f"{index:04}.jpg" for index in (17, 21)),
        *(photos / "val/BDD/street" / f"{index:04}.jpg" for index in (19, 23)),
    ]
    assert benchmark.gallery_classes == [{"car", "traffic light"}, {"car"}] * 2
    assert benchmark.scenes == []
    first, second = benchmark.queries
    mask = out / "masks/test/BDD/street/0001.png"
    assert first.query == Query(photos / "test/BDD/street/0001.jpg", "car", mask=mask)
    assert first.relevant.tolist() == [0, 1]
    assert second.relevant.tolist() == [2, 3]
    assert len(first.ignored) == 0
    assert first.confusable
    assert first.level is None
    np.testing.assert_array_equal(load_mask(mask, WIDTH, HEIGHT), box_mask(40))

    one, other = read_permis(out)
    assert (one.name, one.class_name) == ("test/BDD/street", "car")
    assert one.reference == MaskedPhoto(photos / "test/BDD/street/0001.jpg", mask)
    assert [target.photo for target in other.targets] == benchmark.gallery[2:]
    np.testing.assert_array_equal(read_mask(other.targets[0].mask), box_mask(36))


def test_the_query_is_the_largest_mask_and_the_reference_the_largest_box(tmp_path: Path) -> None:
    burst, out = tmp_path / "BURST", tmp_path / "permir"
    shown = [{"1": box_mask(20), "2": box_mask(9)} for _ in range(20)]
    shown[0]["1"] = box_mask(21)
    shown[0]["1"][5:12] = False
    shown += [{"1": box_mask(19)}, {"3": box_mask(30)}]
    shown[19]["3"] = box_mask(30)
    shown[1] = {"1": box_mask(5), "3": box_mask(6), "4": box_mask(6)}
    save_burst(burst, [video("v", shown, t4=9)])
    for index in range(len(shown)):
        save_photo(burst / "frames/val/BDD/v" / f"{index:04}.jpg", WIDTH, HEIGHT)
    [chosen] = prepare_permir(burst, out)
    assert chosen.track == 1
    assert chosen.frames[0].index == 0
    assert chosen.query == 1
    benchmark = read_permir(out)
    [benchmark_query] = benchmark.queries
    [instance] = read_permis(out)
    assert benchmark_query.query.photo == instance.targets[0].photo
    # Nothing else is in the gallery.
    assert benchmark.gallery == [instance.reference.photo, instance.targets[1].photo]
    assert benchmark_query.relevant.tolist() == [0, 1]
    assert not benchmark_query.confusable


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


def test_permir_that_is_not_whole(burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    for reader in (read_permir, read_permis):
        assert "holds no permir.json" in refusal(reader, out)
    out.write_text("a file where the folder should be")
    assert f"{out}: cannot be written" in refusal(prepare_permir, burst, out)
    out.unlink()
    prepare_permir(burst, out)
    assert "is there already" in refusal(prepare_permir, burst, out)
    listing = out / "permir.json"
    whole = listing.read_text()
    for damage, said in (
        ("[", "not JSON"),
        ("[]", "not laid out as `waldo prepare permir` writes it"),
        (whole.replace('"track"', '"trakt"'), "not laid out as `waldo prepare permir` writes it"),
        (whole.replace('"query": 0', '"query": 3'), "videos of 3 frames each"),
        ('{"videos": []}', "videos of 3 frames each"),
    ):
        listing.write_text(damage)
        for reader in (read_permir, read_permis):
            assert said in refusal(reader, out)
    listing.write_text(whole)
    mask = out / "masks/val/BDD/street/0019.png"
    Image.new("1", (WIDTH, HEIGHT + 1)).save(mask)
    assert refusal(read_permir, out).startswith(f"{mask}: is 64 x 33 pixels")
    mask.unlink()
    line = refusal(read_permis, out)
    assert line.startswith(str(mask))
    assert "1 of the 12" in line
