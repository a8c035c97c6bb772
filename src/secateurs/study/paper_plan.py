"""The paper's protocol as configurations, its quirks as switches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from secateurs.errors import InputError
from secateurs.prune.grid import PAPER_ANGLES, PAPER_STDS
from secateurs.study.config import StudyConfig
from secateurs.study.search_plan import PAPER_EPOCHS, PAPER_LRS, GridSearch

FILM = r"^([^_]+)_"  # SFEW names its frames after their film: the part before the first underscore
EPOCHS, RUNS, LR = 50, 5, 0.001
MIN_SCALE, ROTATION_DEG = 0.08, 30.0  # torchvision's random resized crop, and the paper's rotation


@dataclass(frozen=True)
class PaperPlan:
    """How much of the paper is run, and with which of its quirks.

    `depths` empty means all. `first_epoch_dropout`: dropout is active in the first epoch alone.
    `choose_on_test`: the best network is the one with the best test accuracy. `noisy_activations`:
    each cell of the grid takes its activations from new views with dropout active. `search`: the
    learning rates and numbers of epochs are searched too.
    """

    depths: tuple[int, ...] = ()
    runs: int = RUNS
    epochs: int = EPOCHS
    group_by: str | None = FILM
    weights: str = "auto"
    backbone: str = "alexnet"
    device: str = "auto"
    precision: str = "auto"
    first_epoch_dropout: bool = True
    choose_on_test: bool = True
    noisy_activations: bool = True
    search: bool = True
    angles_deg: tuple[float, ...] = PAPER_ANGLES
    norm_stds: tuple[float, ...] = PAPER_STDS

    def __post_init__(self) -> None:
        for word, value in (("runs", self.runs), ("epochs", self.epochs)):
            if value < 1:
                raise InputError(f"{word}: expected at least 1, got {value}")

    def config(self) -> StudyConfig:
        """Training as the program does it: one step an epoch on the whole training set."""
        return StudyConfig(
            preset="paper",
            backbone=self.backbone,
            weights=self.weights,
            split="paper",
            group_by=self.group_by,
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

    def apart(self) -> StudyConfig:
        """The same training with films kept apart, the network at its best epoch on validation."""
        return replace(self.config(), split="random", keep_epoch="best", scratch_runs=0)

    def search_plan(self) -> GridSearch:
        """The paper's search, or what of it fits into twice the epochs asked for."""
        counts = tuple(count for count in PAPER_EPOCHS if count <= 2 * self.epochs)
        return GridSearch(PAPER_LRS, counts or (self.epochs, 2 * self.epochs))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self)
        for name in ("depths", "angles_deg", "norm_stds"):
            plain[name] = list(plain[name])
        return plain
