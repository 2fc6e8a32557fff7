"""How fast candidates are re-ranked, beside other ways to do the same work and beside the floor.

    python benchmarks/rerank.py [--fast-plaid PYTHON] [--device cuda]

400 candidates' maps of 32 x 32 cells, d = 640 (SDXL's shape), made up: a spectrum that falls off,
random tokens, a quarter of each map padding. One run, ways in turn, medians. PYTHON is the
interpreter of an environment in which fast-plaid is installed.

The floor is what no way of doing this work can go below on this machine: the bytes of the encoded
maps over the bandwidth of memory, plus a bfloat16 matrix product of that size at the best rate seen
here, plus taking the maximum of so many cosines, all measured in the same run.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from synthetic import SyntheticExtractor
from torch.nn import functional

from features.frame import Frame
from features.photo import ModelInput
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader, MapBatch
from search.clock import Clock
from search.rerank import rerank, score_maps
from search.scores import SCORES, ScoringReference

PHOTOS, GRID, DIM, SIZE = 400, 32, 640, 64
CELLS = GRID**2
# The published code looks for matches in other features than it scores: of decoder block 1.
MATCH_DIM = 1280
REPETITIONS = 5


class FreshMaps(SyntheticExtractor):
    """Maps drawn anew for every photo."""

    image_size, grid, dim = SIZE, GRID, DIM

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        rng = np.random.default_rng(int(photo.content_hash[:8], 16))
        spectrum = (np.arange(DIM, dtype=np.float32) + 4) ** -0.7
        numbers = rng.standard_normal((2, GRID, GRID, DIM), dtype=np.float32)
        appearance, semantic = (numbers * spectrum + spectrum).astype(np.float16)
        return appearance, semantic


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of a call, after one to warm up."""
    seconds = []
    for _ in range(REPETITIONS + 1):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def loop_over_candidates(tokens: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor) -> object:
    """Late interaction in float32, candidate by candidate. tokens: (n, d), maps: (k, cells, d)."""
    wanted = functional.normalize(tokens, dim=1)
    scores = []
    for cells, inside in zip(maps, valid, strict=True):
        found = functional.normalize(cells.float()[inside], dim=1)
        scores.append((wanted @ found.T).amax(dim=1).mean())
    return torch.stack(scores)


def einsum(tokens: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor) -> object:
    """The same in one expression, over float32 unit vectors that lie ready."""
    cosines = torch.einsum("nd,kcd->knc", functional.normalize(tokens, dim=1), maps)
    return cosines.masked_fill(~valid[:, None], -1.0).amax(dim=2).mean(dim=1)


def published_loop(
    queries: torch.Tensor,
    matches: torch.Tensor,
    tokens: Sequence[torch.Tensor],
    maps: Sequence[torch.Tensor],
) -> object:
    """The published code's score of one candidate, by its description: for every reference token
    the most similar cell in one set of features, then the cosine of two others at that cell.

    queries: (n, 1280) and matches: (cells, 1280). tokens: Q and K, (n, d). maps: Q, K (cells, d).
    """
    total = torch.zeros(())
    for number, query in enumerate(queries):
        cosines = functional.cosine_similarity(query[None], matches)
        best = int(cosines.argmax())
        for own, other in zip(tokens, maps, strict=True):
            total += cosines[best] * functional.cosine_similarity(own[number], other[best], dim=0)
    return total / (2 * len(queries))


def floor_seconds(photo_bytes: int, kept: int, tokens: int, device: torch.device) -> list[float]:
    """Reading, multiplying and taking the maximum, seconds each."""
    memory = torch.zeros(512 * 2**20 // 8, dtype=torch.int64, device=device)
    reading = median_seconds(memory.sum, device) / memory.nbytes * PHOTOS * photo_bytes
    rates = []
    for rows, inner, columns in ((4096, 4096, 4096), (8192, kept, tokens), (2048, 1024, 2048)):
        a = torch.randn(rows, inner, device=device).bfloat16()
        b = torch.randn(inner, columns, device=device).bfloat16()
        product = median_seconds(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
        rates.append(2 * rows * inner * columns / product)
    multiplying = 2 * PHOTOS * CELLS * kept * tokens / max(rates)
    block = torch.randn(8, tokens, CELLS, device=device).bfloat16()
    maximum = median_seconds(lambda: block.amax(dim=2), device) * PHOTOS / len(block)
    return [reading, multiplying, maximum]


def fast_plaid_seconds(
    python: Path, folder: Path, tokens: torch.Tensor, cells: list[torch.Tensor]
) -> float:
    """fast-plaid over the same cells with all candidates scored in full, in its own environment."""
    np.save(folder / "tokens.npy", functional.normalize(tokens, dim=1).half().numpy())
    np.save(folder / "cells.npy", torch.stack(cells).half().numpy())
    script = f"""
import json, statistics, time, numpy as np, torch
from fast_plaid import search
tokens = torch.from_numpy(np.load({str(folder / "tokens.npy")!r})).float()
cells = torch.from_numpy(np.load({str(folder / "cells.npy")!r})).float()
engine = search.FastPlaid(index={str(folder / "plaid")!r}, device="cpu")
engine.create(documents_embeddings=list(cells))
seconds = []
for _ in range({REPETITIONS + 1}):
    begin = time.perf_counter()
    found = engine.search(queries_embeddings=tokens[None], top_k=20, n_full_scores={PHOTOS},
                          n_ivf_probe=4096)
    seconds.append(time.perf_counter() - begin)
print(json.dumps(statistics.median(seconds[1:])))
"""
    command = [str(python), "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def make_index(folder: Path) -> Path:
    photos = folder / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        picture = np.random.default_rng(number).integers(0, 256, (48, SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(photos / f"{number:04}.png")
    index_photos([photos], folder / "index", FreshMaps())
    return folder / "index"


def mean_of(reader: IndexReader) -> torch.Tensor:
    """(DIM,): the mean that the codec subtracts from appearance."""
    return reader.tokens(reader.read_maps(reader.ids[:1]))[0].mean


def raw_maps(reader: IndexReader) -> Iterator[torch.Tensor]:
    """What the codec was given: appearance about the mean, (cells, d) float16 each."""
    mean = mean_of(reader).numpy()
    for record in reader.photos(reader.ids):
        frame = Frame(record.width, record.height, SIZE, GRID)
        photo = ModelInput(np.zeros((SIZE, SIZE, 3), np.uint8), frame, record.content_hash, None)
        [maps] = FreshMaps().extract([photo])
        centred = maps.appearance.astype(np.float32).reshape(CELLS, DIM) - mean
        yield torch.from_numpy(centred.astype(np.float16))


def ways(
    given: argparse.Namespace,
    folder: Path,
    reader: IndexReader,
    held: IndexReader,
    maps: MapBatch,
    count: int,
) -> tuple[list[float], dict[str, float]]:
    """The floor's parts, and every way's seconds, for a reference of `count` tokens.

    held: reads as `reader`, but has its maps in memory.
    """
    device = torch.device(given.device)
    raw = torch.stack([*raw_maps(reader)]).to(device)
    valid = torch.from_numpy(maps.valid).to(device)
    rng = np.random.default_rng(3)
    chosen = torch.from_numpy(rng.choice(np.flatnonzero(maps.valid[0]), count, replace=False))
    mean = mean_of(reader).to(device)
    tokens = raw[0, chosen.to(device)].float()
    positions = torch.stack([chosen // GRID, chosen % GRID], dim=1).float().to(device)
    reference = ScoringReference(tokens + mean, tokens, None, positions)

    def ours(name: str) -> float:
        return median_seconds(lambda: score_maps(reader, maps, reference, SCORES[name]), device)

    found: dict[str, float] = {}
    for name in ("late", "consistent"):
        found[f"ours, {name}, encoded maps in memory"] = ours(name)
    for place, of in (("disk", reader), ("memory", held)):
        found[f"ours, consistent, and fetching from {place}"] = median_seconds(
            lambda of=of: rerank(of, of.ids, reference, SCORES["consistent"], Clock()),  # type: ignore[misc]
            device,
        )
    levels = reader.tokens(maps, device)[0].levels
    found["loop in float32, raw maps"] = median_seconds(
        lambda: loop_over_candidates(tokens, raw, valid), device
    )
    decoded = reader.decode(maps, device)[0] - mean
    found["loop in float32, decoded maps"] = median_seconds(
        lambda: loop_over_candidates(tokens, decoded, valid), device
    )
    units = functional.normalize(decoded, dim=2)
    found["einsum in float32, decoded unit vectors"] = median_seconds(
        lambda: einsum(tokens, units, valid), device
    )
    queries, matches = torch.randn(count, MATCH_DIM), torch.randn(CELLS, MATCH_DIM)
    both = [tokens.cpu()] * 2, [raw[1].float().cpu()] * 2
    begin = time.perf_counter()
    published_loop(queries, matches, *both)
    found["the published code's loop (one candidate, times 400)"] = PHOTOS * (
        time.perf_counter() - begin
    )
    if given.fast_plaid is not None:
        basis = reader.tokens(maps, "cpu")[0].basis
        assert basis is not None
        cells = [*functional.normalize(levels.float(), dim=2).cpu()]
        kept = tokens.cpu() @ basis.T
        found["fast-plaid"] = fast_plaid_seconds(given.fast_plaid, folder, kept, cells)
    floor = floor_seconds(reader.photo_bytes, levels.shape[2], count, device)
    return floor, found


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast candidates are re-ranked.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast-plaid", type=Path, metavar="PYTHON")
    parser.add_argument("--tokens", type=int, nargs="*", default=[100, 200, 300])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder))
        with IndexReader.open(index) as reader, IndexReader.open(index) as held:
            held.hold_maps(torch.device(given.device))
            maps = reader.read_maps(reader.ids)
            share = 100 * np.mean(~maps.valid)
            print(
                f"{PHOTOS} candidates of {reader.photo_bytes} bytes, {CELLS} cells of d = {DIM}, "
                f"{share:.0f} % padding, {torch.get_num_threads()} threads, {given.device}"
            )
            for count in given.tokens:
                with torch.inference_mode():
                    floor, found = ways(given, Path(folder), reader, held, maps, count)
                least = sum(floor)
                parts = " + ".join(f"{1000 * part:.1f}" for part in floor)
                print(f"\n{count} tokens; the floor is {parts} = {1000 * least:.1f} ms")
                own = found["ours, late, encoded maps in memory"]
                for name, seconds in found.items():
                    print(
                        f"{name:54}{1000 * seconds:12.1f} ms{seconds / least:9.1f} x floor"
                        f"{seconds / own:9.1f} x ours"
                    )


if __name__ == "__main__":
    main()
