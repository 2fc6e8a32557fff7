"""Pictures of features, against naive versions; and what `waldo show` writes."""

import base64
import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from search.index import open_index
from search.presentation.feature_pictures import (
    class_map,
    feature_figures,
    principal_components,
)
from search.query import Query
from search.reference import make_reference
from search.segmentation.overlay import heatmap_over
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

DEMO = Path(__file__).parents[3] / "data" / "demo"
CAT = DEMO / "query" / "cat.jpg"


def random_maps(seed: int, width: int, height: int) -> FeatureMaps:
    """Features in which few directions count, and padding that is far from all cells."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(0).normal(size=(12, 12)) * np.geomspace(4, 0.1, 12)[:, None]
    frame = Frame(width, height, size=128, grid=8)
    values = rng.normal(size=(8, 8, 12)) @ mixed
    values[~frame.valid()] = 100.0
    both = values.astype(np.float16)
    return FeatureMaps(both, both, frame, "hash")


def naive_colours(maps: list[FeatureMaps]) -> list[NDArray[np.float64]]:
    """The colour of each cell, 0..255, by power iteration with deflation."""
    cells = np.concatenate([each.appearance[each.frame.valid()] for each in maps]).astype(float)
    mean = sum(cells) / len(cells)
    left = cells - mean
    numbers = []
    for _ in range(3):
        axis = np.ones(cells.shape[1])
        for _ in range(3000):
            axis = left.T @ (left @ axis)
            axis /= np.linalg.norm(axis)
        if axis[np.abs(axis).argmax()] < 0:
            axis = -axis
        low, high = np.percentile((cells - mean) @ axis, [1, 99])
        numbers.append([((each.appearance - mean) @ axis - low) / (high - low) for each in maps])
        left = left - np.outer(left @ axis, axis)
    return [
        255 * np.clip(np.stack(channels, axis=2), 0, 1) for channels in zip(*numbers, strict=True)
    ]


def test_colours_are_the_principal_components_of_all_photos_together() -> None:
    maps = [random_maps(1, 160, 120), random_maps(2, 60, 120)]
    pictures = principal_components(maps, longest=8)  # a pixel is a cell
    assert [picture.size for picture in pictures] == [(8, 6), (4, 8)]
    for each, picture, expected in zip(maps, pictures, naive_colours(maps), strict=True):
        wanted = expected[: each.frame.rows, : each.frame.cols]
        np.testing.assert_allclose(np.asarray(picture, float), wanted, atol=1)
    assert np.ptp(np.asarray(pictures[0], float), axis=(0, 1)).min() > 150


def test_like_features_have_like_colours_in_every_photo() -> None:
    first, other = random_maps(1, 128, 128), random_maps(2, 128, 128)
    appearance = other.appearance.copy()
    appearance[3:6, 2:7] = first.appearance[0:3, 1:6]
    copied = FeatureMaps(appearance, appearance, other.frame, "other")
    one, two = (np.asarray(picture) for picture in principal_components([first, copied], 8))
    np.testing.assert_array_equal(two[3:6, 2:7], one[0:3, 1:6])


def test_maps_without_differences_have_a_picture() -> None:
    plain = np.ones((8, 8, 12), dtype=np.float16)
    maps = FeatureMaps(plain, plain, Frame(100, 50, 128, 8), "hash")
    [picture] = principal_components([maps], 80)
    assert picture.size == (80, 40)
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) == 1


def test_a_class_map_is_the_product_with_the_class_vector() -> None:
    maps = random_maps(3, 160, 120)
    vector = np.random.default_rng(4).normal(size=12).astype(np.float32)
    naive = np.zeros((8, 8), dtype=np.float32)
    for row, column in np.ndindex(8, 8):
        naive[row, column] = sum(
            float(a) * float(b) for a, b in zip(maps.semantic[row, column], vector, strict=True)
        )
    picture = Image.new("RGB", (160, 120), (90, 90, 90))
    drawn = np.asarray(class_map(maps, vector, picture), float)
    np.testing.assert_allclose(drawn, np.asarray(heatmap_over(picture, naive, maps.frame)), atol=2)


def test_figures_of_photos_and_timesteps(tmp_path: Path, tiny: FeatureExtractor) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no photo")
    queries = [
        Query(CAT, "cat"),
        Query(broken, "cat"),
        Query(CAT, box=(172, 31, 333, 164)),
        Query(save_photo(tmp_path / "plain.png", 120, 80)),
        Query(CAT, box=(0, 0, 999, 10)),
    ]
    shown, failures = feature_figures(
        queries, tiny, partial(make_reference, extractor=tiny), timesteps=(0, 300, 0)
    )
    assert [str(error).split(":")[0] for error in failures] == [str(broken), str(CAT)]
    captions = [[figure.caption for figure in one.figures] for one in shown]
    appearance = ["appearance, timestep 0", "appearance, timestep 300"]
    classes = ["class map of 'cat', timestep 0", "class map of 'cat', timestep 300"]
    both = [text for pair in zip(appearance, classes, strict=True) for text in pair]
    assert captions == [
        ["cat.jpg", "taken as the object", *both],
        ["cat.jpg", "taken as the object", *appearance],
        ["plain.png", *appearance],
    ]
    for one in shown:
        assert len({figure.picture.size for figure in one.figures}) == 1
    early, late = (np.asarray(shown[0].figures[at].picture, float) for at in (2, 4))
    assert np.abs(early - late).mean() > 3
    # The same photo has the same colours, whatever is asked for in it.
    again = np.asarray(shown[1].figures[2].picture, float)
    np.testing.assert_allclose(again, early, atol=2)


def test_figures_without_a_photo(tmp_path: Path, tiny: FeatureExtractor) -> None:
    def never(_: Query) -> object:
        raise AssertionError("asked")

    shown, failures = feature_figures([Query(tmp_path / "none.jpg")], tiny, never)  # type: ignore[arg-type]
    assert shown == []
    assert isinstance(failures[0], WaldoError)


def test_show_as_a_picture(waldo: CommandLine, sample_index: Path, tmp_path: Path) -> None:
    """What is shown as the object of an index is what a search takes."""
    out = tmp_path / "cat.png"
    result = waldo("show", CAT, "--class", "cat", "--index", sample_index, "--out", out)
    assert (result.code, result.out) == (0, f"to look at: {out}\n")
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (16 + 288 + 28 + 16, 16 + 4 * (384 + 16), 3)
    faded = sheet[16 : 16 + 288, 416 : 416 + 384].astype(float)
    photo = sheet[16 : 16 + 288, 16 : 16 + 384].astype(float)
    with open_index(sample_index) as index:
        x0, y0, x1, y1 = index.preview(Query(CAT, "cat")).box
    kept = np.abs(faded - photo).max(axis=2) < 3
    middle = (
        slice((y0 + y1) // 2 - 10, (y0 + y1) // 2 + 10),
        slice((x0 + x1) // 2 - 10, (x0 + x1) // 2 + 10),
    )
    assert kept[middle].all()
    assert kept[:, : x0 - 20].mean() < 0.1


def test_show_as_a_page(waldo: CommandLine, tmp_path: Path) -> None:
    out, odd = tmp_path / "features.html", save_photo(tmp_path / "<b>&.png", 64, 48)
    result = waldo("show", CAT, odd, tmp_path / "gone.jpg", "--timestep", "100", "--out", out)
    assert result.code == 2
    assert "gone.jpg: cannot be read" in result.err
    text = out.read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', text)
    assert [caption for _, caption in pictures] == [
        *("cat.jpg", "appearance, timestep 100 of cat.jpg"),
        *("&lt;b&gt;&amp;.png", "appearance, timestep 100 of &lt;b&gt;&amp;.png"),
    ]
    assert "<b>" not in text
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data, _ in pictures]
    assert sizes == [(384, 288)] * 2 + [(64, 48)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CAT, "--out", "x.gif"], "must end in .html or .png"),
        ([CAT, CAT, "--box", "1,1,50,50", "--out", "x.png"], "one photo"),
        ([CAT, "--index", "i", "--model", "tiny", "--out", "x.png"], "give one of them"),
        ([CAT, "--index", "nowhere", "--out", "x.png"], "no index here"),
        (["own.png", "--out", "own.png"], "is a photo to show"),
        ([CAT, "--class", "zxqv", "--out", "x.png"], "knows none of its words"),
        ([CAT, "--out", "nowhere/x.png"], "cannot be written"),
        ([CAT, "--out", "nowhere/x.html"], "--out nowhere/x.html: cannot be written"),
    ],
)
def test_refusals(
    waldo: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in waldo.refusal("show", *arguments)
    assert list(tmp_path.iterdir()) == []
