"""Two benchmarks of products: Stanford Online Products (Song et al., CVPR 2016) and In-Shop Clothes
Retrieval (Liu et al., CVPR 2016).
"""

from collections import Counter
from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.named_photos import (
    check_photos,
    places_of,
    read_lines,
    rows_by_name,
    whole_photo,
)
from search.query import Query

_PARTITION = "list_eval_partition.txt"


def read_sop(root: Path) -> Benchmark:
    """Read SOP's test set: every photo is a query against all others, those of the same product are
    relevant. A photo without another of its product is no query.

    root: holds `Ebay_test.txt`, whose lines after the first have image_id, class_id,
    super_class_id and the photo's path. Raises WaldoError for a folder with another layout and for
    missing photos.
    """
    path = root / "Ebay_test.txt"
    rows = [line.split() for line in read_lines(path, "cvgl.stanford.edu")[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != 4:
            raise WaldoError(
                f"{path}: line {number} must have image_id, class_id, super_class_id and path"
            )
    gallery = [root / row[3] for row in rows]
    check_photos(gallery, path)
    _check_once(gallery, path)
    same = rows_by_name([row[1] for row in rows])
    queries = []
    for place, (row, photo) in enumerate(zip(rows, gallery, strict=True)):
        others = [other for other in same[row[1]] if other != place]
        if others:
            query = Query(photo, box=whole_photo(photo))
            queries.append(
                BenchmarkQuery(query, places_of(others), places_of([place]), confusable=True)
            )
    further = tuple(f"Recall@{k}" for k in (100, 1000))
    return Benchmark("sop", gallery, None, queries, [], metrics=further)


def read_inshop(root: Path) -> Benchmark:
    """Read In-Shop: the queries and the gallery of its partition, photos of one item are relevant.

    root: holds `list_eval_partition.txt`, itself or in `Eval/`, and the photos at the paths that it
    names, in itself or in `Img/`. After the number of photos and the heading, a line has
    image_name, item_id and evaluation_status (train, query or gallery). Raises WaldoError for a
    folder with another layout and for missing photos.
    """
    path = root / "Eval" / _PARTITION
    if not path.is_file():
        path = root / _PARTITION
    lines = read_lines(path, "mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html")
    rows = [line.split() for line in lines[2:]]
    for number, row in enumerate(rows, start=3):
        if len(row) != 3 or row[2] not in ("train", "query", "gallery"):
            raise WaldoError(
                f"{path}: line {number} must have image_name, item_id and train, query or gallery"
            )
    if not lines or lines[0] != str(len(rows)):
        raise WaldoError(f"{path}: has {len(rows)} photos, but its first line is another number")
    home = root / "Img" if (root / "Img").is_dir() else root
    of_gallery = [row for row in rows if row[2] == "gallery"]
    asked = [row for row in rows if row[2] == "query"]
    gallery, photos = [home / row[0] for row in of_gallery], [home / row[0] for row in asked]
    check_photos([*photos, *gallery], path)
    _check_once([*photos, *gallery], path)
    same = rows_by_name([row[1] for row in of_gallery])
    queries = [
        BenchmarkQuery(
            Query(photo, box=whole_photo(photo)),
            relevant=places_of(same.get(row[1], [])),
            ignored=places_of([]),
            confusable=True,
        )
        for photo, row in zip(photos, asked, strict=True)
    ]
    further = tuple(f"Recall@{k}" for k in (20, 30))
    return Benchmark("inshop", gallery, None, queries, [], metrics=further)


def _check_once(photos: list[Path], listing: Path) -> None:
    """Raise WaldoError where a list names a photo twice: it would be found as its own match."""
    twice = next((photo for photo, count in Counter(photos).items() if count > 1), None)
    if twice is not None:
        raise WaldoError(f"{listing}: names {twice} twice; each photo must have one line")
