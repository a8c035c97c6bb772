"""A network whose layers are refitted one after the other, and what has run for its batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from secateurs.closures import deep_copied
from secateurs.nets.batches import Batch, Run
from secateurs.prune.statistics.parts import in_parts
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.statistics.replay import Replay

MEMORY = 2**29  # bytes of activations that are kept between layers


class RefitState:
    """A network whose layers are refitted in running order, on the same batches.

    `replay` keeps the outputs of modules that have run, so that nothing is computed again. No more
    than `at_once` samples run at once. `implied` is what `settle_norms` asks for, by batch norm.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        run: Run,
        copies: int,
        seed: int,
        repeats: Mapping[str, int] | None = None,
        at_once: int | None = None,
    ) -> None:
        self.model, self.batches = model, batches
        self.copies, self.seed = copies, seed
        self.repeats, self.at_once = repeats or {}, at_once
        self.replay = Replay(in_parts(batches, at_once), run, memory=MEMORY)
        self.implied: dict[str, Tensor] = {}

    def fork(self) -> RefitState:
        """The same state for another attempt, its network a copy."""
        other = copy.copy(self)
        other.model = deep_copied(self.model)
        other.replay = self.replay.fork()
        other.implied = dict(self.implied)
        return other

    def rows(
        self, path: str, positions: int, *, drawn_as: str, outputs: bool
    ) -> tuple[Tensor, int]:
        """What a layer receives or gives at some positions of every sample.

        (copies * samples, inputs or outputs), and how many rows a sample has: its positions in all
        its views, one after the other.
        """
        found: list[Tensor] = []

        def visit(_: str, rows: Tensor, given: Tensor, images: int) -> None:
            seen = given if outputs else rows
            found.append(seen.view(-1, images, seen.shape[-1]))

        self.replay.reach(self.model, path)
        visit_rows(
            self.model,
            {path: positions},
            self.batches,
            visit,
            run=self.replay.run,
            seed=self.seed,
            drawn_as={path: drawn_as},
            repeats=self.repeats,
            at_once=self.at_once,
            known=True,
            unrun=not outputs,
        )
        whole = torch.cat(found, 1)
        return whole.flatten(0, 1), len(whole) * self.copies
