"""How fast indexing and queries are on this machine, with the bundled model.

    python benchmarks/end_to_end.py

Prints photos per second of decoding alone, of feature extraction by batch size, and of a whole
indexing run; then the median time of each stage of a query, of which docs/store.md quotes the
extraction; then re-ranking compared with a plain loop over the candidates that does the same work.
Every number is a median over repetitions in one run.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import make_parser, median_seconds
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from features.photo import load_model_input
from indexer.ingest.build import index_photos
from search import Index, Query, SearchOptions, open_index
from search.clock import Clock
from search.reference import Reference, make_reference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES

PHOTOS = Path(__file__).parent.parent / "data" / "demo" / "photos"
REPETITIONS = 5


def late_in_a_loop(
    index: Index, reference: Reference, ids: NDArray[np.int64], mean: torch.Tensor
) -> list[float]:
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


def print_extraction(paths: list[Path], extractor: FeatureExtractor) -> None:
    """Print the rates of decoding and of feature extraction."""
    size, grid = extractor.image_size, extractor.grid
    seconds = median_seconds(lambda: [load_model_input(path, size, grid) for path in paths])
    print(f"decoding, one thread       {len(paths) / seconds:8.1f} photos/s")
    inputs = [load_model_input(path, size, grid) for path in paths]
    for batch_size in (1, 4, 8, 16, 32):
        batched = FeatureExtractor(extractor.model, extractor.settings, batch_size)
        some = inputs[: max(batch_size, len(inputs) // batch_size * batch_size)]
        seconds = median_seconds(lambda e=batched, i=some: e.extract(i))  # type: ignore[misc]
        print(f"features, batch of {batch_size:<2}      {len(some) / seconds:8.1f} photos/s")


def print_query(index: Index, query: Query) -> None:
    """Print the time of each stage of a query, and that of re-ranking."""
    timings = [index.search(query, SearchOptions()).timing for _ in range(10)]
    for stage in timings[0]:
        value = statistics.median(timing[stage] for timing in timings)
        print(f"query, {stage:<19} {1000 * value:8.2f} ms")

    reader, ids = index.reader, index.reader.ids
    reference = make_reference(query, index.extractor)
    prepared = [reference.for_scoring(torch.device("cpu"))]
    mean = reader.tokens(reader.read_maps(ids[:1]))[0].mean
    late = [SCORES["late"]]
    [ours] = score_references(reader, ids, prepared, late, Clock()).by_score["late"]
    np.testing.assert_allclose(ours, late_in_a_loop(index, reference, ids, mean), atol=5e-3)
    fast = median_seconds(lambda: score_references(reader, ids, prepared, late, Clock()))
    slow = median_seconds(lambda: late_in_a_loop(index, reference, ids, mean))
    print(f"re-ranking {len(ids)} photos: {1000 * fast:.1f} ms; a loop {1000 * slow:.1f} ms")
    print(f"the loop takes {slow / fast:.1f} times as long")


def main() -> None:
    make_parser(__doc__).parse_args()
    paths = sorted(PHOTOS.iterdir())
    extractor = FeatureExtractor.load("tiny", "cpu")
    print(f"{len(paths)} photos, {torch.get_num_threads()} threads")
    print_extraction(paths, extractor)
    with tempfile.TemporaryDirectory() as folder:
        directories = iter(Path(folder) / f"index{i}" for i in range(REPETITIONS + 1))
        seconds = median_seconds(
            lambda: index_photos([PHOTOS], next(directories), extractor), REPETITIONS
        )
        print(f"waldo index, batch of 8    {len(paths) / seconds:8.1f} photos/s")
        with open_index(Path(folder) / "index0", "cpu") as index:
            print_query(index, Query(paths[0], box=(60, 60, 180, 180)))


if __name__ == "__main__":
    main()
