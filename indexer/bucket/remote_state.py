"""What a place in a bucket holds: an ordinary index, or a fleet."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from indexer.bucket.object_store import Bucket
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.parts import Fleet, parse_fleet, part_name
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME

Part = TypeVar("Part")
Result = TypeVar("Result")

# Parts of a fleet that are asked at the same time: each request waits for the network.
_PARTS_TOGETHER = 16


@dataclass(frozen=True)
class RemotePart:
    """An ordinary index in a bucket: on its own, or a part of a fleet.

    name: its folder below that of the fleet; "." on its own. bucket: its place. manifest: the
    content of its manifest.json.
    """

    name: str
    bucket: Bucket
    manifest: bytes


@dataclass(frozen=True)
class RemoteState:
    """What a place in a bucket holds.

    fleet_json: the content of that file, and fleet: what it says; None for an ordinary index.
    parts: of the fleet, in order; else the index alone.
    """

    bucket: Bucket
    fleet_json: bytes | None
    fleet: Fleet | None
    parts: tuple[RemotePart, ...]

    @property
    def heads(self) -> dict[str, bytes]:
        """The content of fleet.json and of every manifest, by their paths below the folder."""
        heads = {f"{part.name}/{MANIFEST_NAME}": part.manifest for part in self.parts}
        return heads if self.fleet_json is None else {FLEET_NAME: self.fleet_json, **heads}


def read_state(bucket: Bucket) -> RemoteState:
    """What a place in a bucket holds now: one request for an index; two for a fleet, and one for
    each part.

    Raises IndexMissingError where there is neither or a part is missing, BucketError,
    IndexFormatError, IndexDamagedError.
    """
    content = bucket.get(MANIFEST_NAME)
    if content is not None:
        return RemoteState(bucket, None, None, (RemotePart(".", bucket, content),))
    content = bucket.get(FLEET_NAME)
    if content is None:
        raise IndexMissingError(f"{bucket.url}: no index here; check the address")
    try:
        fleet = parse_fleet(Path(bucket.url), content)
    except IndexDamagedError:
        raise IndexDamagedError(
            f"{bucket.url}/{FLEET_NAME}: is not what was written; delete {bucket.url} and index "
            "the photos again"
        ) from None
    names = map(part_name, range(fleet.parts))
    parts = of_every_part(lambda name: read_part(bucket.below(name), name), names)
    return RemoteState(bucket, content, fleet, tuple(parts))


def of_every_part(work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """What some work makes of each part of a fleet in a bucket, of several at the same time.

    Raises what the work raises.
    """
    with ThreadPoolExecutor(_PARTS_TOGETHER, "parts") as pool:
        return list(pool.map(work, parts))


def check_parts(state: RemoteState, fleet: Fleet) -> None:
    """Raise IndexDamagedError where the manifest of a part, in the folder of a fleet, is that of
    another collection.
    """
    for number, part in enumerate(state.parts):
        try:
            fleet.check_part(number)
        except IndexDamagedError:
            raise IndexDamagedError(
                f"{part.bucket.url}: is no part of this fleet; delete what lies there and run "
                "`waldo index` again over the same photos"
            ) from None


def read_part(bucket: Bucket, name: str) -> RemotePart:
    """A part of a fleet. bucket: its place. name: its folder below that of the fleet.

    Raises IndexMissingError, BucketError.
    """
    content = bucket.get(MANIFEST_NAME)
    if content is None:
        raise IndexMissingError(
            f"{bucket.url}: this part of the fleet is missing; run `waldo index` again over the "
            "same photos, or export the fleet to the same place again"
        )
    return RemotePart(name, bucket, content)
