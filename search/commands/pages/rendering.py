"""HTML pages: the templates of this folder filled in, with all pictures inside the one file."""

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from features.errors import WaldoError

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Picture:
    """A picture for an `<img>`. url: a data URL that holds a JPEG. width, height: pixels."""

    url: str
    width: int
    height: int

    @classmethod
    def of(cls, image: Image.Image, quality: int = 85) -> "Picture":
        """quality: of the JPEG, up to 95."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        data = base64.b64encode(buffer.getvalue()).decode()
        return cls(f"data:image/jpeg;base64,{data}", image.width, image.height)


def render(template: str, **values: Any) -> str:
    """The HTML of a page. template: a file's name in `templates`. values: what it shows."""
    return _environment().get_template(template).render(**values)


def write_html(text: str, path: Path, option: str = "--html") -> None:
    """Write a page to a file. option: that named the file. Raises WaldoError where it cannot be
    written.
    """
    try:
        # File names need not be valid Unicode, but the page must be.
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise WaldoError(f"{option} {path}: cannot be written ({error.strerror})") from None


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("search.commands.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The address of a photo on this machine; names need not be valid Unicode.
    environment.filters["file_url"] = lambda path: path.absolute().as_uri()
    return environment
