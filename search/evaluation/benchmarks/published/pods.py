"""PODS (Sundaram et al., 2024): photos of 100 household objects, with four kinds of test photos."""

from pathlib import Path
from typing import Any

from features.errors import WaldoError
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, read_json
from search.evaluation.benchmarks.labelled_objects import box_of_mask, check_sizes, read_mask
from search.evaluation.benchmarks.published.named_photos import places_of, rows_by_name, whole_photo
from search.query import Query

_SPLITS = ("in_distribution", "pose", "distractors", "pose_and_distractors")


def read_pods(root: Path) -> Benchmark:
    """Read PODS' searches: the queries are the test photos of the objects of its test set, the
    gallery the train photos of all objects (three each in the published data); those of the same
    object are relevant.

    A query is a whole photo, its level is the benchmark's split (`in_distribution`, `pose`,
    `distractors`, `pose_and_distractors`), and its class is the object's category. The
    published evaluator takes the mean over an object's queries first, then over objects; here every
    query counts alike.

    root: holds `pods_info.json`, `pods_image_annos.json` and the photos as SPLIT/OBJECT/FILE; an
    image id is such a path, or the file's name, with or without its suffix. Masks of train photos
    in `train_masks/OBJECT/FILE`, which may be missing, say where these show the object. Raises
    WaldoError for a folder with another layout, for missing photos, and where a mask and its photo
    differ in size.
    """
    category, held_in = read_info(root)
    annotations = _read(root / "pods_image_annos.json")
    photos: dict[str, list[tuple[Path, str, str]]] = {"train": [], "test": []}
    for image, entry in annotations.items():
        where = f"{root}/pods_image_annos.json: image {image}"
        if not isinstance(entry, dict) or entry.get("split") not in photos:
            raise WaldoError(f'{where}: "split" must be "train" or "test"')
        name, split = str(entry.get("class")), str(entry["split"])
        level = str(entry.get("test_split"))
        if name not in category or name not in held_in:
            raise WaldoError(f'{where}: "class" {name!r} is not in pods_info.json')
        if split == "test" and level not in _SPLITS:
            raise WaldoError(f'{where}: "test_split" must be one of {", ".join(_SPLITS)}')
        if split == "train" or held_in[name] == "test":
            photos[split].append((_find(root, image, split, name, where), name, level))
    gallery = [photo for photo, _, _ in photos["train"]]
    names = [name for _, name, _ in photos["train"]]
    rows = rows_by_name(names)
    boxes = [_boxes(root, photo) for photo in gallery]
    rivals = rows_by_name([category[name] for name in rows])
    queries = [
        BenchmarkQuery(
            Query(photo, str(category[name]), box=whole_photo(photo)),
            relevant=places_of(rows.get(name, [])),
            ignored=places_of([]),
            confusable=len(rivals.get(category[name], [])) > 1,
            level=level,
            boxes={place: boxes[place] for place in rows.get(name, []) if boxes[place]},
        )
        for photo, name, level in sorted(photos["test"], key=lambda item: _SPLITS.index(item[2]))
    ]
    classes = [{str(category[name])} for name in names]
    return Benchmark("pods", gallery, classes, queries, [], metrics=("NDCG",))


def read_info(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The category of each object, and the set that it is in: "test" or "val".

    Raises WaldoError where `pods_info.json` is missing or has another layout.
    """
    info = _read(root / "pods_info.json")
    for key in ("class_to_sc", "class_to_split"):
        if not isinstance(info.get(key), dict):
            raise WaldoError(f'{root}/pods_info.json: "{key}" must map each object to a text')
    for name in info["class_to_sc"]:
        if name not in info["class_to_split"]:
            raise WaldoError(f'{root}/pods_info.json: "class_to_split" lacks {name}')
    return info["class_to_sc"], info["class_to_split"]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WaldoError(f"{path}: no such file; PODS is published as chaenayo/PODS")
    content = read_json(path)
    if not isinstance(content, dict):
        raise WaldoError(f"{path}: must map names to values")
    return content


def _boxes(root: Path, photo: Path) -> tuple[Box, ...]:
    """The box of a train photo's object, by its mask; none where it has no mask."""
    folder = root / "train_masks" / photo.parent.name
    for path in (folder / photo.name, folder / f"{photo.stem}.png"):
        if path.is_file():
            check_sizes(photo, path)
            return box_of_mask(read_mask(path))
    return ()


def _find(root: Path, image: str, split: str, name: str, where: str) -> Path:
    for folder in (root / split / name, root / split, root):
        for suffix in ("", ".jpg"):
            path = folder / f"{image}{suffix}"
            if path.is_file():
                return path
    raise WaldoError(f"{where}: no such photo: {root / split / name / image}")
