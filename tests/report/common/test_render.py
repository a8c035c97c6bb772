"""What every page has: one packed script of Plotly, and nothing that is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import plotly
import pytest
from example_grid import example_grid
from example_network import example_network
from example_paper import example_paper
from example_results import example_results, example_sweep
from example_search import grid_search, halving_search, tpe_search

from secateurs.report.common import render
from secateurs.report.grid.page import render_grid
from secateurs.report.network.page import render_network
from secateurs.report.paper.page import render_paper
from secateurs.report.search.page import render_search
from secateurs.report.study.page import render as render_study
from secateurs.report.study.schema import check_results

# Of plotly-cartesian.min.js in the npm package plotly.js-cartesian-dist-min 4.1.1.
SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
MOST_BYTES = 850_000


def test_the_packed_script_is_the_published_file() -> None:
    text = render.plotly_script()
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256
    assert "Licensed under the MIT license" in text[:400]
    assert "Plotly Technologies Inc." in (render.PLOTLY.parent / "LICENSE").read_text()
    assert SHA256 in (render.PLOTLY.parent / "README.md").read_text()


def test_the_packed_script_is_of_the_version_whose_figures_are_built() -> None:
    from plotly.offline import get_plotlyjs_version

    assert plotly.__version__
    version = f"(cartesian - minified) v{get_plotlyjs_version()}"
    if version.split("v")[-1].split(".")[0] == "4":
        assert version.split(".")[0] in render.plotly_script()[:400]


def pages(study_dir: Path) -> dict[str, str]:
    results = example_results(study_dir)
    return {
        "study": render_study(check_results(results), study_dir),
        "sweep": render_study(check_results(example_sweep(results)), study_dir),
        "grid": render_grid(example_grid()),
        "network": render_network(example_network()),
        "paper": render_paper(example_paper()),
        **{
            search["settings"]["method"]: render_search(search)
            for search in (grid_search(), halving_search(), tpe_search())
        },
    }


def test_every_page_is_small_and_has_the_script_once(tmp_path: Path) -> None:
    packed = base64.b64encode(render.PLOTLY.read_bytes()).decode()
    for name, page in pages(tmp_path).items():
        thumbnails = page.count("data:image/jpeg") * 6_000
        assert len(page.encode()) - thumbnails < MOST_BYTES, name
        assert page.count(packed) == 1, name
        assert page.count("<script>") == 1, name
        assert page.count('class="step"') >= 1, name


def test_embedded_text_cannot_close_its_element() -> None:
    text = render.embedded_json({"a": "</script>&"})
    assert "<" not in text and "&" not in text
    assert json.loads(text) == {"a": "</script>&"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        render.embedded_json(float("nan"))
