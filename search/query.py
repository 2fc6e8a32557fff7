"""What a search is asked: queries and options."""

from dataclasses import dataclass
from pathlib import Path

from features.regions import Box, Point
from indexer.bucket.object_path import path_of
from indexer.store.filters import PhotoFilter
from search.scoring.scores import DEFAULT_SCORE

# What stands before the name of an object in place of a photo.
NAME_MARK = "@"


def photo_of(text: str | Path) -> Path:
    """The photo that a text means, a path or a URL: `@NAME` is an object with a name, unless a file
    is called so.
    """
    photo = path_of(text)
    is_file = str(photo).startswith(NAME_MARK) and photo.exists()
    # An absolute path does not begin with the mark.
    return photo.absolute() if is_file else photo


def digits(text: str) -> int | None:
    """The number that up to 18 digits are; None for anything else."""
    # Python reads other scripts' digits too, and fails where there are thousands of them.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


@dataclass(frozen=True)
class Query:
    """One object to look for.

    photo: the reference photo's file; or `@NAME`, all photos of the object that the index knows by
    this name, and what it is not; a name says where the object is. class_name: what the object is,
    in words.
    mask: a file that is non-zero on the object. box: [x0, y0, x1, y1] and point: (x, y), in
    pixels of the upright photo. A query has at most one of mask, box and point; it has one of them,
    or a class name, or both. also: the same object in other photos. unlike: other objects, which
    are not looked for however similar they are. of_name: in an answer, the name that the photo was
    kept under; None for a photo that was given.
    """

    photo: Path
    class_name: str | None = None
    mask: Path | None = None
    box: Box | None = None
    point: Point | None = None
    also: "tuple[Query, ...]" = ()
    unlike: "tuple[Query, ...]" = ()
    of_name: str | None = None

    @property
    def views(self) -> "tuple[Query, ...]":
        """All photos of the object: this query's own, and those of `also`."""
        return (self, *self.also)

    @property
    def photos(self) -> "tuple[Query, ...]":
        """All photos: those of the object, and then those of what it is not."""
        return (*self.views, *self.unlike)

    @property
    def asked_name(self) -> str | None:
        """The name that stands in place of a photo, if one does."""
        text = str(self.photo)
        return text[1:] if text.startswith(NAME_MARK) else None


@dataclass(frozen=True)
class SearchOptions:
    """How a query is answered.

    top: the number of matches to return. candidates: the number of photos from recall that are
    re-ranked. score: the name of the re-ranking score. rerank: False keeps the order of recall.
    recall: the name of the index's descriptor that finds the candidates; None for the score's own
    way. filter: the photos that may be returned; None allows all. min_confidence: 0..1, matches of
    less confidence are left out.
    """

    top: int = 20
    candidates: int = 400
    score: str = DEFAULT_SCORE
    rerank: bool = True
    recall: str | None = None
    filter: PhotoFilter | None = None
    min_confidence: float | None = None
