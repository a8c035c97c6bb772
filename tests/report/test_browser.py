"""The page in a real browser: nothing loaded, nothing wrong on the console, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_results import example_sweep

from secateurs.report.study.page import write_report

pytestmark = pytest.mark.browser


def until(page: Any, condition: str) -> None:
    """Wait for a condition; the page's policy forbids Playwright's own way, which is eval."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def drawn(page: Any) -> tuple[int, int]:
    """How many places for a figure there are, and how many hold a drawing with marks."""
    places = page.query_selector_all(".figure")
    marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
    return len(places), sum(place.query_selector(marks) is not None for place in places)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, results: dict[str, Any], study_dir: Path, width: int, scheme: str
) -> None:
    path = write_report(results, study_dir)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        assert drawn(page) == (14, 14)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []


def test_figures_follow_the_colour_scheme(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    path = write_report(results, study_dir)
    colour = "getComputedStyle(document.querySelector('#plot-sweep-0 .xtick text')).fill"
    with opened(browser, path) as (page, _, complaints):
        assert page.evaluate(colour) == "rgb(31, 38, 45)"
        page.emulate_media(color_scheme="dark")
        until(page, f"{colour} === 'rgb(232, 236, 239)'")
        # On paper the light colours come back, whatever the screen shows.
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        until(page, f"{colour} === 'rgb(31, 38, 45)'")
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        until(page, f"{colour} === 'rgb(232, 236, 239)'")
        assert complaints == []


def test_switches_work_from_the_keyboard(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    path = write_report(results, study_dir)
    with opened(browser, path) as (page, _, complaints):
        lines = "document.querySelectorAll('#plot-curves-0 .scatterlayer .trace').length"
        before = page.evaluate(lines)
        page.focus("input[data-others]")
        page.keyboard.press("Space")
        until(page, f"{lines} === {before + len(results['trials']) - 1}")
        page.focus("button[data-filter=changed]")
        page.keyboard.press("Enter")
        shown = page.evaluate("document.querySelectorAll('.sample:not([hidden])').length")
        changed = [s for s in results["samples"] if s["before"]["label"] != s["after"]["label"]]
        assert shown == len(changed)
        assert page.get_attribute("button[data-filter=changed]", "aria-pressed") == "true"
        page.focus("#panel-sweep summary")
        page.keyboard.press("Enter")
        assert page.is_visible("#panel-sweep table")
        assert complaints == []


def test_units_that_merged_are_chosen_by_keyboard(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    path = write_report(results, study_dir)
    shown = "[...document.querySelectorAll('.group:not([hidden])')].map(g => g.ariaLabel)"
    with opened(browser, path) as (page, _, complaints):
        assert page.evaluate(shown) == ["Unit 0"]
        page.focus(".chooser input:checked")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(shown) == ["Unit 100"]
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(shown) == ["Unit 300"]
        picture = page.query_selector(".group:not([hidden]) svg.picture")
        assert picture.bounding_box()["width"] > 40
        # The drawing holds an image, not a reference that leads nowhere.
        colours = page.evaluate("document.querySelectorAll('symbol image').length")
        assert colours == len(results["merged"]["pictures"])
        # A link opens the data table and moves the focus there.
        page.focus("#panel-merged-0 a.to-data")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#data-merged-0').open")
        until(page, "document.activeElement === document.querySelector('#data-merged-0 summary')")
        assert complaints == []


def test_drawings_are_zoomed_and_lines_toggled_by_keyboard(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    path = write_report(results, study_dir)
    place = "document.getElementById('plot-sweep-0')"
    span = f"(([low, high]) => high - low)({place}._fullLayout.yaxis.range)"
    means = f"{place}.data.find(trace => trace.name === 'mean').visible"
    with opened(browser, path) as (page, _, complaints):
        before = page.evaluate(span)
        page.focus("#panel-sweep .tools summary")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        until(page, f"Math.abs({span} - 0.7 * {before}) < 1e-6")
        page.focus("#panel-sweep .tool button:nth-of-type(3)")
        page.keyboard.press("Enter")
        until(page, f"Math.abs({span} - {before}) < 1e-6")
        page.get_by_label("mean", exact=True).focus()
        page.keyboard.press("Space")
        until(page, f"{means} === 'legendonly'")
        page.focus("#panel-sweep .tool button:nth-of-type(3)")
        page.keyboard.press("Enter")
        until(page, f"{means} !== 'legendonly'")
        until(page, "document.querySelector('#panel-sweep .tool input').checked")
        # A click on the legend of the drawing itself is followed.
        page.click("#plot-sweep-0 .legendtoggle >> nth=0")
        until(page, "!document.querySelector('#panel-sweep .tool input').checked")
        assert complaints == []


def test_hostile_names_run_nothing(browser: Any, results: dict[str, Any], study_dir: Path) -> None:
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    results["data"]["classes"][0] = results["data"]["name"] = name
    for top in ("chosen", "pruned"):
        results[top]["test"]["per_class"][0]["class"] = name
    results["samples"][0]["true"] = name
    path = write_report(results, study_dir)
    with opened(browser, path, width=390) as (page, requests, complaints):
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        label = page.text_content("#plot-counts-0 .ytick text")
        assert label.startswith("<img src=x")


def test_a_sweep_draws_both_splits_and_no_pruning(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    path = write_report(example_sweep(results), study_dir)
    with opened(browser, path) as (page, requests, complaints):
        assert page.query_selector("#plot-splits-0 .main-svg")
        assert page.query_selector("#plot-sweep-0 .main-svg")
        assert page.query_selector("#pruning") is None
        for link in page.query_selector_all("nav a"):
            assert page.query_selector(link.get_attribute("href")), link.text_content()
        assert complaints == []
        assert requests == [path.as_uri()]


def test_a_study_with_little_in_it_draws_without_complaint(
    browser: Any, results: dict[str, Any], study_dir: Path
) -> None:
    results["pruned"] = results["cost"] = None
    for trial in results["trials"]:
        for row in trial["curve"]:
            row["val_loss"] = None
    for row in results["sweep"]:
        row |= {"val_accuracy_low": None, "val_accuracy_high": None}
    for score in results["chosen"]["test"]["per_class"]:
        score["precision"] = None
    for sample in results["samples"]:
        sample["after"] = None
    path = write_report(results, study_dir)
    with opened(browser, path) as (page, _, complaints):
        assert len(page.query_selector_all(".figure .main-svg")) >= 8
        assert complaints == []


def test_the_check_of_accessibility_finds_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><html lang='en' data-drawn><title>x</title><main><h1>x</h1>"
        "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>"
        "<p style='color:#bbb;background:#fff'>pale</p><a href='#a'>a</a><ul><li>b</li></ul>"
        "<table><tr><th scope='col'>c</th></tr><tr><td>d</td></tr></table></main></html>"
    )
    with opened(browser, path) as (page, _, _):
        found = violations(page)
    assert [line.split(" ")[1] for line in sorted(found)] == ["image-alt", "color-contrast"]
