"""Does it pay to prune the width of a transformer, over which its layer norms work? Measured.

A small Vision Transformer tells the direction of noisy waves (6 classes, 16 x 16). It is trained,
pruned with and without `norm_widths`, and trained for two more epochs. Accuracy on other waves.

    python benchmarks/pruning/norm_widths.py --seeds 3 --json benchmarks/measured/norm_widths.json
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs

Data = tuple[Tensor, Tensor]
BUDGETS = (0.5, 0.25, 0.15)


class Transformer(nn.Module):
    """4 layers of 4 heads over 16 patches, 48 channels wide."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, 6)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.encoder(x)).mean(1))


def waves(count: int, generator: torch.Generator) -> Data:
    """Waves in one of six directions, of any phase and several lengths, under noise."""
    label = torch.randint(0, 6, (count,), generator=generator)
    angle, phase, rate = (
        part[:, None, None]
        for part in (
            label * torch.pi / 6,
            torch.rand(count, generator=generator) * 2 * torch.pi,
            0.6 + 0.5 * torch.rand(count, generator=generator),
        )
    )
    down, right = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    clean = torch.sin(rate * (down * angle.cos() + right * angle.sin()) + phase)
    return (clean + 1.2 * torch.randn(clean.shape, generator=generator))[:, None], label


def trained(model: nn.Module, data: Data, epochs: int) -> nn.Module:
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(data[0])).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(data[0][part]), data[1][part]).backward()
            optimiser.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    return float((model(data[0]).argmax(1) == data[1]).float().mean())


def measure(seed: int, train: Data, test: Data) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    model = trained(Transformer(), train, 8)
    rows: list[dict[str, Any]] = []
    for macs in BUDGETS:
        for norm_widths in (False, True):
            budget = secateurs.Budget(macs=macs, round_to=1, fewest=2)
            row: dict[str, Any] = {"seed": seed, "macs": macs, "norm_widths": norm_widths}
            row["unpruned"] = accuracy(model, test)
            try:
                small = secateurs.prune(
                    model, train[0][:256].split(64), budget, norm_widths=norm_widths
                )
            except secateurs.InputError as error:
                rows.append(row | {"error": str(error)})
                continue
            row["pruned"] = accuracy(small.model, test)
            row["change"] = small.report["change"]
            torch.manual_seed(seed)
            row["trained"] = accuracy(trained(small.model, train, 2), test)
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    train, test = waves(3000, generator), waves(1500, generator)
    rows = [row for seed in range(given.seeds) for row in measure(seed, train, test)]
    if given.json:
        found = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
            "rows": rows,
        }
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
