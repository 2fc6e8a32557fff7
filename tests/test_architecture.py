"""How the house stands: rooms import along the arrows of `allowed_imports.py`, and files, folders
and functions are small.

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

from tests.allowed_imports import MAY_IMPORT

ROOT = Path(__file__).parent.parent
PACKAGES = ("features", "indexer", "search", "training")

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

MOST_FILES = 12  # modules in a folder, without `__init__` and `conftest`
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
        str(path.parent.relative_to(ROOT))
        for path in files(*PACKAGES, "tests")
        if path.stem not in ("__init__", "conftest")
    )
    assert [folder for folder, count in counts.items() if count > MOST_FILES] == []


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in files(*PACKAGES, "tests")
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
