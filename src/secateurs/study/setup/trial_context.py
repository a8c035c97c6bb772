"""What every trial of a study works on: images, split, weights, device, opened once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.audit import Audit
from secateurs.data.image_store import audit_and_store
from secateurs.data.names import escaped
from secateurs.data.predefined_splits import SIDES
from secateurs.data.scan import has_sides, refuse_parts, scan
from secateurs.data.splits.split import Leakage, Split, leakage, split_json
from secateurs.data.splits.split_record import SplitRecord, record_split
from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.fit.images import Images
from secateurs.fit.precision import Precision, resolve_device, resolve_precision
from secateurs.fit.probe.head import Head, start_head
from secateurs.fit.probe.probing import fit_head
from secateurs.nets.backbones import build, check_name
from secateurs.nets.depth import check_depth
from secateurs.nets.download import WeightsFile, find_weights
from secateurs.nets.stock import earlier_depths
from secateurs.nets.weights import WeightsReport, load_pretrained
from secateurs.paths import FACES
from secateurs.progress import SILENT, Progress
from secateurs.ship.spec import ImageInput
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.defaults import fit_to
from secateurs.study.setup.seen_images import ImageStatus
from secateurs.study.setup.splitting import (
    FACES_GROUPS,
    data_folder,
    split_audit,
    split_notes,
)


@dataclass(frozen=True)
class Dataset:
    """Audited, split and decoded images: `sides` holds train, val and test.

    `image_status` says how the images stand to the saved model that they were opened for.
    """

    name: str
    audit: Audit
    split: Split
    leakage: Leakage
    groups: tuple[str, ...] | None
    sides: dict[str, Images]
    recipe: ImageInput
    image_status: ImageStatus | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.audit.listing.classes

    def names(self, side: str) -> list[str]:
        """File names of a side, relative to the data folder."""
        rows: NDArray[np.int64] = getattr(self.split, side)
        return [self.audit.listing.names[row] for row in rows]

    def side_groups(self, side: str) -> tuple[str, ...] | None:
        """The group of each image of a side; None where images have none."""
        if self.groups is None:
            return None
        return tuple(self.groups[row] for row in getattr(self.split, side))

    def identity(self) -> dict[str, Any]:
        """What decides which pixels are on which side; the usual recipe is not named."""
        sides = {side: self.names(side) for side in SIDES}
        found = {"data": self.audit.fingerprint, "split": fingerprint(sides)}
        return found | self.recipe.unusual()

    def record(self, earlier: SplitRecord | None = None) -> SplitRecord:
        """Which images are on which side by content, for a model that is made with them.

        `earlier` is the record of the model that it is made from.
        """
        return record_split(self.audit, self.split, self.groups, earlier=earlier)

    def split_json(self) -> dict[str, Any]:
        """The split with its leakage, as `docs/results.md` describes it."""
        plain = split_json(self.split, self.audit.listing)
        plain["num_groups"] = None if self.groups is None else len(set(self.groups))
        return plain | {"leakage": self.leakage.to_json()}


@dataclass(frozen=True)
class TrialContext:
    """A dataset with a backbone, its weights and a device.

    `head`, where there is one, is what pretrained networks start with as their last layer.
    """

    config: StudyConfig
    dataset: Dataset
    depths: tuple[int, ...]
    weights: WeightsReport
    weights_file: WeightsFile
    device: torch.device
    precision: Precision
    cache: Path
    head: Head | None = None

    def new_model(self, *, seed: int, pretrained: bool) -> torch.nn.Module:
        """The backbone with seeded random weights, then the pretrained ones where asked for.

        With the pretrained weights comes the `head`.
        """
        model = seeded_model(self.config.backbone, len(self.dataset.classes), seed)
        if pretrained:
            file = self.weights_file
            model = with_weights(model, self.config.backbone, file, self.head, cache=self.cache)
        return model.to(self.device)


def with_weights(
    model: torch.nn.Module, backbone: str, file: WeightsFile, head: Head | None, *, cache: Path
) -> torch.nn.Module:
    """A freshly built network with pretrained weights, and with the `head` where there is one."""
    load_pretrained(model, backbone, file, cache=cache)
    return model if head is None else start_head(model, backbone, head)


def seeded_model(backbone: str, num_classes: int, seed: int) -> torch.nn.Module:
    """A backbone whose random weights depend on `seed` alone; global random state is untouched."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build(backbone, num_classes)


def image_input(config: StudyConfig) -> ImageInput:
    """How images become the input of a configuration's backbone."""
    return ImageInput.of(config.backbone, resize=config.resize, size=config.image_size)


def settle_split(data: str, config: StudyConfig) -> StudyConfig:
    """The configuration with the split `auto` replaced by what it stands for.

    That is `folders` for a tree with train, validation and test folders, else `random`. Raises
    InputError when the tree's folders are parts of a set, as it seems, rather than classes: once
    the rule is `random` they would be taken for classes.
    """
    if config.split != "auto":
        return config
    if data != FACES:
        refuse_parts(Path(data))
    ready = data != FACES and has_sides(Path(data))
    return replace(config, split="folders" if ready else "random")


@dataclass(frozen=True)
class Opened:
    """A folder's images, audited and decoded and not split."""

    name: str
    audit: Audit
    images: Images
    recipe: ImageInput

    def dataset(
        self,
        split: Split,
        groups: tuple[str, ...] | None,
        *,
        image_status: ImageStatus | None = None,
    ) -> Dataset:
        """The images on the sides of a split."""
        return Dataset(
            name=self.name,
            audit=self.audit,
            split=split,
            leakage=leakage(split, self.audit, groups),
            groups=groups,
            sides={name: self.images.take(getattr(split, name)) for name in SIDES},
            recipe=self.recipe,
            image_status=image_status,
        )


def open_images(
    data: str,
    wanted: ImageInput,
    *,
    classes: Sequence[str] | None = None,
    split: str = "auto",
    cache: Path,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Opened:
    """Audit and decode a folder, or the embedded faces under the name `faces`.

    With the `classes` of a model some of them may have no images; `split` is the rule by which the
    images will be split, for `scan`. Raises InputError for whatever is wrong with the folder, and
    with `strict` for any finding.
    """
    folder = data_folder(data, cache=cache, progress=progress)
    checked, store = audit_and_store(
        scan(folder, classes=classes, split=split),
        cache=cache,
        side=wanted.size * 8 // 7,
        crop=wanted.size,
        resize=wanted.resize,
        interpolation=wanted.interpolation,
        crop_share=wanted.crop_share,
        progress=progress,
    )
    if strict and checked.findings:
        raise InputError(f"{folder}: the audit found: {'; '.join(checked.findings)}")
    images = Images(
        pixels=store.train_view,
        eval_pixels=store.eval_view,
        ids=store.ids,
        sizes=store.sizes,
        labels=np.asarray(checked.listing.labels, dtype=np.int64),
        mean=wanted.mean,
        std=wanted.std,
    )
    name = FACES if data == FACES else escaped(folder.resolve().name)
    return Opened(name, checked, images, wanted)


def group_rule(data: str, config: StudyConfig) -> str | None:
    """What names the groups: the configuration's rule, or that of the embedded faces."""
    if data == FACES and config.group_by is None and config.split in ("random", "ungrouped"):
        return FACES_GROUPS
    return config.group_by


def open_dataset(
    data: str,
    config: StudyConfig,
    *,
    cache: Path,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Dataset:
    """Audit, decode and split a folder, or the embedded faces under the name `faces`.

    Raises InputError for whatever is wrong with the folder, and with `strict` for any finding.
    """
    config = settle_split(data, config)
    wanted = image_input(config)
    opened = open_images(
        data, wanted, split=config.split, cache=cache, strict=strict, progress=progress
    )
    split, groups = split_audit(
        opened.audit,
        rule=config.split,
        group_by=group_rule(data, config),
        seed=config.seed,
    )
    for sentence in split_notes(opened.audit.listing, split):
        progress.note(sentence)
    return opened.dataset(split, groups)


def open_context(
    data: str,
    config: StudyConfig,
    *,
    cache: Path,
    strict: bool = False,
    progress: Progress = SILENT,
) -> TrialContext:
    """Open a dataset and check that the backbone, its weights and the depths can be used.

    A network whose head reads several depths gets the probe's classifier as its start: what it
    reads is normalised by that.
    """
    check_name(config.backbone)
    config = settle_split(data, config)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    dataset = open_dataset(data, config, cache=cache, strict=strict, progress=progress)
    model = seeded_model(config.backbone, len(dataset.classes), config.seed)
    num_train = len(dataset.sides["train"])
    config = fit_to(config, model, num_train=num_train, progress=progress)
    depths = config.depths
    for depth in depths:
        check_depth(model, config.backbone, depth)
    file = find_weights(config.backbone, config.weights, cache=cache, progress=progress)
    weights = load_pretrained(model, config.backbone, file, cache=cache, progress=progress)
    head = None
    if earlier_depths(config.backbone):
        train = dataset.sides["train"]
        head = fit_head(
            model.to(device),
            config.backbone,
            train,
            num_classes=len(dataset.classes),
            groups=dataset.groups and [dataset.groups[row] for row in dataset.split.train],
            device=device,
            precision=precision,
            progress=progress,
        )
    return TrialContext(
        config=config,
        dataset=dataset,
        depths=depths,
        weights=weights,
        weights_file=file,
        device=device,
        precision=precision,
        cache=cache,
        head=head,
    )
