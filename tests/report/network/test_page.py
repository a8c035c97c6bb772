"""The texts of a pruned network's page."""

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
            "used to choose the epoch of the recovery, one of 3 initialisations of the merging "
            "(79.0% to 84.0% before recovery) and the batch norm statistics (without labels), "
            "so their accuracy is too optimistic.",
        ),
        ({"starts": []}, "used to choose the epoch of the recovery, so their accuracy"),
        (
            {"starts": [], "budget": SIZE, **UNRECOVERED},
            "used to choose the size of the pruned network, so",
        ),
        ({"starts": [0.8], **UNRECOVERED}, "not used for pruning"),
    ],
)
def test_choices_on_validation_images_are_named_and_no_others(
    changes: dict[str, Any], said: str
) -> None:
    first = cautions(changed(**({**without_norms(), **changes} if changes else {})))[0]
    assert said in first
    assert "The test images were not used." in first


def test_pruning_without_recovery_has_one_accuracy() -> None:
    assert "validation accuracy, before recovery" in render_network(example_network())
    text = render_network(changed(**UNRECOVERED, after=example_network()["cut"]))
    assert "validation accuracy, before recovery" not in text
    assert text.count('<th scope="row">validation accuracy</th>') == 1


def test_the_headline_has_size_and_accuracy() -> None:
    assert headline(example_network()) == (
        "9 times fewer parameters, validation accuracy −1.5 points"
    )
    same = changed(after=example_network()["before"])
    assert headline(same) == "9 times fewer parameters, at the same validation accuracy"


def test_a_change_far_above_the_predicted_one_is_a_caution() -> None:
    calm = cautions(example_network())
    outcome = {**example_network()["outcome"], "alarm": True, "measured": 3.4, "relative": 0.41}
    alarmed = cautions(changed(outcome=outcome))
    assert len(alarmed) == len(calm) + 1
    assert "by 3.4 (mean squared; 41.0% of their variance); the prediction was 0.19" in alarmed[1]


def test_the_page_lists_what_was_tried_after_the_cut() -> None:
    text = render_network(example_network())
    for row in ("predicted from the training images", "batch norm statistics measured"):
        assert row in text
    older = {key: value for key, value in example_network().items() if key != "outcome"}
    assert "predicted from the training images" not in render_network(older)
