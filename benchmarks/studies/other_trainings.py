"""Fine-tuning as others do it, from the same weights on the same images: for recipes.py.

Each training takes a context (network, weights, images, split), the folder of the images and a
number of epochs, and gives the accuracy on validation and test, 0..1.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from secateurs.data.images.decode import decode
from secateurs.study.setup.trial_context import TrialContext

STORED = 320  # pixels of the shorter side of the decoded images that are kept in memory


class Photographs(Dataset[tuple[Tensor, int]]):
    """The images of a side, decoded once, through a transform."""

    def __init__(
        self, context: TrialContext, folder: Path, side: str, transform: Callable[..., Any]
    ) -> None:
        shrink = v2.Resize(STORED)
        self.pictures = [
            shrink(Image.fromarray(np.asarray(decode(folder / name).convert("RGB"))))
            for name in context.dataset.names(side)
        ]
        self.labels = context.dataset.sides[side].labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[row]), int(self.labels[row])


def normalised(context: TrialContext, *steps: nn.Module) -> v2.Compose:
    images = context.dataset.sides["train"]
    return v2.Compose(
        [
            *steps,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(images.mean, images.std),
        ]
    )


def size_of(context: TrialContext) -> int:
    return context.dataset.sides["train"].size


@torch.inference_mode()
def answers(
    model: nn.Module, context: TrialContext, folder: Path, side: str
) -> tuple[float, float]:
    """Accuracy and mean loss on a side, squeezed to a square as ours are."""
    size = size_of(context)
    given = Photographs(context, folder, side, normalised(context, v2.Resize((size, size))))
    model.eval()
    logits = torch.cat(
        [model(batch.to(context.device)).float().cpu() for batch, _ in DataLoader(given, 64)]
    )
    labels = torch.from_numpy(given.labels)
    hits = (logits.argmax(1) == labels).double().mean()
    return float(hits), float(nn.functional.cross_entropy(logits, labels))


def start(context: TrialContext, seed: int) -> nn.Module:
    """The pretrained network with a random head."""
    return replace(context, head=None).new_model(seed=seed, pretrained=True)


def loader(given: Photographs, seed: int) -> DataLoader[Any]:
    return DataLoader(
        given, 64, shuffle=True, generator=torch.Generator().manual_seed(seed), num_workers=2
    )


def train(
    model: nn.Module,
    context: TrialContext,
    folder: Path,
    batches: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    each_step: Callable[[], None] = lambda: None,
    judged: Callable[[], nn.Module] | None = None,
    each_epoch: Callable[[int], None] = lambda epoch: None,
) -> dict[str, float]:
    """The loop by hand; the epoch that is best on validation is tested."""
    best, kept = (-1.0, 0.0), copy.deepcopy(model)
    for epoch in range(epochs):
        model.train()
        each_epoch(epoch)
        for batch, labels in batches:
            loss = loss_of(model(batch.to(context.device)), labels.to(context.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            each_step()
        now = model if judged is None else judged()
        accuracy, val_loss = answers(now, context, folder, "val")
        if (accuracy, -val_loss) > best:
            best, kept = (accuracy, -val_loss), copy.deepcopy(now)
    return {"val": best[0], "test": answers(kept, context, folder, "test")[0]}


def plain_loop(context: TrialContext, folder: Path, *, epochs: int, seed: int) -> dict[str, float]:
    """What one writes by hand: Adam at 1e-4, mirrored half of the time, cosine to zero."""
    torch.manual_seed(seed)
    model, size = start(context, seed), size_of(context)
    steps = normalised(context, v2.Resize((size, size)), v2.RandomHorizontalFlip())
    batches = loader(Photographs(context, folder, "train", steps), seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    return train(
        model,
        context,
        folder,
        batches,
        optimizer,
        epochs=epochs,
        loss_of=nn.functional.cross_entropy,
        each_step=falling.step,
    )


def timm_recipe(context: TrialContext, folder: Path, *, epochs: int, seed: int) -> dict[str, float]:
    """Parts and values of timm's training script for fine-tuning.

    AdamW at 5e-4 with weight decay 0.05, a cosine with a warm-up of two epochs, RandAugment m9,
    random crops of at least 0.35, label smoothing 0.1, random erasing 0.25, and the running average
    0.998 with its warm-up.
    """
    from timm.data.transforms_factory import create_transform
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
    from timm.optim._optim_factory import create_optimizer_v2
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.utils.model_ema import ModelEmaV3

    torch.manual_seed(seed)
    model, images = start(context, seed), context.dataset.sides["train"]
    transform: Any = create_transform(
        size_of(context),
        is_training=True,
        scale=(0.35, 1.0),
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        mean=images.mean,
        std=images.std,
    )
    batches = loader(Photographs(context, folder, "train", transform), seed)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05)
    falling = CosineLRScheduler(optimizer, t_initial=epochs, warmup_t=2, warmup_lr_init=1e-6)
    average = ModelEmaV3(model, decay=0.998, use_warmup=True)
    done = 0

    def each_step() -> None:
        nonlocal done
        done += 1
        average.update(model, step=done)

    return train(
        model,
        context,
        folder,
        batches,
        optimizer,
        epochs=epochs,
        loss_of=LabelSmoothingCrossEntropy(0.1),
        each_step=each_step,
        judged=lambda: average.module,
        each_epoch=falling.step,
    )


def head_length(model: nn.Module) -> int:
    """How many children at the end hold neither a convolution nor a norm: the pooling and head."""
    length = 0
    for child in reversed(list(model.children())):
        if any(isinstance(part, nn.Conv2d | nn.BatchNorm2d) for part in child.modules()):
            return length
        length += 1
    return length


def fastai_fine_tune(
    context: TrialContext, folder: Path, *, epochs: int, seed: int
) -> dict[str, float]:
    """fastai's `vision_learner(...).fine_tune(epochs)` with its defaults, tested after the last."""
    import fastai.vision.all as fast  # pyright: ignore[reportMissingImports]

    fast.set_seed(seed, reproducible=True)
    names = {side: context.dataset.names(side) for side in ("train", "val")}
    labels = {
        name: context.dataset.classes[label]
        for side in names
        for name, label in zip(names[side], context.dataset.sides[side].labels, strict=True)
    }
    images = context.dataset.sides["train"]
    of_val = set(names["val"])
    block = fast.DataBlock(
        blocks=(fast.ImageBlock, fast.CategoryBlock(vocab=list(context.dataset.classes))),
        splitter=fast.FuncSplitter(lambda name: name in of_val),
        get_x=lambda name: folder / name,
        get_y=lambda name: labels[name],
        item_tfms=fast.Resize(STORED, method="squish"),
        batch_tfms=[
            *fast.aug_transforms(size=size_of(context)),
            fast.Normalize.from_stats(images.mean, images.std),
        ],
    )
    batches = block.dataloaders(
        [*names["train"], *names["val"]], bs=64, num_workers=2, device=context.device
    )
    with tempfile.TemporaryDirectory() as scratch:

        def network(pretrained: bool = True) -> nn.Module:
            return start(context, seed)

        # vision_learner takes an argument `cut` and does not use it; its table does.
        cut = -head_length(network())
        fast.model_meta[network] = {"cut": cut, "split": fast.default_split}
        learner = fast.vision_learner(
            batches,
            network,
            normalize=False,
            path=scratch,
            pretrained=True,
        )
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(epochs)
    return {side: answers(learner.model, context, folder, side)[0] for side in ("val", "test")}


TRAININGS = {"plain loop": plain_loop, "timm": timm_recipe, "fastai": fastai_fine_tune}
