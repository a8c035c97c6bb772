"""Prune a U-Net to half of its multiply-accumulates: own model, own data, own training loop."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import secateurs


def block(inputs, outputs):
    """Two convolutions, each with batch norm."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
        *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
    )


class UNet(nn.Module):
    """Two levels; transposed convolutions up, and concatenation with what came down."""

    def __init__(self, width=8):
        super().__init__()
        self.down1, self.down2 = block(1, width), block(width, 2 * width)
        self.deep = block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge2 = block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge1 = block(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image):
        """Logits (samples, 1, height, width) of the foreground."""
        first = self.down1(image)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        deep = self.deep(nn.functional.max_pool2d(second, 2))
        second = self.merge2(torch.cat([self.up2(deep), second], 1))
        return self.head(self.merge1(torch.cat([self.up1(second), first], 1)))


def discs(num, size=24):
    """Noisy images of two discs, and their masks; here stands your own Dataset."""
    place = torch.arange(size).float()
    centre, radius = torch.rand(num, 2, 2, 1, 1) * size, 3 + 4 * torch.rand(num, 2, 1, 1)
    away = (place[:, None] - centre[:, :, 0]) ** 2 + (place - centre[:, :, 1]) ** 2
    mask = (away < radius**2).any(1, keepdim=True).float()
    return 0.6 * mask + 0.5 * torch.randn(num, 1, size, size), mask


def loss(logits, batch):
    """Of the model's output and the batch."""
    return nn.functional.binary_cross_entropy_with_logits(logits, batch[1])


def train(model, batches, epochs, lr=3e-3):
    """The training loop that you have."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimiser.zero_grad()
            loss(model(batch[0]), batch).backward()
            optimiser.step()


@torch.no_grad()
def iou(model, batch):
    """Intersection over union of the foreground, 0..1."""
    found, mask = model.eval()(batch[0]) > 0, batch[1] > 0.5
    return float((found & mask).sum() / (found | mask).sum())


torch.manual_seed(0)
batches, test = [discs(16) for _ in range(6)], discs(64)
model = UNet()
train(model, batches, epochs=8)

small = secateurs.prune(
    model,
    batches,
    secateurs.Budget(macs=0.5, round_to=2, fewest=2),
    loss=loss,  # decides between groups; without it, the change of the outputs does
    num_samples=64,
)
before = iou(small.model, test)
train(small.model, batches, epochs=2, lr=1e-3)
print(small)
print(f"IoU: unpruned {iou(model, test):.3f}, pruned {before:.3f}, ", end="")
print(f"trained {iou(small.model, test):.3f}")

folder = Path(tempfile.mkdtemp())
small.save(folder / "unet.safetensors")
again = secateurs.load_weights(UNet(), folder / "unet.safetensors").eval()
check = secateurs.export(again, folder / "unet.pt2", test[0][:2])
print(f"exported: {check.num_bytes} bytes, difference from PyTorch {check.difference:.1e}")
assert small.report["macs"] <= 0.5
