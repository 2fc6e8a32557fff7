"""The documentation is true: commands, options, links and snippets are those that exist.

Fenced blocks are checked by their language. The `python` blocks of a page run in their order, in
one namespace; `sql` blocks run in DuckDB. Of `sh` blocks and of indented blocks, lines that begin
with `waldo` must parse, and those that begin with `make` must name a target; they do not run. Other
languages are not checked. The working directory holds an index `pictures.waldo`, a photo
`my-dog.jpg` and a folder `photos`.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from features.extractor import FeatureExtractor
    from tests.conftest import MadeOnce

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "data" / "demo"
# Everything in Markdown; of these, those that tell people how to use Waldo.
PAGES = sorted(
    page
    for place in (".", "docs", "features", "training", "data")
    for page in (ROOT / place).glob("*.md" if place == "." else "**/*.md")
)
GUIDES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]*\ssrc=\"([^\"]+)\"")
# Options of other programs, and of waldo without a command.
_OTHERS = {"--full", "--version"}

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for tag, body in _FENCE.findall(text_of(page)) if tag == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text_of(page))


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of each line that calls `waldo` or `make`, up to a pipe or redirection."""
    bodies = [*blocks(page, "sh"), *_INDENTED.findall(prose(page))]
    for line in "\n".join(bodies).replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ")
        if line.startswith(("waldo ", "make ")):
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if word in ("|", ">", "<", "&&", ";")]
            yield words[: min(ends, default=None)]


def with_language(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    """The command line's commands by name."""
    import typer

    from search.commands.app import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.fixture
def surroundings(
    tiny: "FeatureExtractor",
    descriptor_folder: Callable[[str], Path],
    made_once: "MadeOnce",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A working directory with what the snippets speak of."""
    from features.vision.descriptors import ImageDescriptor
    from indexer.ingest.build import index_photos

    def make(folder: Path) -> None:
        photos = sorted((DEMO / "photos").iterdir())[:12]
        descriptor = ImageDescriptor.load(str(descriptor_folder("dinov2")), "cpu")
        index_photos(photos, folder / "pictures.waldo", tiny, descriptors=[descriptor])
        shutil.copy(photos[5], folder / "my-dog.jpg")
        shutil.copytree(DEMO / "query", folder / "photos")

    shutil.copytree(made_once("docs", make), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_every_command_and_option_has_help(commands: dict[str, Any]) -> None:
    assert len(commands) > 10
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)


def test_every_command_and_option_stands_in_the_docs(commands: dict[str, Any]) -> None:
    text = "\n".join(map(text_of, GUIDES))
    options = set(_OPTION.findall(text))
    for name, command in commands.items():
        assert re.search(rf"waldo {name}\b", text), name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert {*parameter.opts, *parameter.secondary_opts} & options, (name, parameter)


def test_every_score_and_benchmark_stands_in_the_docs(commands: dict[str, Any]) -> None:
    from search.evaluation.benchmarks import MASKS, PACKED_SEARCHES, SEARCHES, VIDEOS
    from search.scoring.scores import SCORES

    text = "\n".join(map(text_of, GUIDES))
    [protocol] = [p for p in commands["evaluate"].params if p.param_type_name == "argument"]
    for name in SCORES:
        assert f"`{name}`" in text, name
    for name in (*SEARCHES, *PACKED_SEARCHES, *MASKS, *VIDEOS):
        assert re.search(rf"\b{name}\b", text), name
        assert re.search(rf"\b{name}\b", protocol.help), name


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_code_in_sentences_names_what_there_is(page: Path, commands: dict[str, Any]) -> None:
    """`waldo COMMAND --option` within a sentence, and options by themselves."""
    of_command = {name: options_of(command) for name, command in commands.items()}
    of_any = set().union(*of_command.values())
    for code in _INLINE.findall(prose(page)):
        words = code.split()
        if words[0] == "waldo" and len(words) > 1 and re.match("[a-z]", words[1]):
            assert words[1] in commands, code
            assert set(_OPTION.findall(code)) <= of_command[words[1]], code
        elif words[0].startswith("--"):
            assert set(_OPTION.findall(code)) <= of_any | _OTHERS, code


def options_of(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_shell_lines_parse(page: Path, commands: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for program, *words in shell_lines(page):
        if program == "make":
            asked = {word for word in words if "=" not in word and not word.startswith("-")}
            assert asked <= targets, words
        elif words[0] not in ("--help", "--install-completion"):
            assert words[0] in commands, words
            if "--help" not in words:
                # raises a usage error for what it cannot parse
                commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", with_language("python"), ids=named)
@pytest.mark.usefixtures("surroundings")
def test_python_runs(page: Path) -> None:
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{named(page)}, python block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", with_language("sql"), ids=named)
@pytest.mark.usefixtures("surroundings")
def test_sql_runs(page: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        for block in blocks(page, "sql"):
            assert connection.execute(block).fetchall(), block


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in (link or picture for link, picture in _LINK.findall(prose(page))):
        if "://" in link or link.startswith("mailto:"):
            continue
        place, _, heading = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
