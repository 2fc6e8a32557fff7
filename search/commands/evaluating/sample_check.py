"""`waldo evaluate --check`: a sample of a run of searches is repeated."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from search.commands.evaluating.evaluation_request import Request
from search.commands.evaluating.search_evaluations import run_searches
from search.commands.terminal.printing import print_json

if TYPE_CHECKING:
    from search.evaluation.benchmarks.benchmark import Benchmark


def check_sample(path: Path, work: Path, json_output: bool) -> None:
    """Repeat a sample of a run of searches. Exits with 1 where it does not agree."""
    from search.evaluation.runs.repeat import compare_sample, request_of, sample
    from search.evaluation.runs.run_files import read_run

    run = read_run(path)
    asked = request_of(run)
    request = Request(
        protocol=asked["protocol"],
        root=Path(asked["root"]),
        model=asked["model"],
        methods=asked["methods"],
        device=asked["device"],
        batch_size=asked["batch_size"],
        codec=asked["codec"],
        work=work,
        distractors=asked["distractors"] and Path(asked["distractors"]),
        parts=asked["parts"],
    )
    places: list[int] = []

    def choose(benchmark: "Benchmark") -> "Benchmark":
        places.extend(sample(run, benchmark))
        queries = [benchmark.queries[place] for place in places]
        return replace(benchmark, queries=queries, parts={})

    searched = run_searches(request, choose)
    found = compare_sample(run, places, searched.evaluation, searched.extractor.fingerprint())
    shutil.rmtree(searched.evaluation.folder)
    if json_output:
        print_json({"run": str(path), "agrees": not found.departures, **asdict(found)})
    else:
        for one in found.departures:
            print(f"{one.photo}, {one.method}: average precision {one.was} then, {one.now} now")
        for line in found.changed:
            print(f"changed since: {line}")
        agrees = "differ from" if found.departures else "agree with"
        print(f"{found.n_queries} queries by {len(found.methods)} methods {agrees} {path}")
    if found.departures:
        raise typer.Exit(1)
