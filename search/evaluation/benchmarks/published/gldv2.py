"""Google Landmarks v2 (Weyand et al., CVPR 2020): its retrieval task."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    read_lines,
    whole_photo,
)
from search.evaluation.benchmarks.published.photo_files import PhotoFiles, files_below
from search.query import Query

_SOLUTION = "retrieval_solution_v2.1.csv"


def read_gldv2(root: Path) -> Benchmark:
    """Read GLDv2's retrieval: each query is a whole test photo, the gallery is the index set.

    root: holds `retrieval_solution_v2.1.csv` with the columns id, images (ids with spaces between)
    and Usage, and photos as `test/a/b/c/abc....jpg` and `index/a/b/c/abc....jpg`, by the first
    letters of their ids. Rows whose Usage is "Ignored" are left out; the level of the others is
    their Usage, Public or Private.

    Raises WaldoError for a folder with another layout, and for missing photos.
    """
    path = root / _SOLUTION
    rows = csv.DictReader(read_lines(path, "github.com/cvdfoundation/google-landmark"))
    if not {"id", "images", "Usage"} <= set(rows.fieldnames or ()):
        raise WaldoError(f"{path}: the first line must name the columns id, images and Usage")
    asked = [row for row in rows if row["Usage"] != "Ignored"]
    named = [(row["images"] or "").split() for row in asked]
    gallery, places = _read_gallery(root, {name for names in named for name in names})
    photos = [_path(root / "test", row["id"]) for row in asked]
    check_photos(photos, path)
    check_photos(
        [_path(root / "index", name) for names in named for name in names if name not in places],
        path,
    )
    queries = [
        BenchmarkQuery(
            Query(photo, box=whole_photo(photo)),
            relevant=places_of(places[name] for name in names),
            ignored=places_of([]),
            confusable=False,  # no class is known
            level=row["Usage"],
        )
        for photo, names, row in zip(photos, named, asked, strict=True)
    ]
    return Benchmark("gldv2", gallery, None, queries, [], metrics=("mAP@100",))


def _read_gallery(root: Path, named: set[str]) -> tuple[PhotoFiles, dict[str, int]]:
    """The photos of the index set, and the places of those with some names, by these. Raises
    WaldoError where there is none.
    """
    places: dict[str, int] = {}

    def files() -> Iterator[str]:
        for row, file in enumerate(files_below(root / "index", ".jpg")):
            name = os.path.basename(file).removesuffix(".jpg")  # noqa: PTH119 (Path is slower)
            if name in named:
                places[name] = row
            yield file

    gallery = PhotoFiles(files() if (root / "index").is_dir() else ())
    if not gallery:
        raise WaldoError(f"{root}: holds no photo index/a/b/c/ID.jpg; unpack the index set there")
    return gallery, places


def _path(folder: Path, name: str) -> Path:
    return folder.joinpath(*name[:3], f"{name}.jpg")
