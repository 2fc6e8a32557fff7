"""How well photos are found by a text alone: by the class map of a model that knows words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError, WaldoError
from features.models import MapExtractor
from indexer.collection import Collection
from search.evaluation.benchmarks.benchmark import TextBenchmark, TextQuery, flags
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.galleries import Indexing, gallery_ids, index_gallery, open_galleries
from search.evaluation.methods.indexed_gallery import in_order_of
from search.evaluation.methods.methods import MODEL
from search.evaluation.metrics.cut_ranking import CUT_METRICS
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.report import versions
from search.evaluation.steps import OnStep

# Of ILIAS, which reports the same for texts as for photos.
_METRIC = "mAP@1k"

# The one method: the mean of S_S over a photo's cells.
METHOD = "class-map"


def check_text_methods(names: list[str]) -> None:
    """Raise WaldoError for a name of another method than the one there is."""
    for name in names:
        if name != METHOD:
            raise WaldoError(f"method {name}: texts are searched by {METHOD} alone")


def evaluate_texts(benchmark: TextBenchmark, how: Indexing, on_step: OnStep) -> dict[str, Any]:
    """The report, JSON-ready; metrics are fractions, 0..1.

    A photo's score is the mean over its cells of S_S, the similarity with the text's vector C (PDM
    Eq. 5 and 6). A text of which the model knows no word finds nothing, and "n_unknown" counts
    these. on_step: as for `run_methods`. Raises ClusterError, and WaldoError where the model knows
    no words, and where a photo cannot be read.
    """
    gallery, extractor = benchmark.gallery, how.extractor
    if not extractor.knows_words:
        raise WaldoError(
            f"{gallery.protocol}: the model {extractor.fingerprint()['model']} knows no words, so "
            "that it cannot be asked by texts; choose another --model"
        )
    on_disk = FilesOnDisk(gallery.gallery)
    index = index_gallery(gallery.protocol, on_disk, MODEL, extractor, how)
    precisions, unknown, total = np.zeros(len(benchmark.queries)), 0, len(benchmark.queries)
    with open_galleries([index], how) as [reader]:
        ids = gallery_ids(reader, on_disk)
        for number, query in enumerate(benchmark.queries):
            on_step("searching by texts", number, total)
            try:
                precisions[number] = _precision(query, extractor, reader, ids)
            except RegionError:
                unknown += 1
    return {
        "protocol": gallery.protocol,
        "convention": gallery.convention,
        "model": extractor.fingerprint(),
        "codec": how.quality,
        "versions": versions(),
        "n_queries": total,
        "n_gallery": len(gallery.gallery),
        "n_unknown": unknown,
        "texts": [
            {"name": query.name, "text": query.text, "average_precision": value}
            for query, value in zip(benchmark.queries, precisions.tolist(), strict=True)
        ],
        "methods": {
            METHOD: {
                _METRIC: float(precisions.mean()),
                f"{_METRIC}_interval": bootstrap_interval(precisions),
            }
        },
    }


def _precision(
    query: TextQuery, extractor: MapExtractor, reader: Collection, ids: NDArray[np.int64]
) -> float:
    """The average precision of a text, 0..1. ids: (n_gallery,). Raises RegionError where the model
    knows no word of it.
    """
    wanted = extractor.class_vector(query.text)
    # Recall's vectors are the means of F_A and of F_S over a photo's cells.
    vector = np.concatenate([np.zeros_like(wanted), wanted])
    scores = in_order_of(ids, *reader.recall.score_all(vector))
    relevant = flags(query.relevant, len(ids))
    return CUT_METRICS[_METRIC](relevant, scores, len(query.relevant) + query.missing)
