"""What verifying, compacting and removing do to every part of a fleet (`PartWork`)."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.bucket.object_store import Bucket
from indexer.bucket.remote_check import verify_remote
from indexer.bucket.remote_state import read_part
from indexer.bucket.transfer import begin_copy, fetch
from indexer.errors import IndexMissingError
from indexer.fleet.part_places import part_to_write
from indexer.fleet.part_work import OnStep
from indexer.parts import Fleet, part_name
from indexer.upkeep.check import verify
from indexer.upkeep.compact import CompactReport, compact_copy
from indexer.upkeep.remove import Matches, Names, RemoveReport, find_matches, remove_matches


@dataclass(frozen=True)
class _UpkeepWork:
    """fleet, url: as in `PartWork`."""

    fleet: Fleet
    url: str | None

    def check_machine(self) -> None:
        """Nothing is needed beside the fleet."""

    def _part(self, number: int) -> str:
        """The address of a part in a bucket."""
        return f"{self.url}/{part_name(number)}"


class PartCheck(_UpkeepWork):
    """Reads and checks parts."""

    def run(self, number: int, given: None, on_step: OnStep) -> list[str]:
        """The problems of a part, a line for each. on_step: called with the bytes that were read.

        Raises BucketError, IndexFormatError.
        """
        return [*self.problems(number, on_step)]

    def problems(self, number: int, on_step: OnStep) -> Iterator[str]:
        """As `run`, as soon as they are found."""

        def progress(done: int, _: int) -> None:
            on_step(done)

        if self.url is not None:
            yield from verify_remote(self._part(number), progress)
            return
        try:
            self.fleet.check_part(number)
            yield from verify(self.fleet.folder(number), progress)
        except IndexMissingError as error:
            yield str(error)


class PartCompaction(_UpkeepWork):
    """Compacts parts."""

    def run(self, number: int, given: None, on_step: OnStep) -> CompactReport:
        """As `PartWork.run`; raises as `compact` and `part_to_write`."""
        with part_to_write(self.fleet, self.url, number) as (folder, copy):
            return compact_copy(folder, copy)


@dataclass(frozen=True)
class PartMatches(_UpkeepWork):
    """Looks which paths parts have photos at. paths: by all their names."""

    paths: tuple[Names, ...]

    def run(self, number: int, given: None, on_step: OnStep) -> Matches:
        """As `PartWork.run`. Raises BucketError, IndexFormatError, IndexDamagedError."""
        if self.url is None:
            return find_matches(self.fleet.folder(number), self.paths)
        part = read_part(Bucket(self._part(number)), part_name(number))
        with tempfile.TemporaryDirectory() as folder:
            manifest = begin_copy(part.bucket, part.manifest, Path(folder))
            for file in manifest.photos:
                fetch(part.bucket, file, Path(folder), manifest.repair_hint)
            return find_matches(Path(folder), self.paths)


class PartRemoval(_UpkeepWork):
    """Removes photos from parts; what it is given for a part is the paths there, by their names."""

    def run(self, number: int, given: Sequence[Names], on_step: OnStep) -> RemoveReport:
        """As `PartWork.run`; raises as `remove` and `part_to_write`."""
        with part_to_write(self.fleet, self.url, number) as (folder, _):
            return remove_matches(folder, given)
