"""What evaluations of masks and of videos share: results of single objects, stored item by item.

An item is a photo's object or a video. Results are JSON-ready from the moment they are measured,
because an interrupted run stores them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from features.errors import WaldoError
from indexer.protocols import Extractor
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.paper import published_json
from search.evaluation.report import versions
from search.evaluation.run_store import RunResults, results_folder
from search.evaluation.steps import OnStep, ignore_step

Item = TypeVar("Item")
Method = TypeVar("Method")

# The results of a method on an item: one per object.
Results = list[dict[str, Any]]


def choose_methods(names: Sequence[str], known: Mapping[str, Method]) -> dict[str, Method]:
    """Methods by name; all where no name is given. Raises WaldoError for an unknown name."""
    for name in names:
        if name not in known:
            raise WaldoError(f"method {name}: no such method; one of {', '.join(known)}")
    return {name: known[name] for name in names or known}


def objects_folder(
    work: Path, protocol: str, files: list[Path], extractor: Extractor, asked: list[Any]
) -> Path:
    """The folder for the results of an unfinished evaluation.

    files: all that decide its results. asked: JSON-ready, what is to be found in them. Raises
    WaldoError for a missing file.
    """
    import torch

    settings = [extractor.fingerprint(), extractor.device.type, torch.__version__, asked]
    return results_folder(work, protocol, FilesOnDisk(files), settings)


def measure_items(
    items: Mapping[str, Item],
    methods: Sequence[str],
    measure: Callable[[Item, list[str]], Iterator[tuple[str, Results]]],
    stored: RunResults,
    on_step: OnStep | None = None,
) -> dict[str, Results]:
    """The results of each method on all items, in order.

    measure: gives the results of an item, method by method. stored: gets them; results that it has
    already are not measured again. on_step: called with the progress, counted in items times
    methods.
    """
    tell, total = on_step or ignore_step, len(items) * len(methods)
    results: dict[str, Results] = {method: [] for method in methods}
    for place, (name, item) in enumerate(items.items()):
        found = stored.of(name)
        missing = [method for method in methods if method not in found]
        done = (place + 1) * len(methods) - len(missing)
        tell(f"measuring {name}", done, total)
        for method, measured in measure(item, missing) if missing else ():
            found[method] = measured
            stored.keep(name, found)
            done += 1
            tell(f"measuring {name}", done, total)
        for method, of_method in results.items():
            of_method += found[method]
    return results


def objects_json(
    protocol: str,
    extractor: Extractor,
    results: dict[str, Results],
    summarise: Callable[[Results], dict[str, Any]],
    n_objects: int,
    n_pictures: int,
    convention: str = "",
) -> dict[str, Any]:
    """The report of an evaluation, JSON-ready; metrics are fractions, 0..1.

    "methods" holds the summary of each method, "objects" its result on each object. "n_queries"
    counts objects, "n_gallery" the photos or frames in which they were to be found. convention: the
    benchmark's, "" where it has one alone.
    """
    report = {
        "protocol": protocol,
        "model": extractor.fingerprint(),
        "methods": {method: summarise(found) for method, found in results.items()},
        "n_queries": n_objects,
        "n_gallery": n_pictures,
        "objects": results,
        "versions": versions(),
        "paper": None,
    }
    if convention:
        report["convention"] = convention
    return report | published_json(report)
