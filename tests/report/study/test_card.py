from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_results import example_sweep

from secateurs.errors import InputError
from secateurs.report.common.formatting import percent
from secateurs.report.study.card import render_card, write_card
from secateurs.report.study.schema import check_results


def test_the_card_says_what_the_results_say(results: dict[str, Any], study_dir: Path):
    checked = check_results(results)
    path = write_card(checked, study_dir)
    text = path.read_text(encoding="utf-8")
    assert path == study_dir / "model" / "README.md"
    assert "# AlexNet for faces" in text
    for side in ("val", "test"):
        assert percent(checked["pruned"][side]["accuracy"]) in text
    assert "| fc7 | 4,096 | 120 |" in text
    assert "| parameters | 57,032,519 | 40,738,000 |" in text
    assert "| model.onnx | 228 MB | 163 MB | 71.4% |" in text
    assert checked["cost"]["sentence"] not in text  # the table has its figures
    assert "| Disgust | 45 | 15 | 15 |" in text
    assert "1 file cannot be used: Angry/x.jpg is truncated." in text  # a warning of the report
    assert "torch 2.15.0" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 25
    assert "None" not in text


def test_names_cannot_break_a_table(results: dict[str, Any]):
    checked = check_results(results)
    checked["data"]["classes"][0] = checked["pruned"]["test"]["per_class"][0]["class"] = "a|b\nc"
    assert "| a\\|b c | 60 | 20 | 20 |" in render_card(checked)


def test_hostile_names_are_text_in_markdown(results: dict[str, Any]):
    from html.parser import HTMLParser

    markdown = pytest.importorskip("markdown")
    hostile = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) `*_|~ <http://a.b> www.c.d"
    checked = check_results(results)
    checked["data"]["name"] = hostile
    checked["data"]["classes"][0] = checked["pruned"]["test"]["per_class"][0]["class"] = hostile
    checked["data"]["findings"] = [f"1 file cannot be used (first: {hostile})."]
    checked["weights"]["sentence"] = checked["cost"]["sentence"] = hostile
    text = render_card(checked)
    assert "<" not in text
    found: list[str] = []
    words: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.append(tag)

        def handle_data(self, data: str) -> None:
            words.append(data)

    Tags().feed(markdown.markdown(text, extensions=["tables"]))
    assert not {"img", "a", "em", "strong", "script"} & set(found)
    assert hostile in " ".join("".join(words).split())


def test_a_card_without_test_or_cost_says_less(results: dict[str, Any]):
    results["chosen"]["test"] = results["pruned"]["test"] = results["cost"] = None
    del results["files"]
    text = render_card(check_results(results))
    assert "\n| test |" not in text
    assert "## Cost" not in text
    assert "## Use" not in text


def test_a_sweep_has_no_card(results: dict[str, Any], study_dir: Path):
    with pytest.raises(InputError, match="the study has no pruned model"):
        write_card(check_results(example_sweep(results)), study_dir)
