"""Photos, and indexes of them whose shards are soon full, on which work is disturbed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import indexer.ingest.commit as commit
import indexer.store.shards as shards
from indexer.named_objects import NamedObject
from indexer.upkeep.compact import compact
from tests.helpers.names import keep_name, named_view
from tests.helpers.pictures import save_photo
from tests.helpers.stores import PixelDescriptor, PixelExtractor, make_photos, run

SHARD_BYTES = 3 * 2 * (4 * 4 * 6 * 2)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)
    monkeypatch.setattr(commit, "_MAX_VECTORS", 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos, two of them of the same content, and a broken one: two shards are enough for
    every kind of step.
    """
    folder = tmp_path / "photos"
    make_photos(folder, 6)
    shutil.copy(folder / "photo-004.png", folder / "photo-004a.png")
    (folder / "photo-002a.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def before(action: str, tmp_path: Path, photos: Path) -> Path:
    """The index that an action begins with; the photos are changed to what the action finds."""
    index = tmp_path / "before"
    if action == "index":
        return index
    descriptors = [] if action == "describe" else [PixelDescriptor()]
    run(photos, index, descriptors=descriptors)
    if action == "describe":
        return index
    keep_name(index, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    make_photos(photos, 2, first=20)
    save_photo(photos / "photo-001.png", 50, 50, seed=90)
    (photos / "photo-002.png").unlink()
    (photos / "photo-003.png").rename(photos / "photo-030.png")
    shutil.copy(photos / "photo-005.png", photos / "photo-031.png")
    if action == "compact":
        run(photos, index, descriptors=descriptors)
        (photos / "photo-000.png").unlink()
        run(photos, index, descriptors=descriptors)
    return index


@pytest.fixture
def work(action: str, photos: Path) -> Callable[[Path], object]:
    """What an action does to an index: it compacts it, or it is a run of `waldo index` over the
    photos, as on a device where the action says so.
    """
    if action == "compact":
        return compact
    is_asynchronous = action.endswith("on a device")
    return lambda index: run(
        photos,
        index,
        PixelExtractor(is_asynchronous=is_asynchronous),
        batch_size=2,
        descriptors=[PixelDescriptor()],
    )
