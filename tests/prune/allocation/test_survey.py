from __future__ import annotations

import pytest
import torch
from torch import nn

import secateurs
from secateurs.prune.allocation.survey import _Sums  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("num", [3, 400])
def test_what_is_the_same_in_all_places_of_a_sample_counts_more(num: int):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4, num, 5, generator=generator) + torch.randn(num, 5, generator=generator)
    sums = _Sums("0", nn.Linear(5, 2), 1)
    if num < 5:
        rows = rows[:1]
    sums.add(rows.flatten(0, 1))
    sums.means.append(rows.mean(0))
    weight, columns = torch.ones(5, 2), torch.arange(5)[:, None]
    reader = sums.reader(weight, columns, centred=False, together=3.0)
    flat, means = rows.flatten(0, 1).double(), rows.mean(0).double()
    expected = flat.T @ flat / len(flat) + 2 * means.T @ means / len(means)
    found = reader.gram
    if found is None:
        assert reader.rows is not None and num < 5
        found = reader.rows.T @ reader.rows / len(reader.rows)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


class Pooled(nn.Module):
    """Answers from averaged maps, each unit the same all over a sample but for noise."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.mixed, self.head = (
            nn.Conv1d(4, 24, 1),
            nn.Conv1d(24, 24, 1),
            nn.Linear(24, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(self.maps(x).relu()).relu().mean(-1))


def test_the_predicted_loss_is_near_the_measured_one_where_maps_are_averaged():
    torch.manual_seed(0)
    x = torch.randn(160, 4, 1) + 0.3 * torch.randn(160, 4, 32)
    model = Pooled()
    small = secateurs.prune(model, [x], secateurs.Budget(macs=0.5, round_to=1, fewest=1))
    with torch.no_grad():
        before, after = model(x), small.model(x)
    measured = float((after - before).square().sum(1).mean())
    # Sums of squares over places alone predict a twentieth of it.
    assert 0.25 * measured < small.report["predicted_loss"] < 4 * measured
