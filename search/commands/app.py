"""The command line `waldo`: it parses arguments, calls the library and prints results.

Results go to standard output, messages and progress to standard error. Exit codes: 0 success,
1 `verify` found problems, 2 bad input, 130 stopped by Ctrl-C.
"""

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NoReturn

import typer

from search.commands.album_commands import album, confirm, refuse
from search.commands.benchmark_commands import fit_weights, prepare, report
from search.commands.collection_commands import compact, index, info, models, remove, verify
from search.commands.evaluation_commands import evaluate
from search.commands.export_command import export
from search.commands.mask_commands import propagate, segment
from search.commands.name_commands import forget, merge, name, named, rename
from search.commands.objects_command import objects
from search.commands.query_command import query
from search.commands.serve_command import serve
from search.commands.show_command import show
from search.commands.terminal.help import EXAMPLES, GroupedCommand, GroupedCommands
from search.commands.terminal.printing import say, say_error

# OpenMP's threads spin at the end of every parallel loop. Where another process needs a core, the
# spinning threads starve it and each other; threads that wait passively sleep.
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
_WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

app = typer.Typer(
    name="waldo",
    cls=GroupedCommands,
    help="Find this very object in a photo collection.",
    no_args_is_help=True,
    # The help uses the width of the terminal; lines of more than 120 characters are hard to read.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"waldo {version('waldo-search')}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass


# In the order of the help: what everybody needs comes first.
_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Everyday commands": (index, query, objects, serve, segment, propagate, show),
    "Objects with a name": (name, album, confirm, refuse, named, rename, merge, forget),
    "Indexes and models": (info, verify, remove, compact, export, models),
    "For researchers": (evaluate, report, fit_weights, prepare),
}
for _group, _functions in _COMMANDS.items():
    for _function in _functions:
        _name = _function.__name__.replace("_", "-")
        app.command(
            _name, cls=GroupedCommand, epilog=EXAMPLES[_name].strip(), rich_help_panel=_group
        )(_function)


def main() -> NoReturn:
    """Run the command line. Expected errors become one line and exit code 2."""
    # OpenMP reads this once, when torch is imported. The user's own setting is kept.
    if not any(name in os.environ for name in _WAITING_VARIABLES):
        os.environ.update(PASSIVE_WAITING)
    from features.errors import WaldoError, is_full_memory

    # Pillow warns of broken EXIF, which is ignored, and of large photos, which are allowed; those
    # over its limit are refused with an error of our own.
    warnings.filterwarnings("ignore", module="PIL")
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    try:
        app()
    except WaldoError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        _fail(
            "FAISS is not installed: `pip install faiss-cpu`, or faiss-gpu where there is an "
            "NVIDIA GPU, but not both"
        )
    except OSError as error:
        # A full disk, no permission: what the system says, and about which file.
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except RuntimeError as error:
        if not is_full_memory(error):
            raise
        _fail("the device's memory is full; use another one, such as --device cpu")
    sys.exit(0)


def _show_warning(
    usual: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """Show Waldo's own warnings in one line, without a place in the code; others as usual."""
    if category.__module__ == "features.errors":
        say(f"warning: {message}")
    else:
        usual(message, category, *where)


def _fail(message: str) -> NoReturn:
    say_error(message)
    sys.exit(2)


if __name__ == "__main__":
    main()
