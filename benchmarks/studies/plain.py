"""Our training against a plain PyTorch loop, paired over splits: is it the split or the training?

Both see the same train, validation and test images of each split, freeze the same layers of
AlexNet and take the epoch that is best on validation. The plain loop is what one writes by hand:
torchvision transforms, Adam at 1e-4, batches of 64; once without augmentation and once with each
image mirrored half of the time.

    python benchmarks/studies/plain.py DATA --group-by REGEX --weights FILE --depth 5 \\
        --splits 5 --runs 2
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torchvision.models import alexnet
from torchvision.transforms import v2

from secateurs.data.images.decode import decode
from secateurs.files import cache_dir
from secateurs.nets.weights import load_pretrained
from secateurs.progress import Console
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.config import StudyConfig, from_preset
from secateurs.study.setup.splitting import data_folder
from secateurs.study.setup.trial_context import TrialContext, open_context
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial

TRANSFORM = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize((224, 224)),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@dataclass(frozen=True)
class Score:
    """Accuracies of one trained network, 0..1."""

    val: float
    test: float


@dataclass(frozen=True)
class Side:
    """The frozen layers' outputs for a side's images and, of training images, their mirrors."""

    upright: Tensor
    mirrored: Tensor | None
    labels: Tensor

    def drawn(self, rows: Tensor, *, flip: bool) -> Tensor:
        """What the tail sees of these rows in one step: each upright or, with `flip`, mirrored."""
        if not flip or self.mirrored is None:
            return self.upright[rows]
        coin = torch.rand(len(rows), *([1] * (self.upright.dim() - 1))) < 0.5
        return torch.where(coin, self.mirrored[rows], self.upright[rows])


def cut(model: nn.Module, depth: int) -> tuple[nn.Sequential, nn.Sequential]:
    """AlexNet's steps up to its `depth` first weighted layers, and the rest from a dropout on."""
    steps = [*model.features, model.avgpool, nn.Flatten(1), *model.classifier]
    weighted = [n for n, m in enumerate(steps) if isinstance(m, nn.Conv2d | nn.Linear)]
    first = weighted[depth]
    while first > 0 and isinstance(steps[first - 1], nn.Dropout):
        first -= 1
    return nn.Sequential(*steps[:first]), nn.Sequential(*steps[first:])


@torch.inference_mode()
def side(context: TrialContext, folder: Path, name: str, frozen: nn.Module) -> Side:
    names = context.dataset.names(name)

    def outputs(mirror: bool) -> Tensor:
        parts: list[Tensor] = []
        for first in range(0, len(names), 64):
            images = [TRANSFORM(decode(folder / name)) for name in names[first : first + 64]]
            batch = torch.stack(images)
            parts.append(frozen(batch.flip(3) if mirror else batch))
        return torch.cat(parts)

    labels = torch.from_numpy(context.dataset.sides[name].labels)
    # Clones are ordinary tensors again, which training may use.
    mirrored = outputs(True).clone() if name == "train" else None
    return Side(outputs(False).clone(), mirrored, labels)


def accuracy(tail: nn.Module, given: Side) -> tuple[float, float]:
    tail.eval()
    with torch.inference_mode():
        logits = tail(given.upright)
    hits = (logits.argmax(1) == given.labels).double().mean()
    return float(hits), -float(nn.functional.cross_entropy(logits, given.labels))


def frozen_sides(context: TrialContext, folder: Path, depth: int) -> dict[str, Side]:
    frozen = cut(network(context), depth)[0].eval()
    return {name: side(context, folder, name, frozen) for name in ("train", "val", "test")}


def network(context: TrialContext) -> nn.Module:
    model = alexnet(num_classes=len(context.dataset.classes))
    load_pretrained(model, "alexnet", context.weights_file, cache=context.cache)
    return model


def plain(
    context: TrialContext, sides: dict[str, Side], depth: int, *, run: int, epochs: int, flip: bool
) -> Score:
    """The loop by hand."""
    torch.manual_seed(run)
    tail = cut(network(context), depth)[1]
    train = sides["train"]
    optimizer = torch.optim.Adam(tail.parameters(), lr=1e-4)
    best, chosen = (-1.0, 0.0), Score(0.0, 0.0)
    for _ in range(epochs):
        tail.train()
        for rows in torch.randperm(len(train.labels)).split(64):
            logits = tail(train.drawn(rows, flip=flip))
            loss = nn.functional.cross_entropy(logits, train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached = accuracy(tail, sides["val"])
        if reached > best:
            best = reached
            chosen = Score(reached[0], accuracy(tail, sides["test"])[0])
    return chosen


def ours(context: TrialContext, depth: int, runs: int) -> list[Score]:
    """Trials as a study runs them."""
    scores: list[Score] = []
    shared = SharedInputs()
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            record, model = run_trial(context, Trial(depth, run), shared, Store(Path(folder)))
            test = evaluate_model(model, context.dataset, "test", context.device)
            scores.append(Score(record["val_accuracy"], test.accuracy))
    return scores


def interval(differences: list[float]) -> str:
    """Mean and 95% t interval of paired differences, in points."""
    points = 100 * np.asarray(differences)
    if len(points) < 2:
        return f"{points.mean():+.1f}"
    half = student.ppf(0.975, len(points) - 1) * points.std(ddof=1) / len(points) ** 0.5
    return f"{points.mean():+.1f} ({points.mean() - half:+.1f} to {points.mean() + half:+.1f})"


def mean(scores: list[Score], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data")
    words.add_argument("--group-by")
    words.add_argument("--weights", default="auto")
    words.add_argument("--depth", type=int, default=5)
    words.add_argument("--splits", type=int, default=5, help="split seeds 0, 1, ...")
    words.add_argument("--runs", type=int, default=2, help="trainings on each split")
    words.add_argument("--epochs", type=int, default=12)
    words.add_argument("--precision", choices=("auto", "float32", "bfloat16"), help="of ours")
    given = words.parse_args()
    folder = data_folder(given.data, cache=cache_dir())
    ways = ("ours", "plain", "plain, mirrored")
    table: dict[tuple[str, str], list[float]] = {}
    print("| split |" + "".join(f" {way}: val | test |" for way in ways))
    print("|---" * 7 + "|")
    for seed in range(given.splits):
        config: StudyConfig = from_preset(
            "quick",
            group_by=given.group_by,
            weights=given.weights,
            depths=(given.depth,),
            runs=given.runs,
            epochs=given.epochs,
            precision=given.precision,
            device="cpu",
            seed=seed,
        )
        context = open_context(given.data, config, cache=cache_dir(), progress=Console())
        sides = frozen_sides(context, folder, given.depth)
        scores = {"ours": ours(context, given.depth, given.runs)}
        for way, flip in (("plain", False), ("plain, mirrored", True)):
            scores[way] = [
                plain(context, sides, given.depth, run=run, epochs=given.epochs, flip=flip)
                for run in range(given.runs)
            ]
        for way, of in product(ways, ("val", "test")):
            table.setdefault((way, of), []).append(mean(scores[way], of))
        print(f"| {seed} |" + "".join(f" {v[-1]:.1%} |" for v in table.values()), flush=True)
    print("| mean |" + "".join(f" {np.mean(v):.1%} |" for v in table.values()) + "\n")
    for way, of in product(ways[1:], ("val", "test")):
        pairs = zip(table["ours", of], table[way, of], strict=True)
        print(f"Ours minus {way}, {of}, by split: {interval([a - b for a, b in pairs])} points.")


if __name__ == "__main__":
    main()
