"""fleet.json: the parts of a fleet, and what they have in common.

Every part is an ordinary index in a folder of its own, with a codec that was fitted once to the
whole collection. So maps, words and scores of all parts are those of a single index. fleet.json is
written once, when the fleet is made, and never changed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from features.errors import WaldoError
from indexer.codec.codec import codec_name
from indexer.errors import IndexDamagedError, IndexFormatError, IndexMissingError, one_line
from indexer.store.files import StoredFile, write_bytes_atomically, write_text_atomically
from indexer.store.manifest import (
    FLEET_NAME,
    MANIFEST_NAME,
    Fingerprint,
    Manifest,
    is_whole,
    read_manifest,
    write_manifest,
)

FLEET_FORMAT = 1
# The number of the codec in each part, and so its generation there.
CODEC_NUMBER = 1
MOST_PARTS = 10_000
# Of a fleet for the workers of a cluster: at least so many parts, and photos in each at most.
_LEAST_USUAL_PARTS = 16
_USUAL_PHOTOS = 50_000
# The bits of an id below the number of its part.
_ID_BITS = 32


@dataclass(frozen=True)
class Fleet:
    """What fleet.json says.

    parts: how many there are. fingerprint, image_size, grid, dim, quality: as in `Manifest`. codec:
    its file below the folder of the fleet, of which every part has a copy. spread: sizes of files,
    in bytes, that so many photos have that they are divided by their paths.
    """

    index_dir: Path
    parts: int
    fingerprint: Fingerprint
    image_size: int
    grid: int
    dim: int
    quality: str
    codec: StoredFile
    spread: frozenset[int]

    def folder(self, number: int) -> Path:
        """The index of a part, by its number from 0."""
        return self.index_dir / part_name(number)

    @property
    def folders(self) -> list[Path]:
        """The indexes of all parts."""
        return [self.folder(number) for number in range(self.parts)]

    @property
    def part_codec(self) -> StoredFile:
        """The copy of the codec in each part."""
        return replace(self.codec, name=codec_name(CODEC_NUMBER))

    def part_of(self, size: int, path: str) -> int:
        """The part of a photo, by its size in bytes. Copies of a photo are in one part, and a photo
        that moves stays there; but for sizes in `spread`, where its absolute path counts too.
        """
        key = f"{size} {path}" if size in self.spread else f"{size}"
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.parts

    def prepare(self, number: int) -> None:
        """Make the index of a part if there is none, and give it the codec if it lacks that.

        Raises OSError, IndexDamagedError, IndexFormatError.
        """
        folder = self.folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        own = self.part_codec
        if not is_whole(folder, own):
            codec = self.index_dir / self.codec.name
            content = codec.read_bytes()
            if sha256(content).hexdigest() != self.codec.sha256:
                raise IndexDamagedError(
                    f"{codec}: its content is not what was written; copy {own.name} of a part to it"
                )
            write_bytes_atomically(folder / own.name, content)
        if not (folder / MANIFEST_NAME).exists():
            write_manifest(folder, self.first_manifest(number))
        self.check_part(number)

    def first_manifest(self, number: int) -> Manifest:
        """The manifest of a part without photos, which names the codec alone."""
        shape = self.image_size, self.grid, self.dim
        fresh = Manifest(self.fingerprint, *shape, self.quality, next_id=part_ids(number)[0])
        return replace(fresh, generation=CODEC_NUMBER, codecs=(self.part_codec,))

    def check_part(self, number: int) -> None:
        """Raise IndexMissingError where a part is missing, IndexDamagedError where it is none of
        this fleet. Raises IndexFormatError too.
        """
        folder = self.folder(number)
        if not (folder / MANIFEST_NAME).exists():
            raise IndexMissingError(
                f"{folder}: this part of the fleet is missing; run `waldo index` again over the "
                "same photos"
            )
        manifest = read_manifest(folder)
        first, beyond = part_ids(number)
        if (
            {file.sha256 for file in manifest.codecs} != {self.codec.sha256}
            or manifest.fingerprint != self.fingerprint
            or not first <= manifest.next_id <= beyond
        ):
            raise IndexDamagedError(
                f"{folder}: is no part of this fleet; delete that folder and run `waldo index` "
                "again over the same photos"
            )


def part_name(number: int) -> str:
    """The folder of a part below that of its fleet, with "/", by its number from 0."""
    return f"parts/{number:05d}"


def part_ids(number: int) -> tuple[int, int]:
    """The first id of a part, and the first beyond it."""
    return number << _ID_BITS, (number + 1) << _ID_BITS


def part_of_id(photo_id: Any) -> Any:
    """The number of the part that a photo is in, by its id; also for an array of ids."""
    return photo_id >> _ID_BITS


def read_fleet(index_dir: Path) -> Fleet | None:
    """The fleet in a folder; None where there is none. Raises as `parse_fleet`."""
    path = index_dir / FLEET_NAME
    try:
        return parse_fleet(index_dir, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(index_dir, error) from error


def parse_fleet(index_dir: Path, content: bytes) -> Fleet:
    """The fleet that has this fleet.json.

    Raises IndexFormatError for another format, IndexDamagedError.
    """
    try:
        raw = json.loads(content)
        version = raw.pop("format")
        if version != FLEET_FORMAT:
            raise IndexFormatError(
                f"{index_dir}: the fleet has format {version}, this waldo reads format "
                f"{FLEET_FORMAT}; update waldo"
            )
        check_parts(raw["parts"])
        codec, spread = StoredFile(**raw.pop("codec")), frozenset(raw.pop("spread"))
        return Fleet(index_dir, codec=codec, spread=spread, **raw)
    except IndexFormatError:
        raise
    except (WaldoError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index_dir, error) from error


def _damaged(index_dir: Path, error: Exception) -> IndexDamagedError:
    return IndexDamagedError(
        f"{index_dir / FLEET_NAME}: cannot be read ({one_line(error)}); delete {index_dir} and "
        "index the photos again"
    )


def write_fleet(fleet: Fleet) -> None:
    """Make a fleet: after this returns, and not before, there is one. Raises OSError."""
    values: Mapping[str, Any] = {
        "format": FLEET_FORMAT,
        **{name: value for name, value in asdict(fleet).items() if name != "index_dir"},
        "spread": sorted(fleet.spread),
    }
    write_text_atomically(fleet.index_dir / FLEET_NAME, json.dumps(values, indent=1) + "\n")


def parts_of(index_dir: Path) -> list[Path]:
    """The ordinary indexes that a collection consists of: the parts of a fleet, or the folder
    itself. Raises as `read_fleet`, and as `Fleet.check_part`.
    """
    fleet = read_fleet(index_dir)
    if fleet is None:
        return [index_dir]
    for number in range(fleet.parts):
        fleet.check_part(number)
    return fleet.folders


def check_parts(parts: int) -> None:
    """Raise WaldoError for a number of parts that no fleet can have."""
    if not 1 <= parts <= MOST_PARTS:
        raise WaldoError(f"parts {parts}: must be from 1 to {MOST_PARTS}")


def usual_parts(files: int) -> int:
    """How many parts suit a fleet of so many files that the workers of a cluster make."""
    return min(MOST_PARTS, max(_LEAST_USUAL_PARTS, -(-files // _USUAL_PHOTOS)))
