"""Writing a fleet that lies in a bucket: what its parts have in common, and each part as an index.

fleet.json is stored before the parts, and never changed: who stores it first has the place.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from indexer.bucket.object_store import Bucket, ConflictError
from indexer.bucket.remote_state import PARTS_TOGETHER
from indexer.bucket.transfer import OnBytes, Together, copy_head, put_sound
from indexer.bucket.working_copy import RUN_AGAIN, StoredFailures, WorkingCopy
from indexer.errors import IndexMissingError
from indexer.fleet.parts import parse_fleet, part_name, read_fleet
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import writing
from indexer.store.folder import FLEET_CODEC_NAME
from indexer.store.manifest import FLEET_NAME


class FleetCopy:
    """A folder that holds the state of a fleet in a bucket; made by `collection_copy`.

    folder: of the fleet; without fleet.json where the bucket has none.
    """

    def __init__(self, bucket: Bucket, folder: Path, progress: OnBytes | None = None) -> None:
        """Bring the folder to the state of the bucket, whatever an earlier writer left in it.

        progress: as for `WorkingCopy`, of the parts that were begun. Raises as `collection_copy`
        does.
        """
        self.folder = folder
        self._bucket = bucket
        self._parts: list[WorkingCopy] = []
        content = bucket.get(FLEET_NAME)
        if content is None:
            _check_place(bucket)
            with writing(folder):
                if folder.exists():
                    shutil.rmtree(folder)  # what was begun there and reached no bucket
                folder.mkdir(parents=True)
                self._failures = StoredFailures(bucket, folder, None)
            return
        fleet = parse_fleet(folder, content)
        copy_head(bucket, content, fleet, folder)
        self._open_parts(fleet.parts, progress)
        failures = bucket.get(FAILURES_NAME)
        with writing(folder):
            self._failures = StoredFailures(bucket, folder, failures)

    def push(self) -> None:
        """Store in the bucket what was committed in the folder since it was read or pushed.

        It must be called once before the first part of a new fleet is made. Raises as
        `WorkingCopy.push`.
        """
        if not (self.folder / FLEET_NAME).exists():
            return  # nothing was made
        if not self._parts:
            self._push_head()
        for part in self._parts:
            part.push()
        self._failures.push()

    def delete_unnamed(self) -> None:
        """As `WorkingCopy.delete_unnamed`, of every part."""
        for part in self._parts:
            part.delete_unnamed()

    def drop_shards(self) -> None:
        """As `WorkingCopy.drop_shards`, of every part."""
        for part in self._parts:
            part.drop_shards()

    def _push_head(self) -> None:
        """Store the codec and fleet.json of a fleet that was just made."""
        fleet = read_fleet(self.folder)
        assert fleet is not None
        put_sound(self._bucket, fleet.codec, self.folder, RUN_AGAIN)
        try:
            self._bucket.create(FLEET_NAME, (self.folder / FLEET_NAME).read_bytes())
        except ConflictError:
            raise ConflictError(
                f"{self._bucket.url}: another run has made a fleet here meanwhile; run the same "
                "command again to add your photos to it"
            ) from None
        self._open_parts(fleet.parts, None)

    def _open_parts(self, count: int, progress: OnBytes | None) -> None:
        together = Together(progress)

        def open_part(name: str) -> WorkingCopy:
            told = partial(together.report, name)
            return WorkingCopy(self._bucket.below(name), self.folder / name, told)

        with ThreadPoolExecutor(PARTS_TOGETHER, "parts") as pool:
            self._parts = list(pool.map(open_part, map(part_name, range(count))))


def _check_place(bucket: Bucket) -> None:
    """Raise IndexMissingError where a fleet cannot be made in a bucket."""
    # A run that was killed may have left a codec, which no fleet.json names.
    codec = Path(FLEET_CODEC_NAME)
    for key in bucket.sizes():
        if not (key.startswith(f"{codec.stem}-") and key.endswith(codec.suffix)):
            raise IndexMissingError(
                f"{bucket.url}: holds other objects and no fleet; choose a new place for the fleet"
            )
