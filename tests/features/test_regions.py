"""The cells that a class name, a mask, a box or a point selects."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.errors import RegionError
from features.frame import Frame
from features.maps import FeatureMaps
from features.regions import (
    box_cells,
    class_cells,
    load_mask,
    mask_cells,
    named_cells,
    point_cells,
    salient_cells,
)

FRAME = Frame(width=160, height=80, size=128, grid=16)  # 10 x 10 pixels per cell, 8 rows of photo


def maps_of(appearance: np.ndarray, semantic: np.ndarray) -> FeatureMaps:
    return FeatureMaps(appearance.astype(np.float16), semantic.astype(np.float16), FRAME, "hash")


def random_maps(seed: int) -> FeatureMaps:
    rng = np.random.default_rng(seed)
    return maps_of(rng.normal(size=(16, 16, 6)), rng.normal(size=(16, 16, 6)))


def test_class_cells_equal_a_naive_reading_of_eq_3() -> None:
    for seed in range(20):
        maps = random_maps(seed)
        vector = np.random.default_rng(100 + seed).normal(size=6).astype(np.float32)
        exponentials = {}
        for y in range(8):
            for x in range(16):
                dot = sum(float(maps.semantic[y, x, i]) * float(vector[i]) for i in range(6))
                exponentials[y, x] = np.exp(dot / 6**0.5)
        total = sum(exponentials.values())
        attention = {cell: value / total for cell, value in exponentials.items()}
        low, high = min(attention.values()), max(attention.values())
        expected = {tau: np.zeros((16, 16), dtype=bool) for tau in (0.2, 0.7)}
        for cell, value in attention.items():
            for tau, cells in expected.items():
                cells[cell] = (value - low) / (high - low) > tau
        np.testing.assert_array_equal(class_cells(maps, vector), expected[0.7])
        np.testing.assert_array_equal(class_cells(maps, vector, tau=0.2), expected[0.2])
        assert expected[0.2].sum() >= expected[0.7].sum() > 0


def test_a_class_that_fits_every_cell_equally_is_refused() -> None:
    maps = maps_of(np.ones((16, 16, 6)), np.ones((16, 16, 6)))
    with pytest.raises(RegionError, match="fits every cell"):
        class_cells(maps, np.ones(6, dtype=np.float32))
    with pytest.raises(RegionError, match="fits every cell"):
        named_cells(maps, np.ones(6, dtype=np.float32))


def test_a_name_selects_the_object_with_most_evidence_not_the_strongest_cell() -> None:
    rng = np.random.default_rng(0)
    appearance = rng.normal(size=(16, 16, 6)) * 0.05
    appearance[2:5, 3:6, 1] += 9
    semantic = rng.normal(size=(16, 16, 6)) * 0.05
    semantic[2:5, 3:6, 0] += 1
    semantic[6, 12, 0] += 4  # a single strong cell
    semantic[8:, :, 0] += 50  # padding does not count
    vector = np.array([1, 0, 0, 0, 0, 0], dtype=np.float32)
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:5, 3:6] = True
    np.testing.assert_array_equal(named_cells(maps_of(appearance, semantic), vector), expected)


def test_a_name_selects_the_next_object_apart_from_others() -> None:
    rng = np.random.default_rng(3)
    appearance, semantic = (rng.normal(size=(16, 16, 6)) * 0.05 for _ in range(2))
    first, second = np.zeros((2, 16, 16), dtype=bool)
    first[2:5, 3:6] = True
    second[2:5, 11:14] = True
    appearance[first, 1] += 9
    appearance[second, 2] += 9
    semantic[first, 0] += 2  # smoothed, it is still strong beside the first object
    semantic[second, 0] += 1
    maps = maps_of(appearance, semantic)
    vector = np.array([1, 0, 0, 0, 0, 0], dtype=np.float32)
    np.testing.assert_array_equal(named_cells(maps, vector), first)
    np.testing.assert_array_equal(named_cells(maps, vector, [first]), second)
    with pytest.raises(RegionError, match="nothing else"):
        named_cells(maps, vector, [first, FRAME.valid()])


def test_what_is_unlike_most_of_the_photo_is_salient() -> None:
    rng = np.random.default_rng(3)
    appearance = rng.normal(size=(16, 16, 6)) * 0.05 + (3, 0, 0, 0, 0, 0)
    first, second = np.zeros((2, 16, 16), dtype=bool)
    first[2:5, 2:6] = True  # larger, so that its smoothed peak is higher
    second[2:5, 11:14] = True
    appearance[first, 1] += 9
    appearance[second, 2] += 9
    appearance[8:] = rng.normal(size=(8, 16, 6)) * 50  # padding does not count
    maps = maps_of(appearance, np.zeros((16, 16, 6)))
    np.testing.assert_array_equal(salient_cells(maps), first)
    np.testing.assert_array_equal(salient_cells(maps, [first]), second)
    with pytest.raises(RegionError, match="nothing else"):
        salient_cells(maps, [FRAME.valid()])


def test_a_box_drops_cells_that_resemble_the_background() -> None:
    rng = np.random.default_rng(1)
    appearance = rng.normal(size=(16, 16, 6)) * 0.1 + (3, 0, 0, 0, 0, 0)
    appearance[3:5, 2:5] = rng.normal(size=(2, 3, 6)) * 0.1 + (0, 3, 0, 0, 0, 0)
    maps = maps_of(appearance, appearance)
    # Rows 2 to 5, columns 1 to 3, of which column 1 and rows 2 and 5 are background.
    cells = box_cells(maps, (10.0, 20.0, 36.0, 60.0))
    naive = np.zeros((16, 16), dtype=bool)
    likeness = {}
    for row in range(2, 6):
        for column in range(1, 4):
            cell = maps.appearance[row, column].astype(np.float64)
            likeness[row, column] = max(
                cell @ other / np.linalg.norm(cell) / np.linalg.norm(other)
                for y in range(8)
                for x in range(16)
                if not (2 <= y < 6 and 1 <= x < 4)
                for other in [maps.appearance[y, x].astype(np.float64)]
            )
    for place, value in likeness.items():
        naive[place] = value <= np.median(list(likeness.values()))
    np.testing.assert_array_equal(cells, naive)
    assert cells[3:5, 2:4].all()
    assert cells.sum() == 6  # half of the box


def test_box_around_the_whole_photo_selects_all_of_it() -> None:
    np.testing.assert_array_equal(box_cells(random_maps(0), (0, 0, 160, 80)), FRAME.valid())


def test_mask_selects_the_cells_it_covers_by_half() -> None:
    mask = np.zeros((80, 160), dtype=bool)
    mask[30:50, 20:46] = True
    expected = np.zeros((16, 16), dtype=bool)
    expected[3:5, 2:5] = True  # 46 covers 6 of the 10 pixels of column 4
    np.testing.assert_array_equal(mask_cells(FRAME, mask), expected)


def test_object_smaller_than_a_cell_selects_one() -> None:
    cells = box_cells(random_maps(0), (33.0, 71.0, 36.0, 73.0))
    assert np.argwhere(cells).tolist() == [[7, 3]]


@pytest.mark.parametrize("box", [(0, 0, 161, 80), (-1, 0, 5, 5), (0, 0, 10, 80.5)])
def test_box_outside_the_photo_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(RegionError, match="reaches beyond the photo, which is 160 x 80"):
        box_cells(random_maps(0), box)


def test_empty_regions_are_refused() -> None:
    with pytest.raises(RegionError, match="is empty"):
        box_cells(random_maps(0), (10, 10, 10, 20))
    with pytest.raises(RegionError, match="selects nothing"):
        mask_cells(FRAME, np.zeros((80, 160), dtype=bool))


def test_point_grows_over_the_connected_object_only() -> None:
    rng = np.random.default_rng(0)
    background, thing = np.zeros(6), np.array([0, 9, 0, 0, 0, 0])
    appearance = np.tile(background, (16, 16, 1)) + rng.normal(size=(16, 16, 6)) * 0.05
    appearance[2:5, 3:6] += thing
    appearance[2:5, 10:12] += thing  # looks the same, but is another object
    maps = maps_of(appearance, appearance)
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:5, 3:6] = True
    np.testing.assert_array_equal(point_cells(maps, (45.0, 35.0)), expected)
    with pytest.raises(RegionError, match="outside the photo"):
        point_cells(maps, (160.0, 10.0))


def test_a_point_selects_parts_of_different_colours() -> None:
    rng = np.random.default_rng(1)
    appearance = rng.normal(size=(16, 16, 6)) * 0.05
    appearance[..., 0] -= 1.0
    appearance[2:6, 3:6] = [4, 9, 0, 0, 0, 0] + rng.normal(size=(4, 3, 6)) * 0.05
    appearance[4:6, 3:6, 1:3] = [0, 9]  # another colour: cosine with the other part about 0.2
    maps = maps_of(appearance, appearance)
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:6, 3:6] = True
    np.testing.assert_array_equal(point_cells(maps, (45.0, 35.0)), expected)


def test_mask_files(tmp_path: Path) -> None:
    mask = np.zeros((80, 160), dtype=np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "grey.png")
    palette = Image.fromarray(mask // 255).convert("P")
    palette.putpalette([0, 0, 0, 1, 1, 1])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(mask).resize((320, 160), Image.Resampling.NEAREST).save(tmp_path / "double.png")
    for name in ("grey.png", "palette.png", "double.png"):
        np.testing.assert_array_equal(load_mask(tmp_path / name, 160, 80), mask > 0)


def test_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    Image.new("L", (80, 160), 255).save(tmp_path / "turned.png")
    with pytest.raises(RegionError, match=r"is 80 x 160 pixels, the photo 160 x 80"):
        load_mask(tmp_path / "turned.png", 160, 80)
    with pytest.raises(RegionError, match="not a readable picture"):
        load_mask(tmp_path / "nothing.png", 160, 80)


def ellipse(width: int = 160, height: int = 80) -> NDArray[np.bool_]:
    """(height, width) bool, True within an ellipse off the middle."""
    y, x = np.mgrid[:height, :width]
    return ((x - 60) / 30) ** 2 + ((y - 30) / 20) ** 2 < 1


def test_where_transparency_varies_it_is_the_mask(tmp_path: Path) -> None:
    mask = ellipse()
    photo = np.random.default_rng(0).integers(0, 255, (80, 160, 3), dtype=np.uint8)
    white, drawn = np.full_like(photo, 255), np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    opaque, cut = np.full(mask.shape, 255, np.uint8), mask * np.uint8(255)
    for name, colours, alpha in (
        ("a photo cut out", photo, cut),
        ("white on nothing", white, cut),
        ("black and white", drawn, opaque),
        ("faint", drawn, opaque // 2),
    ):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.dstack([colours, alpha])).save(path)
        np.testing.assert_array_equal(load_mask(path, 160, 80), mask, err_msg=name)
    palette = Image.fromarray((~mask).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 255, 255, 255])
    palette.save(tmp_path / "palette.png", transparency=1)
    np.testing.assert_array_equal(load_mask(tmp_path / "palette.png", 160, 80), mask)


def test_a_palette_of_black_and_white_is_a_picture(tmp_path: Path) -> None:
    mask, path = ellipse(), tmp_path / "mask.png"
    white_first, black_first = (255, 255, 255, 0, 0, 0), (0, 0, 0, 255, 255, 255)
    nearly, labels, greys = (250, 251, 252, 9, 8, 7), (0, 0, 0, 128, 0, 0), (0, 0, 0, 1, 1, 1)
    for colours, object_index in (
        (white_first, 0), (black_first, 1), (nearly, 0), (labels, 1), (greys, 1),
    ):  # fmt: skip
        indices = np.where(mask, object_index, 1 - object_index).astype(np.uint8)
        picture = Image.fromarray(indices).convert("P")
        picture.putpalette(colours)
        picture.save(path)
        np.testing.assert_array_equal(load_mask(path, 160, 80), mask, err_msg=str(colours))


def test_masks_of_16_bits_and_turned_masks(tmp_path: Path) -> None:
    mask = ellipse()
    Image.fromarray(mask.astype(np.uint16) * 4095).save(tmp_path / "deep.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(mask).astype(np.uint8) * 255)
    turned.save(tmp_path / "turned.png", exif=exif)
    for name in ("deep.tiff", "turned.png"):
        np.testing.assert_array_equal(load_mask(tmp_path / name, 160, 80), mask, err_msg=name)


def test_a_mask_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    (tmp_path / "text.png").write_text("words")
    for path, reason in (
        (tmp_path / "huge.png", "too many pixels"),
        (tmp_path / "text.png", "not a readable picture"),
        (tmp_path / "gone.png", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(RegionError, match=reason):
            load_mask(path, 160, 80)
