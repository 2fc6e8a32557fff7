"""`waldo report`: evaluations beside each other."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.commands.terminal.options import print_table, say

# Photos that are gone are named up to this many.
_NAMED = 5


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.json...", help="What `waldo evaluate --out` wrote."),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page with pictures of the best and worst queries."
        ),
    ] = None,
) -> None:
    """Compare evaluation runs, in one table per benchmark."""
    from search.commands.pages.runs_page import write_runs_page
    from search.evaluation.runs.comparison import compare, comparison_markdown, comparison_table
    from search.evaluation.runs.run_files import (
        by_benchmark,
        markdown_table,
        read_run,
        runs_parts_table,
        runs_table,
        terminal_table,
    )

    found = [read_run(path) for path in runs]
    if html is not None:
        gone = write_runs_page(found, html)
        if gone:
            names = ", ".join(photo.name for photo in gone[:_NAMED])
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            say(f"not shown, because they are gone or not readable: {names}{more}")
        say(f"page: {html.resolve()} ({html.stat().st_size / 1e6:.1f} MB)")
    for number, (title, group) in enumerate(by_benchmark(found).items()):
        if number > 0:
            print()
        comparison = compare(group)
        for place, table in enumerate(
            filter(None, (runs_table(title, group), runs_parts_table(group)))
        ):
            if place > 0:
                print()
            if markdown:
                print(markdown_table(table))
            else:
                print_table(terminal_table(table, narrow=sys.stdout.isatty()))
        if comparison.differences:
            print()
            if markdown:
                print(comparison_markdown(comparison))
            else:
                print_table(comparison_table(comparison))
        for note in comparison.notes:
            print(f"\n{note}")
