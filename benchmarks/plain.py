"""Our training against a plain PyTorch loop, paired over splits: is it the split or the training?

Both see the same train, validation and test images of each split, freeze the same layers of
AlexNet and take the epoch that is best on validation. The plain loop is what one writes by hand:
torchvision transforms (and a mirror half of the time with `--flip`), Adam at 1e-4, batches of 64.

    python benchmarks/plain.py DATA --group-by REGEX --weights FILE --depth 5 --splits 5 --runs 2
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torchvision.models import alexnet
from torchvision.transforms import v2

from secateurs.data.decode import decode
from secateurs.files import cache_dir
from secateurs.nets.weights import load_pretrained
from secateurs.progress import Console
from secateurs.study.bench import Bench, data_folder, open_bench
from secateurs.study.config import StudyConfig, from_preset
from secateurs.study.models import evaluate_model
from secateurs.study.trials import SharedInputs, Store, Trial, run_trial

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
    """The frozen layers' outputs for a side's images and, where wanted, their mirror images."""

    upright: Tensor
    mirrored: Tensor | None
    labels: Tensor

    def drawn(self, rows: Tensor) -> Tensor:
        """What the tail sees of these rows in one step: each upright or mirrored."""
        if self.mirrored is None:
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
def side(bench: Bench, folder: Path, name: str, frozen: nn.Module, *, flip: bool) -> Side:
    names = bench.dataset.names(name)

    def outputs(mirror: bool) -> Tensor:
        parts: list[Tensor] = []
        for first in range(0, len(names), 64):
            images = [TRANSFORM(decode(folder / name)) for name in names[first : first + 64]]
            batch = torch.stack(images)
            parts.append(frozen(batch.flip(3) if mirror else batch))
        return torch.cat(parts)

    labels = torch.from_numpy(bench.dataset.sides[name].labels)
    # Clones are ordinary tensors again, which training may use.
    return Side(outputs(False).clone(), outputs(True).clone() if flip else None, labels)


def accuracy(tail: nn.Module, given: Side) -> tuple[float, float]:
    tail.eval()
    with torch.inference_mode():
        logits = tail(given.upright)
    hits = (logits.argmax(1) == given.labels).double().mean()
    return float(hits), -float(nn.functional.cross_entropy(logits, given.labels))


def plain(
    bench: Bench, folder: Path, depth: int, runs: int, epochs: int, *, flip: bool
) -> list[Score]:
    """The loop by hand, `runs` times on one split."""
    scores: list[Score] = []
    sides: dict[str, Side] = {}
    for run in range(runs):
        torch.manual_seed(run)
        model = alexnet(num_classes=len(bench.dataset.classes))
        load_pretrained(model, "alexnet", bench.weights_file, cache=bench.cache)
        frozen, tail = cut(model, depth)
        if not sides:
            frozen.eval()
            for name in ("train", "val", "test"):
                mirror = flip and name == "train"
                sides[name] = side(bench, folder, name, frozen, flip=mirror)
        train = sides["train"]
        optimizer = torch.optim.Adam(tail.parameters(), lr=1e-4)
        best, chosen = (-1.0, 0.0), Score(0.0, 0.0)
        for _ in range(epochs):
            tail.train()
            for rows in torch.randperm(len(train.labels)).split(64):
                loss = nn.functional.cross_entropy(tail(train.drawn(rows)), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            reached = accuracy(tail, sides["val"])
            if reached > best:
                best = reached
                chosen = Score(reached[0], accuracy(tail, sides["test"])[0])
        scores.append(chosen)
    return scores


def ours(bench: Bench, depth: int, runs: int) -> list[Score]:
    """Trials as a study runs them."""
    scores: list[Score] = []
    shared = SharedInputs(bench, budget_bytes=2 * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            record, model = run_trial(bench, Trial(depth, run), shared, Store(Path(folder)))
            test = evaluate_model(model, bench.dataset, "test", bench.device)
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
    words.add_argument("--flip", action="store_true", help="mirror half of the plain loop's images")
    given = words.parse_args()
    folder = data_folder(given.data, cache=cache_dir())
    gaps: dict[str, list[float]] = {"val": [], "test": []}
    everything: dict[str, list[float]] = {"ov": [], "ot": [], "pv": [], "pt": []}
    print("| split | ours, validation | plain | ours, test | plain |\n|---|---|---|---|---|")
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
        bench = open_bench(given.data, config, cache=cache_dir(), progress=Console())
        a = ours(bench, given.depth, given.runs)
        b = plain(bench, folder, given.depth, given.runs, given.epochs, flip=given.flip)
        row = [mean(a, "val"), mean(b, "val"), mean(a, "test"), mean(b, "test")]
        for key, value in zip(("ov", "pv", "ot", "pt"), row, strict=True):
            everything[key].append(value)
        gaps["val"].append(row[0] - row[1])
        gaps["test"].append(row[2] - row[3])
        print(f"| {seed} | " + " | ".join(f"{value:.1%}" for value in row) + " |", flush=True)
    means = " | ".join(f"{np.mean(everything[key]):.1%}" for key in ("ov", "pv", "ot", "pt"))
    print(f"| mean | {means} |\n")
    for name, differences in gaps.items():
        print(f"Ours minus plain on {name}, paired by split: {interval(differences)} points.")


if __name__ == "__main__":
    main()
