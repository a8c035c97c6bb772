"""How hard the embedded faces are: accuracy with identities apart and mixed, and a baseline.

    python benchmarks/studies/faces.py --weights alexnet.safetensors

A frozen pretrained AlexNet trunk, its features cached over a bank of augmented views, and three
new fully connected layers; the best epoch is chosen on validation. Without --weights the trunk
is torchvision's own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet
from torchvision.transforms import v2

from secateurs.data.faces.dataset import plan, write_faces

NUM_VIEWS = 4
STANDARDISE = v2.Compose(
    [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)
AUGMENT = v2.Compose(
    [v2.RandomRotation(30), v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), STANDARDISE]
)
STRAIGHT = v2.Compose([v2.Resize((224, 224)), STANDARDISE])


def trunk(weights: Path | None) -> nn.Module:
    if weights is None:
        return alexnet(weights=AlexNet_Weights.IMAGENET1K_V1).features.eval()
    model = alexnet(weights=None)
    if weights.suffix == ".safetensors":
        tensors = load_file(weights)
    else:
        tensors = torch.load(weights, weights_only=True, map_location="cpu")
    model.load_state_dict(tensors, strict=False)
    return model.features.eval()


@torch.inference_mode()
def features(model: nn.Module, images: list[Image.Image], view: v2.Compose) -> Tensor:
    model = model.to(torch.bfloat16, memory_format=torch.channels_last)
    rows: list[Tensor] = []
    for first in range(0, len(images), 64):
        batch = torch.stack([view(image) for image in images[first : first + 64]])
        batch = batch.to(torch.bfloat16, memory_format=torch.channels_last)
        rows.append(model(batch).float().flatten(1))  # (n, 9216)
    return torch.cat(rows)


def fit(bank: Tensor, straight: Tensor, labels: Tensor, split: list[Tensor], args) -> Tensor:
    """Predictions (n,) of the best epoch; `bank` (views, n, 9216), `straight` (n, 9216)."""
    train, val, _ = split
    layers = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(4096, 7))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    best, predictions = -1.0, labels
    for epoch in range(args.epochs):
        model.train()
        for rows in train[torch.randperm(len(train))].split(args.batch_size):
            loss = nn.functional.cross_entropy(model(bank[epoch % NUM_VIEWS, rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            guesses = model(straight).argmax(dim=1)
        accuracy = (guesses[val] == labels[val]).float().mean().item()
        if accuracy >= best:
            best, predictions = accuracy, guesses
    return predictions


def split_rows(labels: np.ndarray, groups: np.ndarray | None, seed: int) -> list[Tensor]:
    """60/20/20 by identity where groups are given, else stratified at random."""
    rows = np.arange(len(labels))
    if groups is None:
        train, rest = train_test_split(rows, test_size=0.4, stratify=labels, random_state=seed)
        val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    else:
        cut = GroupShuffleSplit(1, test_size=0.4, random_state=seed)
        train, rest = next(cut.split(rows, groups=groups))
        half = GroupShuffleSplit(1, test_size=0.5, random_state=seed)
        first, second = next(half.split(rest, groups=groups[rest]))
        val, test = rest[first], rest[second]
    return [torch.from_numpy(side) for side in (train, val, test)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="torchvision keys, .pth or .safetensors")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    faces = plan()
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        folder = write_faces(Path(scratch) / "faces")
        size_mb = sum(file.stat().st_size for file in folder.rglob("*.jpg")) / 1e6
        print(f"rendered {len(faces)} in {time.perf_counter() - start:.1f} s, {size_mb:.1f} MB")
        images = [Image.open(folder / face.name).convert("RGB") for face in faces]
    names = sorted({face.expression for face in faces})
    labels = np.array([names.index(face.expression) for face in faces])
    groups = np.array([face.identity for face in faces])
    tiny = np.stack([np.asarray(i.resize((32, 32), Image.Resampling.BOX)).ravel() for i in images])
    model, targets = trunk(args.weights), torch.from_numpy(labels)
    straight = features(model, images, STRAIGHT)
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        bank = torch.stack([features(model, images, AUGMENT) for _ in range(NUM_VIEWS)])
        for rule, by in (("apart", groups), ("random", None)):
            split = split_rows(labels, by, seed)
            train, val, test = split
            start = time.perf_counter()
            right = fit(bank, straight, targets, split, args) == targets
            seconds = time.perf_counter() - start
            nearest = KNeighborsClassifier(1).fit(tiny[train], labels[train])
            share = [right[side].float().mean().item() for side in (train, val, test)]
            recall = [right[test][targets[test] == k].float().mean().item() for k in range(7)]
            print(
                f"seed {seed} {rule:6}: train {share[0]:.3f} val {share[1]:.3f}"
                f" test {share[2]:.3f}, 1-NN test {nearest.score(tiny[test], labels[test]):.3f}"
                f" ({seconds:.0f} s) recalls "
                + " ".join(f"{name} {r:.2f}" for name, r in zip(names, recall, strict=True)),
                flush=True,
            )


if __name__ == "__main__":
    main()
