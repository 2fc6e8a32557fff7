"""SAM and SAM 2 with random weights, loaded like published ones; and the cascade of prompts."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError
from features.frame import Frame
from search.segmentation.cascade import Prompt, Proposals, agreement, prompted_by
from search.segmentation.sam import Sam
from search.segmentation.segment import box_around
from tests.helpers.command_line import CommandLine
from tests.helpers.models.mask_models import build_sam, save_sam
from tests.helpers.pictures import save_photo, smooth_pixels

PROMPT = Prompt(np.array([[30.5, 20.5], [3.0, 3.0]], np.float32), np.array([1, 0]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_sam(kind, tmp_path_factory.mktemp(kind)) for kind in ("sam", "sam2")}


def model_input(picture: Image.Image, stretches: bool) -> "torch.Tensor":
    """The input of SAM and SAM 2 for a picture, 64 x 64, computed independently of the product."""
    size = (64, 64) if stretches else (64, round(64 * picture.height / picture.width))
    scaled = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)) / 255.0
    values = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    padded = np.zeros((64, 64, 3))
    padded[: size[1]] = values
    return torch.from_numpy(padded).float().permute(2, 0, 1)[None]


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_masks_equal_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    picture = Image.fromarray(smooth_pixels(90, 60))
    sam = Sam.load(str(folders[kind]), "cpu")
    encoded = sam.encode(picture)
    box = (10.0, 10.0, 50.0, 40.0)
    first = sam.propose(encoded, PROMPT)
    second = sam.propose(encoded, Prompt(PROMPT.points, PROMPT.labels, box, first.logits[1]))
    assert first.drawn.shape == second.drawn.shape == (3, 60, 90)

    # SAM keeps the shape of a picture, SAM 2 does not: 90 pixels become 64, and 60 become 43 or 64.
    scale = torch.tensor([64 / 90, (43 if kind == "sam" else 64) / 60])
    model = build_sam(kind)
    with torch.no_grad():
        wanted = model(
            pixel_values=model_input(picture, kind == "sam2"),
            input_points=(torch.from_numpy(PROMPT.points) * scale - 0.5)[None, None],
            input_labels=torch.tensor([[[1, 0]]]),
            input_boxes=(torch.tensor(box).reshape(2, 2) * scale - 0.5).reshape(1, 1, 4),
            input_masks=torch.from_numpy(first.logits[1])[None, None],
        ).pred_masks[0, 0]
    np.testing.assert_allclose(second.logits, wanted.numpy(), rtol=1e-3, atol=1e-8)
    assert not np.allclose(first.logits, second.logits, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize(("kind", "rows"), [("sam", 16 * 43 / 64), ("sam2", 16.0)])
def test_masks_are_aligned_with_the_picture(
    kind: str, rows: float, folders: dict[str, Path]
) -> None:
    sam = Sam.load(str(folders[kind]), "cpu")
    encoded = sam.encode(Image.fromarray(smooth_pixels(90, 60)))
    drawn = sam.propose(encoded, PROMPT).drawn[0]
    logits = sam.propose(encoded, PROMPT).logits[0]
    # A pixel of the picture has the value of the model's mask there, which is 16 pixels wide.
    middle = logits[int(rows * 30.5 / 60), int(16 * 45.5 / 90)]
    assert abs(drawn[30, 45] - middle) <= np.ptp(logits) / 4


def test_a_folder_without_sam_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(ModelError, match=r"sam .*no such model; give a local folder"):
            Sam.load(name, "cpu")
    with pytest.raises(ModelError, match=r"no config\.json in it"):
        Sam.load(str(tmp_path), "cpu")
    save_sam("sam", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="model_type is clip"):
        Sam.load(str(tmp_path), "cpu")
    # Weights in a pickle file are never read.
    (tmp_path / "model.safetensors").unlink()
    torch.save(build_sam("sam").state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folders["sam"] / "config.json").read_text())
    with pytest.raises(ModelError, match="are pickle files"):
        Sam.load(str(tmp_path), "cpu")


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_sam_draws_masks(kind: str, folders: dict[str, Path]) -> None:
    evidence = np.full((9, 9), -0.5, dtype=np.float32)
    evidence[2:4, 3:6] = 0.5
    draw = prompted_by(Sam.load(str(folders[kind]), "cpu"))
    drawn = draw(evidence, Frame(180, 120, 72, 9), Image.fromarray(smooth_pixels(90, 60)))
    assert drawn.shape == (120, 180)
    assert drawn.dtype == bool


@dataclass
class KnownMasks:
    """A mask model that returns given masks, round by round."""

    rounds: list[list[NDArray[np.bool_]]]
    asked: list[Prompt] = field(default_factory=list)

    def encode(self, picture: Image.Image) -> Any:
        return picture.size

    def propose(self, encoded: Any, prompt: Prompt) -> Proposals:
        masks = self.rounds[len(self.asked)]
        self.asked.append(prompt)
        assert encoded == (masks[0].shape[1], masks[0].shape[0])
        drawn = np.where(masks, 4.0, -4.0).astype(np.float32)
        # The logits hold the number of the mask, to see which one is fed back.
        logits = np.stack([np.full((4, 4), i, np.float32) for i in range(len(masks))])
        return Proposals(logits, drawn)


def rectangle(y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 60), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


OBJECT = rectangle(10, 30, 20, 40)
PART, TOO_MUCH, ELSEWHERE = (
    rectangle(12, 18, 22, 30),
    rectangle(0, 40, 0, 60),
    rectangle(0, 8, 45, 60),
)
# A cell per pixel; the rows below the picture are padding.
FRAME = Frame(60, 40, 60, 60)
EVIDENCE = np.full((60, 60), -0.5, dtype=np.float32)
EVIDENCE[:40][OBJECT] = 0.5
PICTURE = Image.new("RGB", (60, 40))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_mask_that_agrees_best_is_taken_whatever_its_index(order: tuple[int, int, int]) -> None:
    almost = rectangle(10, 29, 20, 40)
    first = [[almost, PART, TOO_MUCH][i] for i in order]
    second = [[OBJECT, PART, TOO_MUCH][i] for i in order]
    model = KnownMasks([first, second])
    found = prompted_by(model)(EVIDENCE, FRAME, PICTURE)
    np.testing.assert_array_equal(found, OBJECT)
    points, cascaded = model.asked
    assert points.box is None
    assert points.logits is None
    assert points.labels.tolist() == [1, 0]
    (x, y), (off_x, off_y) = points.points.astype(int)
    assert OBJECT[y, x]
    assert OBJECT[y - 5 : y + 6, x - 5 : x + 6].all()  # far from the edge
    assert not OBJECT[off_y, off_x]
    # The second prompt has the box and the logits of the mask that agreed best.
    assert cascaded.box == box_around(almost)
    assert cascaded.logits is not None
    assert (cascaded.logits == order.index(0)).all()


def test_segment_by_sam(waldo: CommandLine, folders: dict[str, Path], tmp_path: Path) -> None:
    photo, target = save_photo(tmp_path / "a.jpg"), save_photo(tmp_path / "b.png", 64, 96, seed=1)
    result = waldo(
        *("segment", photo, target, "--box", "20,10,70,50", "--sam", folders["sam2"]),
        *("--out", tmp_path / "masks", "--device", "cpu", "--json"),
    )
    assert result.code == 0
    [found] = json.loads(result.out)["masks"]
    assert found["mask"] == str(tmp_path / "masks" / "b.mask.png")
    with Image.open(found["mask"]) as mask:
        assert mask.size == (64, 96)


def test_a_worse_second_round_is_not_taken() -> None:
    model = KnownMasks([[OBJECT, PART], [PART, ELSEWHERE]])
    found = prompted_by(model)(EVIDENCE, FRAME, PICTURE)
    np.testing.assert_array_equal(found, OBJECT)


def test_a_look_alike_is_not_taken() -> None:
    beside = EVIDENCE.copy()
    beside[:8, 45:] = -0.1
    model = KnownMasks([[ELSEWHERE, PART], [ELSEWHERE, OBJECT | ELSEWHERE, PART]])
    found = prompted_by(model)(beside, FRAME, PICTURE)
    np.testing.assert_array_equal(found, OBJECT | ELSEWHERE)
    assert agreement(OBJECT, beside[:40]) > agreement(OBJECT | ELSEWHERE, beside[:40])
    assert agreement(ELSEWHERE, beside[:40]) < 0


def test_the_minimum_cut_decides_where_no_mask_agrees() -> None:
    model = KnownMasks([[ELSEWHERE], [ELSEWHERE]])
    found = prompted_by(model)(EVIDENCE, FRAME, PICTURE)
    assert found[OBJECT].mean() > 0.8
    assert not found[ELSEWHERE].any()
    nothing = KnownMasks([[np.zeros_like(OBJECT)]])
    assert prompted_by(nothing)(EVIDENCE, FRAME, PICTURE)[OBJECT].mean() > 0.8


def test_the_model_is_not_asked_where_there_is_no_evidence() -> None:
    model = KnownMasks([])
    found = prompted_by(model)(np.full_like(EVIDENCE, -0.1), FRAME, PICTURE)
    assert not found.any()
    assert model.asked == []
