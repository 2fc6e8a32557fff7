"""What a method of a run reached on each query, so that runs can be compared query by query."""

from collections import Counter
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from search.evaluation.method_table import heading
from search.evaluation.runs.run_files import Run
from search.scoring.scores import DEFAULT_SCORE


@dataclass(frozen=True)
class Entrant:
    """A method of a run. name: tells it from all others of its benchmark."""

    run: Run
    method: str
    name: str


@dataclass(frozen=True)
class Value:
    """What a method reached on one query, object or sequence, a fraction.

    group: queries of one group are not independent of each other: those by the same photo, and the
    objects of one video.
    """

    group: str
    value: float


@dataclass(frozen=True)
class Metric:
    """What is compared. name: as the heads of tables have it. groups: what a `Value.group` is, in
    the plural.
    """

    name: str
    groups: str


def entrants(runs: list[Run]) -> list[Entrant]:
    """The methods of runs of one benchmark, in their order."""
    stems = Counter(run.path.stem for run in runs)
    found = []
    for run in runs:
        own = run.path.stem if stems[run.path.stem] == 1 else str(run.path)
        for method in run.rows:
            found.append(Entrant(run, method, method if len(runs) == 1 else f"{method} ({own})"))
    return found


def main_method(run: Run) -> str:
    """The method that a run is judged by: the default score, or its first where it lacks that."""
    return DEFAULT_SCORE if DEFAULT_SCORE in run.rows else next(iter(run.rows))


def metric_of(run: Run) -> Metric:
    """The metric that `values` has."""
    if "queries" in run.content:
        return Metric("mAP", "query photos")
    if "texts" in run.content:
        return Metric("mAP@1k", "texts")
    if "J&F" in run.content["methods"][main_method(run)]:
        return Metric("J&F", "videos")
    return Metric(heading(run.content["protocol"], "mIoU"), "objects")


def values(entrant: Entrant) -> dict[str, Value]:
    """By a name of each query, object or sequence. Their mean is the metric of `metric_of`.

    Queries with nothing to find are left out. Names of photos begin below the folder that all
    queries share, so they are the same wherever a benchmark lies. Runs without results of
    single items have none.
    """
    content, method = entrant.run.content, entrant.method
    if "queries" in content:
        precisions = [asked["methods"][method]["average_precision"] for asked in content["queries"]]
        return {
            name: Value(asked["photo"], precision)
            for name, asked, precision in zip(
                query_names(content), content["queries"], precisions, strict=True
            )
            if precision is not None
        }
    if "texts" in content:
        texts = {one["name"]: one["average_precision"] for one in content["texts"]}
        return {name: Value(name, precision) for name, precision in texts.items()}
    if not isinstance(content["objects"], dict):
        return {}
    by_photo = content["protocol"] != "perseg"
    return dict(_of_object(result, by_photo) for result in content["objects"][method])


def query_names(content: dict[str, Any]) -> list[str]:
    """A name of each query, the same in all runs of the same queries."""
    queries = content["queries"]
    shared = commonpath([str(Path(asked["photo"]).parent) for asked in queries])
    names, seen = [], Counter[str]()
    for asked in queries:
        photo = Path(asked["photo"]).relative_to(shared).as_posix()
        mask = asked["mask"] and Path(asked["mask"]).name
        name = f"{photo} {asked.get('class')} {mask or asked['box']} {len(asked['relevant'])}"
        seen[name] += 1
        names.append(f"{name} {seen[name]}")
    return names


def _of_object(result: dict[str, Any], by_photo: bool) -> tuple[str, Value]:
    """by_photo: the mean over photos counts, not the pixels of all photos together."""
    if "sequence" in result:
        name = f"{result['sequence']} {result['object_id']}"
        return name, Value(result["sequence"], (result["j"]["mean"] + result["f"]["mean"]) / 2)
    fits = [target["iou"] for target in result["targets"]]
    reached = sum(fits) / len(fits) if by_photo else result["iou"]
    return result["name"], Value(result["name"], reached)
