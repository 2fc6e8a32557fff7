"""How fast candidates are re-ranked by each kernel, compared with other ways and with a floor.

    python benchmarks/rerank.py [--fast-plaid PYTHON] [--device cuda] [--tokens 100 200 300]

Prints the first tables of "How fast" in docs/scores.md. 400 candidates have synthetic maps of
32 x 32 cells and d = 640 (the shape of SDXL), random tokens with falling variances, of which a
quarter is padding. The ways are measured one after the other in one run; the numbers are medians.
PYTHON is the interpreter of an environment in which fast-plaid is installed.

No way of doing this work can be faster than the floor on this machine. It is the sum of three
times, all measured in the same run: the bytes of the encoded maps over the memory bandwidth, a
matrix product of that size at the best rate that any kernel's product reaches, and the maximum of
so many cosines.

On a CPU with AVX-512 the kernels are measured a second time in a process in which torch, oneDNN,
MKL and FBGEMM are held to AVX2. A CPU that has no more may still be slower at some products.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import make_parser, median_seconds, seconds_of
from numpy.typing import NDArray
from PIL import Image
from synthetic import SyntheticExtractor
from torch.nn import functional

from features.frame import Frame
from features.photo import ModelInput
from indexer.codec.kernels import FORCED_BY, KERNELS, choose_kernel, offered_kernels
from indexer.codec.machine import describe_machine
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader, MapBatch
from search.clock import Clock
from search.scoring.candidates import ScoringReference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES

PHOTOS, GRID, DIM, SIZE = 400, 32, 640, 64
CELLS = GRID**2
# The published code finds matches in the features of decoder block 1, and scores other features.
MATCH_DIM = 1280
REPETITIONS = 5

HELD_TO_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
}
# A product slower than another by this factor is not tried at larger shapes.
HOPELESS = 4


class FreshMaps(SyntheticExtractor):
    """Random maps, different for every photo."""

    image_size, grid, dim = SIZE, GRID, DIM

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        rng = np.random.default_rng(int(photo.content_hash[:8], 16))
        spectrum = (np.arange(DIM, dtype=np.float32) + 4) ** -0.7
        numbers = rng.standard_normal((2, GRID, GRID, DIM), dtype=np.float32)
        appearance, semantic = (numbers * spectrum + spectrum).astype(np.float16)
        return appearance, semantic


def loop_over_candidates(tokens: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor) -> object:
    """Late interaction in float32, candidate by candidate. tokens: (n, d), maps: (k, cells, d)."""
    wanted = functional.normalize(tokens, dim=1)
    scores = []
    for cells, inside in zip(maps, valid, strict=True):
        found = functional.normalize(cells.float()[inside], dim=1)
        scores.append((wanted @ found.T).amax(dim=1).mean())
    return torch.stack(scores)


def einsum(tokens: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor) -> object:
    """Late interaction in one expression. maps: float32 unit vectors, (k, cells, d)."""
    cosines = torch.einsum("nd,kcd->knc", functional.normalize(tokens, dim=1), maps)
    return cosines.masked_fill(~valid[:, None], -1.0).amax(dim=2).mean(dim=1)


def published_loop(
    queries: torch.Tensor,
    matches: torch.Tensor,
    tokens: Sequence[torch.Tensor],
    maps: Sequence[torch.Tensor],
) -> object:
    """The score of one candidate as the published code is described.

    For every token of the reference, the most similar cell is found in one kind of features; then
    the cosines of two other kinds at that cell are taken. queries: (n, 1280). matches:
    (cells, 1280). tokens: Q and K, (n, d) each. maps: Q and K, (cells, d) each.
    """
    total = torch.zeros(())
    for number, query in enumerate(queries):
        cosines = functional.cosine_similarity(query[None], matches)
        best = int(cosines.argmax())
        for own, other in zip(tokens, maps, strict=True):
            total += cosines[best] * functional.cosine_similarity(own[number], other[best], dim=0)
    return total / (2 * len(queries))


def product_rates(kept: int, tokens: int, device: torch.device) -> dict[str, float]:
    """The most operations per second that the product of each kernel reaches, at three shapes."""
    products: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
        "float32": lambda a, b: a @ b,
        "bfloat16": lambda a, b: a @ b,
        "int8": lambda a, b: torch._int_mm(a, b),
    }
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
    names = [name for name in products if device.type == "cpu" or name != "int8"]
    rates: dict[str, float] = {}
    for rows, inner, columns in ((8192, kept, tokens), (2048, 1024, 2048), (4096, 4096, 4096)):
        for name in names:
            if name in rates and rates[name] * HOPELESS < max(rates.values()):
                continue
            a = (8 * torch.randn(rows, inner, device=device)).to(types[name])
            b = (8 * torch.randn(inner, columns, device=device)).to(types[name])
            product = median_seconds(lambda a=a, b=b, n=name: products[n](a, b), device=device)  # type: ignore[misc]
            rates[name] = max(rates.get(name, 0.0), 2 * rows * inner * columns / product)
    if device.type == "cpu" and KERNELS["fbgemm"].is_offered():
        kernel = KERNELS["fbgemm"](functional.normalize(torch.randn(tokens, kept), dim=1))
        levels = torch.randint(-8, 8, (8192, kept)).to(torch.int8)
        numbers = levels.float()
        seconds = median_seconds(lambda: kernel.multiply(levels, numbers))
        rates["fbgemm"] = 2 * levels.numel() * tokens / seconds
    return rates


def floor_seconds(
    photo_bytes: int, kept: int, tokens: int, device: torch.device
) -> tuple[list[float], str]:
    """Seconds of reading, of multiplying and of taking the maximum, and the kernel whose product is
    the fastest. kept: numbers per token."""
    memory = torch.zeros(512 * 2**20 // 8, dtype=torch.int64, device=device)
    reading = median_seconds(memory.sum, device=device) / memory.nbytes * PHOTOS * photo_bytes
    rates = product_rates(kept, tokens, device)
    best = max(rates, key=rates.__getitem__)
    multiplying = 2 * PHOTOS * CELLS * kept * tokens / rates[best]
    block = torch.randn(8, tokens, CELLS, device=device).bfloat16()
    maximum = median_seconds(lambda: block.amax(dim=2), device=device) * PHOTOS / len(block)
    return [reading, multiplying, maximum], best


def fast_plaid_seconds(
    python: Path, folder: Path, tokens: torch.Tensor, cells: list[torch.Tensor]
) -> float:
    """Seconds of fast-plaid, in its own environment, scoring the same cells of all candidates."""
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
    """An index of 400 photos of random pixels."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        picture = np.random.default_rng(number).integers(0, 256, (48, SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(photos / f"{number:04}.png")
    index_photos([photos], folder / "index", FreshMaps())
    return folder / "index"


def mean_of(reader: IndexReader) -> torch.Tensor:
    """The mean on which cosines of appearance are centred, (DIM,)."""
    return reader.tokens(reader.read_maps(reader.ids[:1]))[0].mean


def raw_maps(reader: IndexReader) -> Iterator[torch.Tensor]:
    """The centred appearance of each photo before encoding, (cells, d) float16."""
    mean = mean_of(reader).numpy()
    for record in reader.photos(reader.ids):
        frame = Frame(record.width, record.height, SIZE, GRID)
        photo = ModelInput(np.zeros((SIZE, SIZE, 3), np.uint8), frame, record.content_hash, None)
        [maps] = FreshMaps().extract([photo])
        centred = maps.appearance.astype(np.float32).reshape(CELLS, DIM) - mean
        yield torch.from_numpy(centred.astype(np.float16))


@dataclass(frozen=True)
class Work:
    """400 candidates, and a reference to score them by.

    reader: reads maps from the disk. held: has them in memory. maps: all of them, encoded.
    raw: (400, cells, d) float16, centred appearance before encoding. tokens: (n, d) float32, those
    of the reference, centred.
    """

    reader: IndexReader
    held: IndexReader
    maps: MapBatch
    raw: torch.Tensor
    tokens: torch.Tensor
    reference: ScoringReference

    @classmethod
    def of(cls, reader: IndexReader, held: IndexReader, count: int, device: torch.device) -> "Work":
        """A reference of `count` cells of the first photo."""
        maps = reader.read_maps(reader.ids)
        raw = torch.stack([*raw_maps(reader)]).to(device)
        rng = np.random.default_rng(3)
        chosen = torch.from_numpy(rng.choice(np.flatnonzero(maps.valid[0]), count, replace=False))
        tokens = raw[0, chosen.to(device)].float()
        positions = torch.stack([chosen // GRID, chosen % GRID], dim=1).float().to(device)
        reference = ScoringReference(tokens + mean_of(reader).to(device), tokens, None, positions)
        return cls(reader, held, maps, raw, tokens, reference)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    def seconds(self, name: str, reader: IndexReader) -> float:
        """Seconds of scoring all candidates by the score of this name."""
        scores = [SCORES[name]]
        rerank = partial(score_references, reader, reader.ids, [self.reference], scores, Clock())
        return median_seconds(rerank, REPETITIONS, device=self.device)


def kernel_seconds(work: Work) -> dict[str, float]:
    """Seconds of `late` and `consistent` by each kernel, forced, with encoded maps in memory."""
    found: dict[str, float] = {}
    if work.device.type != "cpu":
        return found
    for kernel in (each.name for each in offered_kernels()):
        os.environ[FORCED_BY] = kernel
        for name in ("late", "consistent"):
            found[f"{name}, {kernel}"] = work.seconds(name, work.held)
        del os.environ[FORCED_BY]
    return found


def our_seconds(work: Work) -> dict[str, float]:
    """Seconds of Waldo's own ways, by the kernel that it chooses."""
    return {
        "ours, late, encoded maps in memory": work.seconds("late", work.held),
        "ours, consistent, encoded maps in memory": work.seconds("consistent", work.held),
        "ours, consistent, and fetching from disk": work.seconds("consistent", work.reader),
    }


def rival_seconds(work: Work, fast_plaid: Path | None, folder: Path) -> dict[str, float]:
    """Seconds of other ways to do the same work."""
    device, tokens = work.device, work.tokens
    valid = torch.from_numpy(work.maps.valid).to(device)
    decoded = work.reader.decode(work.maps, device)[0] - mean_of(work.reader).to(device)
    units = functional.normalize(decoded, dim=2)
    ways: dict[str, Callable[[], object]] = {
        "loop in float32, raw maps": lambda: loop_over_candidates(tokens, work.raw, valid),
        "loop in float32, decoded maps": lambda: loop_over_candidates(tokens, decoded, valid),
        "einsum in float32, decoded unit vectors": lambda: einsum(tokens, units, valid),
    }
    found = {name: median_seconds(way, device=device) for name, way in ways.items()}
    queries, matches = torch.randn(len(tokens), MATCH_DIM), torch.randn(CELLS, MATCH_DIM)
    both = [tokens.cpu()] * 2, [work.raw[1].float().cpu()] * 2
    one = seconds_of(published_loop, queries, matches, *both)
    found["the published code's loop (one candidate, times 400)"] = PHOTOS * one
    if fast_plaid is not None:
        encoded = work.reader.tokens(work.maps, "cpu")[0]
        assert encoded.basis is not None
        cells = [*functional.normalize(encoded.levels.float(), dim=2).cpu()]
        kept = tokens.cpu() @ encoded.basis.T
        found["fast-plaid"] = fast_plaid_seconds(fast_plaid, folder, kept, cells)
    return found


def print_ways(floor: list[float], product: str, found: dict[str, float], count: int) -> None:
    """Print the lines for a reference of `count` tokens."""
    least = sum(floor)
    parts = " + ".join(f"{1000 * part:.1f}" for part in floor)
    print(f"\n{count} tokens; the floor is {parts} = {1000 * least:.1f} ms, products by {product}")
    own = found["ours, late, encoded maps in memory"]
    for name, seconds in found.items():
        print(
            f"{name:54}{1000 * seconds:12.1f} ms{seconds / least:9.1f} x floor"
            f"{seconds / own:9.1f} x ours"
        )


def measure(
    index: Path, device: torch.device, counts: list[int], rivals: bool, given: Path | None
) -> None:
    """Measure and print everything for references of some numbers of tokens."""
    machine = describe_machine()
    has = ", ".join(name for name, present in machine.features.items() if present)
    print(f"{machine.cpu} ({has}), torch uses {machine.capability}")
    with IndexReader.open(index) as reader, IndexReader.open(index) as held:
        held.hold_maps(device)
        share = 100 * np.mean(~reader.read_maps(reader.ids).valid)
        print(
            f"{PHOTOS} candidates of {reader.photo_bytes} bytes, {CELLS} cells of d = {DIM}, "
            f"{share:.0f} % padding, {machine.threads} threads, {device}"
        )
        for count in counts:
            work = Work.of(reader, held, count, device)
            with torch.inference_mode():
                kept = reader.tokens(work.maps, device)[0].levels.shape[2]
                found = kernel_seconds(work) | our_seconds(work)
                if rivals:
                    found |= rival_seconds(work, given, index.parent)
                floor, product = floor_seconds(reader.photo_bytes, kept, count, device)
            print_ways(floor, product, found, count)
            if device.type == "cpu":
                print(f"kernel chosen: {choose_kernel(torch.int8, count, kept)}")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast-plaid", type=Path, metavar="PYTHON")
    parser.add_argument("--tokens", type=int, nargs="*", default=[100, 200, 300])
    parser.add_argument(
        "--index", type=Path, help="measure only Waldo, on the index of another run"
    )
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.index is not None:
        measure(given.index, device, given.tokens, rivals=False, given=None)
        return
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder))
        measure(index, device, given.tokens, rivals=True, given=given.fast_plaid)
        if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512":
            print("\nHeld to AVX2:", flush=True)
            command = [sys.executable, __file__, "--index", str(index), "--tokens"]
            environment = {**os.environ, **HELD_TO_AVX2}
            subprocess.run([*command, *map(str, given.tokens)], env=environment, check=True)


if __name__ == "__main__":
    main()
