"""What the class name of a query did, in a line for people."""

from features.diffusion.presence import LEAST_PRESENCE, class_presence
from indexer.protocols import Extractor
from search.answer import Answer
from search.index import Index
from search.query import Query
from search.reference import Reference
from search.scoring.scores import SCORES, Score


def class_note(index: Index, answer: Answer) -> str | None:
    """What people should know about the class name of a query; None if nothing.

    That the name is not needed, or what it adds to the region; or, where the name alone selects the
    object, that the photo hardly shows such a thing.
    """
    query = answer.query
    name = query.class_name
    if name is None:
        return None
    region = next((kind for kind in ("box", "point", "mask") if getattr(query, kind)), None)
    if region is None:
        return presence_note(index.extractor, query, answer.references[0])
    if class_counts(index, SCORES[answer.options.score]):
        return (
            f"the {region} says where the object is; the class name {name!r} counts in the search "
            f"by the score {answer.options.score}"
        )
    # Another photo without a region is searched for the class.
    others = (*query.also, *query.unlike)
    if any((view.box, view.point, view.mask) == (None, None, None) for view in others):
        return None
    return (
        f"the class name {name!r} changes nothing here: the {region} says where the object is, and "
        "photos are compared by how it looks"
    )


def class_counts(index: Index, score: Score) -> bool:
    """Whether a score's number, or the recall that it goes with, depends on the class name."""
    by_words = score.recall == "words" and index.reader.word_recall is not None
    return score.needs_class or "rivals" in score.takes or not by_words


def presence_note(extractor: Extractor, query: Query, reference: Reference) -> str | None:
    """A note that the query photo hardly shows the class that alone selects the object; or None."""
    name = query.class_name
    if name is None or (query.box, query.point, query.mask) != (None, None, None):
        return None
    vector = extractor.class_vector(name)
    # The threshold was measured on the bundled model.
    if vector is None or extractor.fingerprint()["model"] != "tiny":
        return None
    presence = class_presence(reference.maps, vector, extractor.rival_vectors)
    if presence >= LEAST_PRESENCE:
        return None
    return (
        f"{query.photo.name} hardly shows a {name}, by the model; look at what was taken as the "
        "object, or give a box"
    )
