"""The index or fleet that a command writes: in a folder, or in a bucket."""

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


@contextmanager
def index_to_write(
    index: Path, is_fleet: bool = False, with_parts: bool = True
) -> Iterator[WrittenIndex]:
    """An index by its folder or address. When the context ends, a bucket has what was committed.

    is_fleet, with_parts: as for `collection_copy`, and raises as that does.
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
                    with_parts,
                    partial(display.show_bytes, "copying"),
                )
            )
        yield WrittenIndex(bucket.url, copy.folder, copy)
