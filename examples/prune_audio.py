"""Prune a 1-D network on raw sound, from a dictionary of batches, with a loss of one's own."""

import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import secateurs


class Listener(nn.Module):
    """Four 1-D convolutions on the samples themselves (M5, Dai et al., 2017), in small."""

    def __init__(self, classes=4, width=24):
        super().__init__()
        sizes = (1, width, width, 2 * width, 2 * width)
        layers = []
        for number, (inputs, outputs) in enumerate(pairwise(sizes)):
            kernel, stride = (32, 4) if number == 0 else (3, 1)
            layers += [nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)]
            layers += [nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, wave):
        """Logits (samples, classes) of sound (samples, 1, length)."""
        return self.head(self.features(wave).mean(-1))


def chords(num, length=512):
    """Chords of four kinds in noise, of several lengths; here stands your own DataLoader."""
    label = torch.randint(0, 4, (num,))
    steps = torch.tensor([[4.0, 7.0], [3.0, 7.0], [5.0, 9.0], [3.0, 6.0]])[label]
    root = 0.05 * 2 ** torch.rand(num, 1)
    pitch = torch.cat([root, root * 2 ** (steps / 12)], 1)[..., None]
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(length)).sum(1, keepdim=True)
    return {"wave": wave + 0.3 * torch.randn(num, 1, length), "label": label}


def loss(logits, batch):
    """Of the model's output and the batch."""
    return nn.functional.cross_entropy(logits, batch["label"])


def train(model, batches, epochs, lr=3e-3):
    """The training loop that you have."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimiser.zero_grad()
            loss(model(batch["wave"]), batch).backward()
            optimiser.step()


@torch.no_grad()
def accuracy(model, batch):
    """Share of the sounds that are recognised, 0..1."""
    return float((model.eval()(batch["wave"]).argmax(1) == batch["label"]).float().mean())


torch.manual_seed(0)
batches = [chords(32, length=512 if number % 2 else 640) for number in range(8)]
test = chords(200)
model = Listener()
train(model, batches, epochs=14)

small = secateurs.prune(
    model,
    batches,  # `wave` is given to the model, `label` to the loss alone
    secateurs.Budget(macs=0.5, round_to=4),
    loss=loss,
    train=lambda pruned, unpruned: train(pruned, batches, epochs=4, lr=2e-3),
)
print(small)
print(
    f"accuracy: unpruned {accuracy(model, test):.2f}, pruned and trained on "
    f"{accuracy(small.model, test):.2f}"
)

folder = Path(tempfile.mkdtemp())
small.save(folder / "listener.safetensors")
again = secateurs.load_weights(Listener(), folder / "listener.safetensors").eval()
check = secateurs.export(again, folder / "listener.pt2", test["wave"][:2])
print(f"exported: {check.num_bytes} bytes, difference from PyTorch {check.difference:.1e}")
assert small.report["macs"] <= 0.5
