"""ILIAS (Kordopatis-Zilos et al., CVPR 2025): objects among distractors."""

from collections.abc import Callable
from pathlib import Path

from features.errors import WaldoError
from features.photo import is_picture
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    read_lines,
    rows_by_name,
)
from search.evaluation.benchmarks.published.packed_photos import photo_id, unpack_photos
from search.query import Query

_SOURCE = "vrg.fel.cvut.cz/ilias"
_QUERIES, _POSITIVES = "image_ids/image_query_ids.txt", "image_ids/positive_ids.txt"
_MINI = "image_ids/mini_ilias_yfcc100m_ids.txt"
_DISTRACTORS = ("distractors", "yfcc100m")  # ours, and the published script's


def read_ilias(
    root: Path, work: Path | None = None, on_step: Callable[[str, int, int], None] | None = None
) -> Benchmark:
    """Read ILIAS by its image queries: each asks by its box, and the positives of its object are
    relevant.

    root: holds `image_ids/image_query_ids.txt` and `image_ids/positive_ids.txt` (an id, and
    further columns after commas), and `ilias_core/` with the photos at their ids,
    OBJECT/query/FILE and OBJECT/pos/FILE. `FILE_bbox.txt` beside a query photo has a box
    per line, x y w h in pixels; the largest is the query. Photos in `distractors/` and `yfcc100m/`,
    at any depth, are the distractors, with those in the tars there, which are unpacked into `work`.
    A positive without a file is not in the gallery, and counts as not found.

    on_step: called with the progress of unpacking. Raises WaldoError for a folder with another
    layout, for missing queries, for broken tars, and for tars without `work`.
    """
    return _read("ilias", root, _distractors(root, None, work, on_step))


def read_mini_ilias(
    root: Path, work: Path | None = None, on_step: Callable[[str, int, int], None] | None = None
) -> Benchmark:
    """Read mini-ILIAS: as `read_ilias`, with the distractors alone that
    `image_ids/mini_ilias_yfcc100m_ids.txt` names by their files' names up to the first dot; of tars
    only they are unpacked.
    """
    listed = read_lines(root / _MINI, _SOURCE)
    return _read("mini_ilias", root, _distractors(root, set(map(photo_id, listed)), work, on_step))


def _read(protocol: str, root: Path, distractors: list[Path]) -> Benchmark:
    core = root / "ilias_core"
    asked = _ids(root / _QUERIES)
    positives = _ids(root / _POSITIVES)
    photos = [core / name for name in asked]
    check_photos(photos, root / _QUERIES)
    present = [name for name in positives if (core / name).is_file()]
    gallery = [*(core / name for name in present), *distractors]
    listed = rows_by_name([_object(name) for name in positives])
    same = rows_by_name([_object(name) for name in present])
    queries = []
    for name, photo in zip(asked, photos, strict=True):
        found = same.get(_object(name), [])
        queries.append(
            BenchmarkQuery(
                Query(photo, box=_largest_box(photo)),
                relevant=places_of(found),
                ignored=places_of([]),
                confusable=False,  # no class is known
                missing=len(listed.get(_object(name), [])) - len(found),
            )
        )
    convention = f"{len(distractors)} distractors" if distractors else "no distractors"
    return Benchmark(
        protocol, gallery, None, queries, [], convention=convention, metrics=("mAP@1k",)
    )


def _ids(path: Path) -> list[str]:
    """The ids of a list, sorted as the published evaluator sorts them."""
    names = sorted(line.split(",")[0].strip() for line in read_lines(path, _SOURCE))
    for name in names:
        if name.count("/") != 2:
            raise WaldoError(f"{path}: {name!r} is no id; it must be OBJECT/query/FILE or so")
    return names


def _object(name: str) -> str:
    return name.split("/")[0]


def _distractors(
    root: Path,
    chosen: set[str] | None,
    work: Path | None,
    on_step: Callable[[str, int, int], None] | None,
) -> list[Path]:
    folders = [root / name for name in _DISTRACTORS if (root / name).is_dir()]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    tars = [path for path in files if path.suffix == ".tar"]
    loose = [
        path
        for path in files
        if path.suffix != ".tar"
        and (chosen is None or photo_id(path.name) in chosen)
        and is_picture(path)
    ]
    if not tars:
        return loose
    if work is None:
        raise WaldoError(
            f"{tars[0]}: is packed; `waldo evaluate` unpacks tars into its work folder"
        )
    return loose + unpack_photos(tars, work / "ilias-distractors", chosen, on_step)


def _largest_box(photo: Path) -> Box:
    path = photo.with_name(f"{photo.stem}_bbox.txt")
    boxes = []
    for line in read_lines(path, _SOURCE):
        try:
            x, y, width, height = map(float, line.replace(",", " ").split())
        except ValueError:
            raise WaldoError(f"{path}: {line!r} is no box; it must be x y w h") from None
        boxes.append((width * height, (max(x, 0.0), max(y, 0.0), x + width, y + height)))
    if not boxes or max(boxes)[0] <= 0:
        raise WaldoError(f"{path}: holds no box; it must have a line x y w h")
    return max(boxes)[1]
