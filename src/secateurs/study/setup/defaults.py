"""Defaults that fit the network and the images; what was asked for is never changed here."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import nn

from secateurs.errors import InputError
from secateurs.nets.backbones import bare, layers
from secateurs.nets.depth import auto_depths, depth_name, num_depths
from secateurs.progress import SILENT, Progress
from secateurs.prune.surgery.removal import find_consumer
from secateurs.study.setup.config import StudyConfig


def hidden_layers(model: nn.Module, backbone: str) -> tuple[str, ...]:
    """Names of the linear layers whose units can be removed, in the order in which they run.

    >>> from secateurs.nets.backbones import build
    >>> hidden_layers(build("alexnet", 3), "alexnet")
    ('fc6', 'fc7')
    >>> hidden_layers(build("resnet18", 3), "resnet18")
    ()
    """
    found: list[str] = []
    for layer in layers(model, backbone):
        try:
            find_consumer(model, layer.path)
        except InputError:
            continue
        found.append(layer.alias)
    return tuple(found)


def check_hidden(model: nn.Module, backbone: str, path: str) -> None:
    """Raise InputError, with the names that people use, for a layer whose units cannot be removed.

    >>> from secateurs.nets.backbones import build
    >>> check_hidden(build("alexnet", 3), "alexnet", "classifier.6")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: layer fc8: no linear layer found that reads its units, it is the \
last of its sequence (layers that can be pruned: fc6, fc7)
    """
    try:
        find_consumer(model, path)
    except InputError as error:
        names = {layer.path: layer.alias for layer in layers(model, backbone)}
        if not hidden_layers(model, backbone):
            raise InputError(f"layer {names[path]}: {no_layer_words(backbone)}") from None
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        text = re.sub(rf"(?<![\w.])({known})(?![\w.])", lambda found: names[found[0]], str(error))
        raise InputError(text) from None


def standard_layers(model: nn.Module, backbone: str) -> tuple[str, ...]:
    """The layers that are pruned unless others are asked for: the hidden one that feeds the head.

    Nothing where the head is the only linear layer of the classifier.

    >>> from secateurs.nets.backbones import build
    >>> [standard_layers(build(name, 3), name) for name in ("alexnet", "vgg11", "squeezenet1_1")]
    [('fc7',), ('classifier.3',), ()]
    """
    *_, last, head = layers(model, backbone)
    if not isinstance(model.get_submodule(last.path), nn.Linear):
        return ()
    try:
        found = find_consumer(model, last.path)
    except InputError:
        return ()
    return (last.alias,) if found.path == head.path else ()


def chosen_layers(
    given: tuple[str, ...] | None, model: nn.Module, backbone: str
) -> tuple[str, ...]:
    """The layers asked for, or the standard ones; InputError where there are none."""
    found = standard_layers(model, backbone) if given is None else given
    if not found:
        raise InputError(no_layer_words(backbone))
    return found


def no_layer_words(backbone: str) -> str:
    """Why no layer of a network is pruned, and what prunes it nevertheless.

    >>> no_layer_words("resnet18")
    'resnet18 has no hidden linear layer in its classifier to prune; `secateurs prune --macs 0.5` \
prunes the whole network'
    """
    return (
        f"{backbone} has no hidden linear layer in its classifier to prune; "
        "`secateurs prune --macs 0.5` prunes the whole network"
    )


def chosen_depths(
    config: StudyConfig, model: nn.Module, *, progress: Progress = SILENT
) -> tuple[int, ...]:
    """The depths of a configuration in its network: those asked for, all, or some by its parts.

    A preset's own depths are for AlexNet; in another network some are chosen by its parts, and
    named.

    >>> from secateurs.nets.backbones import build
    >>> chosen_depths(StudyConfig(), build("alexnet", 3))
    (3, 5, 7)
    >>> chosen_depths(StudyConfig(backbone="resnet18"), build("resnet18", 3))
    (0, 3, 8, 10, 15, 20)
    """
    name = config.backbone
    asked = "depths" not in (config.fitted or ())
    if config.auto_depths or (not asked and name != "alexnet"):
        found = auto_depths(model, name)
        words = ", ".join(f"{depth} ({depth_name(model, name, depth)})" for depth in found)
        progress.note(f"depths of {name}: {words}")
        return found
    return config.depths or tuple(range(num_depths(model, name)))


def default_depth(backbone: str) -> tuple[int, str]:
    """How many layers one training freezes by default, and what that is in words.

    Five of AlexNet, its convolutions; of another network about half of its parts. Raises
    InputError for an unknown name.

    >>> default_depth("alexnet")[0], default_depth("resnet18")
    (5, (10, 'up to stage 2 block 2'))
    """
    if backbone == "alexnet":
        return 5, "the convolutions"
    model = bare(backbone, 2)
    depths = auto_depths(model, backbone)
    depth = depths[len(depths) // 2]
    return depth, depth_name(model, backbone, depth)


def fit_to(
    config: StudyConfig,
    model: nn.Module,
    *,
    num_train: int,
    progress: Progress = SILENT,
) -> StudyConfig:
    """The configuration with every default that does not fit replaced, each change said.

    Raises InputError for a batch size that was asked for and is larger than the training set.
    """
    changes: dict[str, Any] = {"fitted": ()}
    fitted = config.fitted or ()
    if config.batch_size is not None and config.batch_size > num_train:
        if "batch_size" not in fitted:
            raise InputError(
                f"batch size {config.batch_size} is larger than the {num_train} training images: "
                "use a smaller one, or full"
            )
        changes["batch_size"] = num_train
        progress.note(
            f"batch size {num_train} instead of {config.batch_size}: there are no more training "
            "images"
        )
    changes["depths"] = chosen_depths(config, model, progress=progress)
    changes["auto_depths"] = False
    if "layers" in fitted:
        changes["layers"] = standard_layers(model, config.backbone)
    return replace(config, **changes)
