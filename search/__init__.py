"""A query in, ranked matches out. `__all__` is Waldo's public Python API.

    question -> reference features -> recall -> re-ranking -> localisation -> answer
                reference.py          recall.py  scoring/     ranking/        answer.py

`index.py` runs these steps. Other rooms: `commands/`, the command line; `segmentation/`, masks of
objects in photos and videos; `evaluation/`, benchmarks.

A public name is imported when it is first used, so the command line can answer `--help` without
numpy, scipy and pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.errors import WaldoError
    from indexer.store.filters import PhotoFilter
    from search.answer import Answer, Match
    from search.index import Index, open_index
    from search.late_fusion import search_indexes
    from search.query import Query, SearchOptions

__all__ = [
    "Answer",
    "Index",
    "Match",
    "PhotoFilter",
    "Query",
    "SearchOptions",
    "WaldoError",
    "open_index",
    "search_indexes",
]

_MODULES = {
    "WaldoError": "features.errors",
    "PhotoFilter": "indexer.store.filters",
    **dict.fromkeys(("Index", "open_index"), "search.index"),
    "search_indexes": "search.late_fusion",
    **dict.fromkeys(("Answer", "Match"), "search.answer"),
    **dict.fromkeys(("Query", "SearchOptions"), "search.query"),
}

# Type checkers read the imports above, and so tell a name that does not exist.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name, on its first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
