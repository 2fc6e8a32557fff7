"""PerMIR and PerMIS in the layout of the published code: a folder per video."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from search.evaluation.benchmarks.labelled_objects import read_mask
from search.evaluation.benchmarks.permir import read_permir, read_permis
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.test_docs import blocks

ROOT = Path(__file__).parents[4]

# The widths of the object in the frames of each video; the largest is the query.
WIDTHS = {"10": (20, 30, 10), "2": (12, 8, 40), "3": (25, 25, 8)}


def object_mask(width: int) -> np.ndarray:
    mask = np.zeros((64, 96), dtype=bool)
    mask[10:30, 5 : 5 + width] = True
    return mask


def save_videos(root: Path) -> Path:
    """As the published code writes them: masks are lists of {track: mask}, pickled by NumPy."""
    for seed, (name, widths) in enumerate(WIDTHS.items()):
        (root / name).mkdir(parents=True)
        masks = np.array([{7: object_mask(width)} for width in widths], dtype=object)
        np.save(root / name / "masks.npz", masks)
        for number in range(3):
            save_photo(root / name / f"{number}.jpg", seed=10 * seed + number)
    (root / "ret_data.pt").write_bytes(b"features, which are not read")
    (root / ".cache").mkdir()
    return root


def make_pictures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what docs/evaluation.md tells people to run."""
    monkeypatch.chdir(root.parent)
    [code] = [text for text in blocks(ROOT / "docs/evaluation.md", "python") if "PerMIRS" in text]
    exec(code, {})


def test_masks_become_pictures_as_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_videos(tmp_path / "PerMIRS")
    make_pictures(root, monkeypatch)
    for name, widths in WIDTHS.items():
        for number, width in enumerate(widths):
            mask = read_mask(root / name / "masks" / f"{number}.png")
            np.testing.assert_array_equal(mask, object_mask(width))


def test_each_folder_is_a_query_and_two_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_videos(tmp_path / "PerMIRS")
    make_pictures(root, monkeypatch)
    benchmark = read_permir(root)
    assert (benchmark.protocol, benchmark.convention) == ("permir", "3 folders")
    places = [photo.relative_to(root).as_posix() for photo in benchmark.gallery]
    assert places == ["10/0.jpg", "10/2.jpg", "2/0.jpg", "2/1.jpg", "3/1.jpg", "3/2.jpg"]
    assert benchmark.gallery_classes is None
    asked = [query.query.photo.relative_to(root).as_posix() for query in benchmark.queries]
    assert asked == ["10/1.jpg", "2/2.jpg", "3/0.jpg"]  # of equal masks the first
    assert [query.relevant.tolist() for query in benchmark.queries] == [[0, 1], [2, 3], [4, 5]]
    assert benchmark.queries[0].query.mask == root / "10/masks/1.png"
    assert benchmark.queries[0].query.class_name is None
    assert benchmark.queries[0].boxes == {0: ((5, 10, 25, 30),), 1: ((5, 10, 15, 30),)}
    segmentation = read_permis(root)
    assert segmentation.convention == "3 folders"
    objects = segmentation.objects
    assert [item.name for item in objects] == ["10", "2", "3"]
    assert objects[0].reference.photo == root / "10/0.jpg"
    assert [target.photo.name for target in objects[0].targets] == ["1.jpg", "2.jpg"]


def test_the_head_of_the_table_names_the_convention(
    waldo: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_videos(tmp_path / "PerMIRS")
    make_pictures(root, monkeypatch)
    options = ["--root", root, "--work", tmp_path / "work"]
    result = waldo("evaluate", "permir", *options, "--method", "rgb-patches", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["n_queries"], report["n_gallery"]) == (3, 6)
    assert report["convention"] == "3 folders"
    # Lines of notes are broken anywhere.
    table = " ".join(waldo("evaluate", "permir", *options, "--method", "rgb-patches").out.split())
    assert "permir, 3 folders" in table
    assert "216 folders" in table  # of what the published figures are, which are not shown
    masks = waldo("evaluate", "permis", *options, "--method", "appearance").out
    assert "permis, 3 folders" in " ".join(masks.split())


def test_frames_may_have_names_in_capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = save_videos(tmp_path / "PerMIRS")
    make_pictures(root, monkeypatch)
    (root / "3" / "0.jpg").rename(root / "3" / "0.JPG")
    assert read_permis(root).objects[2].reference.photo == root / "3" / "0.JPG"


def test_pickles_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = save_videos(tmp_path)
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("a pickle was opened"))
    with pytest.raises(WaldoError, match=r"10/masks\.npz\.npy: is a pickle") as raised:
        read_permir(root)
    assert "\n" not in str(raised.value)


def test_bad_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = save_videos(tmp_path / "PerMIRS")
    make_pictures(root, monkeypatch)
    for number in range(3):
        (root / "2" / "masks.npz.npy").unlink(missing_ok=True)
        (root / "2" / "masks" / f"{number}.png").unlink()
        with pytest.raises(WaldoError, match=rf"2/masks/{number}\.png: no such file"):
            read_permis(root)
        Image.fromarray(np.zeros((64, 96), dtype=bool)).save(root / "2/masks" / f"{number}.png")
    with pytest.raises(WaldoError, match="2/masks: shows the object in no frame"):
        read_permir(root)
    Image.fromarray(object_mask(3)[:50]).save(root / "2/masks/0.png")
    with pytest.raises(WaldoError, match="is 96 x 50 pixels, its photo"):
        read_permir(root)
    (root / "3" / "1.jpg").unlink()
    (root / "2" / "0.png").write_bytes((root / "2" / "0.jpg").read_bytes())
    for missing, count in (("2", 2), ("3", 0)):
        with pytest.raises(WaldoError, match=rf"{missing}: holds {count} frames \d\.jpg"):
            read_permir(root)
        (root / "2" / "0.png").unlink(missing_ok=True)
        save_photo(root / "2" / "0.jpg")
        Image.fromarray(object_mask(3)).save(root / "2/masks/0.png")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(WaldoError, match=r"holds no permir\.json"):
        read_permir(tmp_path / "empty")
