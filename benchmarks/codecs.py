"""What each quality of the codec costs, compared with a product quantiser of the same size.

    python benchmarks/codecs.py --root data/scenes --folders DIR

Prints the table "What each quality costs" of docs/store.md. Features are extracted once; the
gallery goes through each codec, queries do not. Every codec is fitted to at most 256 photos of the
gallery. Losses are paired by query, with 95 % bootstrap intervals. "standard, as SDXL" is quality
"standard" with as many numbers per token as it keeps for d = 640.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import faiss
import numpy as np
import torch
from harness import add_model_options, make_parser
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import load_model_input
from indexer.codec.codec import Codec
from indexer.codec.quality import LOSSY, QUALITIES, LossyQuality, packed_bytes, token_sizes
from indexer.codec.tokens import TokenMap
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.methods import MapMethod, select_methods
from search.evaluation.metrics.measured import query_precision
from search.evaluation.metrics.ranking import bootstrap_interval
from search.reference import make_reference
from search.scoring.candidates import CandidateMaps, ScoringReference

_METHODS = {"late": "by mask or box", "late-by-class": "by class name"}
_SAMPLE = 256
_GALLERY_BATCH = 64
_SEED = 0


class MapCodec(Protocol):
    """`Codec` and its rival: feature maps to bytes and back."""

    def encode(
        self, appearance: NDArray[np.float16], semantic: NDArray[np.float16]
    ) -> NDArray[np.uint8]: ...

    def decode(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


class TokenQuantiser:
    """OPQ (Ge et al., CVPR 2013) of the tokens of one map, centred on their mean.

    FAISS encodes the direction of a token, with as many components as two per byte; the length
    takes one byte.
    """

    def __init__(self, tokens: NDArray[np.float32], code_bytes: int) -> None:
        self.mean = tokens.mean(axis=0)
        lengths, directions = self._polar(tokens)
        self.levels = np.quantile(lengths, (np.arange(256) + 0.5) / 256).astype(np.float32)
        dim = tokens.shape[1]
        kept = min(dim, 2 * code_bytes)
        opq = faiss.OPQMatrix(dim, code_bytes, kept)
        opq.niter = 20
        self.index = faiss.IndexPreTransform(opq, faiss.IndexPQ(kept, code_bytes, 8))
        # FAISS is trained with 128 tokens per centroid.
        picks = np.random.default_rng(_SEED).permutation(len(tokens))[: 256 * 128]
        self.index.train(directions[picks])

    def _polar(
        self, tokens: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        centred = tokens - self.mean
        lengths = np.maximum(np.linalg.norm(centred, axis=1), np.float32(1e-9))
        return lengths, centred / lengths[:, None]

    def encode(self, maps: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Maps (n, grid, grid, d) as bytes (n, cells, code bytes + 1)."""
        lengths, directions = self._polar(maps.reshape(-1, maps.shape[-1]).astype(np.float32))
        nearest = np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, lengths)
        codes = self.index.sa_encode(directions)
        encoded = np.concatenate([codes, nearest[:, None].astype(np.uint8)], axis=1)
        return encoded.reshape(len(maps), -1, encoded.shape[1])

    def decode(self, encoded: NDArray[np.uint8]) -> torch.Tensor:
        """Bytes (n, cells, code bytes + 1) as tokens (n, cells, d) float32."""
        flat = encoded.reshape(-1, encoded.shape[2])
        directions = self.index.sa_decode(np.ascontiguousarray(flat[:, :-1]))
        tokens = directions * self.levels[flat[:, -1], None] + self.mean
        return torch.from_numpy(tokens.reshape(*encoded.shape[:2], -1))


class ProductQuantiser:
    """The rival: a `TokenQuantiser` for each map. code_bytes: per token of F_A, and of F_S."""

    def __init__(self, sample: list[FeatureMaps], code_bytes: tuple[int, int]) -> None:
        self.split = code_bytes[0] + 1
        valid = [maps.frame.valid() for maps in sample]
        both = [[m.appearance for m in sample], [m.semantic for m in sample]]
        self.appearance, self.semantic = (
            TokenQuantiser(
                np.concatenate([a[v] for a, v in zip(arrays, valid, strict=True)]).astype(
                    np.float32
                ),
                size,
            )
            for arrays, size in zip(both, code_bytes, strict=True)
        )
        self.cells = valid[0].size

    def encode(
        self, appearance: NDArray[np.float16], semantic: NDArray[np.float16]
    ) -> NDArray[np.uint8]:
        parts = [self.appearance.encode(appearance), self.semantic.encode(semantic)]
        return np.concatenate(parts, axis=2).reshape(len(appearance), -1)

    def decode(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = encoded.numpy().reshape(len(encoded), self.cells, -1)
        return (
            self.appearance.decode(tokens[:, :, : self.split]),
            self.semantic.decode(tokens[:, :, self.split :]),
        )


@dataclass(frozen=True)
class Collection:
    """A benchmark and its features.

    maps: of the gallery. valid: (n, cells) bool, of the gallery. methods: the scores that are
    compared. references: one per query, by method. classes: (queries, d) float32, the C of queries.
    """

    benchmark: Benchmark
    maps: list[FeatureMaps]
    valid: torch.Tensor
    methods: list[MapMethod]
    references: dict[str, list[ScoringReference]]
    classes: torch.Tensor

    @classmethod
    def of(cls, benchmark: Benchmark, extractor: FeatureExtractor) -> "Collection":
        photos = [
            load_model_input(path, extractor.image_size, extractor.grid)
            for path in benchmark.gallery
        ]
        maps = extractor.extract(photos)
        valid = torch.from_numpy(np.stack([m.frame.valid().ravel() for m in maps]))
        single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
        methods = [m for m in select_methods([*_METHODS], benchmark) if isinstance(m, MapMethod)]
        references = {
            method.name: [
                make_reference(method.asks(asked.query), single).for_scoring(torch.device("cpu"))
                for asked in benchmark.queries
            ]
            for method in methods
        }
        vectors = [reference.class_vector for reference in references["late-by-class"]]
        classes = torch.stack([vector for vector in vectors if vector is not None])
        return cls(benchmark, maps, valid, methods, references, classes)

    @property
    def sample(self) -> list[FeatureMaps]:
        picks = np.random.default_rng(_SEED).permutation(len(self.maps))[:_SAMPLE]
        return [self.maps[i] for i in picks]


@dataclass(frozen=True)
class Outcome:
    """What a codec costs.

    size: bytes per photo. encoded, decoded: photos per second. precisions: (queries,) by method.
    errors: the mean squared errors of two inner products, relative to their variances: of centred
    F_A with the tokens of queries, and of F_S with their class vectors.
    """

    size: int
    encoded: float
    decoded: float
    precisions: dict[str, NDArray[np.float64]]
    errors: tuple[float, float]


@dataclass
class InnerProductErrors:
    """Sums over tokens x of (c . x)^2, for all c of `asked`, for F_A and for F_S.

    asked: what the tokens of each map are multiplied with, (m, d) each. lost: for the errors of the
    codec. whole: for the centred tokens.
    """

    asked: tuple[torch.Tensor, torch.Tensor]
    lost: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    whole: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, number: int, error: torch.Tensor, centred: torch.Tensor) -> None:
        """Add some tokens of one map, (n, d) each. number: 0 for F_A, 1 for F_S."""
        moment = self.asked[number].T @ self.asked[number]
        self.lost[number] += float(torch.sum((error @ moment) * error))
        self.whole[number] += float(torch.sum((centred @ moment) * centred))


def measure(collection: Collection, chosen: MapCodec) -> Outcome:
    """Send the gallery through a codec, and put every query to the result."""
    benchmark, count = collection.benchmark, len(collection.maps)
    scores = {
        method.name: np.empty((len(benchmark.queries), count), dtype=np.float32)
        for method in collection.methods
    }
    encoding = decoding = 0.0
    centres = [
        torch.from_numpy(part.copy())
        for part in np.split(np.mean([m.pooled() for m in collection.maps], axis=0), 2)
    ]
    tokens = torch.cat([r.tokens - centres[0] for r in collection.references["late"]])
    errors = InnerProductErrors((tokens, collection.classes))
    for start in range(0, count, _GALLERY_BATCH):
        rows = slice(start, start + _GALLERY_BATCH)
        raw = [
            np.stack([m.appearance for m in collection.maps[rows]]),
            np.stack([m.semantic for m in collection.maps[rows]]),
        ]
        begun = time.perf_counter()
        encoded = chosen.encode(*raw)
        encoding += time.perf_counter() - begun
        begun = time.perf_counter()
        decoded = chosen.decode(torch.from_numpy(encoded))
        decoding += time.perf_counter() - begun
        valid = collection.valid[rows]
        for number in range(2):
            true = torch.from_numpy(raw[number]).float().flatten(1, 2)
            errors.add(number, (decoded[number] - true)[valid], (true - centres[number])[valid])
        candidates = CandidateMaps(*map(TokenMap.plain, decoded, centres), valid)
        for method in collection.methods:
            for row, reference in enumerate(collection.references[method.name]):
                found = method.score.function(reference, candidates)
                scores[method.name][row, rows] = found.numpy()
    precisions = {name: precisions_of(benchmark, found) for name, found in scores.items()}
    in_maps = errors.lost / errors.whole
    return Outcome(
        encoded.shape[1],
        count / encoding,
        count / decoding,
        precisions,
        (float(in_maps[0]), float(in_maps[1])),
    )


def precisions_of(benchmark: Benchmark, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The average precision of each query, (queries,). scores: (queries, gallery)."""
    return np.array(
        [query_precision(query, row) for query, row in zip(benchmark.queries, scores, strict=True)]
    )


def codecs(
    collection: Collection, vocabulary: NDArray[np.float32]
) -> Iterator[tuple[str, MapCodec]]:
    """Every codec of the table by name, fitted to the sample of the collection; "none" first."""
    sample = collection.sample
    for quality in QUALITIES:
        yield quality, Codec.fit(quality, sample, vocabulary)
    standard = LOSSY["standard"]
    of_sdxl = LossyQuality(standard.bits, (32, standard.appearance[1]), (32, standard.semantic[1]))
    with patch.dict(LOSSY, standard=of_sdxl):
        widest = Codec.fit("standard", sample, vocabulary)
    yield "standard, as SDXL", widest
    sizes = token_sizes("standard", vocabulary.shape[1])
    assert sizes is not None
    appearance = packed_bytes(sizes.appearance, sizes.bits)
    semantic = packed_bytes(sizes.semantic, sizes.bits)
    yield "OPQ, size of standard", ProductQuantiser(sample, (appearance, semantic))


def add_rows(table: Table, collection: Collection, vocabulary: NDArray[np.float32]) -> None:
    """Measure every codec, and add its row to the table."""
    cells = collection.valid.shape[1]
    raw: Outcome | None = None
    for name, chosen in codecs(collection, vocabulary):
        outcome = measure(collection, chosen)
        raw = raw or outcome
        columns = []
        for method in _METHODS:
            own = outcome.precisions[method]
            more = own - raw.precisions[method]
            low, high = bootstrap_interval(100 * more)
            columns.append(f"{100 * own.mean():.1f}")
            columns.append(f"{100 * more.mean():+.2f} ({low:+.2f} to {high:+.2f})")
        table.add_row(
            name,
            f"{outcome.size:,}",
            f"{8 * outcome.size / cells:.0f}",
            *columns,
            *(f"{100 * error:.2f}" for error in outcome.errors),
            f"{outcome.encoded:.0f}",
            f"{outcome.decoded:.0f}",
        )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/scenes/validation"))
    parser.add_argument("--folders", type=Path, help="a folders benchmark to measure on as well")
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    vocabulary = extractor.vocabulary_vectors()
    chosen = [("scenes", given.root)]
    if given.folders is not None:
        chosen.append(("folders", given.folders))
    for protocol, root in chosen:
        table = Table(title=f"{given.model} on {root.name}: mAP, and what is lost", box=None)
        for column in ("codec", "bytes per photo", "bits per token"):
            table.add_column(column, no_wrap=True)
        for column in _METHODS.values():
            table.add_column(column, justify="right")
            table.add_column("minus raw (95 %)", no_wrap=True)
        for column in ("error F_A %", "error F_S %", "encoded /s", "decoded /s"):
            table.add_column(column, justify="right")
        with torch.inference_mode():
            collection = Collection.of(read_benchmark(protocol, root), extractor)
            add_rows(table, collection, vocabulary)
        Console(width=180).print(table)


if __name__ == "__main__":
    main()
