"""INSTRE (Wang and Jiang, 2015), in the protocol of Iscen et al. (CVPR 2017)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    true_boxes,
)
from search.query import Query

_SOURCE = "isia.ict.ac.cn/dataset/instre.html"
_GROUND_TRUTH = "gnd_instre.mat"


def read_instre(root: Path) -> Benchmark:
    """Read INSTRE: 1,250 queries, cut to their boxes, and 27,293 photos in the published data.

    root: holds `gnd_instre.mat` and the photos at the paths that it names. The ground truth's
    "imlist" and "qimlist" name the photos of the gallery and of the queries; an entry of "gnd" has
    the numbers of the relevant photos, then the box, x y w h in pixels. MATLAB counts from 1, but
    copies that count from 0 exist, so `_first_number` looks. The file is read without pickle. A
    text file beside a photo, as INSTRE has them, holds its boxes, x y w h per line; those of
    INSTRE-M, whose photos show two objects, do not say which box is whose.

    Raises WaldoError for a folder with another layout, for missing photos and invalid labels.
    """
    path = root / _GROUND_TRUTH
    names, asked, entries = _read_ground_truth(path)
    gallery, photos = [root / name for name in names], [root / name for name in asked]
    check_photos([*photos, *gallery], path)
    relevant = [_numbers(path, name, entry[0]) for name, entry in zip(asked, entries, strict=True)]
    first = _first_number(path, relevant, names, asked)
    queries = []
    for photo, numbers, entry in zip(photos, relevant, entries, strict=True):
        box = np.ravel(entry[1]).astype(np.float64)
        if len(box) != 4 or not np.isfinite(box).all() or (box[2:] <= 0).any():
            raise WaldoError(f"{path}: query {photo.name}: the box must be x y w h, w and h over 0")
        x, y, width, height = map(float, box)
        places = places_of(numbers - first)
        files = [gallery[place].with_suffix(".txt") for place in places]
        queries.append(
            BenchmarkQuery(
                Query(photo, box=(max(x, 0.0), max(y, 0.0), x + width, y + height)),
                relevant=places,
                ignored=places_of([]),
                confusable=False,  # no class is known
                boxes=true_boxes(places, files, _SOURCE),
            )
        )
    return Benchmark(
        *("instre", gallery, None, queries, []), cut_queries=True, metrics=("mAP_trapezoidal",)
    )


def _read_ground_truth(path: Path) -> tuple[list[str], list[str], list[Any]]:
    """The names of the gallery's photos, those of the queries' photos, and their entries."""
    if not path.is_file():
        raise WaldoError(
            f"{path}: no such file; it is published with the code of Iscen et al. (CVPR 2017)"
        )
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        names = [str(np.ravel(name)[0]) for name in np.ravel(content["imlist"])]
        asked = [str(np.ravel(name)[0]) for name in np.ravel(content["qimlist"])]
        entries = [tuple(entry)[:2] for entry in np.ravel(content["gnd"])]
    except Exception as error:  # a broken file raises any kind of error
        raise WaldoError(
            f'{path}: not a MATLAB file with "imlist", "qimlist" and "gnd" ({error!r})'
        ) from None
    if len(entries) != len(asked) or any(len(entry) != 2 for entry in entries):
        raise WaldoError(f'{path}: "gnd" must have the relevant photos and a box for each query')
    return names, asked, entries


def _numbers(path: Path, name: str, listed: Any) -> NDArray[np.int64]:
    numbers = np.ravel(listed)
    if len(numbers) == 0 or numbers.dtype.kind not in "iuf" or (numbers % 1 != 0).any():
        raise WaldoError(f"{path}: query {name}: the relevant photos must be whole numbers")
    return numbers.astype(np.int64)


def _first_number(
    path: Path, relevant: list[NDArray[np.int64]], names: list[str], asked: list[str]
) -> int:
    """Whether the numbers of photos start at 0 or at 1.

    A 0, or the number of photos itself, decides. Where neither occurs, photos of an object share a
    folder: the start with which more relevant photos lie in the folder of their query.
    """
    every = np.concatenate(relevant)
    possible = [
        first for first in (1, 0) if first <= every.min() and every.max() - first < len(names)
    ]
    if not possible:
        raise WaldoError(
            f'{path}: "gnd" names photos {every.min()} to {every.max()}, but "imlist" has '
            f"{len(names)}"
        )
    folders = [Path(name).parent for name in names]

    def in_folder(first: int) -> int:
        return sum(
            folders[number - first] == Path(query).parent
            for query, numbers in zip(asked, relevant, strict=True)
            for number in numbers
        )

    return max(possible, key=in_folder)  # the first of equals: MATLAB's
