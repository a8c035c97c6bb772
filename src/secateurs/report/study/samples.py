"""Example predictions with their thumbnails, embedded in the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secateurs.report.common.answers import Answer, answer_of
from secateurs.report.common.formatting import percent
from secateurs.report.common.sweep_rows import Record
from secateurs.report.common.thumbnails import thumbnail


@dataclass(frozen=True)
class Sample:
    """One image with its label and the predictions before and after pruning."""

    name: str
    true: str
    answers: tuple[Answer, ...]
    source: str  # a data: address, or empty when the thumbnail cannot be shown

    @property
    def state(self) -> str:
        """Words for the page's filter: "wrong" by the last prediction, "changed" if they differ."""
        words = ["wrong"] if self.answers and not self.answers[-1].correct else []
        labels = {answer.label for answer in self.answers}
        return " ".join([*words, *(["changed"] if len(labels) > 1 else [])])


def read_samples(results: Record, study_dir: Path) -> list[Sample]:
    """The samples of `results` with thumbnails read from below `study_dir`."""
    return [
        Sample(
            name=entry["name"],
            true=entry["true"],
            answers=_answers(entry),
            source=thumbnail(study_dir, entry["thumbnail"]),
        )
        for entry in results["samples"] or []
    ]


def _answers(entry: Record) -> tuple[Answer, ...]:
    found = [when for when in ("before", "after") if entry[when]]
    return tuple(
        answer_of(when if len(found) > 1 else "predicted", entry[when], entry["true"])
        for when in found
    )


def samples_sentence(samples: list[Sample], *, accuracy: float | None = None) -> str:
    """How many of the examples are wrong, and why that is more than the accuracy says."""
    if not samples:
        return "This study has no example predictions."
    wrong = sum("wrong" in sample.state for sample in samples)
    changed = sum("changed" in sample.state for sample in samples)
    two = any(len(sample.answers) > 1 for sample in samples)
    where = " after pruning" if two else ""
    text = f"{wrong} of these {len(samples)} examples are misclassified{where}"
    if two:
        count = f"the prediction of {changed}" if changed else "no prediction"
        text += f"; pruning changed {count}"
    text += (
        ". The examples are not a random sample: up to half of them are chosen among the images "
        "that either network misclassifies, because mistakes show more of a model than correct "
        "predictions do"
    )
    if accuracy is not None:
        text += f". The accuracy on all images is {percent(accuracy)}"
    return text + "."


def samples_absence(samples: list[Sample]) -> str:
    """That all thumbnails are missing, when they are; else empty."""
    if not samples or any(sample.source for sample in samples):
        return ""
    return "The images are missing: the study has no folder thumbnails. The predictions are below."
