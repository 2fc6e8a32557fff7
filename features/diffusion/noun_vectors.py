"""The class vectors of the nouns, which are kept in the user's cache folder.

A large text encoder takes minutes to read some 3,100 nouns, and they are the same at each start.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.diffusion.vocabulary import nouns
from features.user_cache import user_cache

# To be increased when the same model and settings give other class vectors than before.
_VERSION = 1
# Most files that are kept, of at most some 40 MB each: more are of models that are compared once.
_MOST_FILES = 16


def noun_vectors(
    fingerprint: Mapping[str, str | int | float],
    device: str,
    class_vectors: Callable[[list[str]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """What `class_vectors` gives for `nouns()`, (n, d) float32, computed or read from the cache.

    fingerprint: of the extractor, which decides the vectors. device: its type; another one rounds
    differently. Where the cache cannot be read or written, they are computed. Raises what
    `class_vectors` raises.
    """
    names = nouns()
    # The name of random weights does not tell which architecture they belong to.
    if str(fingerprint["revision"]).startswith("random:"):
        return class_vectors(names)
    decides = json.dumps([_VERSION, names, dict(fingerprint), device], sort_keys=True)
    path = user_cache("nouns") / f"{hashlib.sha256(decides.encode()).hexdigest()}.safetensors"
    vectors = _read(path)
    if vectors is None:
        vectors = class_vectors(names)
        with contextlib.suppress(OSError):
            _write(path, vectors)
    return vectors


def _read(path: Path) -> NDArray[np.float32] | None:
    """The vectors in a file; None where it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            vectors: NDArray[np.float32] = file.get_tensor("vectors")
            digest = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    is_whole = vectors.dtype == np.float32 and vectors.ndim == 2 and digest == _digest(vectors)
    return vectors if is_whole else None


def _write(path: Path, vectors: NDArray[np.float32]) -> None:
    """Replace a file at once, and delete the oldest beyond `_MOST_FILES`. Raises OSError."""
    from safetensors.numpy import save

    vectors = np.ascontiguousarray(vectors)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, because another process may write the same file.
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(save({"vectors": vectors}, {"sha256": _digest(vectors)}))
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    for old in sorted(path.parent.iterdir(), key=os.path.getmtime)[:-_MOST_FILES]:
        old.unlink()


def _digest(vectors: NDArray[np.float32]) -> str:
    return hashlib.sha256(vectors.tobytes()).hexdigest()
