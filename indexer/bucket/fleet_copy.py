"""Writing a fleet that lies in a bucket: what its parts have in common.

fleet.json is stored before the parts, and never changed: who stores it first has the place.
"""

import shutil
from pathlib import Path

from indexer.bucket.object_store import Bucket, ConflictError
from indexer.bucket.remote_index import mark
from indexer.bucket.remote_state import of_every_part
from indexer.bucket.transfer import copy_head, put_sound
from indexer.bucket.working_copy import RUN_AGAIN, StoredFailures
from indexer.errors import IndexMissingError
from indexer.parts import Fleet, parse_fleet, part_name, read_fleet
from indexer.store.failures import FAILURES_NAME
from indexer.store.files import write_bytes_atomically, writing
from indexer.store.folder import FLEET_CODEC_NAME
from indexer.store.locks import ORIGIN_NAME
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME


class FleetCopy:
    """A folder that holds what the parts of a fleet in a bucket have in common, and the manifests
    of the parts; made by `collection_copy`. Each part has a working copy of its own.

    folder: of the fleet; without fleet.json where the bucket has none. bucket: its place there.
    """

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        """Bring the folder to the state of the bucket, whatever an earlier writer left in it.

        Raises as `collection_copy` does.
        """
        self.folder = folder
        self.bucket = bucket
        content = bucket.get(FLEET_NAME)
        self._is_stored = content is not None
        if content is None:
            _check_place(bucket)
            with writing(folder):
                if folder.exists():
                    shutil.rmtree(folder)  # what was begun there and reached no bucket
                folder.mkdir(parents=True)
                mark(folder, ORIGIN_NAME, bucket)
                self._failures = StoredFailures(bucket, folder, None)
            return
        fleet = parse_fleet(folder, content)
        copy_head(bucket, content, fleet, folder)
        self._copy_manifests(fleet)
        failures = bucket.get(FAILURES_NAME)
        with writing(folder):
            mark(folder, ORIGIN_NAME, bucket)
            self._failures = StoredFailures(bucket, folder, failures)

    def push(self) -> None:
        """Store in the bucket what was committed in the folder since it was read or pushed, but
        what is in the parts.

        Raises as `WorkingCopy.push`.
        """
        if not (self.folder / FLEET_NAME).exists():
            return  # nothing was made
        if not self._is_stored:
            self._push_head()
            self._is_stored = True
        self._failures.push()

    def delete_unnamed(self) -> None:
        """Nothing: no file that the parts have in common ever takes another's place."""

    def _push_head(self) -> None:
        """Store the codec and fleet.json of a fleet that was just made."""
        fleet = read_fleet(self.folder)
        assert fleet is not None
        put_sound(self.bucket, fleet.codec, self.folder, RUN_AGAIN)
        try:
            self.bucket.create(FLEET_NAME, (self.folder / FLEET_NAME).read_bytes())
        except ConflictError:
            raise ConflictError(
                f"{self.bucket.url}: another run has made a fleet here meanwhile; run the same "
                "command again, without a number of parts, to add your photos to it"
            ) from None

    def _copy_manifests(self, fleet: Fleet) -> None:
        """Copy the manifests of those parts that the bucket has."""

        def copy_manifest(number: int) -> None:
            path = fleet.folder(number) / MANIFEST_NAME
            content = self.bucket.below(part_name(number)).get(MANIFEST_NAME)
            with writing(self.folder):
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_bytes_atomically(path, content)

        of_every_part(copy_manifest, range(fleet.parts))


def _check_place(bucket: Bucket) -> None:
    """Raise IndexMissingError where a fleet cannot be made in a bucket."""
    # A run that was killed may have left a codec, which no fleet.json names.
    codec = Path(FLEET_CODEC_NAME)
    for key in bucket.sizes():
        if not (key.startswith(f"{codec.stem}-") and key.endswith(codec.suffix)):
            raise IndexMissingError(
                f"{bucket.url}: holds other objects and no fleet; choose a new place for the fleet"
            )
