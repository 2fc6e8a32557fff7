"""The answer to a query as one self-contained HTML page."""

import base64
import html
import io
from pathlib import Path

from PIL import Image

from features.errors import WaldoError
from search.commands.tables import not_found_line
from search.overlay import heatmap_over, mask_over, thumbnail
from search.query import Answer, Match, Query

_LONGEST = 320

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --hit: #ff2d6f; --soft: #888; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; }
p.summary { color: var(--soft); margin: 0 0 20px; }
.reference { display: flex; flex-wrap: wrap; gap: 12px; padding-bottom: 20px;
  border-bottom: 1px solid var(--line); }
.matches { display: grid; gap: 20px; margin-top: 20px;
  grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
article { border: 1px solid var(--line); border-radius: 10px; padding: 12px; }
article header { display: flex; align-items: baseline; gap: 10px; margin-bottom: 8px; }
.rank { font-size: 20px; font-weight: 700; }
.score { font-variant-numeric: tabular-nums; }
.badge { background: var(--hit); border-radius: 9px; color: #fff; font-size: 12px;
  padding: 1px 8px; margin-left: auto; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; align-items: start; }
.picture { position: relative; display: block; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.picture img { width: 100%; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.picture rect { fill: none; stroke: var(--hit); stroke-width: 3;
  vector-effect: non-scaling-stroke; }
.picture rect + rect { stroke-dasharray: 6 4; stroke-width: 2; }
.gone { color: var(--soft); padding: 30px 8px; text-align: center;
  border: 1px dashed var(--line); }
"""


def write_page(answer: Answer, path: Path) -> None:
    """Write an answer's page: the reference with its mask, each match with boxes and heatmap.

    Everything is inside the one file. Photos that are gone since they were indexed are said to
    be. Raises WaldoError where the file cannot be written.
    """
    text = render_page(answer)
    try:
        # File names need not be valid Unicode; the page must be.
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise WaldoError(f"--html {path}: cannot be written ({error.strerror})") from None


def render_page(answer: Answer) -> str:
    """The page's HTML."""
    query = answer.query
    title = f"Looking for {describe_object(query)}"
    total = answer.timing["total"]
    way = f"re-ranked by {answer.options.score}" if answer.options.rerank else "by recall alone"
    not_found = ""
    if answer.found is False:
        not_found = f'<p class="summary">{html.escape(not_found_line(answer))}</p>\n'
    matches = "\n".join(_match_card(match) for match in answer.matches)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p class="summary">The best {len(answer.matches)} of {answer.n_photos} photos, {way},
in {total:.2f} s.</p>
{not_found}<section class="reference">{_reference(answer)}</section>
<main class="matches">
{matches}
</main>
</body>
</html>
"""


def describe_object(query: Query) -> str:
    """The object of a query in words, e.g. 'the dog in a.jpg' or 'the object in a.jpg'."""
    return f"the {query.class_name or 'object'} in {query.photo.name}"


def embedded(picture: Image.Image, description: str) -> str:
    """An <img> that carries its JPEG; `description` is already escaped."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{description}" '
        f'width="{picture.width}" height="{picture.height}">'
    )


def _reference(answer: Answer) -> str:
    picture = thumbnail(answer.query.photo, _LONGEST)
    name = html.escape(answer.query.photo.name)
    chosen = mask_over(picture, answer.reference_cells, answer.frame)
    return (
        f"<figure>{embedded(picture, name)}<figcaption>{name}</figcaption></figure>"
        f"<figure>{embedded(chosen, 'the object in ' + name)}"
        "<figcaption>taken as the object</figcaption></figure>"
    )


def _match_card(match: Match) -> str:
    name = html.escape(match.path.name)
    badge = '<span class="badge">the query photo</span>' if match.is_query else ""
    recall = "" if match.recall_score is None else f" · recall {match.recall_score:.4g}"
    places = "" if len(match.boxes) == 1 else f" · {len(match.boxes)} places"
    sure = "" if match.confidence is None else f" · confidence {match.confidence:.2f}"
    return f"""<article>
<header><span class="rank">{match.rank}</span>
<span class="score">score {match.score:.4f}{sure}{recall}</span>{badge}</header>
{_pictures(match, name)}
<figcaption title="{html.escape(str(match.path))}">{name}{places}</figcaption>
</article>"""


def _pictures(match: Match, name: str) -> str:
    try:
        picture = thumbnail(match.path, _LONGEST)
    except (WaldoError, OSError):
        return '<div class="gone">this photo is gone, or no longer readable</div>'
    rects = "".join(
        f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>'
        for x0, y0, x1, y1 in match.boxes
    )
    boxes = (
        f'<svg viewBox="0 0 {match.frame.width} {match.frame.height}" preserveAspectRatio="none" '
        f'aria-hidden="true">{rects}</svg>'
    )
    heat = heatmap_over(picture, match.heatmap, match.frame)
    return (
        f'<div class="pair"><span class="picture">{embedded(picture, name)}{boxes}</span>'
        f'<span class="picture">{embedded(heat, "where the evidence lies in " + name)}</span></div>'
    )
