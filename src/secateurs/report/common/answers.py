"""What a network answers for one image, as pages show it."""

from __future__ import annotations

from dataclasses import dataclass

from secateurs.report.common.formatting import percent
from secateurs.report.common.sweep_rows import Record


@dataclass(frozen=True)
class Answer:
    """What a network says of an image; `when` names the network."""

    when: str
    label: str
    probability: str
    correct: bool


def answer_of(when: str, found: Record, true: str) -> Answer:
    """The answer `found` for an image with the label `true`."""
    probability = percent(found["probability"], digits=0)
    return Answer(when, found["label"], probability, found["label"] == true)
