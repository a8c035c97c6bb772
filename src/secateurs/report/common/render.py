"""What all pages have in common: one self-contained file out of a template and its figures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.report.common.canvas import DARK
from secateurs.report.common.panel import Panel

TEMPLATES = Path(__file__).parents[1] / "templates"


def render_page(
    template: str,
    panels: Iterable[Panel],
    values: Mapping[str, Any],
    *,
    colours: Mapping[str, str] | None = None,
) -> str:
    """A page as text, from a template among `TEMPLATES`.

    The template gets `values` and, beside them, its style, scripts and policy, and the plots of
    the panels by the identifiers of their places. `colours` are further pairs of a colour on light
    and its stand-in on dark.
    """
    plots = {
        f"plot-{panel.key}-{index}": json.loads(str(plot.figure.to_json()))
        for panel in panels
        for index, plot in enumerate(panel.plots)
    }
    scripts = (get_plotlyjs(), (TEMPLATES / "report.js").read_text(encoding="utf-8"))
    page = templates(TEMPLATES).get_template(template)
    return page.render(
        **values,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        policy=policy(scripts),
        plots=embedded_json(plots),
        dark=embedded_json(DARK | dict(colours or {})),
    )


def templates(folder: Path) -> Environment:
    """The templates of a folder, escaping what is put into them and refusing an unknown name."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, text: str) -> Path:
    """Write a page whole or not at all and return its path; InputError when it cannot be."""
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: the page cannot be written ({error.strerror})") from None
    return path


def embedded_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can close the element.

    >>> embedded_json("</script>")
    Markup('"\\\\u003c/script\\\\u003e"')
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def policy(scripts: tuple[str, ...]) -> str:
    """A content security policy: the two scripts by their hashes, own pictures, nothing else."""
    digests = [hashlib.sha256(text.encode()).digest() for text in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
