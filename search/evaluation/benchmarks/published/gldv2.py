"""Google Landmarks v2 (Weyand et al., CVPR 2020): its retrieval task."""

import csv
from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    read_lines,
    whole_photo,
)
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
    gallery = sorted((root / "index").rglob("*.jpg"))
    if not gallery:
        raise WaldoError(f"{root}: holds no photo index/a/b/c/ID.jpg; unpack the index set there")
    places = {photo.stem: row for row, photo in enumerate(gallery)}
    photos = [_path(root / "test", row["id"]) for row in asked]
    check_photos(photos, path)
    named = [(row["images"] or "").split() for row in asked]
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


def _path(folder: Path, name: str) -> Path:
    return folder.joinpath(*name[:3], f"{name}.jpg")
