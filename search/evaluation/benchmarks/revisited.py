"""Revisited Oxford and Paris (Radenovic et al., CVPR 2018): how they are read and scored.

Metrics equal those of the published evaluator (github.com/filipradenovic/revisitop), which leaves
the order of equal scores open.
"""

import json
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import load_photo
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.query import Query

Difficulty = Literal["easy", "medium", "hard"]


def positives_and_junk(
    query: BenchmarkQuery, difficulty: Difficulty
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is to be found and what is left out of the ranking, each as places in the gallery.

    query: of a graded benchmark. Easy: finds the easy, leaves out junk and hard. Medium: finds easy
    and hard, leaves out junk. Hard: finds the hard, leaves out junk and easy. There may be nothing
    to find: such a query is left out of the mean.
    """
    assert query.hard is not None  # the benchmark is graded
    if difficulty == "medium":
        wanted = query.relevant
    else:
        wanted = query.relevant & (query.hard == (difficulty == "hard"))
    junk = query.ignored | (query.relevant & ~wanted)
    return np.flatnonzero(wanted), np.flatnonzero(junk)


def ranking(scores: NDArray[np.floating], positives: NDArray[np.int64]) -> NDArray[np.int64]:
    """The gallery's places, best first; of equal scores the positives come last, so that a method
    which cannot tell photos apart gains nothing by how the gallery is ordered.

    scores: (n_gallery,), higher is better. positives: places. Returns (n_gallery,).
    """
    positive = np.zeros(len(scores), dtype=bool)
    positive[positives] = True
    return np.lexsort((positive, -scores))


def revisited_average_precision(
    ranked: NDArray[np.int64], positives: NDArray[np.int64], junk: NDArray[np.int64]
) -> float:
    """The trapezoidal average precision of the published evaluator, 0..1.

    ranked: places in the gallery, best first, each once. positives, junk: places, disjoint. A
    positive's rank r counts from 0 and leaves out the junk before it; the j-th positive adds
    (j / r + (j + 1) / (r + 1)) / 2, where j / r is 1 at r = 0. The sum is divided by the number
    of positives, so one that is not in `ranked` adds nothing. This is not scikit-learn's average
    precision: a single positive at r = 1 gives 0.25, not 0.5. Raises ValueError where there is no
    positive.
    """
    ranks = _ranks(ranked, positives, junk)
    j = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
    after = (j + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * len(positives)))


def revisited_precision_at(
    ranked: NDArray[np.int64], positives: NDArray[np.int64], junk: NDArray[np.int64], k: int
) -> float:
    """The published evaluator's precision at k, 0..1; its mean over queries is mP@k.

    Arguments and ranks as in `revisited_average_precision`, k at least 1. The share of positives
    is taken of the first kq = min(k, last positive's rank + 1) places, so that a query with few
    positives can reach 1. Zero where no positive is in `ranked`. Raises ValueError where there is
    no positive.
    """
    ranks = _ranks(ranked, positives, junk)
    if len(ranks) == 0:
        return 0.0
    kq = min(k, int(ranks[-1]) + 1)
    return float((ranks < kq).sum() / kq)


def read_revisited(root: Path, name: str) -> Benchmark:
    """Read "roxford5k" or "rparis6k", a graded benchmark whose queries are cut to their boxes.

    The gallery is the database, in the ground truth's order; queries' photos are not in it. Of a
    query, the easy and the hard photos are relevant, the junk is ignored. Nothing has a class name.

    root: holds `gnd_NAME.pkl`, or a JSON copy of it that goes before the pickle, and the photos as
    `jpg/PHOTO.jpg`; or it holds such a folder called NAME. The pickle is read as plain data:
    one that names any class or function is refused, so no code of it can run. A query's box is
    cut to its photo.

    Raises WaldoError for a folder that is not laid out so, for missing photos and for labels that
    make no sense, or by which no query has anything to find.
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
            raise WaldoError(f'{path}: "{key}" must be a list of names, one at least')
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
    if not any(query.relevant.any() for query in queries):
        raise WaldoError(f'{path}: no query has "easy" or "hard" photos: there is nothing to find')
    return Benchmark(name, gallery, None, queries, [], cut_queries=True)


def _ranks(
    ranked: NDArray[np.int64], positives: NDArray[np.int64], junk: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Ranks of the positives from 0, ascending, as if the junk were not there."""
    if len(positives) == 0:
        raise ValueError("no positive: the query is to be left out")
    found = np.flatnonzero(np.isin(ranked, positives))
    ranks: NDArray[np.int64] = found - np.cumsum(np.isin(ranked, junk))[found]
    return ranks


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers: whatever needs no class or function by name."""

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
        f"--root {root}: holds no gnd_{name}.pkl (nor .json, nor a folder {name} with it); "
        "it is published at cmp.felk.cvut.cz/revisitop"
    )


def _read_ground_truth(path: Path) -> Any:
    if path.suffix == ".json":
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WaldoError(f"{path}: not JSON ({error})") from None
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except Exception as error:  # broken pickles come up as any kind of error
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
        labelled[key] = np.isin(np.arange(n_gallery), listed)
    return BenchmarkQuery(
        Query(photo, box=_read_box(where, photo, entry.get("bbx"))),
        relevant=labelled["easy"] | labelled["hard"],
        ignored=labelled["junk"],
        confusable=False,  # no class is known
        hard=labelled["hard"],
    )


def _read_box(where: str, photo: Path, numbers: Any) -> Box:
    """The query's box, cut to its photo: published boxes need not end exactly at the border."""
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(map(_is_finite, numbers)):
        raise WaldoError(f'{where}: "bbx" must be four numbers, [x0, y0, x1, y1]')
    x0, y0, x1, y1 = (float(number) for number in numbers)
    known = load_photo(photo, at_least=1)
    # A photo scaled down would leave boxes beyond it.
    centred = 0 < (x0 + x1) / 2 < known.width and 0 < (y0 + y1) / 2 < known.height
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, known.width), min(y1, known.height)
    # Photos are cut at whole pixels.
    if not (centred and round(x0) < round(x1) and round(y0) < round(y1)):
        raise WaldoError(
            f'{where}: "bbx" {numbers} is empty or off the photo, which is {known.width} x '
            f"{known.height} pixels; photos must have the size that they were published with"
        )
    return (x0, y0, x1, y1)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return (isinstance(value, float) or _is_integer(value)) and abs(value) < float("inf")
