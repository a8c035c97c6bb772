"""A network whose layers are refitted one after the other, and how far its batches have run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, num_samples
from secateurs.nets.trace import eval_mode
from secateurs.prune.allocation.merge_costs import Steps
from secateurs.prune.statistics.parts import in_parts
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.statistics.replay import Replay

MEMORY = 2**30  # bytes of activations that are held between layers


class PrefixOutputs:
    """Batches as far as they have run: the outputs of the first `done` steps of a network."""

    def __init__(self, batches: Sequence[Batch], done: int = 0) -> None:
        self.batches, self.done = list(batches), done
        self.borrowed = True  # by others as well: a step may work in place

    def move_on(self, steps: Sequence[nn.Module]) -> None:
        """Run on to the end of `steps`, or as far as the outputs fit `MEMORY`."""
        num = sum(map(num_samples, self.batches))
        while self.done < len(steps):
            step = steps[self.done]
            with torch.no_grad(), eval_mode(step):
                first = step(self.batches[0][:1].clone())
                if first.numel() * first.element_size() * num > MEMORY:
                    return
                self.batches = [
                    step(batch.clone() if self.borrowed else batch) for batch in self.batches
                ]
            self.done, self.borrowed = self.done + 1, False


class RefitState:
    """A network whose layers are refitted in running order, and how far its batches have run.

    A network that opens into steps has the outputs of the first ones `held`; in any other, `replay`
    keeps the outputs of modules. Neither is computed again. Of the latter `at_once` samples run at
    once.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        run: Run,
        steps: Steps,
        copies: int,
        seed: int,
        repeats: Mapping[str, int] | None = None,
        at_once: int | None = None,
    ) -> None:
        self.model, self.run, self.steps = model, run, steps
        self.copies, self.seed = copies, seed
        self.repeats, self.at_once = repeats or {}, at_once
        self.held = PrefixOutputs(batches)
        self.replay = Replay(in_parts(batches, at_once), run, memory=MEMORY)
        self.implied: dict[str, Tensor] = {}

    def fork(self) -> RefitState:
        """The same state for another attempt, its network a copy."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.held = PrefixOutputs(self.held.batches, self.held.done)
        other.replay = self.replay.fork()
        other.implied = dict(self.implied)
        return other

    def rest(self, held: PrefixOutputs) -> nn.Module:
        """What is still to run for batches that are `held`."""
        if not held.done:
            return self.model
        return nn.Sequential(*(module for _, module in self.steps(self.model)[held.done :]))

    def reach(self, path: str, held: PrefixOutputs) -> PrefixOutputs:
        """Run batches on to the step that `path` is in, as far as memory allows."""
        place = self._place(path)
        if place is not None:
            held.move_on([module for _, module in self.steps(self.model)[:place]])
        return held

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

        place = self._place(path)
        if place is None:
            self.replay.reach(self.model, path)
            visit_rows(
                self.model,
                {path: positions},
                self.held.batches,
                visit,
                run=self.replay.run,
                seed=self.seed,
                drawn_as={path: drawn_as},
                repeats=self.repeats,
                at_once=self.at_once,
                known=True,
                unrun=not outputs,
            )
        else:
            held, steps = self.reach(path, self.held), self.steps(self.model)
            rest = nn.Sequential(*(module for _, module in steps[held.done : place + 1]))
            name = steps[place][0]
            inner = f"{place - held.done}" + path[len(name) :]
            visit_rows(
                rest,
                {inner: positions},
                held.batches,
                visit,
                run=lambda part, batch: part(batch.clone()),  # a step may work in place
                seed=self.seed,
                drawn_as={inner: drawn_as},
            )
        whole = torch.cat(found, 1)
        return whole.flatten(0, 1), len(whole) * self.copies

    def _place(self, path: str) -> int | None:
        """The step that a layer is in."""
        names = [name for name, _ in self.steps(self.model)]
        return next(
            (k for k, name in enumerate(names) if path == name or path.startswith(f"{name}.")),
            None,
        )
