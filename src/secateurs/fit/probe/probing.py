"""What every depth of a network knows about labelled images: ridge classifiers on its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.confidence import fit_temperature
from secateurs.fit.images import Images
from secateurs.fit.metrics import grouped_interval
from secateurs.fit.paired import PairedDifference, paired_difference
from secateurs.fit.precision import Precision
from secateurs.fit.probe.classifier import RIDGES, fit_classifier
from secateurs.fit.probe.head import Head, can_start, normalised, shifted
from secateurs.fit.probe.pooling import Border, borders, pooled_features
from secateurs.nets.chain import chain
from secateurs.nets.depth import num_depths
from secateurs.nets.several_depths import both_depths, readable_depths
from secateurs.nets.stock import earlier_depths
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag


@dataclass(frozen=True)
class Share:
    """A share of images that were classified correctly, 0..1, with its 95% interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class DepthProbe:
    """What one depth of a network knows.

    `train` is the accuracy on training images by a classifier that was fitted without their group,
    `val` that on validation images, `both` that on both together; all of the plain views.
    `train_scores` (views, images, classes) are the out-of-group scores, plain and mirrored, and
    `val_scores` (images, classes) those on validation; float64. softmax(scores / `temperature`) are
    probabilities. `val_loss` is their mean cross-entropy in nats on validation, and `error` the
    mean squared error of the scores on training images out of their group.
    """

    depth: int
    num_features: int
    ridge: float
    train: Share
    val: Share
    both: Share
    temperature: float
    val_loss: float
    error: float
    train_scores: Tensor
    val_scores: Tensor

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data, without the scores."""
        return {
            "depth": self.depth,
            "num_features": self.num_features,
            "ridge": self.ridge,
            "accuracy": self.both.accuracy,
            "low": self.both.low,
            "high": self.both.high,
            "train_accuracy": self.train.accuracy,
            "train_low": self.train.low,
            "train_high": self.train.high,
            "val_accuracy": self.val.accuracy,
            "val_low": self.val.low,
            "val_high": self.val.high,
            "val_loss": self.val_loss,
            "error": self.error,
            "temperature": self.temperature,
        }


@dataclass(frozen=True)
class EarlierDepths:
    """What one classifier knows from the last features and those of earlier depths together.

    The earlier features are the means and standard deviations of what the modules at `paths` give.
    `gain` is the accuracy on training images, out of their group, less that of the last features
    alone. `head` is that of the network that reads these depths.
    """

    paths: tuple[str, ...]
    probe: DepthProbe
    gain: PairedDifference
    head: Head


@dataclass(frozen=True)
class ProbeResult:
    """The depths of one network; `head` is for its last layer, None where that cannot take one.

    `earlier` are the depths that a head had better read beside the last features, None where there
    are none or the network's head can read no others.
    """

    depths: tuple[DepthProbe, ...]
    head: Head | None
    earlier: EarlierDepths | None = None

    def to_json(self) -> list[dict[str, Any]]:
        """One record a depth, as plain data."""
        return [depth.to_json() for depth in self.depths]


def probe(
    model: nn.Module,
    name: str,
    depths: Sequence[int],
    train: Images,
    val: Images,
    *,
    num_classes: int,
    groups: Sequence[str] | None = None,
    val_groups: Sequence[str] | None = None,
    balanced: bool = False,
    device: torch.device | None = None,
    precision: Precision = "float32",
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> ProbeResult:
    """Fit a ridge classifier on the pooled features of every one of `depths`, without training.

    One pass over the images: the training images in two views (plain and mirrored), the validation
    images in one. `groups` and `val_groups` name the group of each training and validation image;
    the ridge is chosen by leaving out whole groups of the training images (see `fit_classifier`),
    and the validation images decide nothing. The depth of the head alone is always probed, for
    `head`. For `earlier` the last features are tried with those of the latest of the other depths,
    of the latest two, and so on: taken is what has the least squared error on training images out
    of their group. Raises InputError for a depth that the network does not have, or no image, and
    StopRequested when `stop` is set.
    """
    device = device or torch.device("cpu")
    last = num_depths(model, name) - 1
    wanted = tuple(sorted({*depths, last}))
    places = borders(model, name, wanted)
    if len(val) == 0:
        raise InputError("probe: there is no validation image")
    shared: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "stop": stop,
    }
    with progress.task(f"features of {name}", 2 * len(train) + len(val)) as advance:
        own = pooled_features(model, name, places, train, mirrored=True, advance=advance, **shared)
        other = pooled_features(model, name, places, val, mirrored=False, advance=advance, **shared)
    fitting: dict[str, Any] = {
        "labels": train.labels,
        "val_labels": val.labels,
        "num_classes": num_classes,
        "groups": groups,
        "val_groups": val_groups,
        "balanced": balanced,
    }
    paths = earlier_paths(model, name, places)
    found: list[tuple[DepthProbe, Head]] = []
    with progress.task(f"classifiers of {name}", len(wanted) + len(paths)) as advance:
        for depth, features, val_features in zip(wanted, own, other, strict=True):
            if stop is not None:
                stop.check()
            found.append(_probe_depth(depth, features, val_features[0], **fitting))
            advance(1)
        single, linear = found[-1]
        head = None
        if can_start(model, name):
            head = _settled(model, name, linear, own[-1], train, device=device)
        best, earlier = single, None
        for num in range(1, len(paths) + 1):
            if stop is not None:
                stop.check()
            read = [wanted.index(depth) for depth in list(paths)[-num:][::-1]]
            joint, linear = _probe_depth(
                last,
                torch.cat([own[-1], *(own[at] for at in read)], 2),
                torch.cat([other[-1][0], *(other[at][0] for at in read)], 1),
                **fitting,
            )
            if joint.error < best.error:
                best = joint
                earlier = EarlierDepths(
                    tuple(paths.values())[-num:],
                    joint,
                    _gain(joint, single, train.labels, groups),
                    normalised(linear, torch.cat([own[at] for at in read], 2)),
                )
            advance(1)
    depths_found = tuple(one for one, _ in found if one.depth in depths)
    return ProbeResult(depths_found, head, earlier)


def earlier_paths(model: nn.Module, name: str, places: Sequence[Border]) -> dict[int, str]:
    """The probed depths that a head can read beside the last features, with their modules.

    In running order; that of the images themselves, before the first layer, is left out.
    """
    if earlier_depths(name):
        return {}
    known = readable_depths(model, name)
    steps = [step for step, _ in chain(model, name)]
    return {
        place.depth: steps[place.num_steps - 1]
        for place in places
        if place.path is None and place.num_steps and steps[place.num_steps - 1] in known
    }


def _gain(
    joint: DepthProbe,
    single: DepthProbe,
    labels: NDArray[np.int64],
    groups: Sequence[str] | None,
) -> PairedDifference:
    correct = [one.train_scores[0].argmax(1).numpy() == labels for one in (joint, single)]
    return paired_difference(correct[0], correct[1], groups)


def fit_head(
    model: nn.Module,
    name: str,
    images: Images,
    *,
    num_classes: int,
    groups: Sequence[str] | None = None,
    device: torch.device | None = None,
    precision: Precision = "float32",
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Head | None:
    """The classifier of `probe` for a network's last layer, fitted on `images` in two views.

    A network that reads several depths is given without a probe's head. None where the last layer
    cannot take one. Raises StopRequested when `stop` is set.
    """
    if not can_start(model, name):
        return None
    device = device or torch.device("cpu")
    places = borders(model, name, (num_depths(model, name) - 1,))
    with progress.task(f"features of {name}", 2 * len(images)) as advance:
        (features,) = pooled_features(
            model, name, places, images,
            mirrored=True, device=device, precision=precision, stop=stop, advance=advance,
        )  # fmt: skip
    fitted = fit_classifier(features, images.labels, num_classes, groups)
    temperature = _temperature(fitted.left_out[0], images.labels)
    head = Head(fitted.weight, fitted.bias, temperature)
    return _settled(model, name, head, features, images, device=device)


def _settled(
    model: nn.Module,
    name: str,
    head: Head,
    features: Tensor,
    images: Images,
    *,
    device: torch.device,
) -> Head:
    """A head for raw features as the network's last layer takes it."""
    read = sum(both.norm.num_features for both in both_depths(model))
    if read:
        return normalised(head, features[..., -read:])
    return shifted(model, name, head, images, device=device)


def _temperature(scores: Tensor, labels: NDArray[np.int64]) -> float:
    # As if one image more had a label that says nothing: a network that starts from a head that is
    # certain of every training image would learn nothing.
    return fit_temperature(scores, labels, smoothing=1 / (len(labels) + 1))


def _probe_depth(
    depth: int,
    features: Tensor,
    val_features: Tensor,
    *,
    labels: NDArray[np.int64],
    val_labels: NDArray[np.int64],
    num_classes: int,
    groups: Sequence[str] | None,
    val_groups: Sequence[str] | None,
    balanced: bool,
) -> tuple[DepthProbe, Head]:
    fitted = fit_classifier(features, labels, num_classes, groups, balanced=balanced, ridges=RIDGES)
    scores, val_scores = fitted.left_out, fitted.scores(val_features)
    temperature = _temperature(scores[0], labels)
    target = torch.from_numpy(np.asarray(val_labels))
    loss = torch.nn.functional.cross_entropy(val_scores / temperature, target)
    together = None if groups is None or val_groups is None else (*groups, *val_groups)
    both = _share(
        torch.cat([scores[0], val_scores]), np.concatenate([labels, val_labels]), together
    )
    return DepthProbe(
        depth=depth,
        num_features=features.shape[2],
        ridge=fitted.ridge,
        train=_share(scores[0], labels, groups),
        val=_share(val_scores, val_labels, val_groups),
        both=both,
        temperature=temperature,
        val_loss=float(loss),
        error=min(fitted.errors),
        train_scores=scores,
        val_scores=val_scores,
    ), Head(fitted.weight, fitted.bias, temperature)


def _share(scores: Tensor, labels: NDArray[np.int64], groups: Sequence[str] | None) -> Share:
    correct = scores.argmax(1).numpy() == labels
    return Share(float(correct.mean()), *grouped_interval(correct, groups))
