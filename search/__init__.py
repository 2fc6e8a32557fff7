"""A query in, ranked matches out: recall, re-ranking, localisation, and the command line.

The Python API is `open_index`, `Query`, `SearchOptions`, and what they give: `Answer`, `Match`.
"""

from search.index import Index, open_index
from search.query import Answer, Match, Query, SearchOptions

__all__ = ["Answer", "Index", "Match", "Query", "SearchOptions", "open_index"]
