"""A small deterministic extractor for tests of the store, and photos and indexes made with it."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.photo import ModelInput, Photo, load_model_input
from indexer.errors import IndexMissingError
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport
from indexer.protocols import Extractor
from indexer.reader import IndexReader
from indexer.recall.vectors import RecallIndex
from indexer.store.files import StoredFile
from indexer.store.manifest import Manifest, read_manifest
from indexer.store.mapstore import Place
from indexer.store.photos import PhotoRow, PhotoTable, read_photo_table
from indexer.upkeep.check import verify
from tests.helpers.pictures import save_photo


@dataclass
class PixelExtractor(Extractor):
    """Maps that follow from a photo's pixels alone: a fixed random projection of each cell.

    batches: how many photos each call took. before: called with the count of photos extracted so
    far, ahead of each call; it may raise. is_asynchronous: indexing then settles batches in a
    thread, as with a GPU.
    """

    image_size: int = 32
    grid: int = 4
    dim: int = 6
    model: str = "pixels"
    before: Callable[[int], None] | None = None
    batches: list[int] = field(default_factory=list)
    is_asynchronous: bool = False

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"model": self.model, "revision": "1", "timestep": 261, "scale": 0.5}

    def get_ready(self) -> None:
        pass

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        return np.empty((0, self.dim), dtype=np.float32)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        if self.before is not None:
            self.before(sum(self.batches))
        self.batches.append(len(inputs))
        return [self._extract(photo) for photo in inputs]

    def _extract(self, photo: ModelInput) -> FeatureMaps:
        side = self.image_size // self.grid
        cells = photo.pixels.reshape(self.grid, side, self.grid, side, 3).transpose(0, 2, 1, 3, 4)
        flat = cells.reshape(self.grid, self.grid, -1).astype(np.float64) / 255 - 0.5
        weights = np.random.default_rng(7).normal(size=(2, flat.shape[-1], self.dim)) / side
        appearance, semantic = ((flat @ w).astype(np.float16) for w in weights)
        return FeatureMaps(appearance, semantic, photo.frame, photo.content_hash)


@dataclass
class PixelDescriptor:
    """A vector that follows from a photo's pixels alone: a fixed random projection of 4 x 4.

    batches: how many photos each call took. no_vector_of: what `prepare` makes of a photo that the
    model has no finite numbers for.
    """

    name: str = "colours"
    dim: int = 5
    revision: str = "1"
    batches: list[int] = field(default_factory=list)
    no_vector_of: bytes = b""

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"model": self.name, "revision": self.revision}

    def get_ready(self) -> None:
        pass

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        return np.asarray(photo.image.resize((4, 4)))

    def describe(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.batches.append(len(inputs))
        weights = np.random.default_rng(self.dim).normal(size=(48, self.dim))
        vectors = np.stack([(pixels.reshape(48) / 255 - 0.5) @ weights for pixels in inputs])
        vectors[[pixels.tobytes() == self.no_vector_of for pixels in inputs]] = np.nan
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / lengths).astype(np.float32)


def make_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Distinct PNGs photo-000.png, photo-001.png, ... of several shapes, in the order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = [(40, 30), (30, 40), (36, 36), (64, 20)]
    return [
        save_photo(folder / f"photo-{i:03}.png", *shapes[i % len(shapes)], seed=i)
        for i in range(first, first + count)
    ]


def restored(folder: Path) -> Path:
    """A folder of photos and their index, as it was when this was first called with it.

    The folder itself, because an index holds the absolute paths of its photos.
    """
    original = folder.with_name(f"{folder.name}-original")
    if original.exists():
        shutil.rmtree(folder)
        shutil.copytree(original, folder, symlinks=True)
    else:
        shutil.copytree(folder, original, symlinks=True)
    return folder


def maps_of(path: Path, extractor: PixelExtractor) -> FeatureMaps:
    """What the extractor makes of one photo by itself."""
    photo = load_model_input(path, extractor.image_size, extractor.grid)
    return PixelExtractor(extractor.image_size, extractor.grid, extractor.dim).extract([photo])[0]


def run(
    sources: Sequence[Path] | Path,
    index_dir: Path,
    extractor: PixelExtractor | None = None,
    batch_size: int = 4,
    quality: str = "none",
    descriptors: Sequence[PixelDescriptor] = (),
    exclude: Sequence[str] = (),
) -> IndexReport:
    """`index_photos` with the extractor above."""
    chosen = [sources] if isinstance(sources, Path) else list(sources)
    return index_photos(
        chosen,
        index_dir,
        extractor or PixelExtractor(),
        batch_size=batch_size,
        quality=quality,
        descriptors=descriptors,
        exclude=exclude,
    )


def files_of(index: Path) -> dict[str, bytes]:
    """Every file of an index but its locks."""
    files = (path for path in index.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(index)): path.read_bytes() for path in files}


def flip(path: Path, at: int) -> None:
    """Change a bit of the byte at a place in a file."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x40
    path.write_bytes(raw)


def rows(index_dir: Path) -> dict[str, tuple[int, bytes, bytes, bytes]]:
    """Every photo by its path: id, appearance bytes, semantic bytes and pooled vector."""
    with IndexReader.open(index_dir) as reader:
        records, batch = reader.photos(reader.ids), reader.read_maps(reader.ids)
        assert batch.damaged == []
        appearances, semantics = (maps.half().numpy() for maps in reader.decode(batch))
        vectors = vectors_by_id(reader)
        return {
            str(record.path): (
                record.id,
                appearance.tobytes(),
                semantic.tobytes(),
                vectors[record.id].tobytes(),
            )
            for record, appearance, semantic in zip(records, appearances, semantics, strict=True)
        }


def failures(index: Path) -> dict[str, str]:
    """Why each photo that could not be indexed could not be, by its name."""
    lines = (index / "failures.jsonl").read_text().splitlines()
    return {Path(r["path"]).name: r["reason"] for r in map(json.loads, lines)}


def ids_by_name(index: Path) -> dict[str, int]:
    """The id of every photo by its name."""
    return {Path(path).name: row[0] for path, row in rows(index).items()}


def set_later(path: Path) -> None:
    """Give a file another modification time, without waiting for the clock."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def photo_row(photo_id: int, place: Place, **known: Any) -> PhotoRow:
    """A row of the photo table of which only `known` matters; pooled: two zeros."""
    fields = {
        "source": 0,
        "path": f"{photo_id}.jpg",
        "content_hash": bytes(32),
        "size": 1,
        "mtime_ns": 1,
        "width": 4,
        "height": 3,
        "pooled": np.zeros(2, np.float32),
        "words": np.empty(0, np.uint16),
        "taken_ns": None,
    }
    return PhotoRow(id=photo_id, place=place, **{**fields, **known})


def photo_table(folder: Path, *names: str, deleted: tuple[int, ...] = ()) -> PhotoTable:
    """The photo table of the shards of these names in a folder, oldest first."""
    files = tuple(StoredFile(name, number, 0, 0, "") for number, name in enumerate(names))
    manifest = Manifest({}, 32, 4, 6, "none", photos=files, tombstones=deleted)
    return read_photo_table(folder, manifest)


def described(index_dir: Path) -> dict[str, dict[str, bytes]]:
    """The vector of every photo that has one, by descriptor and the photo's path."""
    found: dict[str, dict[str, bytes]] = {}
    with IndexReader.open(index_dir) as reader:
        for name in reader.descriptors:
            vectors = vectors_of(reader.descriptor_recall(name))
            records = reader.photos(list(vectors))
            found[name] = {str(r.path): vectors[r.id].tobytes() for r in records}
    return found


def ids_by_recall(reader: IndexReader) -> list[int]:
    """Every id that recall by pooled vectors finds, rising."""
    found, _ = reader.recall.search(np.ones(reader.recall.dim, np.float32), 1000)
    return sorted(found.tolist())


def vectors_by_id(reader: IndexReader) -> dict[int, np.ndarray]:
    """The vectors of the recall index by pooled vectors."""
    return vectors_of(reader.recall)


def vectors_of(recall: RecallIndex) -> dict[int, np.ndarray]:
    """The vectors of a recall index, got back through its own search with unit vectors."""
    columns = []
    for axis in np.eye(recall.dim, dtype=np.float32):
        ids, scores = recall.search(axis, len(recall))
        columns.append(scores[np.argsort(ids)])
    return dict(zip(np.sort(ids).tolist(), np.stack(columns, axis=1), strict=True))


def assert_usable(index: Path) -> None:
    """The index opens at its last commit, if it has one, and every file of that commit is sound."""
    if not (index / "manifest.json").exists():
        return
    assert verify(index) == []
    with contextlib.suppress(IndexMissingError), IndexReader.open(index) as reader:
        assert reader.read_maps(reader.ids).damaged == []
        described(index)
        assert [reader.named(name).name for name in reader.names] == list(reader.names)
        assert ids_by_recall(reader) == reader.ids.tolist()


def assert_nothing_left_over(index: Path) -> None:
    """An index holds the files of its last commit, and the list of failures, alone."""
    names = {file.name for file in read_manifest(index).files()} | {"manifest.json"}
    assert set(files_of(index)) - {"failures.jsonl"} == names


def generation(index: Path) -> int:
    """The number of an index's last commit; -1 where there is no index."""
    manifest = Manifest.load_if_present(index)
    return -1 if manifest is None else manifest.generation
