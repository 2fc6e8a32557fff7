"""PDM's ranking by its definition."""

from pathlib import Path

import numpy as np

from features.photo import load_model_input
from search import Index, Query
from search.reference import make_reference


def exhaustive_pdm(index: Index, gallery: Path, query: Query) -> list[tuple[float, str]]:
    """PDM Eq. 4 to 7 over every photo by plain loops in float64, best first."""
    reference = make_reference(query, index.extractor)
    tokens = reference.maps.appearance[reference.cells].astype(np.float64)
    extractor = index.extractor
    ranking = []
    for path in sorted(gallery.iterdir()):
        photo = load_model_input(path, extractor.image_size, extractor.grid)
        [maps] = extractor.extract([photo])
        values = []
        for row, column in np.argwhere(maps.frame.valid()):
            s_a = sum(t @ maps.appearance[row, column].astype(np.float64) for t in tokens)
            value = s_a / len(tokens)
            if reference.class_vector is not None:
                vector = reference.class_vector.astype(np.float64)
                value += vector @ maps.semantic[row, column].astype(np.float64)
            values.append(value / 2)
        ranking.append((-float(np.mean(values)), path.name))
    return sorted(ranking)
