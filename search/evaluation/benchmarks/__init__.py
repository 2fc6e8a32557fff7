"""The labelled benchmarks: one file each reads its folder, and the tables below list them all.

`benchmark` says what a benchmark of searches is, `labelled_objects` what one of masks or videos is.
A new benchmark is a file with a function that reads its folder, and a line in one of the tables.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, TextBenchmark
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.labelled_objects import AnnotatedVideo, SegmentationBenchmark
from search.evaluation.benchmarks.permir import read_permir, read_permis
from search.evaluation.benchmarks.perseg import read_perseg
from search.evaluation.benchmarks.published.gldv2 import read_gldv2
from search.evaluation.benchmarks.published.ilias import (
    read_ilias,
    read_ilias_texts,
    read_mini_ilias,
)
from search.evaluation.benchmarks.published.instre import read_instre
from search.evaluation.benchmarks.published.packed_photos import OnListing
from search.evaluation.benchmarks.published.pods import read_pods
from search.evaluation.benchmarks.published.pods_masks import read_pods_masks
from search.evaluation.benchmarks.published.products import read_inshop, read_sop
from search.evaluation.benchmarks.revisited import read_revisited
from search.evaluation.benchmarks.scenes import read_scenes
from search.evaluation.benchmarks.shown_objects import (
    ShownObjects,
    read_folder_objects,
    read_scene_objects,
)

# Rank a gallery for each query.
SEARCHES: dict[str, Callable[[Path], Benchmark]] = {
    "folders": read_folders,
    "scenes": read_scenes,
    "permir": read_permir,
    "roxford5k": partial(read_revisited, name="roxford5k"),
    "rparis6k": partial(read_revisited, name="rparis6k"),
    "pods": read_pods,
    "instre": read_instre,
    "gldv2": read_gldv2,
    "sop": read_sop,
    "inshop": read_inshop,
}

# Searches whose photos may lie in tars, which take time to list.
PACKED_SEARCHES: dict[str, Callable[[Path, OnListing | None], Benchmark]] = {
    "ilias": read_ilias,
    "mini_ilias": read_mini_ilias,
}

# Rank a gallery for each text; packed as those above.
TEXTS: dict[str, Callable[[Path, OnListing | None], TextBenchmark]] = {
    "ilias_text": read_ilias_texts,
}

# Segment an object in photos.
MASKS: dict[str, Callable[[Path], SegmentationBenchmark]] = {
    "perseg": read_perseg,
    "permis": read_permis,
    "pods_masks": read_pods_masks,
}

# Follow objects through videos.
VIDEOS: dict[str, Callable[[Path], list[AnnotatedVideo]]] = {
    "davis2017": read_davis,
}

# Group photos by the objects that they show.
GROUPS: dict[str, Callable[[Path], ShownObjects]] = {
    "objects-folders": read_folder_objects,
    "objects-scenes": read_scene_objects,
}


def read_benchmark(protocol: str, root: Path, on_listing: OnListing | None = None) -> Benchmark:
    """Read a benchmark of searches by its name in the tables.

    on_listing: called with the progress of listing tars. Raises WaldoError for an unknown name, for
    a folder with another layout, and for one without a query or with a query that no photo answers.
    """
    searches = [*SEARCHES, *PACKED_SEARCHES]
    if protocol in {**MASKS, **VIDEOS, **GROUPS, **TEXTS}:
        raise WaldoError(f"{protocol}: no such protocol of searches; one of {', '.join(searches)}")
    if protocol not in searches:
        known = ", ".join([*searches, *MASKS, *VIDEOS, *GROUPS, *TEXTS])
        raise WaldoError(f"{protocol}: no such protocol; one of {known}")
    if protocol in PACKED_SEARCHES:
        benchmark = PACKED_SEARCHES[protocol](root, on_listing)
    else:
        benchmark = SEARCHES[protocol](root)
    if not benchmark.queries:
        raise WaldoError(f"{root}: {protocol} finds no query in this folder")
    graded = benchmark.graded
    for asked in benchmark.queries:
        if not graded and len(asked.relevant) + asked.missing == 0:
            raise WaldoError(f"{asked.query.photo}: no photo of the gallery answers this query")
    if not graded and not any(len(asked.relevant) for asked in benchmark.queries):
        raise WaldoError(f"{root}: all photos that {protocol} should find are missing")
    return benchmark
