"""What it is worth to choose the object that a class name means by its first matches.

    python benchmarks/choosing.py --scenes data/scenes --folders DIR

DIR is a benchmark of `waldo evaluate scenes` or `waldo evaluate folders` with class names. Each
query is asked by its class name alone: once for the region under the peak of the class map, and
once for the object that is chosen. Prints mAP as searches rank, with query expansion; the
difference, query by query, and how it is spread; the first matches that are right; the queries for
which another region was chosen, and the milliseconds that the choice takes. Where the benchmark has
masks, also the queries in which most of the region lies on the object. In percent, with 95 %
bootstrap intervals.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from harness import add_model_options, make_parser, percent
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from features.regions import load_mask
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.choosing import choose_object
from search.clock import Clock
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, flags
from search.evaluation.methods.methods import METHODS, MapMethod
from search.evaluation.metrics.ranking import average_precision
from search.ranking.expansion import expand
from search.reference import Reference, make_reference
from search.scoring.rerank import score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES, bind_score


@dataclass(frozen=True)
class Found:
    """What a query finds for one region.

    precision: its average precision. first_right: whether its first match shows the object.
    on_object: the share of the region's cells that the object covers by half, or None without a
    mask. All are 0..1.
    """

    precision: float
    first_right: bool
    on_object: float | None


@dataclass(frozen=True)
class Gallery:
    """A benchmark's index. ids: (n_gallery,) int64, in the order of its photos."""

    reader: IndexReader
    ids: NDArray[np.int64]
    extractor: FeatureExtractor

    def ask(self, asked: BenchmarkQuery, reference: Reference) -> Found:
        """Ask all photos, as a search does."""
        score = bind_score(SCORES[DEFAULT_SCORE], self.extractor, [])
        order = np.argsort(self.ids)
        ids, prepared = self.ids[order], [reference.for_scoring(self.extractor.device)]
        rows = score_references(self.reader, ids, prepared, [score], Clock()).by_score[score.name]
        own = {reference.maps.content_hash}
        final = np.empty(len(ids), dtype=np.float32)
        final[order] = expand(self.reader, ids, rows, rows[0], prepared, own, score, Clock())
        counts = ~flags(asked.ignored, len(ids))
        right = flags(asked.relevant, len(ids))[counts]
        return Found(
            average_precision(right, final[counts]),
            bool(right[final[counts].argmax()]),
            on_object(asked, reference),
        )


def on_object(asked: BenchmarkQuery, reference: Reference) -> float | None:
    if asked.query.mask is None:
        return None
    frame = reference.maps.frame
    coverage = frame.coverage(load_mask(asked.query.mask, frame.width, frame.height))
    return float((coverage[reference.cells] >= 0.5).mean())


def measure(benchmark: Benchmark, extractor: FeatureExtractor) -> None:
    """Ask all queries in both ways, and print what they find."""
    by_name = METHODS["consistent-by-class"]
    assert isinstance(by_name, MapMethod)
    single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
    first, chosen, others, seconds = [], [], [], []
    with TemporaryDirectory() as folder:
        listing, index = Path(folder) / "photos.txt", Path(folder) / "index"
        listing.write_text("\n".join(str(photo.resolve()) for photo in benchmark.gallery))
        index_photos([listing], index, extractor, batch_size=extractor.batch_size)
        with IndexReader.open(index) as reader:
            by_path = {record.path: record.id for record in reader.photos(reader.ids)}
            ids = np.array([by_path[photo.resolve()] for photo in benchmark.gallery])
            gallery = Gallery(reader, ids, single)
            for asked in benchmark.queries:
                query = by_name.asks(asked.query)
                reference = make_reference(query, single)
                begin = time.perf_counter()
                other = choose_object(reader, query, reference, single, None, Clock())
                seconds.append(time.perf_counter() - begin)
                others.append(not np.array_equal(other.cells, reference.cells))
                first.append(gallery.ask(asked, reference))
                chosen.append(gallery.ask(asked, other) if others[-1] else first[-1])
    report(first, chosen)
    print(
        f"  another region: {percent(others)} % of {len(others)} queries; the choice takes "
        f"{1000 * median(seconds):.0f} ms"
    )


def report(first: Sequence[Found], chosen: Sequence[Found]) -> None:
    for title, found in (("region under the peak", first), ("chosen object", chosen)):
        parts = [f"  {title}: mAP {percent([each.precision for each in found])}"]
        parts += [f"first match right {percent([each.first_right for each in found])}"]
        shares = [each.on_object for each in found if each.on_object is not None]
        parts += [f"mostly on the object {percent([s > 0.5 for s in shares])}"] if shares else []
        print(", ".join(parts))
    gains = np.array([b.precision - a.precision for a, b in zip(first, chosen, strict=True)])
    right = np.array([each.first_right for each in first])
    lost, gained = 100 * (gains < -0.05).mean(), 100 * (gains > 0.05).mean()
    print(
        f"  difference in mAP: {percent(gains)}; where the first match was right "
        f"{100 * gains[right].mean():+.1f}, wrong {100 * gains[~right].mean():+.1f}; lost more "
        f"than 5 points {lost:.0f}, gained {gained:.0f}"
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path, action="append", default=[])
    parser.add_argument("--folders", type=Path, action="append", default=[])
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    roots = [("scenes", root) for root in given.scenes] + [("folders", r) for r in given.folders]
    for protocol, root in roots:
        print(f"{protocol} {root}")
        measure(read_benchmark(protocol, root), extractor)


if __name__ == "__main__":
    main()
