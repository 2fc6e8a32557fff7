"""Named objects of the tests' small extractor."""

from pathlib import Path

import numpy as np

from features.photo import load_model_input
from indexer.named_objects import NamedObject, NamedView
from indexer.upkeep.naming import name_object
from search.albums.filling import fill_albums
from search.albums.verdicts import Said, say_of_photos
from tests.helpers.stores import PixelExtractor


def keep_name(index: Path, named: NamedObject) -> NamedObject:
    """`name_object` in an index that `PixelExtractor` made."""
    return name_object(index, named, PixelExtractor().fingerprint())


def keep_two_names(index: Path, photos: Path) -> None:
    """Max and Rex, by a photo each; one more photo is said to show Max, and albums are filled."""
    keep_name(index, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    keep_name(index, NamedObject("Rex", (named_view(photos / "photo-002.png"),)))
    say_of_photos(index, "Max", [Said(3, True)])
    fill_albums(index)


def named_view(photo: Path, row: int = 1, class_name: str | None = None) -> NamedView:
    """A photo whose object is the first two cells of a row."""
    extractor = PixelExtractor()
    [maps] = extractor.extract([load_model_input(photo, extractor.image_size, extractor.grid)])
    cells = np.zeros((extractor.grid, extractor.grid), dtype=bool)
    cells[row, :2] = True
    vector = None if class_name is None else np.arange(extractor.dim, dtype=np.float32)
    return NamedView(photo, maps, cells, class_name, vector)
