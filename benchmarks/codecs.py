"""What each quality of the maps' codec costs, beside a product quantiser of the same size.

    python benchmarks/codecs.py --root data/scenes --folders DIR

Features are taken once; the gallery goes through each codec, queries do not. Every codec is fitted
on at most 256 photos of the gallery. A loss is paired, query by query, with its 95 % bootstrap
interval. "as SDXL" is quality "standard" with as many numbers a token as it keeps for d = 640.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import load_model_input
from indexer.codec.codec import Codec
from indexer.codec.quality import LOSSY, QUALITIES, LossyQuality, packed_bytes, token_sizes
from indexer.codec.tokens import TokenMap
from search.candidates import CandidateMaps, ScoringReference
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.methods import MapMethod, select_methods
from search.evaluation.metrics.ranking import average_precision, bootstrap_interval
from search.reference import make_reference

_METHODS = {"late": "by mask or box", "late-by-class": "by class name"}
_SAMPLE = 256
_GALLERY_BATCH = 64
_SEED = 0


class MapCodec(Protocol):
    """What the rival has in common with `Codec`."""

    def encode(
        self, appearance: NDArray[np.float16], semantic: NDArray[np.float16]
    ) -> NDArray[np.uint8]: ...

    def decode(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


class TokenQuantiser:
    """OPQ (Ge et al., CVPR 2013) of one map's tokens about their mean: the direction by faiss, two
    numbers a byte as PCA keeps them, the length in one byte.
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
        # 128 tokens a centroid.
        picks = np.random.default_rng(_SEED).permutation(len(tokens))[: 256 * 128]
        self.index.train(directions[picks])

    def _polar(
        self, tokens: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        centred = tokens - self.mean
        lengths = np.maximum(np.linalg.norm(centred, axis=1), np.float32(1e-9))
        return lengths, centred / lengths[:, None]

    def encode(self, maps: NDArray[np.float16]) -> NDArray[np.uint8]:
        """(n, grid, grid, d) as (n, cells, code bytes + 1)."""
        lengths, directions = self._polar(maps.reshape(-1, maps.shape[-1]).astype(np.float32))
        nearest = np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, lengths)
        codes = self.index.sa_encode(directions)
        encoded = np.concatenate([codes, nearest[:, None].astype(np.uint8)], axis=1)
        return encoded.reshape(len(maps), -1, encoded.shape[1])

    def decode(self, encoded: NDArray[np.uint8]) -> torch.Tensor:
        """(n, cells, code bytes + 1) as (n, cells, d) float32."""
        flat = encoded.reshape(-1, encoded.shape[2])
        directions = self.index.sa_decode(np.ascontiguousarray(flat[:, :-1]))
        tokens = directions * self.levels[flat[:, -1], None] + self.mean
        return torch.from_numpy(tokens.reshape(*encoded.shape[:2], -1))


class ProductQuantiser:
    """The rival: `TokenQuantiser` for either map. code_bytes: a token of F_A, and of F_S."""

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

    maps: of the gallery. valid: (n, cells) bool. methods: the scores compared. references: by
    method, one a query. classes: (queries, d) float32, their C.
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
    """size: bytes a photo. encoded, decoded: photos a second. precisions: by method, (queries,).

    errors: mean squared error of inner products, of F_A with the queries' tokens (about the mean)
    and of F_S with their class vectors, in parts of the inner products' variance.
    """

    size: int
    encoded: float
    decoded: float
    precisions: dict[str, NDArray[np.float64]]
    errors: tuple[float, float]


def measure(collection: Collection, chosen: MapCodec) -> Outcome:
    """The gallery through a codec, and every query put to it."""
    benchmark = collection.benchmark
    scores = {
        method.name: np.empty((len(benchmark.queries), len(collection.maps)), dtype=np.float32)
        for method in collection.methods
    }
    # Sums of (asked . x)^2, x being the error, and the token about the mean.
    lost, whole = np.zeros(2), np.zeros(2)
    encoding = decoding = 0.0
    centres = [
        torch.from_numpy(part.copy())
        for part in np.split(np.mean([m.pooled() for m in collection.maps], axis=0), 2)
    ]
    tokens = torch.cat([r.tokens - centres[0] for r in collection.references["late"]])
    asked = (tokens, collection.classes)
    for start in range(0, len(collection.maps), _GALLERY_BATCH):
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
        for i in range(2):
            true = torch.from_numpy(raw[i]).float().flatten(1, 2)
            error, centred = (decoded[i] - true)[valid], (true - centres[i])[valid]
            moment = asked[i].T @ asked[i]
            lost[i] += float(torch.sum((error @ moment) * error))
            whole[i] += float(torch.sum((centred @ moment) * centred))
        plain = map(TokenMap.plain, decoded, centres)
        candidates = CandidateMaps(*plain, valid)
        for method in collection.methods:
            for row, reference in enumerate(collection.references[method.name]):
                found = method.score.function(reference, candidates)
                scores[method.name][row, rows] = found.numpy()
    precisions = {
        name: np.array(
            [
                average_precision(query.relevant[~query.ignored], row[~query.ignored])
                for query, row in zip(benchmark.queries, found, strict=True)
            ]
        )
        for name, found in scores.items()
    }
    count = len(collection.maps)
    errors = lost / whole
    return Outcome(
        encoded.shape[1],
        count / encoding,
        count / decoding,
        precisions,
        (float(errors[0]), float(errors[1])),
    )


def codecs(
    collection: Collection, vocabulary: NDArray[np.float32]
) -> Iterator[tuple[str, MapCodec]]:
    """Every codec of the table, fitted on the collection's sample; the raw one first."""
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
    parser = argparse.ArgumentParser(description="What each quality of stored maps costs.")
    parser.add_argument("--root", type=Path, default=Path("data/scenes/validation"))
    parser.add_argument("--folders", type=Path, help="a folders benchmark to measure on as well")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    vocabulary = extractor.vocabulary_vectors()
    chosen = [("scenes", given.root)]
    if given.folders is not None:
        chosen.append(("folders", given.folders))
    for protocol, root in chosen:
        table = Table(title=f"{given.model} on {root.name}: mAP, and what is lost", box=None)
        for column in ("codec", "bytes a photo", "bits a token"):
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
