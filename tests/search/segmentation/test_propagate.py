"""Labels carried through videos: the vote, objects that come and go, and the files."""

import json
import math
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError, WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import Photo, load_photo
from search.evaluation.methods.baselines import PatchExtractor
from search.evaluation.metrics.masks import mask_iou
from search.segmentation.drawing import ContactSheet, palette, read_ids, write_ids
from search.segmentation.frames import VideoFrame, open_video
from search.segmentation.propagate import (
    LabelPropagator,
    PropagationSettings,
    Voters,
    carry_labels,
    cell_labels,
    vote,
)
from search.segmentation.video import (
    load_video_extractor,
    open_labelled,
    propagate_video,
    read_first_ids,
)
from tests.helpers.benchmarks.video_folders import HEIGHT, SIDE, WIDTH, save_frames, square_frame
from tests.helpers.command_line import CommandLine

Ids = NDArray[np.uint8]
FRAME = Frame(160, 96, 160, 10)  # 10 x 6 cells


def test_maps_of_frames_have_64_cells_per_side() -> None:
    extractor = load_video_extractor("tiny", "cpu")
    assert (extractor.image_size, extractor.grid) == (512, 64)


# The vote


def naive_vote(
    cells: NDArray[np.float32],
    context: list[Voters],
    neighbours: int,
    temperature: float,
) -> NDArray[np.float64]:
    """The vote, cell by cell and voter by voter."""
    rows = []
    for number, cell in enumerate(cells.astype(np.float64)):
        ballots = []
        for voters in context:
            for other, vector in enumerate(voters.cells.numpy().astype(np.float64)):
                likeness = float(cell @ vector) - float(voters.penalty[number, other])
                ballots.append((likeness, voters.labels[other].numpy()))
        best = sorted(ballots, key=lambda ballot: -ballot[0])[:neighbours]
        weights = [math.exp((likeness - best[0][0]) / temperature) for likeness, _ in best]
        total = sum(w * labels for w, (_, labels) in zip(weights, best, strict=True))
        rows.append(total / sum(weights))
    return np.array(rows)


@pytest.mark.parametrize("seed", range(5))
def test_the_vote_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d, k = 30, 8, 3

    def unit_cells() -> torch.Tensor:
        vectors = torch.from_numpy(rng.normal(size=(n, d)).astype(np.float32))
        return torch.nn.functional.normalize(vectors, dim=1)

    def voters(penalty: float) -> Voters:
        labels = torch.from_numpy(rng.dirichlet(np.ones(k), n).astype(np.float32))
        penalties = torch.zeros(n, n).masked_fill_(far, penalty)
        return Voters(unit_cells(), labels, penalties)

    far = torch.from_numpy(rng.random((n, n)) < 0.7)
    context = [voters(0.2), voters(math.inf), voters(math.inf)]
    cells = unit_cells()
    found = vote(cells, context, 4, 0.1)
    wanted = naive_vote(cells.numpy(), context, 4, 0.1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(dim=1).numpy(), 1.0, atol=1e-5)


def test_there_may_be_fewer_cells_than_neighbours() -> None:
    one = torch.ones(1, 1)
    found = vote(one, [Voters(one, torch.tensor([[0.25, 0.75]]), one)], 5, 1.0)
    assert found.tolist() == [[0.25, 0.75]]


def test_labels_of_cells_are_shares_of_their_area() -> None:
    ids = np.zeros((96, 160), dtype=np.uint8)
    ids[16:48, 0:28] = 3
    ids[16:48, 28:64] = 9
    ids[80:84, 80:84] = 4
    labels = cell_labels(ids, [3, 9, 4], FRAME)
    assert labels.shape == (6, 10, 4)
    np.testing.assert_allclose(labels[1, 1], [0, 0.75, 0.25, 0], atol=0.01)
    np.testing.assert_allclose(labels[0, 0], [1, 0, 0, 0])
    np.testing.assert_allclose(labels.sum(axis=2), 1.0, atol=1e-6)
    # The object covers 16 of 256 pixels, too few to win the cell by its share of the area.
    np.testing.assert_allclose(labels[5, 5], [0, 0, 0, 1])


# From map to map


def world(places: dict[int, tuple[int, int]], seed: int = 0) -> FeatureMaps:
    """A map of 10 x 6 similar cells, with objects of 2 x 2 cells that differ from them.

    places: object -> (row, column). Object 101 looks like object 1, and so on.
    """
    rng = np.random.default_rng(seed)
    cells = (rng.normal(size=32) * 3 + 0.1 * rng.normal(size=(10, 10, 32))).astype(np.float16)
    for number, (row, column) in places.items():
        kinds = np.random.default_rng(1000 + number % 100).normal(size=(2, 2, 32)) * 2
        cells[row : row + 2, column : column + 2] = kinds
    return FeatureMaps(cells, np.zeros_like(cells), FRAME, "")


def labels_of(places: dict[int, tuple[int, int]], objects: list[int]) -> NDArray[np.float32]:
    labels = np.zeros((6, 10, 1 + len(objects)), dtype=np.float32)
    for place, number in enumerate(objects, start=1):
        if number in places:
            row, column = places[number]
            labels[row : row + 2, column : column + 2, place] = 1.0
    labels[:, :, 0] = 1.0 - labels.sum(axis=2)
    return labels


def follow(
    steps: list[dict[int, tuple[int, int]]], objects: list[int], **settings: float
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The carried labels of each frame after the first, and the true labels."""
    chosen = PropagationSettings(**{"neighbours": 1, **settings})  # type: ignore[arg-type]
    first = labels_of(steps[0], objects)
    propagator = LabelPropagator(world(steps[0]), first, chosen)
    for places in steps[1:]:
        yield propagator.step(world(places)), labels_of(places, objects)


def test_objects_are_followed_separately() -> None:
    steps = [{1: (0, step), 2: (4, 8 - step)} for step in range(8)]
    for found, true in follow(steps, [1, 2]):
        np.testing.assert_allclose(found, true, atol=1e-5)


def test_an_object_that_left_is_found_wherever_it_comes_back() -> None:
    steps = [{1: (0, 0)}, *[{} for _ in range(10)], {1: (4, 8)}, {1: (4, 7)}]
    found = list(follow(steps, [1]))
    for labels, true in found:
        np.testing.assert_allclose(labels, true, atol=1e-5)
    assert found[5][0][:, :, 1].max() < 1e-5
    # It would be lost if cells of the first frame that are out of reach had no vote.
    *_, (lost, _) = follow(steps, [1], far_penalty=math.inf)
    assert lost[4:6, 7:9, 1].max() < 0.5


def test_a_look_alike_elsewhere_does_not_take_the_label() -> None:
    steps = [{1: (0, step), 101: (4, 8 - step)} for step in range(4)]
    for found, true in follow(steps, [1]):
        np.testing.assert_allclose(found, true, atol=1e-5)


def test_the_memory_does_not_grow() -> None:
    first = {1: (2, 2)}
    propagator = LabelPropagator(world(first), labels_of(first, [1]), PropagationSettings())
    sizes = []
    for _ in range(20):
        propagator.step(world(first))
        sizes.append(len(pickle.dumps(propagator)))
    # Seven previous frames vote by default.
    assert len(set(sizes[6:])) == 1
    assert sizes[0] < sizes[5] < sizes[6]


# From picture to picture


Places = dict[int, tuple[int, int] | None]


def photo_of(number: int, places: Places) -> Photo:
    return Photo(Path(f"{number:05}"), f"{number}", WIDTH, HEIGHT, square_frame(places)[0])


def photos(all_places: list[Places]) -> list[Photo]:
    return [photo_of(*item) for item in enumerate(all_places)]


def moving(count: int) -> list[Places]:
    return [{3: (4 + 4 * step, 6), 7: (70 - 4 * step, 38)} for step in range(count)]


def named(items: list[Photo]) -> Iterator[VideoFrame]:
    return (VideoFrame(photo.path.name, photo) for photo in items)


def test_several_objects_are_carried_as_pixels() -> None:
    places = moving(8)
    every = photos(places)
    ids = square_frame(places[0])[1]
    found = [*carry_labels(every[0], ids, named(every[1:]), PatchExtractor(24))]
    assert [frame.name for frame, _ in found] == [f"{number:05}" for number in range(1, 8)]
    for (_, carried), where in zip(found, places[1:], strict=True):
        true = square_frame(where)[1]
        assert carried.dtype == np.uint8
        assert carried.shape == true.shape
        assert set(np.unique(carried)) == {0, 3, 7}
        for number in (3, 7):
            assert mask_iou(carried == number, true == number) > 0.75


def test_edges_follow_the_picture() -> None:
    places: list[Places] = [{1: (21 + step, 22)} for step in range(4)]
    every = photos(places)
    ids = square_frame(places[0])[1]
    fits = []
    for sharpen in (True, False):
        frames = named(every[1:])
        found = carry_labels(every[0], ids, frames, PatchExtractor(8), sharpen=sharpen)
        *_, (_, last) = found
        fits.append(mask_iou(last == 1, square_frame(places[-1])[1] == 1))
    assert fits[0] > fits[1]


def test_a_frame_that_cannot_be_used_gets_the_labels_of_the_frame_before() -> None:
    every = photos(moving(5))
    ids = square_frame(moving(1)[0])[1]
    small = Photo(Path("small.jpg"), "", 50, 40, Image.new("RGB", (50, 40)))
    frames = [*named(every[1:3]), VideoFrame("x", None, "broken"), VideoFrame("y", small)]
    found = [*carry_labels(every[0], ids, [*frames, *named(every[3:])], PatchExtractor(24))]
    names = [frame.name for frame, _ in found]
    assert names == ["00001", "00002", "x", "y", "00003", "00004"]
    assert [frame.photo is None for frame, _ in found] == [False, False, True, True, False, False]
    assert found[2][0].problem == "broken"
    assert found[3][0].problem == "small.jpg: is 50 x 40 pixels, the first frame 96 x 64"
    assert (found[1][1] == found[2][1]).all()
    assert (found[1][1] == found[3][1]).all()
    assert (found[4][1] != found[3][1]).any()


def test_frames_are_not_held() -> None:
    alive: list[weakref.ref[Photo]] = []

    def frames() -> Iterator[VideoFrame]:
        for number, places in enumerate(moving(17)):
            photo = photo_of(number, places)
            alive.append(weakref.ref(photo))
            yield VideoFrame(f"{number:05}", photo)

    first, ids = photos(moving(1))[0], square_frame(moving(1)[0])[1]
    for number, _ in enumerate(carry_labels(first, ids, frames(), PatchExtractor(8))):
        # No more frames are read than a batch needs, and those of earlier batches are released.
        assert len(alive) <= number + 3
        assert sum(photo() is not None for photo in alive) <= 5
    assert len(alive) == 17


def test_features_that_are_not_finite_are_refused() -> None:
    class Broken(PatchExtractor):
        def extract(self, inputs: list) -> list[FeatureMaps]:  # type: ignore[override, type-arg]
            maps = super().extract(inputs)
            maps[0].appearance[0, 0, 0] = np.inf
            return maps

    with pytest.raises(ModelError, match="00000: the model gave no finite features"):
        next(carry_labels(photos(moving(1))[0], square_frame(moving(1)[0])[1], [], Broken(8)))


# Files


def test_ids_are_read_as_they_were_written(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_ids(tmp_path / "ids.png", ids)
    assert (read_ids(tmp_path / "ids.png") == ids).all()
    with Image.open(tmp_path / "ids.png") as image:
        assert image.mode == "P"
        # The first colours of PASCAL VOC, as in the files of DAVIS.
        colours = np.reshape(image.getpalette(), (-1, 3))[:8].tolist()
    assert colours == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0],
        [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128],
    ]  # fmt: skip
    assert len(np.unique(palette(), axis=0)) == 256


@pytest.mark.parametrize(
    ("values", "mode", "wanted"),
    [
        ([0, 1, 2, 255], "P", [0, 1, 2, 0]),
        ([0, 1, 2, 255], "L", [0, 1, 2, 0]),
        ([0, 0, 255, 255], "L", [0, 0, 1, 1]),
        ([0, 0, 255, 255], "1", [0, 0, 1, 1]),
        ([0, 5, 5, 5], "P", [0, 5, 5, 5]),
    ],
)
def test_first_masks(values: list[int], mode: str, wanted: list[int], tmp_path: Path) -> None:
    image = Image.fromarray(np.array([values], dtype=np.uint8))
    if mode == "P":
        image.putpalette(palette().tobytes())
    (image.convert("1") if mode == "1" else image).save(tmp_path / "mask.png")
    assert read_first_ids(tmp_path / "mask.png").tolist() == [wanted]


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10.jpg", "frame2.jpg", "frame1.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no frame")
    video = open_video(tmp_path)
    assert video.count == 3
    for _ in range(2):
        assert [frame.name for frame in video.frames()] == ["frame1", "frame2", "frame10"]
    Image.new("RGB", (8, 8)).save(tmp_path / "frame2.png")
    with pytest.raises(WaldoError, match=r"labels of frame2\.jpg and frame2\.png would be one"):
        open_video(tmp_path)


def test_a_contact_sheet_holds_few_frames_of_any_video(tmp_path: Path) -> None:
    sheet, sizes = ContactSheet(), set()
    for number in range(200):
        sheet.add(f"{number}", Image.new("RGB", (64, 32), (number, 0, 0)))
        sizes.add(len(sheet._kept))
    assert max(sizes) < 24
    sheet.save(tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert image.size == (4 * 320, 4 * 160)  # 13 frames: 0, 16, 32 ... 192
        shown = [image.getpixel((320 * (k % 4) + 200, 160 * (k // 4) + 100)) for k in range(13)]
    np.testing.assert_allclose([red for red, _, _ in shown], range(0, 200, 16), atol=4)


@pytest.mark.parametrize("library", ["av", "cv2"])
def test_video_files(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    # A module that is None in sys.modules cannot be imported.
    monkeypatch.setitem(__import__("sys").modules, "cv2" if library == "av" else "av", None)
    save_frames(tmp_path / "frames", moving(6), tmp_path / "masks")
    labelled = open_labelled(tmp_path / "frames", tmp_path / "masks" / "00000.png")
    report = propagate_video(labelled, tmp_path / "out", PatchExtractor(8))
    assert report.overlay == tmp_path / "out" / "overlay.mp4"
    video = open_video(report.overlay)
    assert video.count == 6
    assert video.rate == 24.0
    frames = [*video.frames()]
    assert [frame.name for frame in frames] == [f"{number:05}" for number in range(6)]
    assert all(frame.photo is not None for frame in frames)
    assert frames[0].photo is not None
    assert frames[0].photo.image.size == (WIDTH, HEIGHT)
    again = open_labelled(report.overlay, tmp_path / "masks" / "00000.png")
    assert propagate_video(again, tmp_path / "again", PatchExtractor(8)).frames == 6
    assert (tmp_path / "again" / "00005.png").exists()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(WaldoError, match=r"text\.mp4: not a readable video"):
        open_video(tmp_path / "text.mp4")


def test_without_a_library_videos_are_refused_and_folders_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("av", "cv2"):
        monkeypatch.setitem(__import__("sys").modules, library, None)
    (tmp_path / "video.mp4").write_bytes(b"")
    with pytest.raises(WaldoError, match="install av or opencv-python-headless"):
        open_video(tmp_path / "video.mp4")
    save_frames(tmp_path / "frames", moving(2), tmp_path / "masks")
    labelled = open_labelled(tmp_path / "frames", tmp_path / "masks" / "00000.png")
    report = propagate_video(labelled, tmp_path / "out", PatchExtractor(8))
    assert report.overlay is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00000.png",
        "00001.png",
        "contact-sheet.jpg",
    ]


# The command


def test_propagate_writes_the_masks_of_all_frames(waldo: CommandLine, tmp_path: Path) -> None:
    true = save_frames(tmp_path / "frames", moving(4), tmp_path / "masks")
    (tmp_path / "frames" / "00002.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    mask, out = tmp_path / "masks" / "00000.png", tmp_path / "out"
    result = waldo("propagate", tmp_path / "frames", "--mask", mask, "--out", out, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["frames"], report["objects"]) == (4, [3, 7])
    assert (report["width"], report["height"]) == (WIDTH, HEIGHT)
    [failed] = report["failed"]
    assert failed["frame"] == "00002"
    assert "00002.jpg: broken picture" in failed["reason"]
    assert "warning: frame 00002" in result.err
    found = [read_ids(out / f"{number:05}.png") for number in range(4)]
    assert (found[0] == true[0]).all()
    assert (found[2] == found[1]).all()
    for number in (3, 7):
        assert mask_iou(found[3] == number, true[3] == number) > 0.6
    with Image.open(report["contact_sheet"]) as image:
        assert image.width == 4 * 320


def test_propagate_prints_a_summary(waldo: CommandLine, tmp_path: Path) -> None:
    save_frames(tmp_path / "frames", moving(1), tmp_path / "masks")
    mask, out = tmp_path / "masks" / "00000.png", tmp_path / "out"
    said = waldo("propagate", tmp_path / "frames", "--mask", mask, "--out", out)
    assert said.out.startswith("1 frames, 2 objects, in ")
    assert (read_ids(out / "00000.png") == read_ids(mask)).all()


def test_propagate_refuses_bad_input_in_one_line(waldo: CommandLine, tmp_path: Path) -> None:
    frames, out = tmp_path / "frames", tmp_path / "out"
    save_frames(frames, moving(2), tmp_path / "masks")
    mask = tmp_path / "masks" / "00000.png"

    def refusal(video: Path, given: Path, where: Path = out) -> str:
        return waldo.refusal("propagate", video, "--mask", given, "--out", where)

    assert "no such folder or video file" in refusal(tmp_path / "none", mask)
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "empty", mask)
    assert "holds the frames" in refusal(frames, mask, frames)
    assert "not a readable PNG" in refusal(frames, frames / "00000.jpg")
    write_ids(tmp_path / "none.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    assert "shows no object" in refusal(frames, tmp_path / "none.png")
    write_ids(tmp_path / "small.png", np.ones((SIDE, SIDE), dtype=np.uint8))
    assert "has 20 x 20 pixels, but the first frame has 96 x 64" in refusal(
        frames, tmp_path / "small.png"
    )
    Image.new("RGB", (WIDTH, HEIGHT), (200, 0, 0)).save(tmp_path / "colour.png")
    assert "has colours" in refusal(frames, tmp_path / "colour.png")
    (frames / "00000.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    assert "this is the first frame" in refusal(frames, mask)
    assert load_photo(frames / "00001.jpg").width == WIDTH
    assert not out.exists()
