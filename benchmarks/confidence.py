"""How far the probability of a match can be trusted, and how it was fitted.

    python benchmarks/confidence.py --scenes DIR --folders DIR [--html FILE]
    python benchmarks/confidence.py --fit --scenes DIR --folders DIR

DIR is a benchmark of `waldo evaluate scenes` or `waldo evaluate folders`. Each query is asked by
its region and by its class name alone, with the whole gallery and with all photos of its object
taken out. Prints a reliability diagram: of the first 20 matches of each query, how many were told
which probability, and how many of these are right; the expected calibration error (ECE) and the
Brier score. Beside them, the same of the confidence that Waldo also gives. Then the searches that
find something at a minimum, with the object in the gallery and without it. `--html` draws the
diagrams.

`--fit` prints the constant and the weights for `search/scoring/confidence.py`. Each query is then
also asked of smaller galleries: of all photos of its object and some others, as in people's own
collections; of a random part, which may lack the object; and of the best photos alone, as recall
leaves them of a large collection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from harness import add_model_options, make_parser
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.choosing import choose_object
from search.clock import Clock
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import METHODS, MapMethod
from search.query import Query
from search.ranking.expansion import expand
from search.reference import Reference, make_references
from search.scoring.confidence import MINIMUM_PHOTOS, confidences, evidence, probabilities
from search.scoring.rerank import score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES

SCORE = SCORES[DEFAULT_SCORE]
BINS = np.linspace(0, 1, 6)
SHOWN = 20  # matches of a query
MINIMA = (0.5, 0.9)
TOGETHER = 16  # references that are scored at once
WAYS = ("region", "name")

# How much a query counts in a fit by each gallery that it is asked of. Most searches are for
# objects that some photo shows.
WEIGHTS = {"whole": 3.0, "small": 2.0, "part": 1.0, "best": 1.0, "without": 0.3}


@dataclass(frozen=True)
class Told:
    """What a query was told of the photos of a gallery, in the gallery's order.

    gallery: which photos were compared, a key of WEIGHTS. right: (n,) bool, the photos that show
    the object. scores: (n,), the final ones. features: (n, 3), `evidence`. probability, confidence:
    (n,).
    """

    gallery: str
    right: NDArray[np.bool_]
    scores: NDArray[np.float32]
    features: NDArray[np.float64]
    probability: NDArray[np.float64]
    confidence: NDArray[np.float64]

    @property
    def shown(self) -> NDArray[np.intp]:
        """The first matches, best first."""
        return np.argsort(-self.scores, kind="stable")[:SHOWN]


@dataclass(frozen=True)
class Gallery:
    """A gallery's index, and the extractor for queries.

    ids: (n_gallery,) int64, in the order of its photos.
    """

    reader: IndexReader
    ids: NDArray[np.int64]
    extractor: FeatureExtractor

    def scores(self, references: Sequence[Reference]) -> NDArray[np.float32]:
        """Scores without query expansion, (n_references, n_gallery) float32."""
        order = np.argsort(self.ids)
        prepared = [reference.for_scoring(self.extractor.device) for reference in references]
        rows = [
            score_references(
                self.reader, self.ids[order], prepared[at : at + TOGETHER], [SCORE], Clock()
            ).by_score[SCORE.name]
            for at in range(0, len(prepared), TOGETHER)
        ]
        found = np.empty((len(references), len(self.ids)), dtype=np.float32)
        found[:, order] = np.concatenate(rows)
        return found

    def ask(
        self,
        asked: BenchmarkQuery,
        query: Query,
        reference: Reference,
        scores: NDArray[np.float32],
        compared: tuple[str, NDArray[np.intp], int],
    ) -> Told:
        """Ask some of the photos, as a search does.

        query: as it is asked. scores: of all photos, without query expansion. compared: the name of
        this choice, its places in the gallery, and the number of photos that it was chosen from.
        """
        name, rows, searched = compared
        rows = rows[np.argsort(self.ids[rows])]
        chosen = choose_object(
            self.reader, query, reference, self.extractor, self.ids[rows], Clock()
        )
        if not np.array_equal(chosen.cells, reference.cells):
            reference, [scores] = chosen, self.scores([chosen])
        own = scores[rows]
        asked_for = [reference.for_scoring(self.extractor.device)]
        hashes = {reference.maps.content_hash}
        final = expand(
            self.reader, self.ids[rows], own[None], own, asked_for, hashes, SCORE, Clock()
        )
        nothing = np.zeros(len(rows), dtype=bool)  # the query's own photo is left out
        probability, confidence = probabilities(final, searched, nothing), confidences(own)
        assert probability is not None  # a gallery has at least 20 photos
        assert confidence is not None
        features = evidence(final, searched, nothing)
        return Told(name, np.isin(rows, asked.relevant), final, features, probability, confidence)


def galleries(
    asked: BenchmarkQuery,
    scores: NDArray[np.float32],
    rng: np.random.Generator,
    for_fit: bool,
) -> Iterator[tuple[str, NDArray[np.intp], int]]:
    """The photos that a query is asked of: their choice, and of how many they were chosen."""
    whole = np.setdiff1d(np.arange(len(scores)), asked.ignored)
    others = np.setdiff1d(whole, asked.relevant)
    yield "whole", whole, len(whole)
    if for_fit:
        relevant = asked.relevant
        some = rng.choice(relevant, rng.integers(len(relevant) + 1), replace=False)
        for name, shown in (("small", relevant), ("part", some)):
            chosen = rng.choice(others, random_count(len(others), rng), replace=False)
            yield name, np.concatenate([chosen, shown]), len(chosen) + len(shown)
        count = random_count(max(MINIMUM_PHOTOS, len(whole) // 2), rng)
        yield "best", whole[np.argsort(-scores[whole], kind="stable")[:count]], len(whole)
    yield "without", others, len(others)


def random_count(most: int, rng: np.random.Generator) -> int:
    """From 20 photos to `most`, as likely by their logarithm."""
    return round(np.exp(rng.uniform(np.log(MINIMUM_PHOTOS), np.log(most))))


def ask_all(
    benchmark: Benchmark, extractor: FeatureExtractor, for_fit: bool
) -> dict[str, list[list[Told]]]:
    """What each query was told, by its region and by its name; a list for each query."""
    single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
    both = METHODS["consistent"], METHODS["consistent-by-class"]
    methods = [method for method in both if isinstance(method, MapMethod)]
    told: dict[str, list[list[Told]]] = {}
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "photos.txt"
        listing.write_text("\n".join(str(photo.resolve()) for photo in benchmark.gallery))
        index_photos([listing], Path(folder) / "index", extractor, batch_size=extractor.batch_size)
        asked = [
            make_references([m.asks(query.query) for m in methods], single)
            for query in benchmark.queries
        ]
        with IndexReader.open(Path(folder) / "index") as reader:
            by_path = {record.path: record.id for record in reader.photos(reader.ids)}
            ids = np.array([by_path[photo.resolve()] for photo in benchmark.gallery])
            gallery = Gallery(reader, ids, single)
            for way, method, references in zip(
                WAYS, methods, zip(*asked, strict=True), strict=True
            ):
                rng = np.random.default_rng(0)
                told[way] = [
                    [
                        gallery.ask(query, method.asks(query.query), reference, scores, some)
                        for some in galleries(query, scores, rng, for_fit)
                    ]
                    for query, reference, scores in zip(
                        benchmark.queries, references, gallery.scores(references), strict=True
                    )
                ]
    return told


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram over the first matches of queries.

    told, right: (n,), what they were told, and whether they show the object.
    """

    title: str
    told: NDArray[np.float64]
    right: NDArray[np.bool_]

    def rows(self) -> Iterator[tuple[float, float, float, float, int]]:
        """For each bin with matches: its limits, the mean told, the share right, the number."""
        bins = np.digitize(self.told, BINS[1:-1])
        for number in np.unique(bins):
            some = bins == number
            low, high = BINS[number : number + 2]
            yield low, high, self.told[some].mean(), self.right[some].mean(), int(some.sum())

    @property
    def calibration_error(self) -> float:
        """ECE: the mean difference between what was told and the share that is right."""
        return float(
            sum(n * abs(told - right) for *_, told, right, n in self.rows()) / len(self.told)
        )

    @property
    def brier(self) -> float:
        return float(((self.told - self.right) ** 2).mean())

    def as_text(self) -> str:
        bins = "  ".join(
            f"{low:.1f}-{high:.1f}: {told:.2f} told, {right:.2f} right ({n})"
            for low, high, told, right, n in self.rows()
        )
        return f"{self.title}: ECE {self.calibration_error:.3f}, Brier {self.brier:.3f}\n  {bins}"

    def as_svg(self) -> str:
        """A square of 300 units: told to the right, right upwards; a dot's area is its number."""
        dots = "".join(
            f'<circle cx="{300 * told:.1f}" cy="{300 - 300 * right:.1f}" '
            f'r="{3 + 12 * (n / len(self.told)) ** 0.5:.1f}" fill="#0b57b0">'
            f"<title>{told:.2f} told, {right:.2f} right, {n} matches</title></circle>"
            for _, _, told, right, n in self.rows()
        )
        return (
            '<svg viewBox="-20 -20 340 350" width="340"><rect width="300" height="300" fill="none" '
            'stroke="#999"/><path d="M0 300L300 0" stroke="#999" stroke-dasharray="5"/>'
            f'{dots}<text x="150" y="322" text-anchor="middle">told, 0 to 1</text>'
            '<text transform="translate(-6 150)rotate(-90)" text-anchor="middle">right</text></svg>'
        )


def diagram(title: str, queries: Sequence[Sequence[Told]], number: str) -> Diagram:
    """number: "probability" or "confidence". Of the whole gallery."""
    whole = [told[0] for told in queries]
    return Diagram(
        title,
        np.concatenate([getattr(told, number)[told.shown] for told in whole]),
        np.concatenate([told.right[told.shown] for told in whole]),
    )


def false_alarms(queries: Sequence[Sequence[Told]], number: str) -> str:
    """Searches that find something, in percent."""
    parts = []
    for least in MINIMA:
        whole = np.array([getattr(told[0], number).max() >= least for told in queries])
        right = np.array([told[0].right[told[0].shown[0]] for told in queries])
        without = np.array([getattr(told[-1], number).max() >= least for told in queries])
        parts.append(
            f"at {least:g}: found, first match right {100 * (whole & right).mean():.0f}, wrong "
            f"{100 * (whole & ~right).mean():.0f}; false alarms {100 * without.mean():.0f}"
        )
    return "; ".join(parts)


def report(name: str, told: dict[str, list[list[Told]]]) -> Iterator[Diagram]:
    """Print what one benchmark shows, and give its diagrams."""
    for way, queries in told.items():
        for number in ("probability", "confidence"):
            found = diagram(f"{name}, by {way}, {number}", queries, number)
            print(found.as_text())
            print(f"  {false_alarms(queries, number)}", flush=True)
            yield found


def fit(benchmarks: Sequence[dict[str, list[list[Told]]]]) -> tuple[float, NDArray[np.float64]]:
    """The constant and the weights. Each benchmark counts as much, and so does each of its ways."""
    from sklearn.linear_model import LogisticRegression

    features, right, weights = [], [], []
    for told in benchmarks:
        for queries in told.values():
            for each in (each for query in queries for each in query):
                features.append(each.features)
                right.append(each.right)
                weights.append(np.full(len(each.right), WEIGHTS[each.gallery] / len(queries)))
    model = LogisticRegression(C=1e6, max_iter=10_000, tol=1e-8)
    sample_weight = 100 * np.concatenate(weights)
    model.fit(np.concatenate(features), np.concatenate(right), sample_weight=sample_weight)
    return float(model.intercept_[0]), model.coef_[0]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path, action="append", default=[])
    parser.add_argument("--folders", type=Path, action="append", default=[])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--html", type=Path)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    roots = [("scenes", root) for root in given.scenes] + [("folders", r) for r in given.folders]
    told = {
        f"{protocol} {root}": ask_all(read_benchmark(protocol, root), extractor, given.fit)
        for protocol, root in roots
    }
    diagrams = [found for name, each in told.items() for found in report(name, each)]
    if given.fit:
        constant, weights = fit([*told.values()])
        print(f"constant {constant:.3f}, weights {', '.join(f'{w:.3f}' for w in weights)}")
    if given.html:
        figures = "".join(
            f"<figure><figcaption>{escape(d.title)}: ECE {d.calibration_error:.3f}, Brier "
            f"{d.brier:.3f}</figcaption>{d.as_svg()}</figure>"
            for d in diagrams
        )
        given.html.write_text(
            '<!doctype html><meta charset="utf-8"><title>Reliability</title>'
            "<style>figure{display:inline-block;font:14px sans-serif;margin:12px;width:340px}"
            f"</style>{figures}",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
