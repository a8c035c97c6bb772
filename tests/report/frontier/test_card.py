from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_frontier import example_frontier
from example_trust import example_trust

from secateurs.report.frontier.card import render_frontier_card, write_frontier_card
from secateurs.report.frontier.schema import check_frontier

pytestmark = pytest.mark.usefixtures("without_plotly")


@pytest.fixture
def frontier(study_dir: Path) -> dict[str, Any]:
    study_dir.mkdir()
    return check_frontier(example_frontier(study_dir))


def test_the_card_says_what_the_recommended_network_is(frontier: dict[str, Any], study_dir: Path):
    path = write_frontier_card(frontier, study_dir)
    assert path == study_dir / "model" / "README.md"
    text = path.read_text()
    assert "fine-tuned and pruned; chosen on validation images from 6 networks" in text
    for title in ("Accuracy", "Cost", "Data", "Limitations", "Use", "Versions"):
        assert f"\n## {title}\n" in text
    test = frontier["recommended"]["test"]
    assert f"{100 * test['accuracy']:.1f}" in text
    for name in frontier["data"]["classes"]:
        assert f"| {name} |" in text
    assert "not calibrated" in text
    assert "\n## int8\n" in text and "-macs50, int8 |" in text


def test_the_card_says_when_the_network_does_not_know(frontier: dict[str, Any]):
    frontier["trust"] = example_trust()
    text = render_frontier_card(check_frontier(frontier))
    assert "Below a probability of 70% predict answers that it does not know" in text
    assert "not calibrated" not in text


def test_the_cost_of_a_network_that_was_not_pruned_is_its_own(frontier: dict[str, Any]):
    final = frontier["recommended"]
    final["name"] = final["unpruned"] = frontier["answer"]["name"] = "mobilenet_v2"
    text = render_frontier_card(frontier)
    assert "unpruned" not in text
    assert "| model.safetensors | 9.1 MB |" in text


def test_names_of_classes_are_no_markdown(frontier: dict[str, Any]):
    frontier["data"]["classes"][0] = "a|b <i>"
    assert "a\\|b &lt;i&gt;" in render_frontier_card(frontier)
