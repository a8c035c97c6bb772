"""The three training loops that people write for a frozen-layer sweep: PyTorch, Lightning, fastai.

All read a tree of JPEG frames (`train/CLASS/*.jpg`, `val/CLASS/*.jpg`) with `ImageFolder`,
`DataLoader` and torchvision's transforms, freeze the first layers with `requires_grad`, send every
image through the whole network and take one Adam step an epoch on all training images, whose
gradients are summed over batches where `batch` is smaller: several workers then load at once, and
while the network computes. After each epoch the validation images are evaluated. All in float32.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import alexnet

from secateurs.files import cache_dir
from secateurs.nets.weights import load_pretrained

LR = 1e-3
FRAME = (720, 576)  # width and height of the paper's frames
# Of a crop's width over its height: torchvision's range in units of the frame's own, which is what
# our views have when validation images are resized straight to a square.
RATIO = (3 / 4 * FRAME[0] / FRAME[1], 4 / 3 * FRAME[0] / FRAME[1])
NORMALISE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRAIN = transforms.Compose(
    [
        transforms.RandomRotation(30),
        transforms.RandomResizedCrop(224, scale=(0.08, 1.0), ratio=RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        NORMALISE,
    ]
)
EVALUATE = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor(), NORMALISE])


@dataclass(frozen=True)
class Task:
    """One training: the tree of frames, how it is read, what is frozen, and for how long.

    `batch` images a loader's batch (it divides their number), `workers` its processes, 0 for none.
    """

    folder: Path
    weights: str
    depth: int
    epochs: int
    batch: int
    workers: int
    device: str = "cpu"


Stamp = Callable[[], None]  # called at the end of every epoch


def loaders(task: Task) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation images, decoded and transformed anew in every epoch."""
    options: dict[str, Any] = {
        "batch_size": task.batch,
        "num_workers": task.workers,
        "persistent_workers": task.workers > 0,
        "pin_memory": task.device == "cuda",
    }
    train, val = (
        ImageFolder(task.folder / "train", TRAIN),
        ImageFolder(task.folder / "val", EVALUATE),
    )
    return DataLoader(train, shuffle=True, **options), DataLoader(val, **options)


def weighted(model: nn.Module) -> list[nn.Module]:
    """conv1..conv5, fc6, fc7 and the head fc8, in order."""
    return [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def network(task: Task) -> nn.Module:
    """AlexNet with a new head for the tree's classes and the given weights below it."""
    num_classes = sum(path.is_dir() for path in (task.folder / "train").iterdir())
    model = alexnet(num_classes=num_classes)
    load_pretrained(model, "alexnet", task.weights, cache=cache_dir())
    return model


def freeze(model: nn.Module, depth: int) -> None:
    for layer in weighted(model)[:depth]:
        layer.requires_grad_(False)


def plain(task: Task, stamp: Stamp) -> None:
    """The loop by hand."""
    device = torch.device(task.device)
    model = network(task).to(device)
    freeze(model, task.depth)
    train, val = loaders(task)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LR)
    for _ in range(task.epochs):
        model.train()
        optimizer.zero_grad()
        for images, labels in train:
            logits = model(images.to(device, non_blocking=True))
            loss = nn.functional.cross_entropy(logits, labels.to(device)) / len(train)
            loss.backward()
        optimizer.step()
        model.eval()
        correct = 0
        with torch.inference_mode():
            for images, labels in val:
                logits = model(images.to(device, non_blocking=True))
                correct += int((logits.argmax(1) == labels.to(device)).sum())
        stamp()


def lightning(task: Task, stamp: Stamp) -> None:
    """A LightningModule and a Trainer, with logger, checkpoints, bars and summary off."""
    import lightning as L

    class Classifier(L.LightningModule):
        """AlexNet with its first layers frozen."""

        def __init__(self) -> None:
            super().__init__()
            self.model = network(task)
            freeze(self.model, task.depth)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.model(images), labels)

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            images, labels = batch
            hits = (self.model(images).argmax(1) == labels).float().mean()
            self.log("val_accuracy", hits, batch_size=len(labels))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.optim.Adam(trained, lr=LR)

    class Clock(L.Callback):
        """Validation has run when a training epoch ends."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            stamp()

    train, val = loaders(task)
    trainer = L.Trainer(
        max_epochs=task.epochs,
        accumulate_grad_batches=len(train),
        accelerator="gpu" if task.device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Clock()],
    )
    trainer.fit(Classifier(), train, val)


def fastai(task: Task, stamp: Stamp) -> None:
    """A Learner with two parameter groups, the first one frozen.

    Its own batch transforms would turn each view after the crop; the loaders are torchvision's, as
    fastai's guide for those who come from PyTorch has them, so that the views are the same.
    """
    from fastai.callback.core import Callback
    from fastai.callback.training import GradientAccumulation
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper

    class Clock(Callback):
        """An epoch is training and validation."""

        def after_epoch(self) -> None:
            stamp()

    def split(model: nn.Module) -> list[list[nn.Parameter]]:
        layers = weighted(model)
        parts = [layers[: task.depth], layers[task.depth :]]
        return [[p for layer in part for p in layer.parameters()] for part in parts if part]

    train, val = loaders(task)
    callbacks: list[Callback] = [Clock()]
    if len(train) > 1:
        callbacks.append(GradientAccumulation(n_acc=len(train.dataset)))
    learner = Learner(
        DataLoaders(train, val),
        network(task).to(task.device),
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(OptimWrapper, opt=torch.optim.Adam),
        splitter=split,
        metrics=accuracy,
        cbs=callbacks,
    )
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit(task.epochs, LR)
    learner.dls = learner.dl = None  # the learner refers to itself: else the workers would stay


WAYS: dict[str, Callable[[Task, Stamp], None]] = {
    "plain": plain,
    "lightning": lightning,
    "fastai": fastai,
}


def epoch_times(way: str, task: Task) -> list[float]:
    """Seconds of each epoch but the first, from the end of the one before to its own."""
    ends: list[float] = []

    def stamp() -> None:
        if task.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with warnings.catch_warnings():
        # Advice on settings, and what a library says about a newer one.
        warnings.simplefilter("ignore")
        WAYS[way](task, stamp)
    gc.collect()  # trainers and learners refer to themselves: their networks go here
    return [after - before for before, after in pairwise(ends)]


def data_times(task: Task) -> list[float]:
    """Seconds that reading all images takes, of each epoch but the first."""
    train, val = loaders(task)
    seconds: list[float] = []
    for _ in range(task.epochs):
        started = time.perf_counter()
        for loader in (train, val):
            for _ in loader:
                pass
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
