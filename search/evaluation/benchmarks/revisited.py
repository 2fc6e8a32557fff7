"""Revisited Oxford and Paris (Radenovic et al., CVPR 2018): how their folders are read."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import WaldoError
from features.photo import photo_size
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, read_json
from search.query import Query


def read_revisited(root: Path, name: str) -> Benchmark:
    """Read "roxford5k" or "rparis6k", a graded benchmark whose queries are cut to their boxes.

    The gallery is the database, in the order of the ground truth; the queries' photos are not in
    it. The easy and the hard photos of a query are relevant, its junk is ignored. Nothing has a
    class name.

    root: holds the photos as `jpg/PHOTO.jpg` and `gnd_NAME.pkl`, or a JSON copy of it, which is
    then read instead; or it holds such a folder called NAME. The pickle is read as plain data: one
    that names any class or function is refused, so it can run no code. A query's box is clipped to
    its photo.

    Raises WaldoError for a folder with another layout, for missing photos, for invalid labels, and
    where no query has anything to find.
    """
    root, path = _find_ground_truth(root, name)
    truth = _read_ground_truth(path)
    try:
        gallery_names, query_names, labels = truth["imlist"], truth["qimlist"], truth["gnd"]
    except (KeyError, TypeError):
        raise WaldoError(f'{path}: must hold "imlist", "qimlist" and "gnd"') from None
    for key in ("imlist", "qimlist"):
        names = truth[key]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise WaldoError(f'{path}: "{key}" must be a list of at least one name')
    if not isinstance(labels, list) or len(labels) != len(query_names):
        raise WaldoError(f'{path}: "gnd" must be a list with an entry for each of "qimlist"')
    gallery = [root / "jpg" / f"{photo}.jpg" for photo in gallery_names]
    photos = [root / "jpg" / f"{photo}.jpg" for photo in query_names]
    missing = [photo for photo in (*photos, *gallery) if not photo.is_file()]
    if missing:
        raise WaldoError(
            f"{missing[0]}: no such photo; {len(missing)} of the {len(photos) + len(gallery)} "
            f"named in {path.name} are missing"
        )
    queries = [
        _read_query(path, query_name, photo, entry, len(gallery))
        for query_name, photo, entry in zip(query_names, photos, labels, strict=True)
    ]
    if not any(len(query.relevant) for query in queries):
        raise WaldoError(f'{path}: there is nothing to find: no query has "easy" or "hard" photos')
    return Benchmark(name, gallery, None, queries, [], cut_queries=True)


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers; refuses whatever names a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


def _find_ground_truth(root: Path, name: str) -> tuple[Path, Path]:
    """The benchmark's folder and its ground truth."""
    for folder in (root, root / name):
        for suffix in (".json", ".pkl"):
            path = folder / f"gnd_{name}{suffix}"
            if path.is_file():
                return folder, path
    raise WaldoError(
        f"{root}: holds no gnd_{name}.pkl (nor .json, nor a folder {name} with it); "
        "it is published at cmp.felk.cvut.cz/revisitop"
    )


def _read_ground_truth(path: Path) -> Any:
    if path.suffix == ".json":
        return read_json(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except Exception as error:  # a broken pickle raises any kind of error
        raise WaldoError(
            f"{path}: not a pickle of plain lists and numbers ({error}); if you trust it, save "
            f"its content as {path.stem}.json beside it"
        ) from None


def _read_query(path: Path, name: str, photo: Path, entry: Any, n_gallery: int) -> BenchmarkQuery:
    where = f"{path}: query {name}"
    if not isinstance(entry, dict):
        raise WaldoError(f'{where}: must hold "bbx", "easy", "hard" and "junk"')
    seen: dict[int, str] = {}
    labelled = {}
    for key in ("easy", "hard", "junk"):
        listed = entry.get(key)
        if not isinstance(listed, list) or not all(map(_is_integer, listed)):
            raise WaldoError(f'{where}: "{key}" must be a list of integers')
        for place in listed:
            if not 0 <= place < n_gallery:
                raise WaldoError(
                    f'{where}: "{key}" names photo {place}, but "imlist" goes from 0 to '
                    f"{n_gallery - 1}"
                )
            if place in seen:
                raise WaldoError(f'{where}: photo {place} is in "{seen[place]}" and "{key}"')
            seen[place] = key
        labelled[key] = np.unique(np.array(listed, dtype=np.int64))
    return BenchmarkQuery(
        Query(photo, box=_read_box(where, photo, entry.get("bbx"))),
        relevant=np.union1d(labelled["easy"], labelled["hard"]),
        ignored=labelled["junk"],
        confusable=False,  # no class is known
        hard=labelled["hard"],
    )


def _read_box(where: str, photo: Path, numbers: Any) -> Box:
    """The query's box, clipped to its photo: published boxes may reach beyond the border."""
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(map(_is_finite, numbers)):
        raise WaldoError(f'{where}: "bbx" must be four numbers, [x0, y0, x1, y1]')
    x0, y0, x1, y1 = (float(number) for number in numbers)
    width, height = photo_size(photo)
    # Boxes lie beyond a photo that was scaled down.
    centred = 0 < (x0 + x1) / 2 < width and 0 < (y0 + y1) / 2 < height
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    # Photos are cut at whole pixels.
    if not (centred and round(x0) < round(x1) and round(y0) < round(y1)):
        raise WaldoError(
            f'{where}: "bbx" {numbers} is empty or off the photo, which is {width} x '
            f"{height} pixels; use the photos in their published size"
        )
    return (x0, y0, x1, y1)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return (isinstance(value, float) or _is_integer(value)) and abs(value) < float("inf")
