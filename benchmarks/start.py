"""How long the command line takes from its start to its end: help, refusals, cold searches.

    python benchmarks/start.py [--runs 5] [--before CHECKOUT]

Every run is a process of its own. Prints the median wall seconds, the CPU seconds and the most
memory of each row. With --before the same commands also run from another checkout of the code, in
turns, each with an index that its own code made; and the last column says by how much it shrank.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import make_parser

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "data" / "demo"
PHOTO, BOX = str(DEMO / "query" / "cat.jpg"), "172,31,333,164"
STORED, STORED_BOX = str(DEMO / "photos" / "001.jpg"), "55,81,290,284"


@dataclass(frozen=True)
class Row:
    """One command. code: the exit code that it must have. locked: another run holds the index."""

    name: str
    arguments: tuple[str, ...]
    code: int = 0
    locked: bool = False
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """wall, cpu: seconds. memory: the most that was used, MiB."""

    wall: float
    cpu: float
    memory: float


def rows(index: Path) -> list[Row]:
    ask = ("query", PHOTO, "--index", str(index))
    box, again = (*ask, "--box", BOX), ("index", str(DEMO / "photos"), "--index", str(index))
    completion = {
        "_WALDO_COMPLETE": "complete_bash",
        "COMP_WORDS": "waldo query --sc",
        "COMP_CWORD": "2",
    }
    nowhere = str(index.parent / "nowhere")
    return [
        Row("waldo --help", ("--help",)),
        Row("waldo query --help", ("query", "--help")),
        Row("waldo --version", ("--version",)),
        Row("completion", (), environment=completion),
        Row("cold query by a box", box),
        Row("cold query by a class", (*ask, "--class", "cat")),
        Row("cold query of a stored photo", ("query", STORED, *ask[2:], "--box", STORED_BOX)),
        Row("index, nothing new", again),
        Row("refused: index is locked", again, 2, locked=True),
        Row("refused: no such photo", ("query", "nope.jpg", *box[2:]), 2),
        Row("refused: no such score", (*box, "--score", "foo"), 2),
        Row("refused: box of three numbers", (*ask, "--box", "1,2,3"), 2),
        Row("refused: empty box", (*ask, "--box", "9,9,9,9"), 2),
        Row("refused: unknown class", (*ask, "--class", "qwzx"), 2),
        Row("refused: no index here", ("query", PHOTO, "--index", nowhere, "--box", BOX), 2),
    ]


@contextmanager
def held(index: Path) -> Iterator[None]:
    """Hold an index for writing, as another run would."""
    import fcntl

    with (index / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(root: Path, row: Row) -> tuple[Run, int]:
    """Run a command from a checkout; what it took, and its exit code."""
    command = [sys.executable, "-m", "search.commands.app", *row.arguments]
    if row.environment:  # a shell completes the words after this name
        program = "import sys; sys.argv = ['waldo']; from search.commands.app import main; main()"
        command = [sys.executable, "-c", program]
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | row.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    # Kilobytes on Linux, bytes on macOS.
    memory = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Run(wall, used.ru_utime + used.ru_stime, memory), process.returncode


def measure(row: Row, root: Path, index: Path) -> tuple[Run, int]:
    if not row.locked:
        return start(root, row)
    with held(index):
        return start(root, row)


def make_index(root: Path, index: Path) -> None:
    _, code = start(root, Row("", ("index", str(DEMO / "photos"), "--index", str(index))))
    if code != 0:
        raise SystemExit(f"{root}: waldo index ended with {code}")


def median(runs: Sequence[Run]) -> Run:
    walls, cpus, memories = zip(*((run.wall, run.cpu, run.memory) for run in runs), strict=True)
    return Run(*map(statistics.median, (walls, cpus, memories)))


def compare(places: dict[str, tuple[Path, Path]], runs: int) -> None:
    """Print each row. places: by name, a checkout and the index that it made."""
    heads = "".join(f"{f'{name}: s':>12}{'CPU s':>7}{'MiB':>6}" for name in places)
    print(f"{'':<30}{heads}{'ratio':>8}" if len(places) > 1 else f"{'':<30}{heads}")
    tables = {name: rows(index) for name, (_, index) in places.items()}
    for number, row in enumerate(next(iter(tables.values()))):
        found: dict[str, list[Run]] = {name: [] for name in places}
        codes: dict[str, int] = {}
        for _ in range(runs):
            for name, (root, index) in places.items():
                run, codes[name] = measure(tables[name][number], root, index)
                found[name].append(run)
        middle = {name: median(each) for name, each in found.items()}
        line = "".join(f"{m.wall:>12.2f}{m.cpu:>7.2f}{m.memory:>6.0f}" for m in middle.values())
        if len(places) > 1:
            line += f"{middle['now'].wall / middle['before'].wall:>8.2f}"
        wrong = [f"{name} ended with {code}" for name, code in codes.items() if code != row.code]
        print(f"{row.name:<30}{line}  {'; '.join(wrong)}".rstrip(), flush=True)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="code to compare with")
    given = parser.parse_args()
    roots = {"now": ROOT}
    if given.before is not None:
        roots = {"before": given.before.resolve(), "now": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # of the commands, filled by the first that needs it
        places = {}
        for name, root in roots.items():
            places[name] = (root, Path(folder) / f"{name}.waldo")
            make_index(*places[name])
        compare(places, given.runs)


if __name__ == "__main__":
    main()
