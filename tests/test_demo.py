"""What `make demo` shows: the right object leads, by the trained weights and not by chance."""

import json
from pathlib import Path

import numpy as np

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.evaluation.metrics.ranking import average_precision
from search.index import Index
from search.query import Query, SearchOptions

DEMO = Path(__file__).parent.parent / "data" / "demo"


def the_question() -> tuple[Query, str]:
    """The demo's query, from its labels, and the instance it is about."""
    [(photo, [thing])] = json.loads((DEMO / "labels.json").read_text())["query"].items()
    return Query(DEMO / photo, thing["class"], box=tuple(thing["box"])), thing["instance"]


def relevant_photos(instance: str) -> set[str]:
    photos = json.loads((DEMO / "labels.json").read_text())["photos"]
    found = {
        Path(photo).name
        for photo, things in photos.items()
        if any(thing["instance"] == instance for thing in things)
    }
    assert len(found) >= 3
    return found


def ask(extractor: FeatureExtractor, directory: Path) -> tuple[list[str], float]:
    """File names by rank, and the average precision of the demo's query in an index."""
    query, instance = the_question()
    single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
    with Index(IndexReader.open(directory), single) as index:
        matches = index.search(query, SearchOptions(top=1000)).matches
    names = [match.path.name for match in matches]
    relevant = relevant_photos(instance)
    hits = np.array([name in relevant for name in names])
    return names, average_precision(hits, np.array([match.score for match in matches]))


def test_the_right_instance_leads(tiny: FeatureExtractor, demo_index: Path) -> None:
    names, precision = ask(tiny, demo_index)
    _, instance = the_question()
    assert set(names[:3]) <= relevant_photos(instance)
    assert precision > 0.7


def test_random_weights_do_not_find_it(tiny: FeatureExtractor, tmp_path: Path) -> None:
    twin = FeatureExtractor(tiny.model.with_random_weights(), tiny.settings, tiny.batch_size)
    # Every second photo: among fewer photos the object is easier to find, and still it is not.
    photos = sorted((DEMO / "photos").iterdir())[1::2]
    index_photos(photos, tmp_path / "index", twin, quality="none")
    names, precision = ask(twin, tmp_path / "index")
    _, instance = the_question()
    assert not set(names[:3]) <= relevant_photos(instance)
    assert precision < 0.5


def test_random_weights_are_seeded(tiny: FeatureExtractor) -> None:
    first, again = tiny.model.with_random_weights(1), tiny.model.with_random_weights(1)
    block = tiny.settings.block
    assert (first.class_vector("dog", block) == again.class_vector("dog", block)).all()
    other = tiny.model.with_random_weights(2).class_vector("dog", block)
    assert float((first.class_vector("dog", block) - other).abs().max()) > 0.01
    trained = tiny.model.class_vector("dog", block)
    assert float((first.class_vector("dog", block) - trained).abs().max()) > 0.01
