"""Small networks trained on the embedded faces: a ResNet-20, a ResNet-32, a Vision Transformer.

The people of the first drawing are split into those trained on and those of validation; the test
images are of people of other drawings, so that there can be as many as an interval needs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secateurs.data.faces.dataset import COUNTS, plan, render

SIZE = 32
EPOCHS, BATCH, RATE, DECAY = 30, 32, 3e-3, 5e-4
DRAWINGS = {"train": (0, 1), "test": (2, 3)}  # seeds of the set: 675 pictures of 75 people each
VALIDATION_PEOPLE = 15  # of each drawing that is trained on


class Block(nn.Module):
    """Two convolutions with batch norm and a shortcut, as in ResNets for small images."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (images, outputs, height, width)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class ResNet(nn.Module):
    """The ResNet for small images (He et al., 2016) with 6 n + 2 layers."""

    def __init__(self, layers: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for outputs in (width, 2 * width, 4 * width):
            for _ in range((layers - 2) // 6):
                blocks.append(Block(inputs, outputs))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, len(COUNTS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (images, classes)."""
        maps = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(maps.mean((2, 3)))


def vit() -> nn.Module:
    """A Vision Transformer of torchvision with 6 layers of 4 heads, patches of 4 pixels."""
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(SIZE, 4, 6, 4, 96, 192, num_classes=len(COUNTS))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: ResNet(20),
    "resnet32": lambda: ResNet(32),
    "vit": vit,
}


@dataclass(frozen=True)
class Pictures:
    """Images (n, 3, SIZE, SIZE), normalised, and their labels (n,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Pictures:
        """The same on a device."""
        return Pictures(self.images.to(device), self.labels.to(device))


def pictures(folder: Path) -> dict[str, Pictures]:
    """The sides train, val and test, drawn once into a file of `folder`."""
    file = folder / f"faces-{SIZE}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_drawn(), file)
    held = load_file(file)
    sides: dict[str, Pictures] = {}
    for side in ("train", "val", "test"):
        pixels = held[f"{side}.pixels"].float().permute(0, 3, 1, 2) / 255
        sides[side] = Pictures((pixels - 0.5) / 0.25, held[f"{side}.labels"])
    return sides


def _drawn() -> dict[str, Tensor]:
    pixels: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for use, seeds in DRAWINGS.items():
        for seed in seeds:
            for face in plan(seed):
                side = use
                if use == "train" and face.identity < VALIDATION_PEOPLE:
                    side = "val"
                image = Image.open(io.BytesIO(render(face, seed=seed))).convert("RGB")
                pixels[side].append(torch.from_numpy(np.array(image.resize((SIZE, SIZE)))))
                labels[side].append(list(COUNTS).index(face.expression))
    found: dict[str, Tensor] = {}
    for side in pixels:
        order = torch.randperm(len(labels[side]), generator=torch.Generator().manual_seed(0))
        found[f"{side}.pixels"] = torch.stack(pixels[side])[order].contiguous()
        found[f"{side}.labels"] = torch.tensor(labels[side])[order].contiguous()
    return found


def accuracy(model: nn.Module, side: Pictures) -> float:
    """The share of images classified correctly, in %."""
    with torch.no_grad():
        answers = torch.cat([model.eval()(part) for part in side.images.split(64)])
    return 100 * float((answers.argmax(1) == side.labels).double().mean())


def trained(name: str, seed: int, folder: Path, sides: dict[str, Pictures]) -> nn.Module:
    """A network from `folder`, or trained now; its last epoch is kept."""
    file = folder / f"{name}-{seed}.safetensors"
    torch.manual_seed(seed)
    model = NETWORKS[name]().to(sides["train"].images.device)
    if not file.exists():
        train(model, sides["train"], epochs=EPOCHS, rate=RATE if name != "vit" else RATE / 3)
        save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, file)
    model.load_state_dict(load_file(file))
    return model.eval()


def train(model: nn.Module, side: Pictures, *, epochs: int, rate: float) -> None:
    """Train with labels on shifted and mirrored images, in place, by AdamW with one cycle."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=DECAY)
    steps = epochs * -(-len(side.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(epochs):
        model.train()
        for part in torch.randperm(len(side.labels)).split(BATCH):
            part = part.to(side.labels.device)
            down, right = torch.randint(-4, 5, (2,)).tolist()
            images = side.images[part].roll((down, right), (2, 3))
            if torch.rand(()) < 0.5:
                images = images.flip(3)
            loss = F.cross_entropy(model(images), side.labels[part], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
