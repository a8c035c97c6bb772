"""Does a loss of one's own choose better widths than the change of the outputs? Measured.

Two networks on scikit-learn's digits: a classifier, and one with two outputs of which the loss
weighs one 20 times as much. Each is trained, pruned with and without `loss`, and its loss on test
digits taken before any training. Mean over seeds, with the deviation of the paired differences.

    python benchmarks/pruning/own_loss.py --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean, stdev

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import secateurs

Batch = tuple[Tensor, Tensor]
Loss = Callable[[dict[str, Tensor], Batch], Tensor]


class Network(nn.Module):
    """Convolutions with two branches: the digit, and the image in half its size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.digit = nn.Sequential(
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU()),
            nn.Linear(64, 10),
        )
        self.small = nn.Sequential(
            *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)), nn.Conv2d(32, 1, 1)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (samples, 10) and images (samples, 1, 4, 4)."""
        found = self.stem(images)
        return {"digit": self.digit(found), "small": self.small(found)}


def classification(out: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy alone."""
    return nn.functional.cross_entropy(out["digit"], batch[1])


def both(out: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy, and 20 times the squared error of the small image."""
    target = nn.functional.avg_pool2d(batch[0], 2)
    return classification(out, batch) + 20 * nn.functional.mse_loss(out["small"], target)


def trained(data: Batch, seed: int) -> Network:
    torch.manual_seed(seed)
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(12):
        for places in torch.randperm(len(data[0])).split(64):
            part = data[0][places], data[1][places]
            optimiser.zero_grad()
            both(network(part[0]), part).backward()
            optimiser.step()
    return network.eval()


@torch.no_grad()
def measured(network: nn.Module, data: Batch, loss: Loss) -> float:
    return float(loss(network.eval()(data[0]), data))


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--seeds", type=int, default=5)
    given = words.parse_args()
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images).float().view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    print("| loss | MACs | unpruned | without `loss` | with `loss` | difference | better |")
    print("|---|---|---|---|---|---|---|")
    for name, loss in (("classification", classification), ("both", both)):
        for budget in (0.3, 0.15, 0.08):
            rows: list[tuple[float, float, float]] = []
            for seed in range(given.seeds):
                order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
                train, test = ((x[o], y[o]) for o in (order[:1200], order[1200:]))
                network = trained(train, seed)
                few = [(train[0][:256], train[1][:256])]
                limits = secateurs.Budget(macs=budget, round_to=1, fewest=1)
                cut = [
                    secateurs.prune(network, few, limits, loss=one, seed=seed).model
                    for one in (None, loss)
                ]
                rows.append(tuple(measured(one, test, loss) for one in (network, *cut)))  # type: ignore[arg-type]
            away = [b - a for _, a, b in rows]
            half = 2.776 * stdev(away) / len(away) ** 0.5  # Student's t for five seeds
            print(
                f"| {name} | {budget:.0%} | {mean(r[0] for r in rows):.3f} "
                f"| {mean(r[1] for r in rows):.3f} | {mean(r[2] for r in rows):.3f} "
                f"| {mean(away):+.3f} +- {half:.3f} | {sum(d < 0 for d in away)}/{len(away)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
