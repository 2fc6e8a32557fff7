"""How fast indexing and queries are on this machine, with the bundled model.

    python benchmarks/end_to_end.py

Prints photos a second of decoding alone, of feature extraction by batch size, and of a whole
indexing run; then the median seconds of a query's stages; then re-ranking against a plain loop
over candidates doing the same work. Every number is a median over repetitions in this one run.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from features.extractor import FeatureExtractor
from features.photo import load_model_input
from indexer.ingest.build import index_photos
from search import Query, SearchOptions, open_index
from search.clock import Clock
from search.rerank import rerank
from search.scores import SCORES

PHOTOS = Path(__file__).parent.parent / "data" / "demo" / "photos"
REPETITIONS = 5


def median_seconds(work: Callable[[], object]) -> float:
    """Median wall-clock seconds of a call, after one call to warm up."""
    work()
    seconds = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def naive_late(index, reference, ids, mean) -> list[float]:  # type: ignore[no-untyped-def]
    """Late interaction with a Python loop over candidates, each read and scored by itself."""
    tokens = torch.from_numpy(reference.tokens()) - mean
    tokens = tokens / tokens.norm(dim=1, keepdim=True)
    scores = []
    for photo_id in ids.tolist():
        maps = index.reader.read_maps([photo_id])
        cells = index.reader.decode(maps)[0][0][maps.valid[0]] - mean
        cells = cells / cells.norm(dim=1, keepdim=True)
        scores.append(float((tokens @ cells.T).amax(dim=1).mean()))
    return scores


def main() -> None:
    paths = sorted(PHOTOS.iterdir())
    extractor = FeatureExtractor.load("tiny", "cpu")
    size, grid = extractor.image_size, extractor.grid
    print(f"{len(paths)} photos, {torch.get_num_threads()} threads")

    seconds = median_seconds(lambda: [load_model_input(path, size, grid) for path in paths])
    print(f"decoding, one thread       {len(paths) / seconds:8.1f} photos/s")
    inputs = [load_model_input(path, size, grid) for path in paths]
    for batch_size in (1, 4, 8, 16, 32):
        batched = FeatureExtractor(extractor.model, extractor.settings, batch_size)
        some = inputs[: max(batch_size, len(inputs) // batch_size * batch_size)]
        seconds = median_seconds(lambda e=batched, i=some: e.extract(i))  # type: ignore[misc]
        print(f"features, batch of {batch_size:<2}      {len(some) / seconds:8.1f} photos/s")

    with tempfile.TemporaryDirectory() as folder:
        directories = iter(Path(folder) / f"index{i}" for i in range(REPETITIONS + 1))
        seconds = median_seconds(lambda: index_photos([PHOTOS], next(directories), extractor))
        print(f"waldo index, batch of 8    {len(paths) / seconds:8.1f} photos/s")
        with open_index(Path(folder) / "index0", "cpu") as index:
            query = Query(paths[0], box=(60, 60, 180, 180))
            timings = [index.search(query, SearchOptions()).timing for _ in range(10)]
            for stage in timings[0]:
                value = statistics.median(timing[stage] for timing in timings)
                print(f"query, {stage:<19} {1000 * value:8.2f} ms")

            reference = index.reference(query)
            ids = index.reader.ids
            mean = index.reader.tokens(index.reader.read_maps(ids[:1]))[0].mean
            prepared = reference.for_scoring(torch.device("cpu"))
            ours = rerank(index.reader, ids, prepared, SCORES["late"], Clock()).scores
            loop = naive_late(index, reference, ids, mean)
            np.testing.assert_allclose(ours, loop, atol=5e-3)
            fast = median_seconds(
                lambda: rerank(index.reader, ids, prepared, SCORES["late"], Clock())
            )
            slow = median_seconds(lambda: naive_late(index, reference, ids, mean))
            print(
                f"re-ranking {len(ids)} photos: {1000 * fast:.1f} ms; a loop {1000 * slow:.1f} ms"
            )
            print(f"the loop takes {slow / fast:.1f} times as long")


if __name__ == "__main__":
    main()
