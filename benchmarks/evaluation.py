"""How fast an evaluation scores a gallery, compared with as many single queries.

    python benchmarks/evaluation.py [--photos 10000] [--queries 16] [--tokens 40] [--device cuda]

Prints the last table of "How fast" in docs/scores.md. The maps are synthetic, of the shape of the
bundled model (16 x 16 cells, d = 160), in the standard codec. Single queries re-rank the whole
gallery one after the other, as `waldo query --candidates PHOTOS` does, and read its maps from the
disk each time. An evaluation scores a batch of queries at once. References are ready before either
begins. The two take turns; the numbers are medians of three.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import make_parser, seconds_of
from numpy.typing import NDArray
from PIL import Image
from synthetic import SyntheticExtractor

from features.photo import ModelInput
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.clock import Clock
from search.scoring.candidates import ScoringReference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES

GRID, DIM, SIZE = 16, 160, 64
REPETITIONS = 3


class DrawnMaps(SyntheticExtractor):
    """Maps of random tokens, drawn by the content of a photo from a fixed set."""

    image_size, grid, dim = SIZE, GRID, DIM

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        spectrum = (np.arange(DIM, dtype=np.float32) + 4) ** -0.7
        numbers = rng.standard_normal((40_000, DIM), dtype=np.float32)
        self._tokens = (numbers * spectrum + spectrum).astype(np.float16)

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        rng = np.random.default_rng(int(photo.content_hash[:8], 16))
        places = rng.integers(0, len(self._tokens), (2, GRID, GRID))
        return self._tokens[places[0]], self._tokens[places[1]]


def make_index(folder: Path, count: int) -> Path:
    """An index of `count` photos of different shapes."""
    photos = folder / "photos"
    photos.mkdir()
    sides = np.random.default_rng(0).integers(40, SIZE + 1, (count, 2))
    for number, (width, height) in enumerate(sides):
        colour = number % 256, number // 256 % 256, number // 65536
        Image.new("RGB", (int(width), int(height)), colour).save(photos / f"{number:06}.png")
    index_photos([photos], folder / "index", DrawnMaps(), batch_size=64)
    return folder / "index"


def make_references(count: int, tokens: int, device: torch.device) -> list[ScoringReference]:
    """References of random tokens at random cells, with a class vector."""
    rng = np.random.default_rng(3)
    references = []
    for _ in range(count):
        cells = rng.choice(GRID**2, tokens, replace=False)
        positions = np.stack([cells // GRID, cells % GRID], axis=1).astype(np.float32)
        vectors = rng.standard_normal((tokens + 1, DIM), dtype=np.float32)
        references.append(
            ScoringReference(
                *(
                    torch.from_numpy(array).to(device)
                    for array in (vectors[1:], vectors[1:], vectors[0], positions)
                )
            )
        )
    return references


def compare(
    reader: IndexReader, names: list[str], references: list[ScoringReference], singles: int
) -> tuple[float, float, float]:
    """Seconds per query, one by one and at once, and the largest difference of their scores.

    singles: how many of the references are asked one by one.
    """
    device = references[0].tokens.device
    scores = [SCORES[name] for name in names]
    alone: list[NDArray[np.float32]] = []
    together: dict[str, NDArray[np.float32]] = {}

    def one_by_one() -> None:
        alone[:] = [
            score_references(reader, reader.ids, [reference], [score], Clock()).by_score[score.name]
            for score in scores
            for reference in references[:singles]
        ]

    def at_once() -> None:
        found = score_references(reader, reader.ids, references, scores, Clock())
        together.update(found.by_score)

    both = []
    for _ in range(REPETITIONS + 1):
        single = seconds_of(one_by_one, device=device) / singles
        both.append((single, seconds_of(at_once, device=device) / len(references)))
    single, batched = (statistics.median(each[1:]) for each in zip(*both, strict=True))
    found = np.concatenate([together[name][:singles] for name in names])
    return single, batched, float(np.abs(found - np.concatenate(alone)).max())


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--singles", type=int, default=2, help="queries that are asked one by one")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    references = make_references(given.queries, given.tokens, device)
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder), given.photos)
        with IndexReader.open(index) as reader:
            print(
                f"{reader.n_photos} photos of {reader.photo_bytes} bytes, {given.tokens} tokens "
                f"per query, {given.queries} queries at once, {torch.get_num_threads()} threads, "
                f"{device}"
            )
            print(f"{'ms per query':24}{'single':>10}{'batched':>10}{'ratio':>8}{'differ by':>12}")
            for names in (["consistent"], ["late"], ["consistent", "late"], [*SCORES]):
                single, batched, apart = compare(reader, names, references, given.singles)
                what = ", ".join(names) if len(names) < len(SCORES) else "all scores"
                print(
                    f"{what:24}{1000 * single:10.0f}{1000 * batched:10.0f}"
                    f"{single / batched:8.1f}{apart:12.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
