"""The page of `secateurs explore` as text: everything it needs is in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from secateurs.report.common import formatting
from secateurs.report.common.canvas import DARK
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
    "merge": "merged, next layer refitted",
    "least_squares": "kept, next layer refitted",
    "affine": "scale and offset added",
    "add": "weights added (Gedeon)",
    "drop": "left as they are",
}


@cache
def _script() -> str:
    return page_script(OWN / "explore.js")


def policy_of() -> str:
    """The page's content security policy: its two scripts, and requests to its own address."""
    return f"{policy((_script(), plotly_script()))}; connect-src 'self'; frame-ancestors 'none'"


def render_page(
    facts: dict[str, Any], first: dict[str, Any], saved_in: Path, max_image_bytes: int
) -> str:
    """The page for what `study.explore` tells of a layer, opened at the cut `first`."""
    styles = (TEMPLATES / "report.css", OWN / "explore.css")
    page = templates(OWN).get_template("explore.html.j2")
    return page.render(
        facts=facts,
        formatting=formatting,
        compensations=[(word, COMPENSATIONS[word]) for word in COMPENSATIONS],
        saved_in=saved_in,
        max_mib=max_image_bytes // 2**20,
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in styles)),
        script=Markup(_script()),
        plotly=Markup(packed_plotly()),
        facts_json=embedded_json(facts),
        first_json=embedded_json(first),
        dark=embedded_json(DARK),
    )
