"""`waldo export`: an index is copied into an object store, or back."""

from functools import partial
from typing import Annotated

import typer

from search.commands.terminal.options import default_index
from search.commands.terminal.printing import say


def export(
    to: Annotated[
        str,
        typer.Option(
            metavar="DIR|URL",
            help="Where the copy goes: a new folder, or s3://, gs:// or az:// and a place in a "
            "bucket.",
        ),
    ],
    index: Annotated[
        str,
        typer.Option(
            metavar="DIR|URL",
            default_factory=default_index,
            show_default=False,
            help="What is copied: the folder of an index, or its address in a bucket. Default: "
            "$WALDO_INDEX, or the nearest .waldo, here or in a folder above.",
        ),
    ],
) -> None:
    """Copy an index into an object store, or back into a folder."""
    from indexer.bucket.transfer import export_index
    from search.commands.terminal.progress_bar import ProgressDisplay

    with ProgressDisplay() as display:
        export_index(index, to, partial(display.show_bytes, "copying"))
    say(f"{index} is copied to {to}")
