"""The refit of the recommended network in words."""

from __future__ import annotations

from typing import Any


def refit_sentence(refit: dict[str, Any]) -> str:
    """What was done with the recommended network after the choice.

    >>> refit_sentence({"num_train": 405, "num_val": 135, "reason": "its loss diverged"})
    'It ships as it was chosen, not trained on the validation images: its loss diverged.'
    """
    if refit["reason"] is not None:
        return (
            f"It ships as it was chosen, not trained on the validation images: {refit['reason']}."
        )
    num = refit["num_train"] + refit["num_val"]
    return (
        f"After the choice it was trained once more, on all {num} training and validation images, "
        "and then tested. The validation accuracy was measured before that."
    )


def measured_before(results: dict[str, Any]) -> list[str]:
    """That trust was measured before the last training, where there was one.

    >>> measured_before({"recommended": {"refit": None}})
    []
    """
    refit = results["recommended"].get("refit")
    if refit is None or refit["reason"] is not None:
        return []
    return [
        "Trust was measured on the networks as they were chosen, before the last training on the "
        "validation images."
    ]
