"""The manifest: the one file that says what the index holds; replacing it is the commit."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from indexer.codec.quality import bytes_per_photo
from indexer.errors import (
    FROM_A_COPY,
    INDEX_AGAIN,
    NAME_AGAIN,
    REPAIR_HINT,
    FingerprintError,
    IndexDamagedError,
    IndexFormatError,
    IndexMissingError,
    one_line,
)
from indexer.store.files import StoredFile, write_text_atomically

MANIFEST_NAME = "manifest.json"
# In the place of a manifest, a fleet has this file (`indexer.parts`).
FLEET_NAME = "fleet.json"
FORMAT = 2

Fingerprint = Mapping[str, str | int | float]


@dataclass(frozen=True)
class SourceRoot:
    """What photo paths are relative to.

    root: an absolute folder. list_name: name of the list file in it that named the photos; None
    for photos found in the folder or given one by one.
    """

    root: str
    list_name: str | None = None


@dataclass(frozen=True)
class ShardLayout:
    """Where the values of a map shard's columns begin, as byte offsets in its file.

    From there on the values of a column lie back to back: int64 ids, uint32 checksums, and maps of
    `Manifest.photo_bytes` bytes each.
    """

    ids: int
    checksums: int
    maps: int


@dataclass(frozen=True)
class MapShard(StoredFile):
    """A file of encoded maps.

    codec: number of the codec that encoded them. layout: as it was when the file was written; None
    where the Waldo that wrote it recorded none.
    """

    codec: int
    layout: ShardLayout | None = None


@dataclass(frozen=True)
class Derived:
    """A file that can be made again from the photo table.

    file: where it is. covers: number of the last photo table shard whose photos are in it.
    """

    file: StoredFile
    covers: int


@dataclass(frozen=True)
class DescriptorColumn:
    """Global descriptors of photos, one vector for each content.

    name: of the descriptor. fingerprint: all that its vectors depend on. dim: length of a vector.
    files: where the vectors lie, oldest first. recall: the base of recall by them; it covers files
    of this column, and need not have all of their photos.
    """

    name: str
    fingerprint: Fingerprint
    dim: int
    files: tuple[StoredFile, ...] = ()
    recall: Derived | None = None


@dataclass(frozen=True)
class NameRecord:
    """An object that the index knows by a name. file: the features of its photos; its rows are
    these photos. The name that the file itself says is the one it was first given.
    """

    name: str
    file: StoredFile


@dataclass(frozen=True)
class Manifest:
    """One committed state of an index; immutable, and so are the files it names.

    generation: counts commits; a file that a commit writes carries its number.
    fingerprint: all that the features depend on. image_size, grid, dim: as the extractor's.
    quality: the codec's (`QUALITIES`). codecs: its parameters as they were fitted, the newest
    last. shards, photos: map and photo table shards, oldest first. recall, words: bases of recall
    by pooled vectors and by visual words, None before the first run ends. descriptors: columns of
    further vectors; each keeps its position. weights: of a search's kinds of evidence, by name, as
    they were fitted to this collection; None where they were not. names: objects that are known by
    name, sorted. albums: which photos show them, as far as that has been found out. links: which
    regions of photos show the same thing, as far as that has been found out. corrections: what
    people said of recurring objects. n_photos: photos that can be found, as of the last run that
    ended. next_id: the id of the next new photo. tombstones: ids that are deleted.
    """

    fingerprint: Fingerprint
    image_size: int
    grid: int
    dim: int
    quality: str
    generation: int = 0
    sources: tuple[SourceRoot, ...] = ()
    codecs: tuple[StoredFile, ...] = ()
    shards: tuple[MapShard, ...] = ()
    photos: tuple[StoredFile, ...] = ()
    recall: Derived | None = None
    words: Derived | None = None
    descriptors: tuple[DescriptorColumn, ...] = ()
    weights: Mapping[str, float] | None = None
    names: tuple[NameRecord, ...] = ()
    albums: StoredFile | None = None
    links: StoredFile | None = None
    corrections: StoredFile | None = None
    n_photos: int = 0
    next_id: int = 0
    tombstones: tuple[int, ...] = ()
    format: int = field(default=FORMAT)

    @classmethod
    def load_if_present(cls, index_dir: Path) -> "Manifest | None":
        """The last committed state, or None where there is no index; else as `read_manifest`."""
        return read_manifest(index_dir) if (index_dir / MANIFEST_NAME).exists() else None

    @property
    def photo_bytes(self) -> int:
        """Size of one photo's encoded maps, bytes."""
        return bytes_per_photo(self.quality, self.grid, self.dim)

    @property
    def last_photos(self) -> int:
        """Number of the newest photo table shard, 0 if there is none."""
        return self.photos[-1].number if self.photos else 0

    def descriptor(self, name: str) -> DescriptorColumn | None:
        """The column of this name, if there is one."""
        return next((column for column in self.descriptors if column.name == name), None)

    def named(self, name: str) -> NameRecord | None:
        """The object of this name, if there is one."""
        return next((record for record in self.names if record.name == name), None)

    def repair_hint(self, file: StoredFile, is_missing: bool = False) -> str:
        """What to do where one of its files is damaged, or missing."""
        if file in (record.file for record in self.names):
            return NAME_AGAIN
        if file == self.corrections:
            return FROM_A_COPY
        return INDEX_AGAIN if is_missing else REPAIR_HINT

    def files(self) -> list[StoredFile]:
        """Every file that this state of the index consists of."""
        bases = [self.recall, self.words, *(column.recall for column in self.descriptors)]
        derived = [base.file for base in bases if base is not None]
        vectors = [file for column in self.descriptors for file in column.files]
        names = [record.file for record in self.names]
        of_objects = [file for file in (self.albums, self.links, self.corrections) if file]
        found = [*derived, *vectors, *names, *of_objects]
        return [*self.codecs, *self.shards, *self.photos, *found]


def absolute_path(root: str, relative: str) -> str:
    """A photo's absolute path from its source's root and its path in the photo table."""
    return os.path.join(root, relative)  # noqa: PTH118 (Path costs ten times as much)


def read_manifest(index_dir: Path) -> Manifest:
    """The last committed state.

    Raises IndexMissingError, IndexFormatError for another format, IndexDamagedError.
    """
    path = index_dir / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if (index_dir / FLEET_NAME).exists():
            raise fleet_refusal(index_dir) from None
        raise IndexMissingError(
            f"{index_dir}: no index here; run `waldo index PHOTOS --index {index_dir}` first, or "
            "name the folder of another index"
        ) from None
    except OSError as error:
        raise _unreadable(index_dir, error) from error
    return parse_manifest(index_dir, content)


def parse_manifest(index_dir: Path, content: bytes) -> Manifest:
    """The state that a manifest of an index describes.

    Raises IndexFormatError for another format, IndexDamagedError.
    """
    path = index_dir / MANIFEST_NAME
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise _unreadable(index_dir, error) from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise IndexDamagedError(f"{path} is no index manifest; choose another folder")
    if version != FORMAT:
        mend = "update waldo" if version > FORMAT else "index the photos again into a new folder"
        raise IndexFormatError(
            f"{index_dir}: the index has format {version}, this waldo reads format {FORMAT}; {mend}"
        )
    try:
        return _from_json(raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexDamagedError(
            f"{path} lacks something ({error!r}); delete {index_dir} and index the photos again"
        ) from error


def _unreadable(index_dir: Path, error: Exception) -> IndexDamagedError:
    return IndexDamagedError(
        f"{index_dir / MANIFEST_NAME} cannot be read ({one_line(error)}); delete {index_dir} and "
        "index the photos again"
    )


def fleet_refusal(place: Path | str) -> IndexMissingError:
    """What is wrong with a fleet where an ordinary index is needed. place: its folder or URL."""
    return IndexMissingError(
        f"{place}: is a fleet of indexes, which keeps no names, objects or fitted weights yet; use "
        "an ordinary index for them"
    )


def write_manifest(index_dir: Path, manifest: Manifest) -> None:
    """Commit: after this returns, and not before, the index is in the new state."""
    values = dict(vars(manifest))
    if not manifest.descriptors:
        del values["descriptors"]
    if manifest.weights is None:
        del values["weights"]
    if not manifest.names:
        del values["names"]
    if manifest.albums is None:
        del values["albums"]
    if manifest.links is None:
        del values["links"]
    if manifest.corrections is None:
        del values["corrections"]
    values["layouts"] = {shard.number: shard.layout for shard in manifest.shards if shard.layout}
    # A line for each key: indented JSON takes four times as long, which tells in a large index,
    # whose manifest is written at every commit.
    lines = (f"{json.dumps(key)}: {json.dumps(values[key], default=_fields)}" for key in values)
    write_text_atomically(index_dir / MANIFEST_NAME, "{\n" + ",\n".join(lines) + "\n}\n")


def _fields(entry: Any) -> dict[str, Any]:
    """The values of an entry of the manifest. A shard's layout is not among them: a Waldo that
    knows no layouts reads the index too.
    """
    return {name: value for name, value in vars(entry).items() if name != "layout"}


def check_quality(index_dir: Path, manifest: Manifest, quality: str | None) -> None:
    """Raise FingerprintError where another codec is asked for than the index was made with."""
    if quality is not None and quality != manifest.quality:
        raise FingerprintError(
            f"{index_dir}: made with codec {manifest.quality}, not {quality}; use the index's "
            "codec, or another folder for the index"
        )


def check_fingerprint(index_dir: Path, manifest: Manifest, current: Fingerprint) -> None:
    """Raise FingerprintError unless `current` is what the index was made with."""
    stored = manifest.fingerprint
    if stored == current:
        return
    # Another model differs in everything else too, which would tell nothing.
    is_same = stored.get("model") == current.get("model")
    details = f" ({_differences(stored, current)})" if is_same else ""
    raise FingerprintError(
        f"{index_dir}: made with model {stored.get('model')}, but model {current.get('model')} is "
        f"in use{details}; use the index's model, or another folder for the index"
    )


def check_descriptor(index_dir: Path, column: DescriptorColumn, current: Fingerprint) -> None:
    """Raise FingerprintError unless `current` is what a column was made with."""
    details = _differences(column.fingerprint, current)
    if details:
        raise FingerprintError(
            f"{index_dir}: its descriptor {column.name} is of another version ({details}); use "
            "that version, or another folder for the index"
        )


def _differences(stored: Fingerprint, current: Fingerprint) -> str:
    """What differs between two fingerprints, "" where nothing does."""
    differing = sorted(
        key for key in stored.keys() | current.keys() if stored.get(key) != current.get(key)
    )
    return "; ".join(
        f"{key}: {stored.get(key)} in the index, {current.get(key)} now" for key in differing
    )


def without_lost_files(index_dir: Path, manifest: Manifest) -> Manifest:
    """The manifest without the files that are missing or cut short, so that a run makes them again.

    Where a photo table shard is lost, so are the recall indexes: they hold photos that the table no
    longer has. Where a codec is lost, so are the shards that it encoded; where a descriptor's
    vectors are, so is their recall index. What people said of objects is given up only where its
    file is missing: nothing can make it again.
    """
    codecs = tuple(file for file in manifest.codecs if is_whole(index_dir, file))
    photos = tuple(file for file in manifest.photos if is_whole(index_dir, file))

    def derived(base: Derived | None) -> Derived | None:
        whole = base is not None and is_whole(index_dir, base.file)
        return base if whole and photos == manifest.photos else None

    def without_lost_vectors(column: DescriptorColumn) -> DescriptorColumn:
        files = tuple(file for file in column.files if is_whole(index_dir, file))
        recall = derived(column.recall) if files == column.files else None
        return replace(column, files=files, recall=recall)

    numbers = {file.number for file in codecs}
    albums, links, said = manifest.albums, manifest.links, manifest.corrections
    return replace(
        manifest,
        codecs=codecs,
        shards=tuple(
            file for file in manifest.shards if is_whole(index_dir, file) and file.codec in numbers
        ),
        photos=photos,
        recall=derived(manifest.recall),
        words=derived(manifest.words),
        descriptors=tuple(map(without_lost_vectors, manifest.descriptors)),
        albums=albums if albums and is_whole(index_dir, albums) else None,
        links=links if links and is_whole(index_dir, links) else None,
        corrections=said if said and (index_dir / said.name).exists() else None,
    )


def is_whole(index_dir: Path, file: StoredFile) -> bool:
    """Whether a file is there and has its length."""
    try:
        return (index_dir / file.name).stat().st_size == file.bytes
    except OSError:
        return False


def _from_json(raw: dict[str, Any]) -> Manifest:
    def derived(value: dict[str, Any] | None) -> Derived | None:
        return Derived(StoredFile(**value["file"]), value["covers"]) if value else None

    def shard(file: dict[str, Any]) -> MapShard:
        layout = raw.get("layouts", {}).get(str(file["number"]))
        return MapShard(**file, layout=ShardLayout(**layout) if layout else None)

    return Manifest(
        fingerprint=raw["fingerprint"],
        image_size=raw["image_size"],
        grid=raw["grid"],
        dim=raw["dim"],
        quality=raw["quality"],
        generation=raw["generation"],
        sources=tuple(SourceRoot(**source) for source in raw["sources"]),
        codecs=tuple(StoredFile(**file) for file in raw["codecs"]),
        shards=tuple(map(shard, raw["shards"])),
        photos=tuple(StoredFile(**file) for file in raw["photos"]),
        recall=derived(raw["recall"]),
        words=derived(raw["words"]),
        descriptors=tuple(
            DescriptorColumn(
                column["name"],
                column["fingerprint"],
                column["dim"],
                tuple(StoredFile(**file) for file in column["files"]),
                derived(column["recall"]),
            )
            for column in raw.get("descriptors", ())
        ),
        weights=raw.get("weights"),
        names=tuple(
            NameRecord(record["name"], StoredFile(**record["file"]))
            for record in raw.get("names", ())
        ),
        albums=StoredFile(**raw["albums"]) if raw.get("albums") else None,
        links=StoredFile(**raw["links"]) if raw.get("links") else None,
        corrections=StoredFile(**raw["corrections"]) if raw.get("corrections") else None,
        n_photos=raw["n_photos"],
        next_id=raw["next_id"],
        tombstones=tuple(raw["tombstones"]),
    )
