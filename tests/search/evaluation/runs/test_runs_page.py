"""The page of runs in a real browser: who sees it how."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from search.commands.pages.chart import Chart, plot
from tests.helpers.command_line import CommandLine
from tests.search.evaluation.runs.test_evaluate_report import RANKS, benchmark, save_run

DESK, PHONE = (1280, 900), (390, 844)


def test_names_stand_beside_their_lines_without_overlapping() -> None:
    lines = {f"m{n}": [(0.0, 0.5), (1.0, 0.99 - 0.001 * n)] for n in range(8)}
    chart = Chart("t", "x", lines, x_ticks=[0.0, 1.0])
    drawn = plot(chart, 600, 300)
    ys = [name.y for name in drawn.names]
    assert ys == sorted(ys)  # in the order of the lines' ends
    assert min(b - a for a, b in itertools.pairwise(ys)) >= 15
    assert drawn.top <= ys[0]
    assert ys[-1] <= drawn.bottom
    # The curve from its start at the left to its end at the right, and on to its name.
    x, y = map(float, drawn.lines[7].split()[-1].split(","))
    assert (x, y) == pytest.approx(tuple(map(float, drawn.names[7].leader.split()[0].split(","))))
    assert x == pytest.approx(drawn.right, abs=0.1)
    assert y == pytest.approx(drawn.top + (1 - 0.983) * (drawn.bottom - drawn.top), abs=0.1)
    numbered = plot(chart, 340, 300, numbered=True)
    assert [name.text for name in numbered.names] == list("12345678")
    assert numbered.right > 300  # hardly any room is lost to the names


def test_the_page_can_be_read_by_everybody(waldo: CommandLine, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page is tested in Chromium: apt install chromium")
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    (tmp_path / "photos").mkdir()
    asked = benchmark(tmp_path / "photos")
    runs = [
        save_run(tmp_path / "one.json", asked, "tiny", consistent=RANKS, late=[2] * 12),
        save_run(tmp_path / "two.json", asked, "sd1.5", consistent=RANKS[::-1], late=[1] * 12),
    ]
    file = tmp_path / "page.html"
    assert waldo("report", *runs, "--html", file).code == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for screen, scheme in itertools.product((DESK, PHONE), ("light", "dark")):
            size = {"width": screen[0], "height": screen[1]}
            page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(file.as_uri())
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in serious] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= screen[0]
            names = page.locator(".charts .name:visible")
            texts = [re.sub(r" \(.*", "", text) for text in names.all_text_contents()]
            # Two charts of four lines each: names where there is room, else numbers with a key.
            by_name = ["consistent", "late", "consistent", "late"] * 2
            assert texts == (by_name if screen == DESK else list("1234") * 2)
            assert page.locator(".key li:visible").count() == (0 if screen == DESK else 8)
            drawn = page.locator("figure.query svg").first.bounding_box()
            assert drawn is not None
            assert drawn["width"] >= 60
            page.close()
        browser.close()


def test_of_many_equal_queries_some_from_all_over_are_shown(
    waldo: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    asked = benchmark(tmp_path / "photos")
    run = save_run(tmp_path / "one.json", asked, "tiny", consistent=[1] * 9 + [2, 8, 9])
    page = tmp_path / "page.html"
    assert waldo("report", run, "--html", page).code == 0
    text = page.read_text()
    best, worst = re.split("<h4>Worst[^<]*</h4>", text.split("<h4>Best")[1])
    assert best.startswith(", 5 of 9 queries with average precision 100.0</h4>")
    captions = re.findall("<figcaption>&lt;([0-9]+)&gt;.png, average", best)
    assert captions == ["1", "3", "4", "5", "7"]
    captions = re.findall("<figcaption>&lt;([0-9]+)&gt;.png, average", worst)
    assert captions == ["11", "10", "9", "0", "8"]


def test_runs_of_earlier_versions(waldo: CommandLine, tmp_path: Path) -> None:
    """What their files lack is left out, and the page says so."""
    (tmp_path / "photos").mkdir()
    run = save_run(tmp_path / "one.json", benchmark(tmp_path / "photos"), "tiny", consistent=RANKS)
    page = tmp_path / "page.html"
    waldo("report", run, "--html", page)
    assert "earlier version" not in page.read_text()
    content = json.loads(run.read_text())
    for query in content["queries"]:
        del query["object_share"]
        del query["methods"]["consistent"]["relevant_ranks"]
    run.write_text(json.dumps(content))
    before = re.findall('<polyline class="line .*', page.read_text())
    assert waldo("report", run, "--html", page).code == 0
    text = page.read_text()
    assert "curves are those of the first 1,000 places" in text
    assert "No table by size" in text
    # No two scores are equal here, so the curves are the same.
    assert re.findall('<polyline class="line .*', text) == before
