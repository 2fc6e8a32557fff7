"""Photos and an index of them, in map shards that are soon full."""

from pathlib import Path

import pytest

import indexer.store.shards as shards
from tests.helpers.stores import make_photos


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five photos fill a shard, so that the runs here commit several times."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 13)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"
