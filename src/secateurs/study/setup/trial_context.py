"""What every trial of a study works on: images, split, weights, device, opened once."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.audit import Audit
from secateurs.data.faces.dataset import embedded_faces
from secateurs.data.names import escaped
from secateurs.data.predefined_splits import SIDES
from secateurs.data.scan import Listing, has_sides, scan
from secateurs.data.splits.groups import joined_groups, parse_group_by
from secateurs.data.splits.record import SplitRecord, record_split
from secateurs.data.splits.split import Leakage, Split, leakage, make_split, split_json
from secateurs.data.store import audit_and_store
from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.fit.images import Images
from secateurs.fit.precision import Precision, resolve_device, resolve_precision
from secateurs.nets.backbones import build, check_name, preprocessing
from secateurs.nets.depth import check_depth
from secateurs.nets.download import WeightsFile, find_weights
from secateurs.nets.weights import WeightsReport, load_pretrained
from secateurs.progress import SILENT, Progress
from secateurs.ship.spec import ImageInput
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.defaults import fit_to
from secateurs.study.setup.seen_images import ImageStatus

FACES = "faces"
FACES_GROUPS = r"^(\d+)_"


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
    image_status: ImageStatus | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.audit.listing.classes

    def names(self, side: str) -> list[str]:
        """File names of a side, relative to the data folder."""
        rows: NDArray[np.int64] = getattr(self.split, side)
        return [self.audit.listing.names[row] for row in rows]

    def identity(self) -> dict[str, Any]:
        """What decides which pixels are on which side."""
        sides = {side: self.names(side) for side in SIDES}
        return {"data": self.audit.fingerprint, "split": fingerprint(sides)}

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
    """A dataset with a backbone, its weights and a device."""

    config: StudyConfig
    dataset: Dataset
    depths: tuple[int, ...]
    weights: WeightsReport
    weights_file: WeightsFile
    device: torch.device
    precision: Precision
    cache: Path

    def new_model(self, *, seed: int, pretrained: bool) -> torch.nn.Module:
        """The backbone with seeded random weights, then the pretrained ones where asked for."""
        model = seeded_model(self.config.backbone, len(self.dataset.classes), seed)
        if pretrained:
            load_pretrained(model, self.config.backbone, self.weights_file, cache=self.cache)
        return model.to(self.device)


def seeded_model(backbone: str, num_classes: int, seed: int) -> torch.nn.Module:
    """A backbone whose random weights depend on `seed` alone; global random state is untouched."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build(backbone, num_classes)


def data_folder(data: str, *, cache: Path, progress: Progress = SILENT) -> Path:
    """The folder for the word `faces` (rendered into the cache once) or for a path."""
    return embedded_faces(cache, progress=progress) if data == FACES else Path(data)


def split_listing(
    listing: Listing,
    *,
    rule: str,
    group_by: str | None,
    seed: int,
    spared: Collection[int] = (),
    copies: Sequence[Sequence[int]] = (),
) -> tuple[Split, tuple[str, ...] | None]:
    """The split by `rule`, and the groups; those decide a random split and count leakage in all.

    Under the rule `ungrouped` images are split at random although their groups are known. The
    classes `spared` may be missing from a side when they are too small for all three. `copies` are
    the images of identical pixels: a random split keeps them on one side, as if of one group.
    """
    groups = None if group_by is None else parse_group_by(listing.names, group_by)
    if rule in ("random", "ungrouped"):
        used = groups if rule == "random" else None
        made = _random_split(listing, used, copies, seed=seed, spared=spared)
        if rule == "ungrouped":
            made = replace(made, rule="random, groups ignored")
        return made, groups
    used = None if rule == "paper" else groups
    return make_split(listing, rule=rule, groups=used, seed=seed, spared=spared), groups


def _random_split(
    listing: Listing,
    groups: tuple[str, ...] | None,
    copies: Sequence[Sequence[int]],
    *,
    seed: int,
    spared: Collection[int],
) -> Split:
    """A random split, copies on one side; apart where a class has too few images for that."""
    if copies:
        together = joined_groups(groups, copies, len(listing))
        with contextlib.suppress(InputError):
            made = make_split(listing, rule="random", groups=together, seed=seed, spared=spared)
            return replace(made, groups=groups)
    return make_split(listing, rule="random", groups=groups, seed=seed, spared=spared)


def split_audit(
    audit: Audit, *, rule: str, group_by: str | None, seed: int
) -> tuple[Split, tuple[str, ...] | None]:
    """The split of usable images for training, as `split_listing`.

    A class that has become small because some of its files cannot be used may be missing from a
    side. Raises InputError for a class of which no image can be used.
    """
    audit.check_classes()
    spared = audit.short_classes
    return split_listing(
        audit.listing, rule=rule, group_by=group_by, seed=seed, spared=spared, copies=audit.exact
    )


def settle_split(data: str, config: StudyConfig) -> StudyConfig:
    """The configuration with the split `auto` replaced by what it stands for.

    That is `folders` for a tree with train, validation and test folders, else `random`.
    """
    if config.split != "auto":
        return config
    ready = data != FACES and has_sides(Path(data))
    return replace(config, split="folders" if ready else "random")


@dataclass(frozen=True)
class Opened:
    """A folder's images, audited and decoded and not split."""

    name: str
    audit: Audit
    images: Images

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
    return Opened(name, checked, images)


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
    own = preprocessing(config.backbone)
    wanted = ImageInput(own.size, config.resize, own.mean, own.std)
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


def split_notes(listing: Listing, split: Split) -> list[str]:
    """What someone may not expect of a split: that it is by folders, and classes not on a side."""
    notes: list[str] = []
    if split.rule.startswith("folders"):
        folders = ", ".join(folder for _, folder in listing.sides)
        notes.append(f"split by {split.rule} ({folders}); --split random splits all images again")
    labels = np.asarray(listing.labels)
    for side in SIDES:
        there = set(labels[getattr(split, side)].tolist())
        lacking = [name for label, name in enumerate(listing.classes) if label not in there]
        if lacking:
            notes.append(f"too few usable images: {', '.join(lacking)} not on the {side} side")
    return notes


def open_context(
    data: str,
    config: StudyConfig,
    *,
    cache: Path,
    strict: bool = False,
    progress: Progress = SILENT,
) -> TrialContext:
    """Open a dataset and check that the backbone, its weights and the depths can be used."""
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
    return TrialContext(
        config=config,
        dataset=dataset,
        depths=depths,
        weights=weights,
        weights_file=file,
        device=device,
        precision=precision,
        cache=cache,
    )
