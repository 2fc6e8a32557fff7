"""Miniatures of the published benchmarks of searches, in folders as these are published."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.pictures import smooth_pixels


def save_photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_pixels(64, 48, seed)).save(path, quality=95)
    return path


def save_text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def save_pods(root: Path) -> Path:
    """Two mugs and a shoe of the test set, and one bag of the validation set."""
    objects = {"mug_a": "mug", "mug_b": "mug", "shoe_a": "shoe", "bag_a": "bag"}
    splits = ("pose", "in_distribution", "distractors", "pose_and_distractors")
    annotations = {}
    for seed, name in enumerate(objects):
        for number in range(3):
            save_photo(root / "train" / name / f"{number}.jpg", seed)
            annotations[f"train/{name}/{number}.jpg"] = {"class": name, "split": "train"}
        for number, split in enumerate(splits):
            save_photo(root / "test" / name / f"{number}.jpg", seed)
            entry = {"class": name, "split": "test", "test_split": split}
            annotations[f"test/{name}/{number}.jpg"] = entry
    info = {
        "classes": list(objects),
        "class_to_idx": {name: i for i, name in enumerate(objects)},
        "class_to_sc": objects,
        "class_to_split": {name: "val" if name == "bag_a" else "test" for name in objects},
    }
    (root / "pods_info.json").write_text(json.dumps(info))
    (root / "pods_image_annos.json").write_text(json.dumps(annotations))
    return root


def save_ilias(root: Path) -> Path:
    """Two objects; the second lacks the file of a positive, its query has two boxes."""
    for seed, name in enumerate(("cup", "toy")):
        save_photo(root / "ilias_core" / name / "query" / "Q000.jpg", seed)
        save_photo(root / "ilias_core" / name / "pos" / "P000.jpg", seed)
    save_text(root / "ilias_core/cup/query/Q000_bbox.txt", "4 6 20 30")
    save_text(root / "ilias_core/toy/query/Q000_bbox.txt", "1 1 5 5", "8,2,40,40")
    ids = root / "image_ids"
    save_text(ids / "image_query_ids.txt", "toy/query/Q000.jpg,x", "cup/query/Q000.jpg,y")
    positives = ("cup/pos/P000.jpg,0.3,12", "toy/pos/P000.jpg,0.05,18", "toy/pos/P001.jpg,0.3,60")
    save_text(ids / "positive_ids.txt", *positives)
    for number in range(3):
        save_photo(root / "distractors" / "000" / f"{number}.jpg", 50 + number)
    return root


def save_mini_ilias(root: Path) -> Path:
    """Of three distractors mini-ILIAS has one."""
    save_ilias(root)
    save_text(root / "image_ids/mini_ilias_yfcc100m_ids.txt", "1", "77")
    return root


def save_instre(root: Path, first: int) -> Path:
    """Three objects with two photos each, of which the last has no query, so that no number says
    where counting starts; `first` is where it does.
    """
    from scipy.io import savemat

    names = [f"INSTRE-S1/{name}/{k}.jpg" for name in ("0", "a", "b", "z") for k in (1, 2)]
    asked = [f"INSTRE-S1/{name}/3.jpg" for name in ("a", "b")]
    for name in (*names, *asked):
        save_photo(root / name, ord(Path(name).parent.name))
    entries = np.zeros((1, 2), dtype=[("ok", object), ("bbx", object)])
    for place, found in enumerate(([2, 3], [4, 5])):
        entries[0, place] = (np.array([found]) + first, np.array([[8, 4, 40, 30]]))
    listed = {
        key: np.array([*paths, None], dtype=object)[None, :-1]
        for key, paths in (("imlist", names), ("qimlist", asked))
    }
    savemat(root / "gnd_instre.mat", {**listed, "gnd": entries})
    return root


def save_gldv2(root: Path) -> Path:
    for seed, name in enumerate(("abc0", "abd0", "0bc0")):
        save_photo(root.joinpath("index", *name[:3], f"{name}.jpg"), seed)
    for seed, name in enumerate(("fff0", "eee0")):
        save_photo(root.joinpath("test", *name[:3], f"{name}.jpg"), seed)
    rows = ("fff0,abc0 0bc0,Private", "eee0,abd0,Public", "ddd0,None,Ignored")
    save_text(root / "retrieval_solution_v2.1.csv", "id,images,Usage", *rows)
    return root


def save_sop(root: Path) -> Path:
    """Two products with two photos, one with a single photo."""
    rows = []
    for number, product in enumerate((7, 7, 8, 8, 9), start=1):
        path = f"chair_final/{product}_{number}.JPG"
        save_photo(root / path, product)
        rows.append(f"{number} {product} 3 {path}")
    save_text(root / "Ebay_test.txt", "image_id class_id super_class_id path", *rows)
    return root


def save_inshop(root: Path) -> Path:
    rows = []
    for item in (1, 2, 3):
        for status in ("query", "gallery", "train") if item < 3 else ("train",):
            path = f"img/WOMEN/Dresses/id_{item}/{status}.jpg"
            save_photo(root / "Img" / path, item)
            rows.append(f"{path} id_{item} {status}")
    heading = "image_name item_id evaluation_status"
    save_text(root / "Eval/list_eval_partition.txt", str(len(rows)), heading, *rows)
    return root
