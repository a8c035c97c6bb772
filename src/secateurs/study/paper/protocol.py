"""The paper's protocol as configurations, its quirks as switches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from secateurs.limits import check_fields
from secateurs.prune.layer_grid import PAPER_ANGLES, PAPER_STDS, GridOptions
from secateurs.study.search.plan import PAPER_EPOCHS, PAPER_LRS, GridSearch
from secateurs.study.setup.config import StudyConfig

BACKBONE = "alexnet"
EPOCHS, RUNS, LR = 50, 5, 0.001
MIN_SCALE, ROTATION_DEG = 0.08, 30.0  # torchvision's random resized crop, and the paper's rotation


@dataclass(frozen=True)
class PaperPlan:
    """How much of the paper is run, and with which of its quirks.

    `depths` empty means all. `group_by` finds the film in a file name (see `parse_group_by`); None
    tries SFEW's names, and goes without films when they do not fit. `first_epoch_dropout`: dropout
    is active in the first epoch alone. `choose_on_test`: the best network is the one with the best
    test accuracy. `noisy_activations`: each cell of the grid takes its activations from new views
    with dropout active. `search`: the learning rates and numbers of epochs are searched too.
    """

    depths: tuple[int, ...] = ()
    runs: int = RUNS
    epochs: int = EPOCHS
    group_by: str | None = None
    weights: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    first_epoch_dropout: bool = True
    choose_on_test: bool = True
    noisy_activations: bool = True
    search: bool = True
    angles_deg: tuple[float, ...] = PAPER_ANGLES
    norm_stds: tuple[float, ...] = PAPER_STDS

    def __post_init__(self) -> None:
        check_fields(self)
        GridOptions(self.angles_deg, self.norm_stds).check()

    def config(self) -> StudyConfig:
        """Training as the program does it: one step an epoch on the whole training set."""
        return StudyConfig(
            preset="paper",
            backbone=BACKBONE,
            weights=self.weights,
            split="paper",
            resize="crop",
            depths=self.depths,
            runs=self.runs,
            scratch_runs=self.runs,
            epochs=self.epochs,
            lr=LR,
            batch_size=None,
            dropout="first-epoch" if self.first_epoch_dropout else "on",
            keep_epoch="last",
            views=None,
            rotation_deg=ROTATION_DEG,
            min_scale=MIN_SCALE,
            schedule="constant",
            precision=self.precision,
            device=self.device,
        )

    def apart(self, group_by: str) -> StudyConfig:
        """The same training with films kept apart, the network at its best epoch on validation."""
        return replace(
            self.config(), split="random", group_by=group_by, keep_epoch="best", scratch_runs=0
        )

    def always_dropping(self, depth: int) -> StudyConfig:
        """The same training at one depth with dropout in every epoch."""
        return replace(self.config(), depths=(depth,), scratch_runs=0, dropout="on")

    def search_plan(self) -> GridSearch:
        """The paper's search, or what of it fits into twice the epochs asked for."""
        counts = tuple(count for count in PAPER_EPOCHS if count <= 2 * self.epochs)
        return GridSearch(PAPER_LRS, counts or (self.epochs, 2 * self.epochs))

    def departures(self) -> list[str]:
        """In words, where the training is another one than the paper's.

        >>> PaperPlan(epochs=5).departures()
        ['5 epochs instead of 50']
        """
        found: list[str] = []
        if self.epochs != EPOCHS:
            found.append(f"{self.epochs} epochs instead of {EPOCHS}")
        if not self.first_epoch_dropout:
            found.append("dropout in every epoch")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self)
        for name in ("depths", "angles_deg", "norm_stds"):
            plain[name] = list(plain[name])
        return plain
