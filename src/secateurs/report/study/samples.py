"""Example predictions with their thumbnails, embedded in the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from secateurs.files import read_regular
from secateurs.report.common.formatting import percent
from secateurs.report.common.sweep_rows import Record

MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Answer:
    """The prediction for one image."""

    when: str
    label: str
    probability: str
    correct: bool


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
            answers=tuple(
                Answer(
                    when,
                    entry[when]["label"],
                    percent(entry[when]["probability"], digits=0),
                    entry[when]["label"] == entry["true"],
                )
                for when in ("before", "after")
                if entry[when]
            ),
            source=thumbnail(study_dir, entry["thumbnail"]),
        )
        for entry in results["samples"] or []
    ]


def thumbnail(study_dir: Path, name: str | None) -> str:
    """An image below `study_dir` as a data: address; empty when it cannot be shown.

    Only JPEG, PNG and WebP files up to 1 MB that lie below the directory are taken: the name
    comes from a file, and pages are shared.
    """
    if not name:
        return ""
    try:
        path = (study_dir / name).resolve()
        if not path.is_relative_to(study_dir.resolve()) or path.stat().st_size > MAX_BYTES:
            return ""
        content = read_regular(path, max_bytes=MAX_BYTES)
    except (OSError, ValueError):
        return ""
    kind = _kind(content)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else ""


def _kind(content: bytes) -> str:
    """The media type by the first bytes, empty for any other content."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""


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
