"""The one-way rule between rooms, and nothing heavy at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "features": {"features"},
    "indexer": {"features", "indexer"},
    "search": {"features", "indexer", "search"},
}
HEAVY = ("torch", "diffusers", "transformers", "faiss", "pyarrow", "huggingface_hub")


def imported_rooms(path: Path) -> set[str]:
    """First parts of every module a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_rooms_import_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        others = imported_rooms(path) & {*MAY_IMPORT, "tests", "benchmarks"}
        assert others <= MAY_IMPORT[room], f"{path} imports {others - MAY_IMPORT[room]}"


def test_the_command_line_loads_nothing_heavy() -> None:
    program = f"import sys, search.commands.app; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_only_search_prints() -> None:
    for room in ("features", "indexer"):
        for path in (ROOT / room).rglob("*.py"):
            if path.parent.name == "tiny":
                continue  # the trainer is a program of its own
            names = {
                node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert "print" not in names, path
