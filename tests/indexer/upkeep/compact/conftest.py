"""Photos, and an index of them that has something to compact."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexer.store.shards as shards
import indexer.upkeep.compact as compact_module
from tests.helpers.pictures import save_photo
from tests.helpers.stores import make_photos, run


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    """Five photos fill a map shard, eight a shard of the photo table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))
        patch.setattr(compact_module, "_PHOTOS_PER_SHARD", 8)
        yield


@pytest.fixture(scope="module")
def made(small_shards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and an index with dead rows, small shards, a changed photo and copies of photos."""
    folder = tmp_path_factory.mktemp("compact") / "work"
    photos, index = folder / "photos", folder / "index"
    make_photos(photos, 13)
    run(photos, index)
    make_photos(photos, 1, first=20)
    save_photo(photos / "photo-012.png", 50, 50, seed=90)
    shutil.copy(photos / "photo-006.png", photos / "photo-030.png")
    shutil.copy(photos / "photo-007.png", photos / "photo-031.png")
    run(photos, index)
    for number in (1, 3, 6):
        (photos / f"photo-{number:03}.png").unlink()
    (photos / "photo-005.png").rename(photos / "photo-040.png")
    run(photos, index)
    return folder
