"""Where files lie that can be made again."""

import os
from pathlib import Path


def user_cache(kind: str) -> Path:
    """A folder in the user's cache folder, `~/.cache/waldo/KIND` or below XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "waldo" / kind
