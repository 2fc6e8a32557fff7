"""What it costs in accuracy to ask by the maps that an index holds of the query photo.

    python benchmarks/stored_queries.py --root data/scenes/validation

The photos of the scenes and of the queries are indexed together, with each codec quality. Every
query is asked twice, by a mask, a box and a point: with features extracted from its photo, and with
the maps that the index holds of it. The gallery is ranked without the query photos. Prints the mAP
of both, and the mean difference query by query with its 95 % bootstrap interval, in percent.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from harness import add_model_options, make_parser
from labelled_scenes import box_of, extract_all
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput, load_model_input
from indexer.codec.quality import QUALITIES
from indexer.ingest.build import index_photos
from indexer.protocols import Extractor
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import flags
from search.evaluation.metrics.ranking import average_precision, bootstrap_interval
from search.query import Query
from search.reference import Reference, make_references
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES, bind_score

REGIONS = ("mask", "box", "point")


class Extracted(Extractor):
    """Gives maps that were extracted before, by the content of photos."""

    def __init__(self, extractor: FeatureExtractor, maps: dict[str, FeatureMaps]) -> None:
        self.image_size, self.grid, self.dim = extractor.image_size, extractor.grid, extractor.dim
        self._extractor, self._maps = extractor, maps

    def fingerprint(self) -> dict[str, str | int]:
        return self._extractor.fingerprint()

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        return [self._maps[photo.content_hash] for photo in inputs]

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        return self._extractor.vocabulary_vectors()


def stored_maps(reader: IndexReader, size: int, paths: Sequence[Path]) -> dict[str, FeatureMaps]:
    """The maps that an index holds of photos, by their content."""
    found = {}
    records = {record.content_hash: record for record in reader.photos(reader.ids)}
    for path in paths:
        photo = load_model_input(path, size, reader.grid)
        batch = reader.read_maps([records[photo.content_hash].id])
        shape = (reader.grid, reader.grid, reader.dim)
        appearance, semantic = (
            part.numpy().astype(np.float16).reshape(shape) for part in reader.decode(batch)
        )
        found[photo.content_hash] = FeatureMaps(
            appearance, semantic, photo.frame, photo.content_hash
        )
    return found


def by_region(query: Query) -> list[Query]:
    """A query by its mask, by the box around it, and by the point deepest inside it."""
    assert query.mask is not None
    with Image.open(query.mask) as file:
        mask = np.asarray(file) > 0
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return [
        Query(query.photo, mask=query.mask),
        Query(query.photo, box=box_of(mask)),
        Query(query.photo, point=(float(x) + 0.5, float(y) + 0.5)),
    ]


def precisions(
    reader: IndexReader,
    gallery: Sequence[Path],
    relevant: Sequence[NDArray[np.bool_]],
    references: Sequence[Reference],
    extractor: Extractor,
    names: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """The average precision of each reference by each score, (references,)."""
    by_path = {record.path: record.id for record in reader.photos(reader.ids)}
    ids = np.array([by_path[path.resolve()] for path in gallery])
    prepared = [reference.for_scoring(torch.device("cpu")) for reference in references]
    scores = [bind_score(SCORES[name], extractor, prepared) for name in names]
    scored = score_references(reader, np.sort(ids), prepared, scores, Clock())
    columns = np.searchsorted(scored.ids, ids)
    return {
        name: np.array(
            [
                average_precision(wanted, row[columns])
                for wanted, row in zip(relevant, scored.by_score[name], strict=True)
            ]
        )
        for name in names
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/scenes/validation"))
    parser.add_argument("--codec", nargs="+", choices=QUALITIES, default=list(QUALITIES))
    parser.add_argument("--score", nargs="+", choices=SCORES, default=["consistent", "late"])
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    benchmark = read_benchmark("scenes", given.root)
    queries = [asked.query for asked in benchmark.queries]
    photos = [*benchmark.gallery, *(query.photo for query in queries)]
    extracted = {maps.content_hash: maps for maps in extract_all(photos, extractor).values()}
    fresh = Extracted(extractor, extracted)
    asked = [by_region(query) for query in queries]
    relevant = [flags(each.relevant, len(benchmark.gallery)) for each in benchmark.queries]

    table = Table(title=f"{given.model}, {len(queries)} queries: mAP", box=None)
    for column in ("codec", "region", "score", "extracted", "stored", "difference (95 %)"):
        table.add_column(column, no_wrap=True)
    for quality in given.codec:
        with TemporaryDirectory() as folder:
            listing = Path(folder) / "photos.txt"
            listing.write_text("\n".join(str(photo.resolve()) for photo in photos))
            index_photos([listing], Path(folder) / "index", fresh, quality=quality)
            with IndexReader.open(Path(folder) / "index") as reader:
                held = stored_maps(reader, extractor.image_size, [q.photo for q in queries])
                stored = Extracted(extractor, held)
                found = [
                    [make_references(regions, source) for regions in asked]
                    for source in (fresh, stored)
                ]
                for number, region in enumerate(REGIONS):
                    one, other = (
                        precisions(
                            *(reader, benchmark.gallery, relevant),
                            [regions[number] for regions in references],
                            extractor,
                            given.score,
                        )
                        for references in found
                    )
                    for name in given.score:
                        more = 100 * (other[name] - one[name])
                        low, high = bootstrap_interval(more)
                        table.add_row(
                            quality,
                            region,
                            name,
                            f"{100 * one[name].mean():.2f}",
                            f"{100 * other[name].mean():.2f}",
                            f"{more.mean():+.2f} ({low:+.2f} to {high:+.2f})",
                        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
