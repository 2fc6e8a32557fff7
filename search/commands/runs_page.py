"""Runs as one self-contained HTML page: their tables, and queries that went well or badly."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.errors import WaldoError
from features.photo import load_photo
from features.regions import load_mask
from search.commands.answer_page import embedded
from search.evaluation.run_files import Run, RunsTable, runs_tables
from search.overlay import thumbnail
from search.scores import DEFAULT_SCORE

# Of each kind at most, and photos that are shown of each ranking.
_QUERIES = 5
_PHOTOS = 6

_LONGEST = 160

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --right: #1a9850; --wrong: #d73027; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin-top: 32px; } h3 { font-size: 15px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid var(--line); }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tr.paper { font-style: italic; opacity: 0.7; }
.asked { display: flex; flex-wrap: wrap; gap: 10px; padding: 10px 0;
  border-bottom: 1px solid var(--line); }
figure { box-sizing: border-box; margin: 0; width: 160px; padding: 4px; }
figure.right { border: 3px solid var(--right); } figure.wrong { border: 3px solid var(--wrong); }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; }
"""


def write_runs_page(runs: list[Run], path: Path) -> None:
    """Write the page: `runs_tables`, then for each run of searches the queries with the highest and
    the lowest average precision by the default score, or by the first method of a run without it:
    the photo with everything but the object faded, and the best photos that are ranked, marked as
    right or wrong.

    Everything is inside the one file. Photos that are gone since the run are said to be. Raises
    WaldoError where the page cannot be written.
    """
    tables = "\n".join(_table(table) for table in runs_tables(runs))
    sections = "\n".join(_section(run) for run in runs if "queries" in run.content)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation runs</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Evaluation runs</h1>
{tables}
{sections}
</body>
</html>
"""
    try:
        # File names need not be valid Unicode; the page must be.
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise WaldoError(f"--html {path}: cannot be written ({error.strerror})") from None


def _table(table: RunsTable) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    lines = "\n".join(
        [f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows]
        + [f'<tr class="paper">{row(cells, "td")}</tr>' for cells in table.paper]
    )
    return f"""<h2>{html.escape(table.title)}</h2>
<div class="wide"><table>
<tr>{row(table.columns, "th")}</tr>
{lines}
</table></div>"""


def _section(run: Run) -> str:
    method = DEFAULT_SCORE if DEFAULT_SCORE in run.rows else next(iter(run.rows))
    # Queries with nothing to find went neither well nor badly.
    asked = [
        query
        for query in run.content["queries"]
        if query["methods"][method]["average_precision"] is not None
    ]
    asked.sort(key=lambda query: query["methods"][method]["average_precision"])
    worst = asked[: min(_QUERIES, len(asked) // 2)]
    best = asked[len(worst) :][: -_QUERIES - 1 : -1]
    parts = [
        f"<h3>{title}</h3>\n"
        + "\n".join(_query(query, method, run.content["gallery"]) for query in chosen)
        for title, chosen in (("Best", best), ("Worst", worst))
        if chosen
    ]
    return f"<h2>{html.escape(f'{run.path}: queries by {method}')}</h2>\n" + "\n".join(parts)


def _query(query: dict[str, Any], method: str, gallery: list[str]) -> str:
    found = query["methods"][method]
    ranked = [place for place in found["ranking"] if place not in query["ignored"]]
    caption = (
        f"{Path(query['photo']).name}, average precision {100 * found['average_precision']:.1f}"
    )
    figures = [_figure(query["photo"], caption, "query", query)]
    for place in ranked[:_PHOTOS]:
        verdict = "right" if place in query["relevant"] else "wrong"
        figures.append(_figure(gallery[place], f"{verdict}: {Path(gallery[place]).name}", verdict))
    return f'<div class="asked">{"".join(figures)}</div>'


def _figure(photo: str, caption: str, kind: str, query: dict[str, Any] | None = None) -> str:
    """A photo; of a query, with all but its region faded."""
    text = html.escape(caption)
    try:
        picture = thumbnail(Path(photo), _LONGEST)
        shown = picture if query is None else _faded(picture, query)
        image = embedded(shown, text)
    except (WaldoError, OSError):
        image = "this photo is gone, or no longer readable"
    return f'<figure class="{kind}">{image}<figcaption>{text}</figcaption></figure>'


def _faded(picture: Image.Image, query: dict[str, Any]) -> Image.Image:
    known = load_photo(Path(query["photo"]), at_least=1)
    if query["mask"] is not None:
        mask = load_mask(Path(query["mask"]), known.width, known.height)
    elif query["box"] is not None:
        x0, y0, x1, y1 = map(round, query["box"])
        mask = np.zeros((known.height, known.width), dtype=bool)
        mask[y0:y1, x0:x1] = True
    else:
        return picture
    clear = Image.fromarray(np.where(mask, 255, 80).astype(np.uint8)).resize(picture.size)
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), clear)
