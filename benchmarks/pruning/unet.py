"""A U-Net with transposed convolutions, pruned by `secateurs.prune` and by torch-pruning.

    python benchmarks/pruning/unet.py --json benchmarks/measured/unet.json

For each seed a U-Net is trained to find discs, rectangles and triangles in 192 drawn images, and
pruned to half and a quarter of its multiply-accumulates: by ours, which sees the images without
labels; and by torch-pruning's L2, Taylor and geometric-median importances, with one share of
channels for all layers or one threshold for all (global), as the network whose cost is nearest to
ours. Intersection over union (IoU), the mean over the three shapes, on 192 other images:
of the pruned network, with its batch norm statistics measured again, and after two epochs of the
loop that trained it, at its learning rate and at a fifth of it. Resumes seed by seed from the file
of figures.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import secateurs
from networks import Row, heading, spread
from secateurs.files import read_json, write_json
from secateurs.nets.counting import macs
from secateurs.prune.compensation.batch_norm import measure_norms

IMAGES, SIZE, CLASSES = 192, 48, 4
EPOCHS, MORE_EPOCHS, BATCH, RATE = 30, 2, 8, 5e-3
LEVELS = (0.5, 0.25)
STATES = ("cut", "norms measured", "trained", "trained gently")
SCOPES = {"uniform": False, "global": True}
IMPORTANCES = ("l2", "taylor", "geometric median")


class UNet(nn.Module):
    """Three levels, raised by transposed convolutions and joined by concatenation."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.down1, self.down2 = _block(3, width), _block(width, 2 * width)
        self.bottom = _block(2 * width, 4 * width)
        self.raise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = _block(4 * width, 2 * width)
        self.raise1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = _block(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (images, classes, height, width)."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.up2(torch.cat([self.raise2(self.bottom(self.pool(second))), second], 1))
        return self.head(self.up1(torch.cat([self.raise1(x), first], 1)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (inputs, outputs):
        layers += [nn.Conv2d(given, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def drawn(seed: int, num: int = IMAGES) -> tuple[Tensor, Tensor]:
    """Images (num, 3, SIZE, SIZE) of shapes before a background, and the class of each pixel."""
    random = np.random.default_rng(seed)
    images = np.empty((num, 3, SIZE, SIZE), np.float32)
    labels = np.zeros((num, SIZE, SIZE), np.int64)
    for image, label in zip(images, labels, strict=True):
        coarse = 0.5 * random.random((3, 8, 8))
        image[:] = np.kron(coarse, np.ones((SIZE // 8, SIZE // 8)))  # a background in squares
        for _ in range(random.integers(2, 5)):
            kind = int(random.integers(1, CLASSES))
            inside = _shape(kind, random)
            label[inside] = kind
            image[:, inside] = random.uniform(0.4, 1, 3)[:, None]
    images += 0.15 * random.standard_normal(images.shape).astype(np.float32)
    return torch.from_numpy(images - 0.5), torch.from_numpy(labels)


def _shape(kind: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels (SIZE, SIZE) of a disc (1), a rectangle (2) or a triangle (3), turned."""
    angle, (row, column) = random.uniform(0, 2 * np.pi), random.uniform(8, SIZE - 8, 2)
    long, short = random.uniform(5, 11), random.uniform(3, 6)
    down, right = np.mgrid[:SIZE, :SIZE] - np.array([row, column])[:, None, None]
    x = np.cos(angle) * right + np.sin(angle) * down
    y = np.cos(angle) * down - np.sin(angle) * right
    if kind == 1:
        return np.hypot(x, y) < long
    if kind == 2:
        return (abs(x) < long) & (abs(y) < short)
    return (y > -long / 2) & (y + 1.7 * abs(x) < long)


def train(
    model: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int, rate: float = RATE
) -> nn.Module:
    """The user's own loop: Adam, one cycle of the learning rate, images mirrored at random."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            axes = [axis for axis in (1, 2) if torch.rand(1, generator=generator) < 0.5]
            x, y = images[rows].flip([axis + 1 for axis in axes]), labels[rows].flip(axes)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def iou(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean intersection over union of the shapes, over all pixels, in percent."""
    found = torch.cat([model.eval()(part).argmax(1) for part in images.split(64)])
    each = [
        float(((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum())
        for k in range(1, CLASSES)
    ]
    return 100 * float(np.mean(each))


def by_torch_pruning(
    model: nn.Module, rule: str, scope: str, wanted: int, images: Tensor, labels: Tensor
) -> nn.Module:
    """torch-pruning's network by an importance, its multiply-accumulates nearest to `wanted`."""
    import torch_pruning as tp

    importances: dict[str, Any] = {
        "l2": tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance(),
        "geometric median": tp.importance.FPGMImportance(),
    }

    gradients: list[Tensor | None] = [None for _ in model.parameters()]
    if rule == "taylor":
        F.cross_entropy(model(images[:64]), labels[:64]).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()

    def cut(share: float) -> nn.Module:
        network = copy.deepcopy(model).eval()
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        tp.pruner.BasePruner(
            network,
            images[:1],
            importances[rule],
            global_pruning=SCOPES[scope],
            pruning_ratio=share,
            ignored_layers=[network.head],  # type: ignore[list-item]
        ).step()
        network.zero_grad()
        return network

    low, high = 0.0, 0.98  # the share of channels that goes
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(cut(middle), images[:1]) > wanted else (low, middle)
    return min(cut(low), cut(high), key=lambda one: abs(macs(one, images[:1]) - wanted))


def measured(seed: int) -> list[Row]:
    """Everything of one seed: the unpruned network, and every cut of it."""
    images, labels = drawn(1000 + seed)
    others = drawn(2000 + seed)
    torch.manual_seed(seed)
    model = train(UNet(), images, labels, EPOCHS, seed)
    whole = macs(model, images[:1])
    rows: list[Row] = []

    def trained_on(network: nn.Module) -> Row:
        found: Row = {}
        for what, rate in (("trained", RATE), ("trained gently", RATE / 5)):
            again = train(copy.deepcopy(network), images, labels, MORE_EPOCHS, seed, rate)
            found[what] = iou(again, *others)
        return found

    def add(level: float, rule: str, network: nn.Module, seconds: float) -> None:
        again = copy.deepcopy(network)
        measure_norms(again, images.split(BATCH))
        row: Row = {
            "seed": seed,
            "level": level,
            "rule": rule,
            "macs": macs(network, images[:1]) / whole,
            "seconds": seconds,
            "cut": iou(network, *others),
            "norms measured": iou(again, *others),
            **trained_on(network),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)

    add(1.0, "unpruned", model, 0.0)
    for level in LEVELS:
        started = time.perf_counter()
        budget = secateurs.Budget(macs=level, round_to=1, fewest=2)
        ours = secateurs.prune(model, images.split(BATCH), budget, seed=seed).model
        wanted = macs(ours, images[:1])
        add(level, "ours", ours, time.perf_counter() - started)
        for rule in IMPORTANCES:
            for scope in SCOPES:
                started = time.perf_counter()
                cut = by_torch_pruning(model, rule, scope, wanted, images, labels)
                add(level, f"{rule}, {scope}", cut, time.perf_counter() - started)
    return rows


def print_table(rows: list[Row]) -> None:
    """IoU by rule and level, and the lead of ours over each rule on the same seeds."""
    for ahead in (False, True):
        for level in LEVELS:
            print(f"\n{'Lead of ours' if ahead else 'IoU'} at {level:g} of the MACs, points:\n")
            print(f"| rule | MACs | {' | '.join(STATES)} |\n" + "|---" * (len(STATES) + 2) + "|")
            found = {(r["rule"], r["seed"]): r for r in rows if r["level"] in (level, 1.0)}
            for rule in dict.fromkeys(rule for rule, _ in found):
                own = {seed: row for (name, seed), row in found.items() if name == rule}
                cells = [f"{np.mean([row['macs'] for row in own.values()]):.3f}"]
                for what in STATES:
                    ours = {seed: found["ours", seed][what] for seed in own}
                    values = {seed: row[what] for seed, row in own.items()}
                    shown = [ours[seed] - values[seed] if ahead else values[seed] for seed in own]
                    cells.append(spread(shown))
                print(f"| {rule} | {' | '.join(cells)} |")


def main() -> None:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    known.add_argument("--json", type=Path, help="file for all figures, resumed from")
    known.add_argument("--seeds", type=int, default=5)
    given = known.parse_args()
    where = f"{heading()}, torch-pruning {importlib.metadata.version('torch-pruning')}"
    print(where, flush=True)
    kept: dict[str, Any] = {"machine": [], "rows": [], "seconds": {}}
    if given.json is not None and given.json.exists():
        kept = read_json(given.json)
    for seed in range(given.seeds):
        if any(row["seed"] == seed for row in kept["rows"]):
            continue
        started = time.perf_counter()
        kept["rows"] += measured(seed)
        kept["seconds"][str(seed)] = time.perf_counter() - started
        kept["machine"] = list(dict.fromkeys([*kept["machine"], where]))
        if given.json is not None:
            write_json(given.json, kept)
    print_table(kept["rows"])


if __name__ == "__main__":
    main()
