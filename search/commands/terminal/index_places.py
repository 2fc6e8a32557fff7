"""The index or fleet that a command reads or writes: in a folder, or in a bucket."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.bucket.collection_copy import CollectionCopy


@dataclass(frozen=True)
class WrittenIndex:
    """An index that is written.

    name: its folder or address, as people know it. folder: where it is written. copy: of an index
    in a bucket.
    """

    name: str
    folder: Path
    copy: "CollectionCopy | None" = None

    def push(self) -> None:
        """Store in the bucket what was committed; a folder has it already. Raises as
        `WorkingCopy.push`.
        """
        if self.copy is not None:
            self.copy.push()


@contextmanager
def index_to_read(index: Path, may_be_fleet: bool = True) -> Iterator[Path]:
    """The folder of an index by its folder or address; of one in a bucket, that in the cache which
    stands for its last state, and errors name the bucket.

    may_be_fleet: False for commands that need an ordinary index. Raises as `cached_index`.
    """
    from indexer.bucket.object_store import url_in

    url = url_in(index)
    if url is None:
        yield index
        return
    from indexer.bucket.remote_index import cached_index
    from indexer.bucket.transfer import errors_naming
    from search.commands.terminal.progress_bar import ProgressDisplay

    with ProgressDisplay() as display:
        folder = cached_index(url, partial(display.show_bytes, "copying"), may_be_fleet)
    with errors_naming(url, folder):
        yield folder


@contextmanager
def index_to_write(index: Path, is_fleet: bool = False) -> Iterator[WrittenIndex]:
    """An index by its folder or address. When the context ends, a bucket has what was committed.

    is_fleet: as for `collection_copy`, and raises as that does.
    """
    from indexer.bucket.object_store import Bucket, url_in

    url = url_in(index)
    if url is None:
        yield WrittenIndex(str(index), index)
        return
    from indexer.bucket.collection_copy import collection_copy, scratch_folder
    from search.commands.terminal.progress_bar import ProgressDisplay

    bucket = Bucket(url)
    with ExitStack() as held:
        with ProgressDisplay() as display:
            copy = held.enter_context(
                collection_copy(
                    bucket,
                    scratch_folder(bucket.url),
                    is_fleet,
                    partial(display.show_bytes, "copying"),
                )
            )
        yield WrittenIndex(bucket.url, copy.folder, copy)


@contextmanager
def ordinary_index_to_write(index: Path) -> Iterator[WrittenIndex]:
    """As `index_to_write`, of an index that is there. Raises IndexMissingError also for a fleet, of
    which nothing large is copied.
    """
    from indexer.store.manifest import read_manifest

    with index_to_write(index) as target:
        read_manifest(target.folder)
        yield target
