"""Methods that look at the same maps, and the extractors that make these."""

import json
from dataclasses import dataclass, field

from features.errors import RegionError, WaldoError
from features.models import MapExtractor
from indexer.protocols import Extractor
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.ablation import changed_extractor
from search.evaluation.methods.baselines import EXTRACTORS
from search.evaluation.methods.methods import (
    MODEL,
    RANDOM_WEIGHTS,
    DirectMethod,
    MapMethod,
    SingleMethod,
    StoreMethod,
    WordMethod,
    asks_by_class,
)


@dataclass(frozen=True)
class SameMaps:
    """Methods that look at the same maps.

    maps: their name (`StoreMethod.maps`). extractor: the model, with the methods' changes.
    """

    maps: str
    extractor: MapExtractor
    methods: list[StoreMethod] = field(default_factory=list)


def group_by_maps(parts: list[SingleMethod], extractor: MapExtractor) -> list[SameMaps]:
    """Methods grouped by the maps that they look at."""
    groups: dict[tuple[str, str], SameMaps] = {}
    for part in parts:
        if not isinstance(part, DirectMethod):
            changed = changed_extractor(part.name, part.changes, extractor)
            key = part.maps, json.dumps(changed.fingerprint(), sort_keys=True)
            groups.setdefault(key, SameMaps(part.maps, changed)).methods.append(part)
    return list(groups.values())


def check_class_names(benchmark: Benchmark, group: SameMaps) -> None:
    """Refuse before hours of work a class name that the model does not know, and a method by class
    for a model that knows no class names.
    """
    asking = [method for method in group.methods if isinstance(method, MapMethod | WordMethod)]
    if group.maps != MODEL or not asking:
        return
    extractor = group.extractor
    for method in asking:
        if asks_by_class(method) and not extractor.knows_words:
            raise WaldoError(
                f"method {method.name}: needs class names, and the model {extractor.model.name} "
                "knows no words"
            )
    photos = {
        asked.query.class_name: asked.query.photo
        for asked in reversed(benchmark.queries)
        if asked.query.class_name is not None
    }
    # The first needs no model, and decides for most models.
    for check in (extractor.check_class_name, extractor.class_vector):
        for name, photo in photos.items():
            try:
                check(name)
            except RegionError as error:
                raise RegionError(f"{photo}: {error}") from None


def extractors_of(group: SameMaps) -> tuple[Extractor, Extractor]:
    """What makes a kind of maps: of the gallery's photos in batches, and of queries one by one."""
    if group.maps in EXTRACTORS:
        baseline = EXTRACTORS[group.maps]()
        return baseline, baseline
    extractor = group.extractor
    if group.maps == RANDOM_WEIGHTS:
        extractor = extractor.with_random_weights()
    # Nothing is gained by filling up a batch for each query.
    return extractor, extractor.with_batch_size(1)
