"""How the store behaves as it grows: memory, additions and queries.

    python benchmarks/store.py                    # everything, some minutes on two cores
    python benchmarks/store.py add query
    python benchmarks/store.py --photos 1000      # no collection larger than this

Prints the tables "Growth", "Adding" and "A query" of docs/store.md. Features are synthetic, so no
model is measured. Numbers are medians over repetitions. Needs Linux, and 5 GB of disk for temporary
files.
"""

import cProfile
import hashlib
import multiprocessing
import os
import pstats
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from harness import make_parser, peak_memory, seconds_of
from numpy.typing import NDArray
from PIL import Image
from synthetic import PixelMaps, make_photos

from features.frame import Frame
from features.photo import ModelInput
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import encode_photos
from indexer.ingest import writer as writer_module
from indexer.ingest.build import index_photos
from indexer.ingest.commit import PhotoContent
from indexer.ingest.sources import Found, list_photos, open_sources
from indexer.ingest.writer import IndexWriter
from indexer.reader import IndexReader
from indexer.recall.vectors import refresh_recall
from indexer.store import shards
from indexer.store.manifest import read_manifest
from search.clock import Clock
from search.ranking.localise import localise
from search.scoring.candidates import ScoringReference
from search.scoring.confidence import minimum_remaining_score
from search.scoring.rerank import score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES

IMAGE_SIZE, GRID, DIM = PixelMaps.image_size, PixelMaps.grid, PixelMaps.dim
CANDIDATES = 400


def make_large_index(folder: Path, count: int) -> tuple[Path, Path]:
    """Write a folder of `count` photos and an index of it; returns both folders.

    The index is as indexing would leave it, except that it repeats 256 different maps. Every photo
    has its own pooled vector.
    """
    photos, index = folder / "photos", folder / "index"
    sample = make_photos(folder / "sample", 256)
    picture = sample[0].read_bytes()
    photos.mkdir()
    for i in range(count):  # The number makes the files differ; decoders ignore what follows.
        (photos / f"photo-{i:07}.png").write_bytes(picture + str(i).encode())
    extractor = PixelMaps()
    inputs = [
        ModelInput(
            np.asarray(Image.open(path)), Frame(IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE, GRID), path.name
        )
        for path in sample
    ]
    maps = extractor.extract(inputs)
    pooled = np.stack([m.pooled() for m in maps])
    rng = np.random.default_rng(2)
    with IndexWriter.open(index, extractor) as writer:
        codec = Codec.fit(writer.manifest.quality, maps, extractor.vocabulary_vectors())
        writer.use_codec(codec)
        encoded = [encode_photos(codec, [m])[m.content_hash] for m in maps]
        for i, found in enumerate(list_photos(open_sources([photos], index), index)):
            assert isinstance(found, Found)
            # Between the vectors of two photos, so that vectors lie as densely as real ones.
            a, b = rng.integers(0, len(pooled), 2)
            share = np.float32(rng.random())
            vector = share * pooled[a] + (1 - share) * pooled[b]
            digest = hashlib.sha256(picture + str(i).encode()).hexdigest()
            frame = Frame(IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE, GRID)
            content = PhotoContent(vector, encoded[i % 256].words, frame, digest, None)
            writer.add(found, encoded[i % 256].encoded, content)
        writer.finish([])
    return photos, index


# --- growth ------------------------------------------------------------------------------------


def growth(folder: Path, most: int) -> None:
    """Memory, speed and disk of indexing folders of three sizes, each in a process of its own."""
    sizes = up_to(most, 1000, 5000, 20_000)
    make_photos(folder / "photos" / "a", sizes[0])
    print(
        f"maps of {GRID} x {GRID} x {DIM}; shards of 4 MiB, of which the smallest index fills some"
    )
    print(
        f"{'photos':>8}{'MiB before recall':>19}{'growth':>9}{'peak MiB':>10}{'growth':>9}"
        f"{'photos/s':>10}{'disk B/photo':>14}"
    )
    smallest: list[float] = []
    for name, before, size in zip("abc", (0, *sizes), sizes, strict=False):
        make_photos(folder / "photos" / name, size - before, before)
        index = folder / f"index-{size}"
        *peaks, seconds = in_process(index_child, folder / "photos", index)
        manifest = read_manifest(index)
        disk = sum(file.bytes for file in manifest.files()) / size
        smallest = smallest or peaks
        grown = [peak / first - 1 for peak, first in zip(peaks, smallest, strict=True)]
        print(
            f"{size:8}{peaks[0]:19.0f}{grown[0]:9.1%}{peaks[1]:10.0f}{grown[1]:9.1%}"
            f"{size / seconds:10.0f}{disk:14.0f}"
        )
    print(f"encoded maps: {manifest.photo_bytes} B per photo; photos/s without extraction")


def up_to(most: int, *sizes: int) -> list[int]:
    """Sizes of collections, none larger than `most`, each once."""
    return list(dict.fromkeys(min(size, most) for size in sizes))


def index_child(answer: Connection, photos: Path, index: Path) -> None:
    """Index photos; sends the peak memory before recall is built and at the end, and seconds."""
    before = 0.0

    def refresh(*arguments: Any, **named: Any) -> Any:
        nonlocal before
        before = peak_memory()
        return refresh_recall(*arguments, **named)

    small = patch.object(shards, "SHARD_BYTES", 4 * 2**20)
    with small, patch.object(writer_module, "refresh_recall", refresh):
        extractor = PixelMaps()
        seconds = seconds_of(index_photos, [photos], index, extractor) - extractor.seconds
    answer.send((before, peak_memory(), seconds))


def in_process(work: Callable[..., None], *arguments: object) -> tuple[float, ...]:
    """What `work` sends back from a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    answer: tuple[float, ...] = ours.recv()
    process.join()
    return answer


# --- add ---------------------------------------------------------------------------------------

STAGES = {
    "list": "list_photos",
    "table": "read_photo_table",
    "known": "known.py:__init__",
    "encode": "codec.py:encode",
    "commit": "write_files",
    "manifest": "write_manifest",
}


def add(folder: Path, most: int) -> None:
    """Adding and removing 100 photos in collections of three sizes."""
    print(f"{'photos':>8}{'add s':>8}{'remove s':>10}{'nothing s':>11}   of a profiled add, s:")
    for size in up_to(most, 1000, 10_000, 100_000):
        photos, index = make_large_index(folder / str(size), size)
        extractor = PixelMaps()
        adding, removing = [], []
        for turn in range(4):
            new = make_photos(photos / f"new-{turn}", 100, first=10**6 + 100 * turn)
            if turn < 3:
                adding.append(seconds_of(index_photos, [photos], index, extractor))
            else:
                with cProfile.Profile() as profile:
                    index_photos([photos], index, extractor)
        nothing = seconds_of(index_photos, [photos], index, extractor)
        for turn in range(3):
            for path in (photos / f"new-{turn}").iterdir():
                path.unlink()
            removing.append(seconds_of(index_photos, [photos], index, extractor))
        assert len(new) == 100
        assert read_manifest(index).n_photos == size + 100
        stages = stage_seconds(profile)
        print(
            f"{size:8}{statistics.median(adding):8.2f}{statistics.median(removing):10.2f}"
            f"{nothing:11.2f}   " + ", ".join(f"{k} {v:.2f}" for k, v in stages.items())
        )
        shutil.rmtree(folder / str(size))


def stage_seconds(profile: cProfile.Profile) -> dict[str, float]:
    """The profiled seconds of each of STAGES, including what it calls."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return {
        stage: sum(
            value[3]
            for (file, _, name), value in stats.items()
            if f"{Path(file).name}:{name}".endswith(wanted if ":" in wanted else f":{wanted}")
        )
        for stage, wanted in STAGES.items()
    }


# --- query -------------------------------------------------------------------------------------


def random_query(
    reader: IndexReader, rng: np.random.Generator
) -> tuple[ScoringReference, NDArray[np.float32]]:
    """40 cells of a random photo as an object, and the pooled vector that recall looks for."""
    source = reader.read_maps(rng.choice(reader.ids, 1))
    appearance, semantic = reader.decode(source)
    chosen = rng.choice(GRID**2, 40, replace=False)
    positions = torch.from_numpy(np.stack([chosen // GRID, chosen % GRID], 1)).float()
    tokens = appearance[0, chosen]
    vector: NDArray[np.float32] = torch.cat([tokens.mean(0), semantic[0].mean(0)]).div(2).numpy()
    return ScoringReference(tokens, tokens, None, positions), vector


def time_query(
    reader: IndexReader, reference: ScoringReference, vector: NDArray[np.float32]
) -> dict[str, float]:
    """Seconds of each stage of one query, by both ways of recall; the 20 best are localised."""
    assert reader.word_recall is not None
    clock, score = Clock(), SCORES[DEFAULT_SCORE]
    with clock("pooled"):
        reader.recall.search(vector, CANDIDATES)
    with clock("words"):
        words_in = partial(reader.words_in, reference.tokens.numpy())
        ids, _ = reader.word_recall.search(words_in, CANDIDATES)
    scored = score_references(reader, ids, [reference], [score], clock, stage="score")
    assert len(scored.ids) == min(CANDIDATES, reader.n_photos)
    [scores] = scored.by_score[score.name]
    best = np.argsort(-scores)[:20]
    least = minimum_remaining_score(scores, scores[best])
    with clock("localise"):
        maps = reader.read_maps(scored.ids[best])
        localise(reader, maps, [reference], np.zeros(len(best), dtype=np.int64), score, least)
    return clock.stages()


def opening_seconds(index: Path) -> float:
    """Open an index and load what recall needs."""
    begin = time.perf_counter()
    with IndexReader.open(index) as reader:
        reader.recall.search(np.zeros(2 * DIM, dtype=np.float32), 1)
        assert reader.word_recall is not None
    return time.perf_counter() - begin


def query(folder: Path, most: int) -> None:
    """Recall, fetch and score at K = 400, in collections of two sizes."""
    print(f"K = {CANDIDATES}, maps of {GRID} x {GRID} x {DIM}, {torch.get_num_threads()} threads")
    print(
        f"{'photos':>8}{'open':>8}{'pooled recall':>15}{'word recall':>15}"
        f"{'fetch':>15}{'score':>15}{'localise':>15}{'total':>15}   ms, median and 95th percentile"
    )
    for size in up_to(most, 10_000, 100_000):
        _, index = make_large_index(folder / str(size), size)
        opening = [opening_seconds(index) for _ in range(5)]
        with IndexReader.open(index) as reader:
            rng = np.random.default_rng(3)
            timings = [time_query(reader, *random_query(reader, rng)) for _ in range(65)][5:]
        print(f"{size:8}{1000 * statistics.median(opening):8.1f}", end="")
        for stage in timings[0]:
            middle, high = np.percentile([1000 * timing[stage] for timing in timings], [50, 95])
            print(f"{middle:9.1f}{high:6.1f}", end="")
        print()
        shutil.rmtree(folder / str(size))


SECTIONS: dict[str, Callable[[Path, int], None]] = {"growth": growth, "add": add, "query": query}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--photos", type=int, default=100_000, help="the largest collection")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"{name}: no such section; one of {', '.join(SECTIONS)}")
    print(f"{os.cpu_count()} cores")
    for name, section in SECTIONS.items():
        if options.sections and name not in options.sections:
            continue
        begin = time.perf_counter()
        print(f"\n== {name}: {section.__doc__}")
        with tempfile.TemporaryDirectory(prefix="waldo-bench-") as folder:
            section(Path(folder).resolve(), options.photos)
        print(f"({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
