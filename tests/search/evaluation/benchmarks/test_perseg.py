"""PerSeg: a miniature of its folder, and folders that are not PerSeg."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.evaluation.benchmarks.labelled_objects import MaskedPhoto, read_mask
from search.evaluation.benchmarks.perseg import read_perseg
from tests.helpers.benchmarks.benchmark_folders import (
    save_ids,
    save_photo,
)
from tests.helpers.refusal import refusal


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
    cat, teapot = read_perseg(perseg).objects
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


def test_photos_may_have_names_in_capitals(perseg: Path) -> None:
    for photo in sorted((perseg / "Images" / "cat2").glob("0*.jpg")):
        photo.rename(photo.with_suffix(".JPG"))
    cat, _ = read_perseg(perseg).objects
    assert [cat.reference.photo.name, cat.targets[0].photo.name] == ["00.JPG", "01.JPG"]


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
