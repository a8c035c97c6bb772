"""The words of a whole network's page."""

from __future__ import annotations

from typing import Any

import pytest
from example_shrink import example_shrink

from secateurs.report.shrink_page import cautions, headline, render_shrink


def changed(**changes: Any) -> dict[str, Any]:
    return {**example_shrink(), **changes}


UNRECOVERED = {"recovery": None}
SIZE = {"params": None, "macs": None, "latency": None, "max_loss": 1.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "chose the epoch of the recovery and one of 3 starts of the merging, which reached "
            "79.0% to 84.0% before any recovery. They flatter",
        ),
        ({"starts": []}, "chose the epoch of the recovery. They flatter"),
        ({"starts": [], "budget": SIZE, **UNRECOVERED}, "chose the size of the cut. They flatter"),
        ({"starts": [0.8], **UNRECOVERED}, "had no part in this cut"),
    ],
)
def test_what_validation_chose_is_told_and_nothing_else(changes: dict[str, Any], said: str) -> None:
    first = cautions(changed(**changes))[0]
    assert said in first
    assert "the test images were not looked at" in first


def test_a_cut_without_recovery_has_one_accuracy() -> None:
    assert "just after the cut" in render_shrink(example_shrink())
    text = render_shrink(changed(**UNRECOVERED, after=example_shrink()["cut"]))
    assert "just after the cut" not in text
    assert text.count('<th scope="row">validation accuracy</th>') == 1


def test_the_headline_tells_what_was_gained_and_lost() -> None:
    assert headline(example_shrink()) == (
        "9 times fewer parameters, 1.5 points of validation accuracy down."
    )
    same = changed(after=example_shrink()["before"])
    assert headline(same) == "9 times fewer parameters, with the same validation accuracy."
