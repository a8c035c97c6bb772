"""The words of a whole network's page."""

from __future__ import annotations

from typing import Any

import pytest
from example_network import example_network

from secateurs.report.network.page import cautions, headline, render_network


def changed(**changes: Any) -> dict[str, Any]:
    return {**example_network(), **changes}


def without_norms() -> dict[str, Any]:
    outcome = example_network()["outcome"]
    return {"outcome": {**outcome, "norms_tried": {"kept": outcome["measured"]}}}


UNRECOVERED = {"recovery": None}
SIZE = {"params": None, "macs": None, "latency": None, "max_loss": 1.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "chose the epoch of the recovery, one of 3 starts of the merging, which reached "
            "79.0% to 84.0% before any recovery and the statistics of batch norm, without their "
            "labels. They flatter",
        ),
        ({"starts": []}, "chose the epoch of the recovery. They flatter"),
        ({"starts": [], "budget": SIZE, **UNRECOVERED}, "chose the size of the cut. They flatter"),
        ({"starts": [0.8], **UNRECOVERED}, "had no part in this cut"),
    ],
)
def test_what_validation_chose_is_told_and_nothing_else(changes: dict[str, Any], said: str) -> None:
    first = cautions(changed(**({**without_norms(), **changes} if changes else {})))[0]
    assert said in first
    assert "the test images were not looked at" in first


def test_a_cut_without_recovery_has_one_accuracy() -> None:
    assert "just after the cut" in render_network(example_network())
    text = render_network(changed(**UNRECOVERED, after=example_network()["cut"]))
    assert "just after the cut" not in text
    assert text.count('<th scope="row">validation accuracy</th>') == 1


def test_the_headline_tells_what_was_gained_and_lost() -> None:
    assert headline(example_network()) == (
        "9 times fewer parameters, 1.5 points of validation accuracy down."
    )
    same = changed(after=example_network()["before"])
    assert headline(same) == "9 times fewer parameters, with the same validation accuracy."


def test_a_change_far_above_the_predicted_one_is_a_caution() -> None:
    calm = cautions(example_network())
    outcome = {**example_network()["outcome"], "alarm": True, "measured": 3.4, "relative": 0.41}
    alarmed = cautions(changed(outcome=outcome))
    assert len(alarmed) == len(calm) + 1
    assert "by 3.4 (mean squared; 41.0% of their variance), 0.19 was predicted" in alarmed[1]


def test_the_page_lists_what_was_tried_after_the_cut() -> None:
    text = render_network(example_network())
    for row in ("predicted from the training images", "batch norm statistics measured"):
        assert row in text
    older = {key: value for key, value in example_network().items() if key != "outcome"}
    assert "predicted from the training images" not in render_network(older)
