"""The mean of the collection's pooled vectors, kept beside the recall index."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.files import write_atomically
from indexer.manifest import Manifest


def statistics_name(number: int) -> str:
    """File name of the statistics below the index folder."""
    return f"statistics-{number}.safetensors"


def write_statistics(path: Path, mean: NDArray[np.float32]) -> None:
    """Save the (2 d,) float32 mean durably and atomically."""
    from safetensors.numpy import save_file

    write_atomically(path, lambda temporary: save_file({"mean": mean}, str(temporary)))


def read_mean(index_dir: Path, manifest: Manifest, live: int) -> NDArray[np.float32] | None:
    """The saved (2 d,) float32 mean, or None where it is missing, unreadable or lags behind.

    live: how many photos the index holds now.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    saved = manifest.statistics
    if saved is None or (saved.covers, saved.file.rows) != (manifest.last_photos, live):
        return None
    try:
        mean = load_file(str(index_dir / saved.file.name)).get("mean")
    except (OSError, SafetensorError):
        return None
    return mean if mean is not None and mean.shape == (2 * manifest.dim,) else None
