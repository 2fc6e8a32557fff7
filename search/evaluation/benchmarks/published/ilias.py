"""ILIAS (Kordopatis-Zilos et al., CVPR 2025): objects among distractors."""

import gzip
import math
import zlib
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.regions import Box
from search.evaluation.benchmarks.benchmark import (
    Benchmark,
    BenchmarkQuery,
    TextBenchmark,
    TextQuery,
)
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    read_boxes,
    read_lines,
    true_boxes,
)
from search.evaluation.benchmarks.published.packed_photos import (
    OnListing,
    photo_id,
    photos_of,
)
from search.evaluation.benchmarks.published.photo_files import PhotoFiles, files_below
from search.query import Query

_SOURCE = "vrg.fel.cvut.cz/ilias"
_QUERIES, _POSITIVES = "image_ids/image_query_ids.txt", "image_ids/positive_ids.txt"
_TEXTS = "image_ids/text_query_ids.txt"
_MINI = "image_ids/mini_ilias_yfcc100m_ids.txt"
_LISTED = "image_ids/distractor_ids.txt.gz"
_DISTRACTORS = ("distractors", "yfcc100m")  # ours, and the published script's

# Where the published evaluator parts the positives by their numbers in the list.
_LIMITS = {
    "scale": (0.06880213760855043, 0.13526567164179104, 0.2729876723163842),
    "clutter": (18.0, 33.0, 53.0),
}


def read_ilias(root: Path, on_listing: OnListing | None = None) -> Benchmark:
    """Read ILIAS by its image queries: each asks by its box, and the positives of its object are
    relevant.

    root: holds `image_ids/image_query_ids.txt` and `image_ids/positive_ids.txt` (an id, and
    further columns after commas), and `ilias_core/` with the photos at their ids,
    OBJECT/query/FILE and OBJECT/pos/FILE. `FILE_bbox.txt` beside a photo has a box per line, x y w
    h in pixels. Of a query photo the largest is the query; positives may lack the file. Photos in
    `distractors/` and `yfcc100m/`, at any depth, are the distractors, with those in the tars there,
    which are unpacked into `work`.
    A positive without a file is not in the gallery, and counts as not found.

    Where every line of the positives has a scale and a clutter after the id, as in the published
    list, the benchmark has the parts that the published evaluator reports: positives by either
    number, within its limits.

    `image_ids/distractor_ids.txt.gz`, where it is there, says how many distractors there should be,
    one in a line; the convention says so where there are others.

    on_listing: called with the progress of listing tars. Raises WaldoError for a folder with
    another layout, for missing queries, and for tars that are broken or compressed.
    """
    return _read("ilias", root, _distractors(root, None, on_listing), _count_listed(root))


def read_mini_ilias(root: Path, on_listing: OnListing | None = None) -> Benchmark:
    """Read mini-ILIAS: as `read_ilias`, with the distractors alone that
    `image_ids/mini_ilias_yfcc100m_ids.txt` names by their files' names up to the first dot.
    """
    listed = set(map(photo_id, read_lines(root / _MINI, _SOURCE)))
    return _read("mini_ilias", root, _distractors(root, listed, on_listing), len(listed))


def read_ilias_texts(root: Path, on_listing: OnListing | None = None) -> TextBenchmark:
    """Read ILIAS by its text queries: the positives of the object that a text describes are
    relevant.

    root: as for `read_ilias`, with `image_ids/text_query_ids.txt`, whose ids are OBJECT/query/FILE;
    the file in `ilias_core/` holds the text. Raises WaldoError as `read_ilias` does, and for a text
    that is missing or empty.
    """
    core, positives = root / "ilias_core", _read_positives(root)
    distractors = _distractors(root, None, on_listing)
    queries = []
    for name in _ids(root / _TEXTS):
        text = " ".join(read_lines(core / name, _SOURCE))
        if not text:
            raise WaldoError(f"{core / name}: is empty; it must hold the text of a query")
        own = positives.of(name)
        relevant = positives.places(own)
        queries.append(TextQuery(name, text, relevant, len(own) - len(relevant)))
    if not any(len(query.relevant) for query in queries):
        raise WaldoError(f"{root / _TEXTS}: no text describes an object that the gallery shows")
    gallery = PhotoFiles(chain((core / name for name in positives.rows), distractors))
    convention = named_convention(len(distractors), _count_listed(root))
    return TextBenchmark(
        Benchmark("ilias_text", gallery, None, [], [], convention=convention), queries
    )


@dataclass(frozen=True)
class _Positives:
    """The photos of the objects that are looked for.

    rows: the places in the gallery of those that have a file, by their ids, in its order.
    by_object: the ids of all, by their object.
    """

    rows: dict[str, int]
    by_object: dict[str, list[str]]

    def of(self, query: str) -> list[str]:
        """The positives of a query, by its id."""
        return self.by_object.get(_object(query), [])

    def places(self, names: list[str]) -> NDArray[np.int64]:
        """The places of positives, but of those that have no file."""
        return places_of(self.rows[name] for name in names if name in self.rows)


def _read_positives(root: Path) -> _Positives:
    names = _ids(root / _POSITIVES)
    present = [name for name in names if (root / "ilias_core" / name).is_file()]
    by_object: dict[str, list[str]] = {}
    for name in names:
        by_object.setdefault(_object(name), []).append(name)
    return _Positives({name: row for row, name in enumerate(present)}, by_object)


def _read(protocol: str, root: Path, distractors: PhotoFiles, n_listed: int | None) -> Benchmark:
    """n_listed: how many distractors there should be; None where nobody says."""
    core = root / "ilias_core"
    asked = _ids(root / _QUERIES)
    positives = _read_positives(root)
    photos = [core / name for name in asked]
    check_photos(photos, root / _QUERIES)
    gallery = PhotoFiles(chain((core / name for name in positives.rows), distractors))
    queries = []
    for name, photo in zip(asked, photos, strict=True):
        own = positives.of(name)
        relevant = positives.places(own)
        queries.append(
            BenchmarkQuery(
                Query(photo, box=_largest_box(photo)),
                relevant=relevant,
                ignored=places_of([]),
                confusable=False,  # no class is known
                missing=len(own) - len(relevant),
                boxes=true_boxes(
                    relevant, [_boxes_beside(gallery[place]) for place in relevant], _SOURCE
                ),
            )
        )
    owned = [positives.of(name) for name in asked]
    return Benchmark(
        *(protocol, gallery, None, queries, []),
        convention=named_convention(len(distractors), n_listed),
        metrics=("mAP@1k",),
        parts={
            part: [_part(*pair, positives, inside) for pair in zip(queries, owned, strict=True)]
            for part, inside in _parts(root / _POSITIVES).items()
        },
    )


def named_convention(n_distractors: int, n_listed: int | None = None) -> str:
    """The benchmark's convention; millions are rounded, as papers give them, so that a published
    figure stands beside a run of the whole.

    n_listed: how many distractors there should be; None where nobody says.
    """
    if n_listed not in (None, n_distractors):
        return f"{n_distractors:,} of the {n_listed:,} listed distractors"
    if n_distractors >= 1_000_000:
        return f"{n_distractors / 1e6:.0f} M distractors"
    return f"{n_distractors or 'no'} distractors"


def _parts(path: Path) -> dict[str, set[str]]:
    """The ids of the positives in each part, by its name; nothing where a line lacks a number."""
    lines = [line.split(",") for line in read_lines(path, _SOURCE)]
    if any(len(line) < 3 for line in lines):
        return {}
    parts: dict[str, set[str]] = {}
    for column, (kind, limits) in enumerate(_LIMITS.items(), start=1):
        try:
            values = [float(line[column]) for line in lines]
        except ValueError as error:
            raise WaldoError(
                f"{path}: the {kind} of a positive must be a number ({error})"
            ) from None
        for low, high in zip((0.0, *limits), (*limits, math.inf), strict=True):
            name = f"{kind} from {low:.2g}" + (f" to {high:.2g}" if high < math.inf else "")
            parts[name] = {
                line[0].strip()
                for line, value in zip(lines, values, strict=True)
                if low <= value < high
            }
    return parts


def _part(
    asked: BenchmarkQuery, own: list[str], positives: _Positives, inside: set[str]
) -> BenchmarkQuery | None:
    """A query with those of its own positives that are in a part; None where there is none."""
    kept = [name for name in own if name in inside]
    if not kept:
        return None
    relevant = positives.places(kept)
    ignored = np.setdiff1d(asked.relevant, relevant)
    return replace(asked, relevant=relevant, ignored=ignored, missing=len(kept) - len(relevant))


def _ids(path: Path) -> list[str]:
    """The ids of a list, each once, sorted as the published evaluator sorts them."""
    names = sorted({line.split(",")[0].strip() for line in read_lines(path, _SOURCE)})
    for name in names:
        if name.count("/") != 2:
            raise WaldoError(f"{path}: {name!r} is no id; it must be OBJECT/query/FILE or so")
    return names


def _object(name: str) -> str:
    return name.split("/")[0]


def _distractors(root: Path, chosen: set[str] | None, on_listing: OnListing | None) -> PhotoFiles:
    folders = [root / name for name in _DISTRACTORS if (root / name).is_dir()]
    files = (Path(file) for folder in folders for file in files_below(folder))
    return photos_of(files, chosen, on_listing)


def _count_listed(root: Path) -> int | None:
    """The number of lines in the list of distractors; None where there is no list."""
    path = root / _LISTED
    if not path.is_file():
        return None
    try:
        with gzip.open(path, "rb") as lines:
            return sum(1 for line in lines if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise WaldoError(f"{path}: not readable as a gzip file ({error}); get it anew") from None


def _boxes_beside(photo: Path) -> Path:
    return photo.with_name(f"{photo.stem}_bbox.txt")


def _largest_box(photo: Path) -> Box:
    path = _boxes_beside(photo)
    boxes = read_boxes(path, _SOURCE)
    if not boxes:
        raise WaldoError(f"{path}: holds no box; it must have a line x y w h")
    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
