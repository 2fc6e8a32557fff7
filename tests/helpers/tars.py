"""Tars of photos, as benchmarks are published."""

import io
import tarfile
from pathlib import Path

from tests.helpers.pictures import save_photo


def save_tar(path: Path, names: list[str]) -> Path:
    """A shard as WebDataset writes it: each photo, and its labels beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(names):
            tar.add(save_photo(path.with_suffix(".jpg"), 32, 24, seed), name)
            labels = tarfile.TarInfo(f"{name.removesuffix('.jpg')}.json")
            labels.size = 2
            tar.addfile(labels, io.BytesIO(b"{}"))
    path.with_suffix(".jpg").unlink()
    return path
