"""Accuracy, the confusion matrix and the SPI measures: precision, recall, specificity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.nets.trace import eval_mode

BATCH, BATCH_ON_DEVICE = 64, 512


@dataclass(frozen=True)
class ClassScore:
    """One class's SPI measures, each in 0..1, or None where there is nothing to divide by."""

    name: str
    precision: float | None
    recall: float | None
    specificity: float | None
    num_true: int
    num_predicted: int


@dataclass(frozen=True)
class Evaluation:
    """How a network answers on labelled images.

    `accuracy` and its 95% interval `accuracy_low`..`accuracy_high` (Wilson's, widened where errors
    come in groups) are in 0..1, `loss` is the mean cross-entropy in nats. `confusion[t][p]` counts
    images of class t answered p. `majority_accuracy` is what a constant answer of the largest class
    here would reach, and `balanced_accuracy` the mean recall over the classes that have images
    here, both in 0..1.
    """

    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    notes: tuple[str, ...]
    majority_accuracy: float
    balanced_accuracy: float

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `docs/results.md` describes an evaluation."""
        plain = asdict(self)
        plain["confusion"] = [list(row) for row in self.confusion]
        plain["per_class"] = [{"class": score.pop("name"), **score} for score in plain["per_class"]]
        plain["notes"] = list(self.notes)
        return plain


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927), as two numbers in 0..1.

    >>> [round(x, 3) for x in wilson_interval(67, 134)]
    [0.417, 0.583]
    """
    return _wilson(num_correct / num_images, num_images)


def _wilson(share: float, num: float) -> tuple[float, float]:
    # scipy.stats has the same interval and takes a second to import.
    square = float(ndtri(0.975)) ** 2
    middle = (share + square / (2 * num)) / (1 + square / num)
    variance = share * (1 - share) / num + square / (4 * num**2)
    half = (square * variance) ** 0.5 / (1 + square / num)
    # At both ends the formula gives 0 and 1 up to rounding.
    return 0.0 if share == 0 else middle - half, 1.0 if share == 1 else middle + half


def grouped_interval(
    correct: NDArray[np.bool_], groups: Sequence[str] | None = None
) -> tuple[float, float]:
    """The 95% interval of the share of (n,) correct answers whose errors come in groups.

    Wilson's, with the number of images divided by the design effect: the variance of the share
    when whole groups are drawn over that when images are (Kish 1965), at least 1. Without groups,
    or with one only, it is Wilson's.

    >>> correct = np.array([True, True, False, False])
    >>> narrow = grouped_interval(correct)
    >>> wide = grouped_interval(correct, ("a", "a", "b", "b"))
    >>> wide[0] < narrow[0] and narrow[1] < wide[1]
    True
    """
    num, share = len(correct), float(np.mean(correct))
    effect = 1.0
    if groups is not None and 0 < share < 1:
        _, own = np.unique(np.asarray(groups), return_inverse=True)
        number = int(own.max()) + 1
        if number > 1:
            rest = np.bincount(own, weights=correct - share, minlength=number)
            variance = number / (number - 1) * float(np.square(rest).sum()) / num**2
            effect = max(1.0, variance / (share * (1 - share) / num))
    return _wilson(share, num / effect)


def majority_share(labels: NDArray[np.int64]) -> float:
    """The accuracy of always answering the commonest of (n,) class indices, 0..1.

    >>> majority_share(np.array([0, 2, 2, 2]))
    0.75
    """
    return float(np.bincount(labels).max()) / len(labels)


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, num_classes), int64; rows are true classes, columns predicted ones."""
    flat = labels.to(torch.int64) * num_classes + predicted.to(torch.int64)
    counts = torch.bincount(flat, minlength=num_classes * num_classes)
    return counts.view(num_classes, num_classes)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def class_scores(confusion: Tensor, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    """The SPI measures of each class against the rest (Dhall et al. 2011).

    precision = tp / (tp + fp), recall = tp / (tp + fn), specificity = tn / (tn + fp).
    """
    total = int(confusion.sum())
    scores: list[ClassScore] = []
    for k, name in enumerate(classes):
        correct = int(confusion[k, k])
        num_true, num_predicted = int(confusion[k].sum()), int(confusion[:, k].sum())
        num_others = total - num_true
        rejected = num_others - (num_predicted - correct)
        scores.append(
            ClassScore(
                name=name,
                precision=_ratio(correct, num_predicted),
                recall=_ratio(correct, num_true),
                specificity=_ratio(rejected, num_others),
                num_true=num_true,
                num_predicted=num_predicted,
            )
        )
    return tuple(scores)


def evaluate(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate `logits` (n, classes) against `labels` (n,) of class indices.

    The interval of the accuracy is that of `grouped_interval`, with the group of each image. Raises
    InputError when there is no image or the shapes do not agree.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    >>> result = evaluate(logits, torch.tensor([0, 1, 1]), ["cat", "dog"])
    >>> result.confusion, round(result.accuracy, 2)
    (((1, 0), (1, 1)), 0.67)
    >>> round(result.majority_accuracy, 2), result.balanced_accuracy
    (0.67, 0.75)
    """
    if logits.ndim != 2 or logits.shape[1] != len(classes) or len(logits) != len(labels):
        raise InputError(
            f"logits must be (images, classes) = ({len(labels)}, {len(classes)}), "
            f"got {tuple(logits.shape)}"
        )
    if len(labels) == 0:
        raise InputError("nothing to evaluate: no image was given")
    logits, labels = logits.detach().float().cpu(), labels.detach().cpu()
    predicted = logits.argmax(dim=1)
    confusion = confusion_matrix(labels, predicted, len(classes))
    num_correct = int(confusion.diagonal().sum())
    low, high = grouped_interval((predicted == labels).numpy(), groups)
    scores = class_scores(confusion, classes)
    recalls = [score.recall for score in scores if score.recall is not None]
    notes = [f"class {s.name} has no image here" for s in scores if s.num_true == 0]
    notes += [f"class {s.name} was never predicted" for s in scores if s.num_predicted == 0]
    return Evaluation(
        num_images=len(labels),
        accuracy=num_correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        loss=float(functional.cross_entropy(logits.double(), labels)),
        confusion=tuple(tuple(int(x) for x in row) for row in confusion.tolist()),
        per_class=scores,
        notes=tuple(notes),
        majority_accuracy=max(score.num_true for score in scores) / len(labels),
        balanced_accuracy=sum(recalls) / len(recalls),
    )


def predict_logits(
    module: torch.nn.Module, inputs: Tensor, *, batch_size: int | None = None
) -> Tensor:
    """Logits (n, classes), float32 on the CPU, of `module` in eval mode over `inputs` in batches.

    By default of 64 on a CPU, and of more on a graphics card, which is waited for once only. The
    module's modes are restored afterwards, also after an error.
    """
    step = batch_size or (BATCH if inputs.device.type == "cpu" else BATCH_ON_DEVICE)
    outputs: list[Tensor] = []
    with eval_mode(module), torch.inference_mode():
        for first in range(0, len(inputs), step):
            outputs.append(module(inputs[first : first + step]).float())
    return torch.cat(outputs).cpu()
