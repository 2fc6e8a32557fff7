"""Writing a fleet that lies in a bucket: what its parts have in common, and each part as an index.

fleet.json is stored before the parts, and never changed: who stores it first has the place.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from indexer.bucket.object_store import Bucket, ConflictError
from indexer.bucket.remote_state import PARTS_TOGETHER
from indexer.bucket.transfer import OnBytes, copy_head, is_sound, object_key
from indexer.bucket.working_copy import WorkingCopy
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.fleet.parts import parse_fleet, part_name, read_fleet
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import write_bytes_atomically, writing
from indexer.store.folder import FLEET_CODEC_NAME
from indexer.store.manifest import FLEET_NAME


class FleetCopy:
    """A folder that holds the state of a fleet in a bucket; made by `collection_copy`.

    folder: of the fleet; without fleet.json where the bucket has none.
    """

    def __init__(self, bucket: Bucket, folder: Path, progress: OnBytes | None = None) -> None:
        """Bring the folder to the state of the bucket, whatever an earlier writer left in it.

        progress: called for each part as for `WorkingCopy`. Raises as `collection_copy` does.
        """
        self.folder = folder
        self._bucket = bucket
        self._parts: list[WorkingCopy] = []
        self._failures: bytes | None = None
        content = bucket.get(FLEET_NAME)
        if content is None:
            _check_place(bucket)
            with writing(folder):
                if folder.exists():
                    shutil.rmtree(folder)  # what was begun there and reached no bucket
                folder.mkdir(parents=True)
            return
        fleet = parse_fleet(folder, content)
        copy_head(bucket, content, fleet, folder)
        self._open_parts(fleet.parts, progress)
        self._failures = bucket.get(FAILURES_NAME)
        with writing(folder):
            (folder / FAILURES_NAME).unlink(missing_ok=True)
            if self._failures is not None:
                write_bytes_atomically(folder / FAILURES_NAME, self._failures)

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
        path = self.folder / FAILURES_NAME
        content = path.read_bytes() if path.exists() else None
        if content is not None and content != self._failures:
            self._bucket.put(FAILURES_NAME, path)
            self._failures = content

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
        if not is_sound(self.folder / fleet.codec.name, fleet.codec):
            raise IndexDamagedError(
                f"{self.folder / fleet.codec.name}: is not what was written; run the same command "
                "again"
            )
        self._bucket.put(object_key(fleet.codec), self.folder / fleet.codec.name)
        try:
            self._bucket.create(FLEET_NAME, (self.folder / FLEET_NAME).read_bytes())
        except ConflictError:
            raise ConflictError(
                f"{self._bucket.url}: another run has made a fleet here meanwhile; run the same "
                "command again to add your photos to it"
            ) from None
        self._open_parts(fleet.parts, None)

    def _open_parts(self, count: int, progress: OnBytes | None) -> None:
        def open_part(number: int) -> WorkingCopy:
            name = part_name(number)
            return WorkingCopy(self._bucket.below(name), self.folder / name, progress)

        with ThreadPoolExecutor(PARTS_TOGETHER, "parts") as pool:
            self._parts = list(pool.map(open_part, range(count)))


def _check_place(bucket: Bucket) -> None:
    """Raise IndexMissingError where a fleet cannot be made in a bucket."""
    # A run that was killed may have left a codec, which no fleet.json names.
    codec = Path(FLEET_CODEC_NAME)
    for key in bucket.sizes():
        if not (key.startswith(f"{codec.stem}-") and key.endswith(codec.suffix)):
            raise IndexMissingError(
                f"{bucket.url}: holds other objects and no fleet; choose a new place for the fleet"
            )
