"""Miniatures of the published benchmarks' folders, and of what lies in them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]


def save_photo(path: Path, width: int = 40, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)
    return path


def save_ids(path: Path, ids: NDArray[np.uint8]) -> Path:
    """A palette PNG whose colours say nothing of the indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.reshape(-1).tolist())
    image.putpalette([0, 0, 0] + [200, 30, 30] * 255)
    image.save(path)
    return path


def ground_truth() -> dict[str, Any]:
    return {
        "imlist": [f"all_souls_{number:06}" for number in range(5)],
        "qimlist": ["hertford_000001", "hertford_000002"],
        "gnd": [
            {"bbx": [2.5, 3, 30.0, 25.5], "easy": [3], "hard": [0, 4], "junk": [1]},
            {"bbx": [-0.5, 0, 40.5, 30], "easy": [], "hard": [2], "junk": []},
        ],
    }


def save_revisited(root: Path, truth: Any, name: str = "roxford5k") -> Path:
    for photo in (*ground_truth()["imlist"], *ground_truth()["qimlist"]):
        save_photo(root / "jpg" / f"{photo}.jpg")
    (root / f"gnd_{name}.pkl").write_bytes(pickle.dumps(truth))
    return root


def encode_rle(mask: Mask) -> str:
    """COCO's compressed run lengths, pixel by pixel and digit by digit."""
    runs, value = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if bool(mask[y, x]) != value:
                runs.append(0)
                value = not value
            runs[-1] += 1
    text = ""
    for place, run in enumerate(runs):
        number = run - runs[place - 2] if place > 2 else run
        while True:
            digit, number = number % 32, number // 32
            ends = number == (-1 if digit >= 16 else 0)
            text += chr(48 + digit + (0 if ends else 32))
            if ends:
                break
    return text


WIDTH, HEIGHT, N_FRAMES = 64, 32, 40
CATEGORIES = [{"id": 7, "name": "car_(automobile)"}, {"id": 9, "name": "traffic_light"}]


def box_mask(width: int, hollow: bool = False) -> Mask:
    """A box of width x 12 pixels; hollow: its corners alone."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3:15, 2 : 2 + width] = True
    if hollow:
        mask[4:14] = False
        mask[3:15, 3 : 1 + width] = False
    return mask


def video(
    name: str, shown: list[dict[str, Mask]], dataset: str = "BDD", **categories: int
) -> dict[str, Any]:
    """One of BURST's sequences. categories: those of tracks t1, t2, ... of which all are cars
    unless told otherwise.
    """
    tracks = sorted({track for masks in shown for track in masks})
    return {
        "id": 0,
        "width": WIDTH,
        "height": HEIGHT,
        "seq_name": name,
        "dataset": dataset,
        "annotated_image_paths": [f"{index:04}.jpg" for index in range(len(shown))],
        "track_category_ids": {track: categories.get(f"t{track}", 7) for track in tracks},
        "segmentations": [
            {
                track: {"rle": encode_rle(mask), "is_gt": True, "score": 1.0}
                for track, mask in masks.items()
            }
            for masks in shown
        ],
    }


def save_burst(root: Path, videos: list[dict[str, Any]], split: str = "val") -> Path:
    path = root / "annotations" / split / "all_classes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"sequences": videos, "categories": CATEGORIES, "split": split}
    path.write_text(json.dumps(content))
    return path


def plain_video(name: str, widest: int) -> dict[str, Any]:
    """Track 1 is 20 pixels wide, but 40 in frame `widest`, and 38, 36 and 34 in those 5, 16 and 20
    behind it. Track 2 beside it is larger, and missing in the last frame. Track 3 is a light, in
    frame `widest` + 16 alone.
    """
    widths = {widest: 40, widest + 5: 38, widest + 16: 36, widest + 20: 34}
    shown = [{"1": box_mask(widths.get(t, 20)), "2": box_mask(50)} for t in range(N_FRAMES)]
    shown[N_FRAMES - 1] = {"1": box_mask(60)}
    shown[widest + 16]["3"] = box_mask(62)
    return video(name, shown, t3=9)


def save_streets(root: Path) -> Path:
    """Two splits: in both a street of cars, in one of them a video without look-alikes too.

    By any seed, track 1 is chosen in frames 1, 17, 21 of the one and 3, 19, 23 of the other, the
    first of them the query.
    """
    for split, widest in (("test", 1), ("val", 3)):
        street = plain_video("street", widest)
        # One track more often than the other, so that the choice is known.
        del street["segmentations"][widest + 1]["2"]
        street["segmentations"][widest + 1]["4"] = {"rle": encode_rle(box_mask(9))}
        street["track_category_ids"]["4"] = 7
        sources = [street] if split == "test" else [video("none", [{}] * 3), street]
        save_burst(root, sources, split)
        for index in range(N_FRAMES):
            save_photo(root / "frames" / split / "BDD/street" / f"{index:04}.jpg", WIDTH, HEIGHT)
    return root
