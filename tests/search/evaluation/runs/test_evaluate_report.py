"""Runs put beside each other: tables as text, Markdown and a page with pictures."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search.commands.pages.query_pictures import _faded
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.method_table import evaluation_table
from search.evaluation.methods.methods import METHODS
from search.evaluation.report import evaluation_json, write_searches_run
from search.evaluation.retrieval import Evaluation, MethodResult
from search.evaluation.runs.run_files import by_benchmark, read_run, runs_table, terminal_table
from search.query import Query
from tests.helpers.benchmarks.query_results import kept
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

N_PHOTOS = 14


def places(*wanted: int) -> np.ndarray:
    return np.array(wanted, dtype=np.int64)


def benchmark(folder: Path, graded: bool = False) -> Benchmark:
    """Query i is photo i and looks for photo i + 1; its box or its mask is the left half."""
    photos = [save_photo(folder / f"<{i}>.png", 60, 40, seed=i) for i in range(N_PHOTOS)]
    mask = folder / "mask.png"
    Image.fromarray(np.repeat([[255, 0]], 40, axis=0).astype(np.uint8)).resize((60, 40)).save(mask)
    queries = []
    for i in range(12):
        query = Query(photos[i], "cup", mask=mask if i == 0 else None)
        if i > 0:
            query = Query(photos[i], "cup", box=(0.0, 0.0, 30.0, 40.0))
        hard = places(i + 1) if graded else None
        queries.append(BenchmarkQuery(query, places(i + 1), places(i), True, hard=hard))
    protocol = "roxford5k" if graded else "folders"
    return Benchmark(protocol, photos, [{"cup"}] * N_PHOTOS, queries, [])


def ranked(asked: Benchmark, method: str, ranks: list[int]) -> MethodResult:
    """The method's result where each query's only relevant photo comes at this rank, from 1, and
    the query's own photo before all.
    """
    scores = np.zeros((len(ranks), N_PHOTOS), dtype=np.float32)
    for row, (query, rank) in enumerate(zip(asked.queries, ranks, strict=True)):
        others = np.delete(np.arange(N_PHOTOS), [*query.relevant, *query.ignored])
        order = [*query.ignored, *others]
        order.insert(rank, int(query.relevant[0]))
        scores[row, order] = -np.arange(N_PHOTOS)
    return MethodResult(METHODS[method], kept(asked, scores))


def save_run(path: Path, asked: Benchmark, model: str, **ranks: list[int]) -> Path:
    results = [ranked(asked, method, listed) for method, listed in ranks.items()]
    seconds = {"indexing": 2.0, **dict.fromkeys(ranks, 0.5)}
    found = Evaluation(results, seconds, path.parent)
    report = evaluation_json(asked, {"model": model}, "standard", found, None)
    write_searches_run(path, report, asked, found)
    return path


def markdown_rows(table: str) -> list[dict[str, str]]:
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


RANKS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two of one benchmark, in which a method or a level is missing; one of another benchmark."""
    (tmp_path / "photos").mkdir()
    asked = benchmark(tmp_path / "photos")
    hard = benchmark(tmp_path / "photos", graded=True)
    return [
        save_run(tmp_path / "a|b.json", asked, "tiny", consistent=RANKS, late=[2] * 12),
        save_run(tmp_path / "ox.json", hard, "sd1.5", late=[2] * 12),
        save_run(tmp_path / "c.json", asked, "sd1.5", late=[1] * 12),
    ]


def test_report_as_markdown(waldo: CommandLine, runs: list[Path]) -> None:
    result = waldo("report", *runs, "--markdown")
    assert result.code == 0, result.err
    folders, differences, oxford = result.out.split("\n\n**")
    assert folders.startswith("**folders: 12 queries, 14 photos**\n\n| run | model | method |")
    assert oxford.startswith("roxford5k: 12 queries, 14 photos**\n")
    assert folders.count("a\\|b.json | tiny |") == 2
    rows = markdown_rows(folders)
    assert [(row["model"], row["method"], row["mAP"]) for row in rows] == [
        ("tiny", "consistent", f"{100 * np.mean(1 / np.array(RANKS)):.1f}"),
        ("tiny", "late", "50.0"),
        ("sd1.5", "late", "100.0"),
    ]
    assert [row["R@1"] for row in rows] == ["8.3", "0.0", "100.0"]
    assert "more than consistent" not in rows[0]  # the differences below say it
    row = markdown_rows(oxford)[0]
    # A single positive at 0-based rank 1 of the published evaluator; no easy photo at all.
    assert (row["medium mAP"], row["hard mAP"]) == ("25.0", "25.0")
    assert "easy mAP" not in row
    assert row["run"] == str(runs[1])
    late, other = markdown_rows(differences)
    assert (late["method"], late["compared with"]) == ("late (a\\|b)", "consistent (a\\|b)")
    assert late["difference"] == f"{100 * np.mean(0.5 - 1 / np.array(RANKS)):+.1f}"
    assert (late["better"], late["worse"], late["pairs"]) == ("83 %", "8 %", "12")
    # The same method of another run is compared with that of the first.
    assert (other["method"], other["compared with"]) == ("late (c)", "late (a\\|b)")
    assert (other["difference"], other["95 % interval"]) == ("+50.0", "+50.0 to +50.0")


def test_report_on_a_terminal(waldo: CommandLine, runs: list[Path]) -> None:
    result = waldo("report", *runs)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].strip() == "folders: 12 queries, 14 photos"
    assert lines[1].split()[:4] == ["run", "model", "method", "mAP"]
    assert lines[4].split()[:4] == [str(runs[2]), "sd1.5", "late", "100.0"]
    assert lines[5].strip() == "mAP: the mean over queries of scikit-learn's average precision"
    assert "Differences in mAP, in points" in map(str.strip, lines)
    assert "roxford5k: 12 queries, 14 photos" in map(str.strip, lines)
    # The other evaluator's average precision is named too.
    assert "the revisited evaluator's average precision (trapezoidal" in result.out


def test_report_page(waldo: CommandLine, runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = waldo("report", runs[0], "--html", page)
    assert result.code == 0, result.err
    assert f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)" in result.err
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<0>" not in text
    best, worst = text.split("<h4>Best</h4>")[1].split("<h4>Worst</h4>")[:2]
    worst = worst.split("<h4>")[0]
    for part, ranks in ((best, [1, 2, 3, 4, 5]), (worst, [12, 11, 10, 9, 8])):
        asked = part.split('<div class="asked">')[1:]
        assert len(asked) == 5
        for shown, rank in zip(asked, ranks, strict=True):
            figures = re.findall(r'<figure class="(\w+)">', shown)
            # By rank of the right one; the query's own photo does not count.
            # Nothing is shown behind it, and it is shown wherever it is.
            assert figures == ["query", *["wrong"] * min(rank - 1, 5), "right"]
            captions = re.findall("<figcaption>(.*?)</figcaption>", shown)
            number = rank - 1
            assert captions[0] == f"&lt;{number}&gt;.png, average precision {100 / rank:.1f}"
            assert captions[-1] == f"rank {rank}, right: &lt;{number + 1}&gt;.png"
    # Two methods. A picture is in the file once, however often it is shown.
    by_consistent = sum(1 + min(rank, 6) for rank in (*range(1, 6), *range(8, 13)))
    assert text.count("<use ") == by_consistent + 10 * 3
    pictures = re.findall('<image .* href="(.*)"', text)
    assert N_PHOTOS < len(pictures) == len(set(pictures)) <= N_PHOTOS + 12
    assert "this photo is gone" not in text
    (tmp_path / "photos" / "<1>.png").unlink()
    result = waldo("report", runs[0], "--html", page)
    assert "not shown, because they are gone or not readable: <1>.png\n" in result.err
    # Query 0 finds it first, query 1 is it; others may rank it too.
    assert page.read_text().count("this photo is gone") >= 2


def test_the_papers_figures_beside_ours(
    waldo: CommandLine, runs: list[Path], tmp_path: Path
) -> None:
    content = json.loads(runs[1].read_text())
    assert content["paper"]["methods"]["PDM"] == {"medium mAP": 77.2, "hard mAP": 58.3}
    assert set(content["methods"]) == {"late"}
    assert "paper" not in json.loads(runs[0].read_text())
    # A part of the benchmark is no comparison.
    assert "published" not in content
    result = waldo("report", *runs, "--markdown").out
    assert "paper: " not in result
    assert "Published figures are not shown: they are of 70 queries or objects, 4,993" in result
    runs[1].write_text(json.dumps(content | {"n_queries": 70, "n_gallery": 4993}))
    content = json.loads(runs[1].read_text())
    page = tmp_path / "page.html"
    plain = waldo("report", *runs, "--html", page).out
    markdown = waldo("report", *runs, "--markdown").out
    *folders, oxford = markdown.split("\n\n**")
    assert "paper: " not in "".join(folders)
    ours, *published = markdown_rows(oxford)
    assert ours["method"] == "late"
    assert all(row["method"].startswith("paper: ") for row in published)
    assert {row["run"] for row in published} == {"Samuel et al., NeurIPS 2024"}
    [pdm] = [row for row in published if row["method"] == "paper: PDM"]
    assert (pdm["medium mAP"], pdm["hard mAP"], pdm["medium mP@10"]) == ("77.2", "58.3", "")
    [line] = [line for line in plain.splitlines() if "paper: PDM " in line]
    assert line.split()[-2:] == ["77.2", "58.3"]
    rows = re.findall('<tr class="paper">(.*?)</tr>', page.read_text())
    assert len(rows) == len(published)
    # Beside one run's own table too.
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(evaluation_table(content))
    text = console.export_text()
    [line] = [line for line in text.splitlines() if line.startswith("paper: PDM ")]
    assert line.split()[-2:] == ["77.2", "58.3"]
    assert "paper: Samuel et al., NeurIPS 2024" in text


def test_run_file_has_ranks_and_sizes(tmp_path: Path) -> None:
    """Against loops: equal scores count against a method, ignored photos do not count."""
    (tmp_path / "photos").mkdir()
    asked = benchmark(tmp_path / "photos")
    rng = np.random.default_rng(3)
    queries = [
        replace(query, relevant=np.setdiff1d(rng.choice(N_PHOTOS, 3), query.ignored))
        for query in asked.queries
    ]
    asked = replace(asked, queries=queries)
    scores = rng.integers(0, 4, (12, N_PHOTOS)).astype(np.float32)  # many are equal
    found = Evaluation(
        [MethodResult(METHODS["late"], kept(asked, scores))], {"late": 0.5}, tmp_path
    )
    write_searches_run(tmp_path / "run.json", {}, asked, found)
    content = json.loads((tmp_path / "run.json").read_text())
    for row, (query, written) in enumerate(zip(queries, content["queries"], strict=True)):
        own, ignored = set(query.relevant.tolist()), set(query.ignored.tolist())
        best_first = [(-scores[row, n], n in own) for n in range(N_PHOTOS) if n not in ignored]
        ranks = [rank for rank, (_, hit) in enumerate(sorted(best_first), start=1) if hit]
        assert written["methods"]["late"]["relevant_ranks"] == ranks
        assert written["object_share"] == pytest.approx(0.5)


def test_report_fades_what_is_not_the_object(runs: list[Path], tmp_path: Path) -> None:
    content = json.loads(runs[0].read_text())
    for query in content["queries"][:2]:  # by mask, by box
        faded = np.asarray(_faded(Image.new("RGB", (60, 40)), query))
        assert (faded[:, :28] == 0).all()
        assert (faded[:, 32:] > 150).all()


def test_a_query_whose_relevant_photos_are_all_missing_has_its_wrong_matches(
    waldo: CommandLine, runs: list[Path], tmp_path: Path
) -> None:
    content = json.loads(runs[2].read_text())
    content["queries"][0]["relevant"] = []
    content["queries"][0]["methods"]["late"] |= {"average_precision": 0.0, "relevant_ranks": []}
    runs[2].write_text(json.dumps(content))
    page = tmp_path / "page.html"
    result = waldo("report", runs[2], "--html", page)
    assert result.code == 0, result.err
    worst = page.read_text().split("Worst")[1]
    assert "rank 1, wrong" in worst


def test_what_is_no_run(waldo: CommandLine, runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    assert "cannot be read (No such file" in waldo.refusal("report", runs[0], path)
    path.write_text("{")
    assert "bad.json: not a run file" in waldo.refusal("report", runs[0], path)
    whole = json.loads(runs[0].read_text())
    without_queries = {key: value for key, value in whole.items() if key != "queries"}
    unranked = json.loads(runs[0].read_text())
    del unranked["queries"][3]["methods"]["late"]["ranking"]
    astray, too_many = (json.loads(runs[0].read_text()) for _ in range(2))
    astray["queries"][2]["methods"]["late"]["ranking"][1] = 99
    too_many["queries"][2]["methods"]["late"]["relevant_ranks"] = [1, 2, 3, 4]
    for content in (
        [],
        {**whole, "methods": {}},
        {**whole, "model": "tiny"},
        without_queries,
        unranked,
        astray,
        too_many,
    ):
        path.write_text(json.dumps(content))
        assert "bad.json: not a run file" in waldo.refusal("report", runs[0], path)
    line = waldo.refusal("report", runs[0], "--html", tmp_path / "nowhere" / "page.html")
    assert "cannot be written" in line


def test_tables_fit_a_terminal_of_120_columns(runs: list[Path]) -> None:
    [(title, group)] = by_benchmark([read_run(path) for path in runs[:1]]).items()
    table = runs_table(title, group)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table(table, narrow=True))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    text = "\n".join(lines)
    assert "\u2026" not in text  # nothing is cut
    assert str(runs[0]) in "".join(line.split("  ")[0] for line in lines)  # folded
    for row in table.rows:
        assert any(line.split() == " ".join(row[2:]).split() for line in lines), row
