"""The parts of this benchmark: what is measured on a graphics card, and beside it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sampler import Sampler

Row = dict[str, Any]
Add = Callable[[str, Row], None]
CLASSES, FRAMES, FILMS = 7, 675, 45  # as in the paper
WIDTH, HEIGHT = 360, 288
DEVICE = "cuda"  # `--tiny` tries the parts on a CPU
BLOCK = 8192  # rows and columns of a tile of the plain loop over pairs
PLAIN_EPOCHS = 2
IMAGES = 512


def wait() -> None:
    """Return when the card has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak(*, reset: bool = False) -> int:
    """The most bytes taken on the card; with `reset` those taken now, from which on it counts."""
    if DEVICE != "cuda":
        return 0
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def timed(run: Callable[[], Any], *, repeats: int = 3) -> tuple[float, Any]:
    """The least of some times in seconds, with the card waited for, and the last answer."""
    seconds: list[float] = []
    answer: Any = None
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        answer = run()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds), answer


def bfloat16_rate(side: int = 8192) -> float:
    """Operations per second of one large bfloat16 product."""
    side = side if DEVICE == "cuda" else 256
    matrix = torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16)
    seconds, _ = timed(lambda: matrix @ matrix, repeats=8)
    return 2 * side**3 / seconds


# All pairs


def plain_pairs(x: Tensor, low: float, high: float) -> int:
    """The loop that one writes by hand: products of blocks of unit vectors, compared, collected."""
    unit = x - x.mean(0)
    unit = (unit / torch.linalg.vector_norm(unit, dim=0)).T.contiguous()
    above, below = np.cos(np.radians(low)), np.cos(np.radians(high))
    found = 0
    for top in range(0, len(unit), BLOCK):
        for left in range(top, len(unit), BLOCK):
            cosine = unit[top : top + BLOCK] @ unit[left : left + BLOCK].T
            i, j = ((cosine > above) | (cosine < below)).nonzero(as_tuple=True)
            keep = i + top < j + left
            cosine[i[keep], j[keep]].acos()
            found += int(keep.sum())
    return found


def pairs(add: Add, units: int, *, plain: bool) -> None:
    """All pairs of so many neurons and 392 samples, beside the plain loop in float32."""
    from secateurs.prune.similarity import fused
    from secateurs.prune.similarity.angles import similar_pairs
    from shared.angle_ways import make

    x = make("centred", 392, units, DEVICE)
    name = f"pairs {units}"

    def ours() -> int:
        return len(similar_pairs(x, 15, 165, normalise="centre"))

    similar_pairs(x[:, : min(units, 20_000)], 15, 165, normalise="centre")  # compiled by now
    before = peak(reset=True)
    seconds, found = timed(ours, repeats=3 if units < 500_000 else 2)
    added = (peak() - before) / 2**20
    of_rate = float(units) ** 2 * 392 / seconds / bfloat16_rate()
    add(
        name,
        {
            "seconds": round(seconds, 4),
            "pairs": found,
            "added_mib": round(added),
            "of_bfloat16_rate": round(of_rate, 3),
            "obstacle": fused.obstacle(x.device),
        },
    )
    if plain:
        plain_s, count = timed(lambda: plain_pairs(x, 15, 165), repeats=1)
        row = {"plain_seconds": round(plain_s, 3), "plain_pairs": count}
        add(name, row | {"ratio": round(plain_s / seconds, 1)})


# Trainings


def frames(folder: Path) -> Path:
    """Pictures of seven classes in `folder`/frames, drawn from a seed, named after films."""
    from PIL import Image

    root = folder / "frames"

    def draw(number: int) -> None:
        rng = np.random.default_rng(number)
        kind = number % CLASSES
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        wave = np.sin((x * np.cos(kind) + y * np.sin(kind)) / (6 + kind) + rng.uniform(0, 6))
        picture = 128 + 60 * wave[..., None] * rng.uniform(0.3, 1, 3)
        picture = picture + rng.normal(0, 25, (HEIGHT, WIDTH, 3))
        path = root / f"class{kind}" / f"film{number % FILMS:02d}_{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, range(FRAMES)))
    return root


def weights_file(folder: Path, given: str) -> str:
    """The file given, or one of random convolutions: as many layers are shared as usual."""
    if given:
        return given
    from safetensors.torch import save_file
    from torchvision.models import alexnet

    path = folder / "convolutions.safetensors"
    if not path.exists():
        torch.manual_seed(1)
        state = alexnet(num_classes=CLASSES).state_dict()
        save_file({k: v for k, v in state.items() if k.startswith("features.")}, path)
    return str(path)


def table1(
    add: Add,
    folder: Path,
    weights: str,
    *,
    epochs: int = 50,
    runs: int = 5,
    depths: tuple[int, ...] = (),
) -> None:
    """The trainings of the paper's Table 1: every depth and from scratch, five runs, 50 epochs."""
    from secateurs.fit.cache import PrefixCache
    from secateurs.stopping import StopFlag
    from secateurs.study.paper.best_network import tested_trials
    from secateurs.study.paper.protocol import PaperPlan
    from secateurs.study.setup.trial_context import open_context
    from secateurs.study.trials.store import Store
    from secateurs.study.trials.trial import plan_trials

    started = time.perf_counter()
    data, weights = frames(folder), weights_file(folder, weights)
    plan = PaperPlan(depths, runs=runs, epochs=epochs, weights=weights, device=DEVICE)
    context = open_context(str(data), plan.config(), cache=folder / "cache")
    opened = time.perf_counter() - started
    warm = replace(context, config=replace(context.config, epochs=1, runs=1, scratch_runs=0))
    words: Row = {"stop": StopFlag(), "prefix_cache": PrefixCache()}
    tested_trials(replace(warm, depths=(5,)), Store(folder / "warm"), **words)
    started = time.perf_counter()
    with Sampler() as sampler:
        records = tested_trials(context, Store(folder / "table1"), **words)
    seconds = time.perf_counter() - started
    by_depth: dict[str, list[float]] = {}
    for record in records:
        name = f"depth {record['depth']}" if record["pretrained"] else "scratch"
        by_depth.setdefault(name, []).append(record["timing"]["seconds"])
    add(
        "table1",
        {
            "seconds": round(seconds, 2),
            "trainings": len(records),
            "planned": len(plan_trials(context)),
            "images": {side: len(images) for side, images in context.dataset.sides.items()},
            "precision": context.precision,
            "weights": context.weights.sentence,
            "opening_s": round(opened, 2),
            "where": sampler.most(),
            "mean_s": {name: round(float(np.mean(v)), 3) for name, v in by_depth.items()},
        },
    )


def plain_training(add: Add, folder: Path, *, workers: int = 8) -> None:
    """Two epochs of the usual loop, at depth 0 and 5: pictures decoded, augmented, one step."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.models import alexnet

    view = transforms.Compose(
        [
            transforms.RandomRotation(30),
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    data = folder / "frames"
    images = ImageFolder(str(data if data.exists() else frames(folder)), view)
    loader = DataLoader(
        images, batch_size=64, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    epoch_s: dict[str, float] = {}
    for depth in (0, 5):
        model = alexnet(num_classes=CLASSES).to(DEVICE).train()
        layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        for layer in layers[:depth]:
            layer.requires_grad_(False)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=1e-3)
        times: list[float] = []
        for _ in range(PLAIN_EPOCHS):
            started = time.perf_counter()
            optimizer.zero_grad()
            for batch, labels in loader:
                loss = nn.functional.cross_entropy(model(batch.to(DEVICE)), labels.to(DEVICE))
                (loss * len(labels) / len(images)).backward()
            optimizer.step()
            wait()
            times.append(time.perf_counter() - started)
        epoch_s[str(depth)] = round(min(times), 3)
    whole = float(np.mean(list(epoch_s.values()))) * 50 * 45
    add("plain_training", {"epoch_s": epoch_s, "table1_extrapolated_s": round(whole)})


def paper(add: Add, folder: Path, weights: str) -> None:
    """All of `secateurs paper` on the same pictures, with its page where Plotly is installed."""
    from importlib.util import find_spec

    from secateurs.progress import Silent
    from secateurs.study.paper.protocol import PaperPlan
    from secateurs.study.paper.run import run_paper

    data = folder / "frames"
    data = data if data.exists() else frames(folder)
    started = time.perf_counter()
    notes: list[tuple[float, str]] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append((round(time.perf_counter() - started, 1), text[:120]))

    try:
        plan = PaperPlan(weights=weights_file(folder, weights), device=DEVICE)
        answer = run_paper(
            str(data), plan, folder / "paper", cache=folder / "cache", progress=Notes()
        )
    finally:
        late = time.perf_counter() - started
        add("paper", {"by_then_s": round(late, 1), "notes": notes[:: max(1, len(notes) // 40)]})
    row: Row = {"seconds": round(time.perf_counter() - started, 1), "timing": answer["timing"]}
    add("paper", row)
    if find_spec("plotly") is not None:
        from secateurs.report.paper.page import write_paper_page

        write_paper_page(answer, folder / "paper", data=str(data))
        add("paper", {"seconds_with_page": round(time.perf_counter() - started, 1)})


# Pruning


def random_network(name: str, size: int, device: str) -> tuple[nn.Module, Tensor]:
    """A network of torchvision with random weights, and images; batch norms know these images."""
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, weights=None)
    images = torch.randn(IMAGES, 3, size, size)
    model, images = model.to(device), images.to(device)
    with torch.no_grad():
        model.train()(images[:64])
    return model.eval(), images


def prune_network(add: Add, name: str, *, size: int = 224) -> None:
    """A network cut to half of its multiply-accumulates with 512 images, beside torch-pruning."""
    import secateurs
    from secateurs.progress import Silent

    model, images = random_network(name, size, DEVICE)
    batches = images.split(64)
    steps: list[tuple[float, str]] = []
    started = time.perf_counter()

    class Steps(Silent):
        def task(self, name: str, total: int, *, done: int = 0) -> Any:
            wait()
            steps.append((round(time.perf_counter() - started, 2), name))
            return super().task(name, total, done=done)

    sampler = Sampler()
    try:
        with sampler:
            small = secateurs.prune(
                model, batches, secateurs.Budget(macs=0.5), num_samples=IMAGES, progress=Steps()
            )
            wait()
        seconds = time.perf_counter() - started
    finally:
        add(name, {"steps": steps, "where": sampler.most()})
    row: Row = {"seconds": round(seconds, 2), "macs": small.report["macs"]}
    add(name, row | {"parity": small.report["parity"]})
    add(name, torch_pruning(model, images[:1], seconds))


def torch_pruning(model: nn.Module, example: Tensor, ours: float) -> Row:
    """Seconds of torch-pruning's magnitude pruner, which looks at no image, where it is there."""
    from importlib.util import find_spec

    if find_spec("torch_pruning") is None:
        return {"torch_pruning": "not installed"}
    import copy

    import torch_pruning as tp

    try:
        other = copy.deepcopy(model)
        started = time.perf_counter()
        head = [m for m in other.modules() if isinstance(m, nn.Linear)][-1:]
        pruner = tp.pruner.MagnitudePruner(
            other,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.3,
            ignored_layers=head,
            round_to=8,
        )
        pruner.step()
        seconds = time.perf_counter() - started
        macs = [tp.utils.count_ops_and_params(net, example)[0] for net in (other, model)]
    except Exception as error:  # a package beside ours: its failure is a figure, not ours
        return {"torch_pruning": f"{type(error).__name__}: {error}"[:300]}
    return {
        "torch_pruning_seconds": round(seconds, 2),
        "torch_pruning_macs": round(macs[0] / macs[1], 3),
        "ratio": round(ours / seconds, 1),
    }


def widths(add: Add, names: Sequence[str] = ("resnet18",)) -> None:
    """Channels that stay on the card and on the CPU, of small networks and few images."""
    import secateurs

    for name in names:
        model, images = random_network(name, 64, "cpu")
        kept: Row = {}
        seconds: Row = {}
        for device in dict.fromkeys(("cpu", DEVICE)):
            batches = images[:128].to(device).split(32)
            started = time.perf_counter()
            small = secateurs.prune(
                model.to(device), batches, secateurs.Budget(macs=0.5), num_samples=128
            )
            seconds[device] = round(time.perf_counter() - started, 2)
            layers = small.model.named_modules()
            kept[device] = {p: m.weight.shape[0] for p, m in layers if isinstance(m, nn.Conv2d)}
        other = {
            path: (num, kept[DEVICE].get(path))
            for path, num in kept["cpu"].items()
            if num != kept[DEVICE].get(path)
        }
        add("widths", {name: {"same": not other, "other": other, "seconds": seconds}})


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder for the pictures and the trials, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 12 * 2**30
    return tempfile.TemporaryDirectory(dir=memory if roomy else None)
