"""Named objects of the tests' small extractor."""

from pathlib import Path

import numpy as np

from features.photo import load_model_input
from indexer.named_objects import NamedObject, NamedView
from indexer.upkeep.naming import name_object
from tests.helpers.stores import PixelExtractor


def keep_name(index: Path, named: NamedObject) -> NamedObject:
    """`name_object` in an index that `PixelExtractor` made."""
    return name_object(index, named, PixelExtractor().fingerprint())


def named_view(photo: Path, row: int = 1, class_name: str | None = None) -> NamedView:
    """A photo whose object is the first two cells of a row."""
    extractor = PixelExtractor()
    [maps] = extractor.extract([load_model_input(photo, extractor.image_size, extractor.grid)])
    cells = np.zeros((extractor.grid, extractor.grid), dtype=bool)
    cells[row, :2] = True
    vector = None if class_name is None else np.arange(extractor.dim, dtype=np.float32)
    return NamedView(photo, maps, cells, class_name, vector)
