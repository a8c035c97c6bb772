"""The parts common to all pages: one self-contained file from a template and its figures."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.report.common.canvas import DARK
from secateurs.report.common.direction import with_bdi
from secateurs.report.common.panel import Panel

TEMPLATES = Path(__file__).parents[1] / "templates"
PLOTLY = Path(__file__).parents[1] / "plotly" / "plotly-cartesian.min.js.gz"


def render_page(
    template: str,
    panels: Iterable[Panel],
    values: Mapping[str, Any],
    *,
    colours: Mapping[str, str] | None = None,
) -> str:
    """A page as text, from a template among `TEMPLATES`.

    The template gets `values`, its style, script and policy, and the plots of the panels by the
    identifiers of their elements. `colours` are additional pairs of a colour in the light scheme
    and its counterpart in the dark one.
    """
    plots = {
        f"plot-{panel.key}-{index}": json.loads(str(plot.figure.to_json()))
        for panel in panels
        for index, plot in enumerate(panel.plots)
    }
    script = page_script(TEMPLATES / "report.js")
    page = templates(TEMPLATES).get_template(template)
    text = page.render(
        **values,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=policy((script, plotly_script())),
        plotly=Markup(packed_plotly()),
        plots=embedded_json(plots),
        dark=embedded_json(DARK | dict(colours or {})),
    )
    return with_bdi(text)


def templates(*folders: Path) -> Environment:
    """The templates of folders, escaping what is put into them and refusing an unknown name."""
    return Environment(
        loader=FileSystemLoader(folders),
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


def page_script(*own: Path) -> str:
    """The script of a page: the loader of Plotly and the page's own code."""
    parts = (TEMPLATES / "plotly_loader.js", *own)
    return "".join(path.read_text(encoding="utf-8") for path in parts)


@cache
def packed_plotly() -> str:
    """Plotly's script, gzip in base64, as a page contains it."""
    return base64.b64encode(PLOTLY.read_bytes()).decode("ascii")


@cache
def plotly_script() -> str:
    """Plotly's script as the browser unpacks it."""
    return gzip.decompress(PLOTLY.read_bytes()).decode("utf-8")


def policy(scripts: tuple[str, ...]) -> str:
    """A content security policy: these scripts by their hashes, embedded images, nothing else."""
    digests = [hashlib.sha256(text.encode()).digest() for text in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
