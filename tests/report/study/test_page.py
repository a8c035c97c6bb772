from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from example_results import example_results

from secateurs.errors import InputError
from secateurs.report.common.thumbnails import MAX_BYTES, thumbnail
from secateurs.report.study.page import write_report


class Page(HTMLParser):
    """A parsed page: elements with attributes, text, and the contents of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        place = {"script": self.scripts, "style": self.styles}.get(self._open, self.words)
        place.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def data_of(page: Page, key: str) -> Any:
    at = [attributes.get("id") for attributes in page.all("script")].index(key)
    return json.loads(page.scripts[at])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Page]:
    """Results as they are, and their page."""
    folder = tmp_path_factory.mktemp("whole")
    results = example_results(folder)
    path = write_report(results, folder)
    assert path == folder / "report.html"
    return results, Page(path)


def test_the_first_screen_answers(whole: tuple[dict[str, Any], Page]) -> None:
    results, page = whole
    for text in (
        "images correct; ",
        "removing 97.1% of fc7",
        "5 of 8 layers frozen",
        "57.0 M",
        "40.7 M",
        "228 MB",
        "163 MB",
        "171 ms",
        "169 ms",
        "no significant difference",
        "68.7% of the time before",
        "5 of 8 layers pretrained, fc6 and fc7 new",
        "Limitations",
        "Angry/x.jpg is truncated",
    ):
        assert text in page.text
    for top in ("chosen", "pruned"):
        assert f"{100 * results[top]['test']['accuracy']:.1f}% (" in page.text


def test_the_page_loads_nothing(whole: tuple[dict[str, Any], Page]) -> None:
    page = whole[1]
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "formaction"):
            value = attributes.get(name, "")
            assert value == "" or value.startswith(("#", "data:image/")), (tag, name, value[:80])
        assert "url(" not in attributes.get("style", "")
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert not re.search(r"@import|url\(", "".join(page.styles))


def test_the_policy_names_exactly_the_two_scripts(whole: tuple[dict[str, Any], Page]) -> None:
    page = whole[1]
    metas = [meta for meta in page.all("meta") if meta.get("http-equiv")]
    policy = metas[0]["content"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    kinds = [attributes.get("type", "run") for attributes in page.all("script")]
    run = [text for text, kind in zip(page.scripts, kinds, strict=True) if kind == "run"]
    assert len(run) == 1
    packed = page.scripts[[a.get("id") for a in page.all("script")].index("plotly")]
    run.append(gzip.decompress(base64.b64decode(packed)).decode())
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_every_figure_has_words_and_numbers(whole: tuple[dict[str, Any], Page]) -> None:
    page = whole[1]
    plots = [div for div in page.all("div") if div.get("class") == "plot"]
    assert len(plots) == 14
    assert {plot["id"] for plot in plots} == set(data_of(page, "plots"))
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 20 for plot in plots)
    panels = [a["id"] for a in page.all("article")]
    assert len(page.all("figcaption")) == 9
    assert len(panels) == 10  # and merged units, which have no figure
    assert len(page.all("table")) >= len(panels)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"][1:] in ids
    # Every panel links to its data table, which says where the numbers are in the results.
    links = {a["href"] for a in page.all("a") if a.get("class") == "to-data"}
    assert links == {f"#data-{panel.removeprefix('panel-')}" for panel in panels}
    assert page.text.count("In results.json under") == len(panels) == len(links)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028{{ 7*7 }}"


@pytest.mark.usefixtures("without_plotly")
def test_names_are_text_everywhere(
    results: dict[str, Any], whole: tuple[dict[str, Any], Page], study_dir: Path
) -> None:
    text = json.dumps(results).replace('"Angry', json.dumps(HOSTILE)[:-1])
    hostile = json.loads(text)
    hostile["data"]["name"] = HOSTILE
    hostile["data"]["bad"][0] |= {"name": HOSTILE, "detail": HOSTILE}
    hostile["data"]["findings"] = [HOSTILE]
    hostile["pruned"]["layers"][0]["layer"] = HOSTILE
    hostile["config"]["data"] = hostile["chosen"]["reason"] = HOSTILE
    hostile["weights"]["sentence"] = hostile["cost"]["sentence"] = HOSTILE
    hostile["cost"]["latency"][0]["runtime"] = HOSTILE
    before, page = whole[1], Page(write_report(hostile, study_dir, study_dir / "hostile.html"))
    assert len(page.all("script")) == len(before.all("script")) == 4
    assert len(page.all("img")) == len(before.all("img"))
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    # Plotly reads tags in labels, so none may reach it either.
    labels = data_of(page, "plots")["plot-counts-0"]["layout"]["yaxis"]["ticktext"]
    assert labels[0].startswith("&lt;/script&gt;")
    for name, figure in data_of(page, "plots").items():
        assert not re.search(r"<(?!/?(b|br|extra)>)", json.dumps(figure)), name


def remove_pruned(results: dict[str, Any]) -> None:
    results["pruned"] = results["cost"]["after"] = None
    for row in results["cost"]["latency"]:
        row["after_ms"] = row["ratio"] = None
    for sample in results["samples"]:
        sample["after"] = None


def remove_optional_keys(results: dict[str, Any]) -> None:
    for key in ("pruned", "cost", "samples", "files", "timing"):
        del results[key]


def remove_test(results: dict[str, Any]) -> None:
    results["chosen"]["test"] = results["pruned"]["test"] = None


def remove_samples(results: dict[str, Any]) -> None:
    results["samples"] = []


def one_trial(results: dict[str, Any]) -> None:
    results["trials"] = [t for t in results["trials"] if t["key"] == results["chosen"]["key"]]
    results["sweep"] = [row for row in results["sweep"] if row["depth"] == 5]
    empty = {"val_accuracy_std": None, "val_accuracy_low": None, "val_accuracy_high": None}
    results["sweep"][0] |= {"num_runs": 1} | empty


def null_scores(results: dict[str, Any]) -> None:
    for top in ("chosen", "pruned"):
        for score in results[top]["test"]["per_class"]:
            score |= {"precision": None, "recall": None, "specificity": None}
        results[top]["test"] |= {"accuracy_low": None, "accuracy_high": None}


def null_numbers(results: dict[str, Any]) -> None:
    for key in ("before", "after"):
        results["cost"][key] = dict.fromkeys(results["cost"][key])
    for row in results["cost"]["latency"]:
        row["before_ms"] = row["after_ms"] = {"median": None, "p25": None, "p75": None}
        row["ratio"] = None
    results["pruned"]["layers"][0] |= {"angle_deg_histogram": None, "angle_deg_quantiles": None}
    results["pruned"] |= {"low_deg": None, "high_deg": None}
    for trial in results["trials"]:
        trial["best_epoch"] = trial["val_accuracy"] = trial["val_loss"] = None
        for row in trial["curve"]:
            row |= {"val_loss": None, "val_accuracy": None}
    for row in results["sweep"]:
        row |= {"val_accuracy_mean": None, "val_accuracy_low": None, "val_accuracy_high": None}


def no_choice(results: dict[str, Any]) -> None:
    results["chosen"] = results["pruned"] = results["cost"] = None
    results["trials"], results["sweep"], results["samples"] = [], [], []


def no_curves(results: dict[str, Any]) -> None:
    for trial in results["trials"]:
        trial["curve"] = []


def empty_sides(results: dict[str, Any]) -> None:
    results["split"]["per_class"] = {side: [0] * 7 for side in ("train", "val", "test")}
    results["split"]["counts"] = dict.fromkeys(("train", "val", "test"), 0)
    for top in ("chosen", "pruned"):
        evaluation = results[top]["test"]
        evaluation["confusion"] = [[0] * 7] * 7
        evaluation |= {"num_images": 0, "accuracy": None}
        evaluation |= {"accuracy_low": None, "accuracy_high": None}


def remove_merged(results: dict[str, Any]) -> None:
    results["merged"] = None


def old_schema(results: dict[str, Any]) -> None:
    results["schema"] = 1
    del results["merged"]


@pytest.mark.usefixtures("without_plotly")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (remove_pruned, "Nothing was pruned."),
        (remove_optional_keys, "The cost was not measured."),
        (remove_test, "The test images were not evaluated"),
        (remove_samples, "This study has no example predictions."),
        (one_trial, "A single run has no interval"),
        (null_scores, "No class has images here"),
        (null_numbers, "not known"),
        (no_choice, "no model was chosen yet"),
        (no_curves, "Validation accuracy by number of frozen layers"),
        (empty_sides, "0 of 0 test images correct"),
        (remove_merged, "No units were merged."),
        (old_schema, "older version (schema 1), which stored no images of merged units. Run the"),
    ],
)
def test_pages_of_studies_that_lack_something(
    results: dict[str, Any],
    study_dir: Path,
    change: Callable[[dict[str, Any]], None],
    text: str,
) -> None:
    change(results)
    page = Page(write_report(results, study_dir))
    assert text in page.text
    assert not re.search(r"\b(None(?! of)|nan|[Uu]ndefined)\b", page.text)


@pytest.mark.usefixtures("without_plotly")
def test_a_missing_thumbnail_is_said(results: dict[str, Any], study_dir: Path) -> None:
    (study_dir / "thumbnails" / "3.jpg").unlink()
    page = Page(write_report(results, study_dir))
    assert len(page.all("img")) == len(results["samples"]) - 1
    assert page.text.count("thumbnail missing") == 1


@pytest.mark.usefixtures("without_plotly")
def test_a_report_without_any_picture_says_so(results: dict[str, Any], study_dir: Path) -> None:
    shutil.rmtree(study_dir / "thumbnails")
    page = Page(write_report(results, study_dir))
    assert not page.all("img")
    assert not page.all("image")
    assert not page.all("use")
    assert "The images are missing: the study has no folder thumbnails." in page.text
    assert "20 of 20 images of merged units are missing" in page.text
    missing = [a["aria-label"] for a in page.all("div") if "absent" in a.get("class", "")]
    assert len(missing) > 80
    assert all(label.endswith("; picture missing") for label in missing)


@pytest.mark.usefixtures("without_plotly")
def test_units_that_merged_are_shown_with_their_images(
    results: dict[str, Any], study_dir: Path
) -> None:
    (study_dir / "thumbnails" / "merged-3.jpg").unlink()
    page = Page(write_report(results, study_dir))
    groups = results["merged"]["layers"][0]["groups"]
    shown = [unit for group in groups for unit in group["units"]]
    assert len([a for a in page.all("li") if a.get("class", "").startswith("unit")]) == len(shown)
    symbols = {a["id"] for a in page.all("symbol")}
    assert symbols == {f"picture-{k}" for k in range(20) if k != 3}
    uses = [a["href"] for a in page.all("use")]
    assert {use[1:] for use in uses} <= symbols
    total = sum(unit["pictures"].count(k) for unit in shown for k in range(20) if k != 3)
    chips = sum(group["units"][0]["pictures"][0] != 3 for group in groups)
    assert len(uses) == total + chips
    for text in (
        "3,478 units of fc7 merged into 120 kept units; 4 of the groups are shown",
        "1,840 units were merged into unit 0; the median angle is",
        "1 unit was merged into unit 300, at",
        "opposite; 0 of 2 images shared",
        "Angry, Angry/000_0.png: activation 9.50",
        "1 of 20 images of merged units is missing",
        "In results.json under merged.",
    ):
        assert text in page.text, text


@pytest.mark.usefixtures("without_plotly")
def test_names_in_pictures_are_text(results: dict[str, Any], study_dir: Path) -> None:
    for picture in results["merged"]["pictures"]:
        picture |= {"name": HOSTILE, "true": HOSTILE}
    results["merged"]["layers"][0]["layer"] = HOSTILE
    page = Page(write_report(results, study_dir))
    assert len(page.all("script")) == 4
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_only_pictures_below_the_study_are_shown(study_dir: Path, results: dict[str, Any]) -> None:
    outside = study_dir.parent / "secret.jpg"
    outside.write_bytes((study_dir / "thumbnails" / "0.jpg").read_bytes())
    (study_dir / "note.jpg").write_text("not a picture")
    (study_dir / "big.jpg").write_bytes(b"\xff\xd8\xff" + bytes(MAX_BYTES))
    assert thumbnail(study_dir, "thumbnails/0.jpg").startswith("data:image/jpeg;base64,")
    for name in ("../secret.jpg", str(outside), "note.jpg", "big.jpg", "thumbnails", "a\0b", None):
        assert thumbnail(study_dir, name) == ""


@pytest.mark.usefixtures("without_plotly")
def test_long_lists_of_findings_are_cut(results: dict[str, Any], study_dir: Path) -> None:
    results["data"]["near"] = [[f"Sad/{n}.png", f"Sad/{n}b.png"] for n in range(1000)]
    page = Page(write_report(results, study_dir))
    assert "Near duplicates (1000)" in page.text
    assert "And 960 more, listed in results.json." in page.text


def test_two_reports_of_one_study_are_the_same_bytes(
    results: dict[str, Any], study_dir: Path, tmp_path: Path
) -> None:
    first = write_report(results, study_dir).read_bytes()
    second = write_report(results, study_dir, tmp_path / "other.html").read_bytes()
    assert first == second


@pytest.mark.usefixtures("without_plotly")
def test_an_unwritable_place_is_an_input_error(results: dict[str, Any], study_dir: Path) -> None:
    with pytest.raises(InputError, match="is a directory; give the name of the page"):
        write_report(results, study_dir, study_dir)
    (study_dir / "file").write_text("")
    with pytest.raises(InputError, match="the page cannot be written"):
        write_report(results, study_dir, study_dir / "file" / "report.html")


@pytest.mark.usefixtures("without_plotly")
def test_a_page_that_fails_leaves_the_old_one(results: dict[str, Any], study_dir: Path) -> None:
    path = write_report(results, study_dir)
    before = path.read_bytes()
    del results["trials"]
    with pytest.raises(InputError, match="missing key 'trials'"):
        write_report(results, study_dir)
    assert path.read_bytes() == before
    assert not list(study_dir.glob(".report*"))
