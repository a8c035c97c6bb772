"""Accuracy against size for every selection and compensation, without any retraining.

Trains a network a seed at one depth (each seed has its own split), then cuts its first two fully
connected layers to a ladder of sizes by every rule, and refits what remains by every step. Scores
of torch-pruning are among the rules where it is installed. Prints markdown; `--json` keeps all.

    python benchmarks/pruning/curves.py DATA --group-by REGEX --weights FILE --out DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.files import cache_dir
from secateurs.fit.inputs import prefix_outputs
from secateurs.nets.backbones import find_layer
from secateurs.nets.depth import split_at
from secateurs.progress import Console, Progress
from secateurs.prune.compensation.merging import Incoming, merge
from secateurs.prune.compensation.outgoing_weights import Outgoing, add, affine, drop, least_squares
from secateurs.prune.layer import PruneOptions, prune_layers
from secateurs.prune.selection.pairwise import Selection
from secateurs.prune.selection.rules import SelectOptions, select
from secateurs.prune.selection.scores import geometric_median, highest
from secateurs.prune.statistics.gradients import loss_gradients
from secateurs.study.setup.config import from_preset
from secateurs.study.setup.trial_context import open_context
from secateurs.study.trials.store import Store, load_weights, save_weights
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial, trial_key

RULES = (
    "cluster",
    "subspace",
    "pairwise",
    "random",
    "l1",
    "l2",
    "variance",
    "geometric_median",
    "taylor",
    "torch-pruning L2",
    "torch-pruning FPGM",
    "torch-pruning random",
)
STEPS = ("drop", "add", "affine", "least_squares", "merge")
SIZES = ((32, 64), (64, 128), (128, 256), (512, 1024))


COPIES = 2  # each training image and its mirror image
SCORES: dict[tuple[Any, ...], Tensor] = {}  # of fc6, the same for every size and step


@dataclass(frozen=True)
class Subject:
    """One trained network as tensors: inputs of fc6 and labels by side, and three linear layers."""

    seed: int
    inputs: dict[str, Tensor]
    labels: dict[str, Tensor]
    tail: nn.Module
    layers: tuple[nn.Linear, nn.Linear, nn.Linear]


def subjects(
    arguments: argparse.Namespace, done: set[int], progress: Progress
) -> Iterator[Subject]:
    """Train, or read again, one network a seed, but for the seeds done before."""
    for seed in sorted(set(range(arguments.seeds)) - done):
        config = from_preset(
            "quick",
            seed=seed,
            depths=(arguments.depth,),
            runs=1,
            group_by=arguments.group_by,
            weights=arguments.weights,
        )
        context = open_context(arguments.data, config, cache=cache_dir(), progress=progress)
        trial, store = Trial(arguments.depth, 0), Store(arguments.out)
        key = trial_key(context, trial)
        if store.read(key) is not None and store.weights(key).exists():
            model = context.new_model(seed=0, pretrained=False)
            load_weights(model, store.weights(key))
        else:
            shared = SharedInputs(progress=progress)
            _, model = run_trial(context, trial, shared, store, progress=progress)
            save_weights(model, store.weights(key))
        model.eval()
        prefix, tail = split_at(model, config.backbone, 5)
        sides = context.dataset.sides
        named = [find_layer(model, config.backbone, name).path for name in ("fc6", "fc7", "fc8")]
        fc6, fc7, fc8 = (model.get_submodule(path) for path in named)
        assert isinstance(fc6, nn.Linear) and isinstance(fc7, nn.Linear)
        assert isinstance(fc8, nn.Linear)
        inputs = {
            side: prefix_outputs(sides[side], prefix, device=context.device) for side in sides
        }
        labels = {side: torch.from_numpy(sides[side].labels.copy()) for side in sides}
        # Units are measured and refitted on mirror images as well, as a study does it.
        mirror = prefix_outputs(sides["train"], prefix, device=context.device, mirrored=True)
        inputs["train"] = torch.cat([inputs["train"], mirror])
        labels["train"] = labels["train"].repeat(2)
        yield Subject(
            seed,
            inputs,
            labels,
            tail,
            (fc6, fc7, fc8),
        )


def torch_pruning_scores(name: str, layer: Incoming, following: Tensor, seed: int) -> Tensor:
    """Importance of each unit by torch-pruning, on the pair of layers as it sees them."""
    import torch_pruning as tp

    units, inputs = layer.weight.shape
    first, second = nn.Linear(inputs, units), nn.Linear(units, len(following))
    with torch.no_grad():
        first.weight.copy_(layer.weight)
        second.weight.copy_(following)
    pair = nn.Sequential(first, nn.ReLU(), second)
    graph = tp.DependencyGraph().build_dependency(pair, example_inputs=torch.zeros(1, inputs))
    group = graph.get_pruning_group(first, tp.prune_linear_out_channels, idxs=list(range(units)))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        importance = {
            "L2": tp.importance.GroupMagnitudeImportance(p=2),
            "FPGM": tp.importance.FPGMImportance(p=2),
            "random": tp.importance.RandomImportance(),
        }[name.split()[-1]]
        scores = importance(group)
    assert scores is not None
    return scores.detach()


def choose(
    rule: str, activations: Tensor, own: Incoming, outgoing: Tensor, keep: int, **extra: Any
) -> Selection:
    """Survivors of one layer."""
    if rule.startswith("torch-pruning") or rule == "geometric_median":
        key = (rule, extra["seed"], own.weight.shape, float(own.weight.sum()))
        if key not in SCORES:
            SCORES[key] = (
                geometric_median(own.weight)
                if rule == "geometric_median"
                else torch_pruning_scores(rule, own, outgoing, extra["seed"])
            )
        return highest(rule, activations, SCORES[key], keep=keep)
    options = SelectOptions(rule=rule, keep=keep, seed=extra["seed"])  # pyright: ignore
    return select(activations, own.weight, outgoing, options, gradients=extra["gradients"])


@torch.no_grad()
def refit(
    step: str, before: Tensor, own: Incoming, following: nn.Linear, chosen: Selection, target: Any
) -> tuple[Incoming, Outgoing]:
    """What the survivors' weights become."""
    weight, bias = following.weight.detach(), following.bias.detach()
    activations = before.relu()
    if step == "merge":
        return merge(before, torch.relu, own, weight, bias, chosen, target=target, copies=COPIES)
    assert own.bias is not None
    kept = Incoming(own.weight[chosen.survivors], own.bias[chosen.survivors])
    if step == "least_squares":
        return kept, least_squares(activations, weight, bias, chosen, target=target, copies=COPIES)
    plain = {"drop": drop, "add": add, "affine": affine}[step]
    return kept, plain(activations, weight, bias, chosen)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def cells(subject: Subject, rules: list[str], steps: list[str]) -> Iterator[dict[str, Any]]:
    """Cut fc6, then fc7 of the network as cut, and evaluate: the steps of `prune_layers`."""
    fc6, fc7, fc8 = subject.layers
    with torch.no_grad():
        x = {side: value.flatten(1) for side, value in subject.inputs.items()}
        z6 = fc6(x["train"])
        logits = fc8(fc7(z6.relu()).relu())
        z7 = fc7(z6.relu())
    yield record(subject, "none", "none", (4096, 4096), subject.layers)
    whole = Incoming(fc6.weight.detach(), fc6.bias.detach())
    gradients = gradient(subject, subject.layers, 1)
    for rule, size in itertools.product(rules, SIZES):
        first = choose(
            rule, z6.relu(), whole, fc7.weight.detach(), size[0],
            seed=subject.seed, gradients=gradients,
        )  # fmt: skip
        for step in steps:
            into6, out6 = refit(step, z6, whole, fc7, first, z7)
            assert into6.bias is not None
            with torch.no_grad():
                a6 = (x["train"] @ into6.weight.T + into6.bias).relu()
                before = a6 @ out6.weight.T + out6.bias
            own = Incoming(out6.weight, out6.bias)
            cut = (linear(into6.weight, into6.bias), linear(out6.weight, out6.bias), fc8)
            slopes = gradient(subject, cut, 2) if rule == "taylor" else None
            second = choose(
                rule, before.relu(), own, fc8.weight.detach(), size[1],
                seed=subject.seed, gradients=slopes,
            )  # fmt: skip
            into7, out7 = refit(step, before, own, fc8, second, logits)
            assert into7.bias is not None
            new = (cut[0], linear(into7.weight, into7.bias), linear(out7.weight, out7.bias))
            yield record(subject, rule, step, size, new)


def gradient(subject: Subject, layers: tuple[nn.Linear, ...], consumer: int) -> Tensor:
    """Gradients of the loss with respect to what a layer receives."""
    model = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    batches = list(subject.inputs["train"].split(256))
    layer = model[1 + 2 * consumer]
    return loss_gradients(model, model, layer, batches, subject.labels["train"])


@torch.no_grad()
def record(
    subject: Subject, rule: str, step: str, size: tuple[int, int], layers: tuple[nn.Linear, ...]
) -> dict[str, Any]:
    """Accuracy of three layers, in percent, and their parameters."""
    result: dict[str, Any] = {"seed": subject.seed, "rule": rule, "step": step, "size": size}
    for side in ("val", "test"):
        hidden = layers[0](subject.inputs[side].flatten(1)).relu()
        answers = layers[2](layers[1](hidden).relu()).argmax(1)
        result[side] = 100 * float((answers == subject.labels[side]).double().mean())
    result["parameters"] = sum(p.numel() for layer in layers for p in layer.parameters())
    return result


def through_the_library(subject: Subject, size: tuple[int, int]) -> dict[str, Any]:
    """The same cut by `prune_layers`, one layer after the other, with its time."""
    paths = [name for name, module in subject.tail.named_modules() if isinstance(module, nn.Linear)]
    started = time.perf_counter()
    options = PruneOptions(rule="cluster", compensation="merge", seed=subject.seed, copies=COPIES)
    cuts = prune_layers(
        subject.tail,
        paths[:2],
        subject.inputs["train"],
        options=[replace(options, keep=keep) for keep in size],
    )
    seconds = time.perf_counter() - started
    layers = tuple(m for m in cuts[-1].model.modules() if isinstance(m, nn.Linear))
    return record(subject, "cluster", "library", size, layers) | {"seconds": seconds}


def spread(values: list[float]) -> str:
    """Mean and half-width of the 95% t interval."""
    from scipy.stats import t

    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.1f} ± {half:.1f}"


def markdown(rows: list[dict[str, Any]], side: str) -> str:
    """Loss in points against the same network unpruned, mean and 95% interval over seeds."""
    whole = {row["seed"]: row[side] for row in rows if row["rule"] == "none"}
    lines = [
        f"Unpruned {side}: {statistics.mean(whole.values()):.1f}%.",
        "",
        "| rule | weights | " + " | ".join(f"{a}+{b}" for a, b in SIZES) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    for rule, step in dict.fromkeys((r["rule"], r["step"]) for r in rows if r["rule"] != "none"):
        cells: list[str] = []
        for size in SIZES:
            found = [
                row[side] - whole[row["seed"]]
                for row in rows
                if (row["rule"], row["step"], tuple(row["size"])) == (rule, step, size)
            ]
            cells.append(spread(found) if found else "-")
        lines.append(f"| {rule} | {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, cut, print."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("data")
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--group-by")
    words.add_argument("--weights", default="auto")
    words.add_argument("--depth", type=int, default=5, choices=range(6))
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    words.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    words.add_argument("--json", type=Path)
    arguments = words.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    done = {row["seed"] for row in rows}
    for subject in subjects(arguments, done, Console()):
        started = time.perf_counter()
        rows += cells(subject, arguments.rules, arguments.steps)
        rows += [through_the_library(subject, size) for size in ((32, 64), (64, 128), (128, 64))]
        print(f"seed {subject.seed}: {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    for side in ("val", "test"):
        print(markdown(rows, side) + "\n")
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    print(f"Pruning both layers through the library: {max(seconds):.1f} s at most.")


if __name__ == "__main__":
    main()
