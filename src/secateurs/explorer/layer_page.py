"""The page of `secateurs explore` as text: everything it needs is in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from secateurs.report.common import formatting
from secateurs.report.common.canvas import DARK
from secateurs.report.common.direction import isolate_names, with_bdi
from secateurs.report.common.render import (
    TEMPLATES,
    embedded_json,
    packed_plotly,
    page_script,
    plotly_script,
    policy,
    templates,
)

OWN = Path(__file__).parent / "templates"
COMPENSATIONS = {
    "merge": "merge: averaged, refitted",
    "least_squares": "least squares: refitted",
    "affine": "affine: scale and offset",
    "add": "add: weights added",
    "drop": "drop: no compensation",
}


@cache
def _script() -> str:
    return page_script(OWN / "common.js", OWN / "explore.js")


def policy_of(*others: str) -> str:
    """The page's content security policy: its two scripts, and requests to its own address.

    `others` are the scripts of other pages of the same server.
    """
    scripts = (_script(), plotly_script(), *others)
    return f"{policy(scripts)}; connect-src 'self'; frame-ancestors 'none'"


def render_page(
    facts: dict[str, Any], first: dict[str, Any], saved_in: Path, max_image_bytes: int
) -> str:
    """The page for a layer described by `facts`, with the first result `first`."""
    styles = (TEMPLATES / "report.css", OWN / "explore.css")
    page = templates(OWN).get_template("explore.html.j2")
    text = page.render(
        facts=isolate_names(facts),
        formatting=formatting,
        compensations=[(word, COMPENSATIONS[word]) for word in COMPENSATIONS],
        saved_in=saved_in,
        max_mb=max_image_bytes // 10**6,
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in styles)),
        script=Markup(_script()),
        plotly=Markup(packed_plotly()),
        facts_json=embedded_json(facts),
        first_json=embedded_json(first),
        dark=embedded_json(DARK),
    )
    return with_bdi(text)
