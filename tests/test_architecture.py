"""How the house stands: which room may import which, and how large its files and functions are.

All of it but the last test reads the source, and imports nothing.
"""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("features", "indexer", "search", "training")

# The arrows between rooms. A room is a package or a module, without the rooms inside it. A file may
# import its own room and what is listed here: rooms, or modules and single names of rooms.
# Every room stands below the rooms that it may import, so there are no circles. But the public API,
# `search/__init__.py`, gathers names of any room.
MAY_IMPORT: dict[str, set[str]] = {
    "features": set(),
    # training/ makes the bundled model. It is not installed, and nothing that is imports it.
    "training": {"features"},
    # A store knows of a codec only how many bytes a photo takes; a codec knows no store.
    "indexer.errors": {"features.errors"},
    "indexer.codec": {"features", "indexer.errors"},
    "indexer.store": {
        "features.errors",
        "indexer.errors",
        "indexer.codec.quality.bytes_per_photo",
    },
    "indexer.parts": {
        "features.errors",
        "indexer.errors",
        "indexer.codec.codec.codec_name",
        "indexer.store",
    },
    "indexer.read_only_path": set(),
    "indexer.tar_photos": {"features.errors", "indexer.read_only_path"},
    "indexer.bucket": {
        "features.errors",
        "features.user_cache.user_cache",
        "indexer.read_only_path",
        "indexer.tar_photos.tar_path_of",
        "indexer.errors",
        "indexer.parts",
        "indexer.store",
    },
    "indexer.recall": {"indexer.errors", "indexer.store"},
    "indexer.named_objects": {
        "features",
        "indexer.errors",
        "indexer.bucket.object_path.path_of",
        "indexer.store",
    },
    "indexer.region_links": {"indexer.errors", "indexer.store"},
    "indexer.object_corrections": {"indexer.errors", "indexer.store"},
    "indexer.protocols": {"features", "indexer.codec", "indexer.store.manifest.Fingerprint"},
    "indexer.workers": {"features", "indexer.codec"},
    "indexer.photo_lists": {"features"},
    "indexer.ray_cluster": {"features.errors", "indexer.errors"},
    "indexer.collection": {
        "features.device",
        "indexer.codec",
        "indexer.store",
        "indexer.recall",
        "indexer.named_objects",
    },
    "indexer.reader": {
        "features.frame",
        "indexer.errors",
        "indexer.bucket",
        "indexer.codec",
        "indexer.collection",
        "indexer.store",
        "indexer.recall",
    },
    "indexer.fleet.fleet_reader": {
        "indexer.bucket.remote_index.bucket_of",
        "indexer.codec",
        "indexer.collection",
        "indexer.parts",
        "indexer.reader",
        "indexer.recall.searching",
        "indexer.store.filters",
        "indexer.store.locks",
    },
    # Reading a fleet by workers on a cluster.
    "indexer.fleet.part_holder": {
        "features.device",
        "indexer.errors",
        "indexer.bucket",
        "indexer.codec.kernels",
        "indexer.collection",
        "indexer.fleet.fleet_reader",
        "indexer.parts",
        "indexer.ray_cluster",
    },
    "indexer.fleet.cluster_reader": {
        "indexer.errors",
        "indexer.bucket.remote_index.bucket_of",
        "indexer.codec.kernels",
        "indexer.collection",
        "indexer.fleet.fleet_reader",
        "indexer.fleet.part_holder",
        "indexer.parts",
        "indexer.ray_cluster",
        "indexer.recall.searching",
    },
    "indexer.ingest": {
        "features",
        "indexer.errors",
        "indexer.bucket.object_path",
        "indexer.bucket.object_store",
        "indexer.bucket.remote_index.bucket_of",
        "indexer.bucket.remote_index.shard_opener",
        "indexer.codec",
        "indexer.store",
        "indexer.recall",
        "indexer.photo_lists",
        "indexer.protocols",
    },
    "indexer.fleet": {
        "features.errors",
        "features.models",
        "features.vision.descriptors",
        "indexer.bucket",
        "indexer.codec.quality",
        "indexer.errors",
        "indexer.parts",
        "indexer.ingest",
        "indexer.protocols",
        "indexer.ray_cluster",
        "indexer.store",
    },
    "indexer.upkeep": {
        "features.errors",
        "indexer.bucket",
        "indexer.fleet",
        "indexer.ingest.progress.PartsProgress",
        "indexer.ray_cluster.RayCluster",
        "indexer.region_links",
        "indexer.object_corrections",
        "indexer.errors",
        "indexer.codec",
        "indexer.store",
        "indexer.recall",
        "indexer.named_objects",
        "indexer.parts",
    },
    "search.clock": set(),
    # What a search does with an index: it reads one, and never writes one.
    "search.scoring": {
        "features",
        "indexer.errors",
        "indexer.codec.tokens",
        "indexer.protocols",
        "indexer.collection",
        "search.clock",
    },
    "search": {
        "features",
        "indexer.bucket.object_path.path_of",
        "indexer.store.filters.PhotoFilter",
        "indexer.named_objects",
        "indexer.protocols",
        "indexer.collection",
        "search.clock",
        "search.scoring",
    },
    "search.ranking": {
        "features",
        "indexer.codec.tokens",
        "indexer.collection",
        "search.clock",
        "search.scoring",
        "search",
    },
    "search.segmentation": {
        "features",
        "indexer.errors",
        "indexer.codec.tokens",
        "indexer.protocols",
        "indexer.ingest.sources",
        "indexer.store.files.digest",
        "indexer.collection",
        "search",
        "search.scoring",
        "search.ranking",
    },
    # An index is asked. The boxes of its matches follow masks.
    "search.index": {
        "features",
        "indexer.named_objects",
        "indexer.protocols",
        "indexer.bucket",
        "indexer.collection",
        "indexer.fleet.cluster_reader",
        "indexer.fleet.fleet_reader.open_collection",
        "indexer.ray_cluster.RayCluster",
        "indexer.store.filters.PhotoFilter",
        "search",
        "search.clock",
        "search.scoring",
        "search.ranking",
        "search.segmentation.match_masks",
    },
    "search.late_fusion": {
        "features.errors",
        "indexer.collection",
        "search",
        "search.clock",
        "search.scoring",
        "search.ranking",
        "search.index",
    },
    # Albums are kept in the index, so they are read from it and written to it.
    "search.albums": {
        "features",
        "indexer.bucket.object_path.path_of",
        "indexer.errors",
        "indexer.store.album_rows",
        "indexer.store.manifest.NameRecord",
        "indexer.named_objects",
        "indexer.collection",
        "indexer.reader",
        "indexer.upkeep.album_commit",
        "indexer.upkeep.naming",
        "search",
        "search.clock",
        "search.scoring",
        "search.ranking",
    },
    # So are the links of recurring objects.
    "search.recurring": {
        "features",
        "indexer.errors",
        "indexer.codec.tokens",
        "indexer.collection.PhotoRecord",
        "indexer.named_objects",
        "indexer.reader",
        "indexer.region_links",
        "indexer.object_corrections",
        "indexer.upkeep.link_commit",
        "indexer.upkeep.correction_commit",
        "search",
        "search.clock",
        "search.scoring",
        "search.albums.contents",
    },
    # Evaluation writes indexes of its own: one for each gallery and kind of maps.
    # What a benchmark is: its readers, and the rooms that measure it, know it.
    "search.evaluation.benchmarks.benchmark": {"features", "search"},
    "search.evaluation.benchmarks.labelled_objects": {"features", "search.segmentation.drawing"},
    "search.evaluation.benchmarks.published": {
        "features",
        "indexer.tar_photos",
        "search",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.benchmarks.labelled_objects",
    },
    "search.evaluation.benchmarks": {
        "features",
        "search",
        "search.segmentation.drawing",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.benchmarks.labelled_objects",
        "search.evaluation.benchmarks.published",
    },
    "search.evaluation.steps": set(),
    "search.evaluation.metrics": {
        "features",
        "search.scoring",
        "search.evaluation.benchmarks.benchmark",
    },
    "search.evaluation.methods": {
        "features",
        "indexer.codec.tokens",
        "search.segmentation",
        "indexer.collection",
        "indexer.protocols",
        "search",
        "search.clock",
        "search.ranking",
        "search.scoring",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.metrics",
        "search.evaluation.steps",
    },
    "search.evaluation": {
        "features",
        "indexer.errors",
        "indexer.codec",
        "indexer.store",
        "indexer.protocols",
        "indexer.collection",
        "indexer.reader",
        "indexer.ingest",
        "indexer.fleet.cluster_reader",
        "indexer.fleet.fleet_build.index_collection",
        "indexer.fleet.fleet_reader.open_collection",
        "indexer.ray_cluster.RayCluster",
        "indexer.upkeep.fusion_weights",
        "search",
        "search.clock",
        "search.scoring",
        "search.recurring",
        "search.segmentation",
        "search.evaluation.benchmarks",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.benchmarks.labelled_objects",
        "search.evaluation.benchmarks.published.packed_photos",
        "search.evaluation.methods",
        "search.evaluation.metrics",
        "search.evaluation.steps",
    },
    "search.evaluation.runs": {
        "features.errors",
        "indexer.codec",
        "search.evaluation",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.method_table",
        "search.evaluation.paper",
        "search.scoring.scores.DEFAULT_SCORE",
    },
    # What the command line and the page both tell of an answer, and of features.
    "search.presentation": {
        "features",
        "indexer.protocols",
        "indexer.store.filters.PhotoFilter",
        "indexer.collection.PhotoRecord",
        "search",
        "search.scoring",
        "search.index",
        "search.albums",
        "search.segmentation.overlay",
    },
    # The page and its API: a thin face of the Python API, as the command line is.
    "search.server": {
        "features",
        "indexer.bucket.object_path.path_of",
        "indexer.errors",
        "indexer.named_objects",
        "indexer.collection",
        "indexer.fleet.fleet_reader.open_collection",
        "indexer.store.filters",
        "indexer.reader.IndexReader",
        "indexer.upkeep.naming",
        "search",
        "search.index",
        "search.albums",
        "search.recurring",
        "search.segmentation",
        "search.presentation",
    },
    # The command line imports everything, and nothing imports it.
    "search.commands": {
        "features",
        "indexer",
        "search",
        "search.scoring",
        "search.index",
        "search.late_fusion",
        "search.albums",
        "search.recurring",
        "search.segmentation",
        "search.evaluation",
        "search.evaluation.benchmarks",
        "search.evaluation.benchmarks.benchmark",
        "search.evaluation.methods",
        "search.evaluation.metrics",
        "search.evaluation.runs",
        "search.evaluation.steps",
        "search.presentation",
        "search.server",
    },
}

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "faiss",
    "pyarrow",
    "scipy",
    "huggingface_hub",
    "obstore",
    "ray",
}

MOST_FILES = 12  # modules in a folder, `__init__` apart
MOST_LINES = 450  # in a file
MOST_LINES_OF_A_FUNCTION = 60
LONG_FILES = {
    "training/names.py": "the vocabulary, a table of words",
}
LONG_FUNCTIONS = {
    "search/commands/query_command.py: query": "its parameters are the table of its options",
    "search/commands/evaluation_commands.py: evaluate": "its parameters are its options",
    "search/commands/collection_commands.py: index": "its parameters are its options",
}

# What `from search import ...` gives: the API that is kept stable.
PUBLIC = [
    "Answer",
    "Index",
    "Match",
    "PhotoFilter",
    "Query",
    "SearchOptions",
    "WaldoError",
    "open_index",
    "search_indexes",
]


class Import(NamedTuple):
    """importer: a module's dotted name. name: a module's, or a module's and a name's in it."""

    importer: str
    name: str


def files(*packages: str) -> list[Path]:
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    assert found
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    """A file's module name; a package's own name for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    """Everything that a file imports, also within functions and for type checking alone."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (Import(dotted(path), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (Import(dotted(path), f"{node.module}.{a.name}") for a in node.names)


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def room_of(name: str) -> str:
    rooms = [room for room in MAY_IMPORT if within(name, room)]
    return max(rooms, key=len, default=name.split(".")[0])


def allows(entry: str, name: str) -> bool:
    """Whether an entry of the table lets a name be imported."""
    return room_of(name) == entry if entry in MAY_IMPORT else within(name, entry)


def between_rooms() -> list[Import]:
    """All imports that lead from one room of the project to another."""
    ours = {*PACKAGES, "tests", "benchmarks", "data"}
    return [
        one
        for path in files(*PACKAGES)
        for one in imports(path)
        if one.name.split(".")[0] in ours
        and room_of(one.name) != room_of(one.importer)
        and one.importer != "search"
    ]


def test_rooms_import_along_the_arrows() -> None:
    broken = {
        f"{one.importer} -> {one.name}"
        for one in between_rooms()
        if not any(allows(entry, one.name) for entry in MAY_IMPORT[room_of(one.importer)])
    }
    assert broken == set()


def test_no_arrow_is_listed_in_vain() -> None:
    used = {(room_of(one.importer), one.name) for one in between_rooms()}
    for room, entries in MAY_IMPORT.items():
        for entry in entries:
            assert any(user == room and allows(entry, name) for user, name in used), (room, entry)


def test_every_arrow_points_up_the_table() -> None:
    """A room listed below another is not imported by it, so the table has no circle."""
    order = list(MAY_IMPORT)
    for place, room in enumerate(order):
        for entry in MAY_IMPORT[room]:
            if entry != "indexer":  # all its rooms
                assert room_of(entry) in order[:place], (room, entry)


def test_no_two_modules_share_a_name() -> None:
    """But `errors`, which holds the exceptions of its package."""
    names = Counter(path.stem for path in files(*PACKAGES))
    del names["__init__"], names["errors"]
    assert [name for name, count in names.items() if count > 1] == []


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files(*PACKAGES)
        if path.stem == "__init__" and not ast.get_docstring(parsed(path))
    ]
    assert silent == []


def test_folders_are_small() -> None:
    counts = Counter(
        str(path.parent.relative_to(ROOT)) for path in files(*PACKAGES) if path.stem != "__init__"
    )
    assert [folder for folder, count in counts.items() if count > MOST_FILES] == []


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in files(*PACKAGES)
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long == set(LONG_FILES)


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in files(*PACKAGES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = HEAVY | {"numpy"}
    program = f"import sys, search.commands.app; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_installed_modules_import_nothing_heavy() -> None:
    """Heavy packages are imported by the functions that need them, or for type checking alone."""
    for path in files("features", "indexer", "search"):
        for node in parsed(path).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not {name.split(".")[0] for name in names} & HEAVY, path


@pytest.mark.parametrize(
    ("package", "only"),
    [("ray", "indexer.ray_cluster"), ("obstore", "indexer.bucket.object_store")],
)
def test_what_is_beyond_one_machine_is_met_in_one_place(package: str, only: str) -> None:
    importers = {
        one.importer
        for path in files("features", "indexer", "search")
        for one in imports(path)
        if within(one.name, package)
    }
    assert importers == {only}


def test_only_the_command_line_prints() -> None:
    for path in files("features", "indexer", "search"):
        if room_of(dotted(path)) == "search.commands":
            continue
        called = {
            node.func.id
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in called, path


def test_everything_that_is_installed_is_listed() -> None:
    """pyproject.toml names each package of the rooms, and not the trainer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {dotted(path) for path in files(*PACKAGES) if path.stem == "__init__"}
    installed = {name for name in packages if not within(name, "training")}
    assert set(project["tool"]["setuptools"]["packages"]) == installed


def test_the_public_api_is_held() -> None:
    import search

    assert sorted(search.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(search, name).__doc__
