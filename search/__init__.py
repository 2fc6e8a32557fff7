"""A query in, ranked matches out. `__all__` is Waldo's public Python API.

    question -> reference features -> recall -> re-ranking -> localisation -> answer
                reference.py          recall.py  rerank.py    localise.py     query.py

`index.py` runs these steps; `scores.py` has the scores that re-ranking can use. Rooms: `commands/`,
the command line; `segmentation/`, masks of objects in photos and videos; `evaluation/`, benchmarks.
"""

from features.errors import WaldoError
from indexer.store.filters import PhotoFilter
from search.index import Index, open_index
from search.query import Answer, Match, Query, SearchOptions

__all__ = [
    "Answer",
    "Index",
    "Match",
    "PhotoFilter",
    "Query",
    "SearchOptions",
    "WaldoError",
    "open_index",
]
