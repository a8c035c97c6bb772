"""Blocks of a pruned network tuned one after the other to give what they gave before."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from secateurs.memory import give_memory_back
from secateurs.nets.batches import (
    Batch,
    Run,
    copied_batch,
    forward,
    num_samples,
    samples,
)
from secateurs.nets.counting import macs
from secateurs.nets.strided import safe_strides
from secateurs.nets.trace import copied, eval_mode, first_line, tensors_of
from secateurs.progress import SILENT, Progress
from secateurs.prune.coupling.members import Group
from secateurs.prune.coupling.returned import Axis, returned_units
from secateurs.prune.reconstruction.block_samples import (
    calls_of,
    given_by,
    grouped,
    in_turns,
    received,
    spaced,
    values_of,
)
from secateurs.prune.reconstruction.blocks import Block, blocks_of
from secateurs.prune.reconstruction.options import (
    Reconstruction,
    ReconstructionOptions,
    TunedBlock,
)
from secateurs.prune.reconstruction.tuning import Problem, tune
from secateurs.prune.statistics.parts import in_parts
from secateurs.prune.statistics.replay import Replay
from secateurs.stopping import StopFlag, StopRequested

FEWEST = 10  # samples with which anything is tuned
FEWEST_STEPS = 8  # below which it is not worth the runs
LEFT_OUT = 128  # at most, that decide how far a block is tuned
ACCELERATED = 50  # times as much work where the network is on an accelerator
FORWARD_AND_BACK = 3  # times the work of a forward pass
PER_VALUE = 30  # multiply-accumulates that take as long as a value that a layer gives
ALONE = 2  # samples on which blocks are run alone
SURROUNDED = "it depends on more than what it is given"


def reconstruct(
    model: nn.Module,
    whole: nn.Module,
    groups: Sequence[Group],
    survivors: Mapping[str, Tensor],
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    *,
    merged: Sequence[str] = (),
    run: Run = forward,
    options: ReconstructionOptions | None = None,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> tuple[nn.Module, Reconstruction]:
    """A copy of a pruned network with its blocks tuned, in running order, and what came of it.

    Each block (see `blocks_of`) is tuned by Adam to give what it gives in the unpruned network
    `whole`, from what it receives in the pruned one: the mean squared error of the channels that
    are left, batch norm in evaluation mode. Weights, offsets, and norms' scales are unknowns. A
    block stays as it was unless its error on the `held_out` samples gets lower; these should be in
    no refit, since refitted layers are too good on its samples. No labels are needed.
    """
    started = time.perf_counter()
    options, stop = options or ReconstructionOptions(), stop or StopFlag()
    model = copied(model)
    work = _Work(model, whole, calibration, held_out, run, options, seed, stop)
    if work.num_samples < FEWEST or not work.left_out:
        few = TunedBlock("all", skipped=f"fewer than {FEWEST} samples")
        return model, Reconstruction((few,), None, 0, time.perf_counter() - started)
    steps = work.affordable_steps(options.steps + options.final_steps)
    if steps < min(FEWEST_STEPS, options.steps + options.final_steps):
        large = TunedBlock("all", skipped=f"the work allowed is {steps} steps for this network")
        return model, Reconstruction((large,), None, 0, time.perf_counter() - started)
    names = [group.name for group in groups]
    units = returned_units(whole, groups, work.parts[0], run=run)
    blended = {place for place, name in enumerate(names) if name in merged}

    def may_end(path: str) -> bool:
        """Whether each value that a module gives is one of the unpruned network's."""
        return not any(
            axis is not None and blended & set(axis.group.tolist()) for axis in units.get(path, [])
        )

    def kept(path: str) -> list[Callable[[Tensor], Tensor]]:
        return [_chosen(axis, names, survivors) for axis in units.get(path, [])]

    found = blocks_of(model, work.parts[0], run=run, may_end=may_end)
    share = options.steps / max(1, options.steps + options.final_steps)
    alone = work.stand_alone(found)
    rows: list[TunedBlock] = []
    with progress.task("reconstructing blocks", len(found) + bool(options.final_steps)) as advance:
        for place, block in enumerate(found):
            stop.check()
            if place in alone:
                rest = found[place + 1 : place + 2]
                wanted = kept(block.paths[-1])
                row = work.tune_block(block, wanted, round(steps * share), place, rest)
            else:
                row = TunedBlock(block.name, skipped=SURROUNDED)
            rows.append(row)
            give_memory_back()
            advance(1)
        final = None
        if options.final_steps:
            final = work.tune_outputs(round(steps * (1 - share)))
            advance(1)
    return work.model, Reconstruction(
        tuple(rows), final, work.num_samples, time.perf_counter() - started
    )


def _cost(model: nn.Module, sample: Batch, run: Run) -> float:
    """What running a sample takes, in multiply-accumulates."""
    return macs(model, sample, run=run) + PER_VALUE * values_of(model, sample, run)


def _run_block(modules: Sequence[nn.Module], given: Batch) -> object:
    """What modules give one after the other, from the arguments and keywords of the first."""
    args, kwargs = copied_batch(given)
    found = modules[0](*args, **kwargs)
    for module in modules[1:]:
        found = module(found)
    return found


def _chosen(
    axis: Axis | None, names: Sequence[str], survivors: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """What takes the values that are left of an output."""
    if axis is None:
        return lambda output: output
    rest = axis.kept(names, survivors)
    if len(rest) == len(axis.group):
        return lambda output: output
    return lambda output: output.index_select(axis.axis, rest.to(output.device))


class _Work:
    """The two networks and the samples in parts, as far as they have run."""

    def __init__(
        self,
        model: nn.Module,
        whole: nn.Module,
        calibration: Sequence[Batch],
        held_out: Sequence[Batch],
        run: Run,
        options: ReconstructionOptions,
        seed: int,
        stop: StopFlag,
    ) -> None:
        self.model, self.whole, self.run = model, whole, run
        self.options, self.seed, self.stop = options, seed, stop
        few = samples(calibration[0], slice(0, 1))
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        self.faster = 1 if on_cpu else ACCELERATED
        self.work = options.work * self.faster
        # Running both networks once on all samples takes no more work than all steps.
        self.pass_cost = max(_cost(whole, few, run), 1.0)  # for a sample
        most = int(self.work / 2 / self.pass_cost)
        calibration = spaced(calibration, max(1, most * 3 // 4))
        held_out = spaced(held_out, max(1, min(LEFT_OUT, most // 4)))
        self.parts, is_left_out = in_turns(
            in_parts(calibration, options.batch), in_parts(held_out, options.batch)
        )
        self.left_out = [place for place, left in enumerate(is_left_out) if left]
        self.train = [place for place, left in enumerate(is_left_out) if not left]
        self.num_samples = sum(map(num_samples, calibration))
        self.step_cost = max(_cost(model, few, run), 1.0) * FORWARD_AND_BACK
        self.step_cost *= min(options.batch, self.num_samples)
        self.narrowed = Replay(self.parts, run, memory=options.memory // 2)
        self.unpruned = Replay(self.parts, run, memory=options.memory // 2)

    def affordable_steps(self, wanted: int) -> int:
        """How many steps of all blocks the work and the passes allow."""
        passes = self.options.passes * self.pass_cost * self.num_samples
        affordable = int(max(passes, self.options.little_work * self.faster) // self.step_cost)
        return min(wanted, max(FEWEST_STEPS, affordable), int(self.work // self.step_cost))

    def tune_block(
        self,
        block: Block,
        kept: Sequence[Callable[[Tensor], Tensor]],
        steps: int,
        place: int,
        after: Sequence[Block],
    ) -> TunedBlock:
        """Tune one block in place; `after` starts with the block that runs next."""
        modules = [self.model.get_submodule(path) for path in block.paths]
        held = self._held(block, kept, after[0].paths[0] if after else None)
        if not held:
            return TunedBlock(block.name, skipped="it does not run once for all samples")
        given, wanted = ({place: one[k] for place, one in held.items()} for k in (0, 1))

        def outputs(part: int) -> list[Tensor]:
            return _floats(_run_block(modules, given[part]))

        return self._tuned(block.name, modules, outputs, wanted, steps, place)

    def stand_alone(self, blocks: Sequence[Block]) -> set[int]:
        """Which blocks give from their input alone what they give within the network."""
        spans = [(block.paths[0], block.paths[-1]) for block in blocks]
        few, other = (samples(part, slice(0, ALONE)) for part in (self.parts[0], self.parts[-1]))
        calls = calls_of(self.model, spans, few, self.run)
        # What a block receives beside its input then belongs to other samples.
        calls_of(self.model, [], other, self.run)
        return {
            place
            for place, (block, (given, made)) in enumerate(zip(blocks, calls, strict=True))
            if self._gives(block, given, made)
        }

    def _gives(self, block: Block, given: Batch, made: object) -> bool:
        """Whether a block gives what it `made` before, from what it was `given`."""
        if given is None or made is None:
            return False
        modules = [self.model.get_submodule(path) for path in block.paths]
        try:
            with torch.no_grad(), eval_mode(self.model):
                found = _run_block(modules, given)
        except Exception:  # whatever a module raises that needs its surroundings
            return False
        alone, within = tensors_of(found), tensors_of(made)
        return len(alone) == len(within) and all(
            x.shape == y.shape
            and x.dtype == y.dtype  # not where the network computes in half precision by itself
            and torch.allclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True)
            for x, y in zip(alone, within, strict=True)
        )

    def tune_outputs(self, steps: int) -> TunedBlock:
        """Tune the whole network to what it gave."""
        wanted: dict[int, list[Tensor]] = {}
        with torch.no_grad(), eval_mode(self.whole):
            for place, part in enumerate(self.parts):
                wanted[place] = _floats(self.run(self.whole, copied_batch(part)))

        def outputs(part: int) -> list[Tensor]:
            return _floats(self.run(self.model, copied_batch(self.parts[part])))

        return self._tuned("the outputs", [self.model], outputs, wanted, steps, -1)

    def _tuned(
        self,
        name: str,
        modules: Sequence[nn.Module],
        outputs: Callable[[int], list[Tensor]],
        wanted: Mapping[int, list[Tensor]],
        steps: int,
        place: int,
    ) -> TunedBlock:
        parameters = self._parameters(modules)
        if not parameters:
            return TunedBlock(name, skipped="all of its weights are used elsewhere, too")
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(eval_mode(module))
                stack.enter_context(safe_strides(module))
            stack.enter_context(_followed(self.model, parameters))
            try:
                left_out = [part for part in self.left_out if part in wanted]
                train = [part for part in self.train if part in wanted]
                problem = Problem(
                    parameters,
                    partial(_of_same_shape, outputs, wanted),
                    wanted,
                    grouped(train, self.parts, self.options.batch),
                    left_out,
                )
                tuned = tune(
                    problem,
                    steps=steps,
                    rate=self.options.rate,
                    seed=self.seed * 1000 + place + 1,
                    stop=self.stop,
                )
            except (StopRequested, MemoryError):
                raise
            except _OtherShape:  # as of an expert, whose rows are chosen by values
                return TunedBlock(name, skipped="its output has another shape than before")
            except Exception as error:  # whatever a module makes of gradients
                return TunedBlock(
                    name, skipped=f"it cannot be differentiated ({first_line(error)})"
                )
        return TunedBlock(name, tuned.before, tuned.after, tuned.steps)

    def _held(
        self, block: Block, kept: Sequence[Callable[[Tensor], Tensor]], after: str | None
    ) -> dict[int, tuple[Batch, list[Tensor]]]:
        """What a block receives in the pruned network and gave in the unpruned one, by part.

        Of as many parts as the memory allows; nothing where it does not run once in each. The
        unpruned network runs on to the module `after`, so that nothing of it runs twice.
        """
        first, last = block.paths[0], block.paths[-1]
        held: dict[int, tuple[Batch, list[Tensor]]] = {}
        used = 0
        self.narrowed.reach(self.model, first)
        self.unpruned.reach(self.whole, after or first)
        for place, part in enumerate(self.parts):
            self.stop.check()
            given = received(self.model, first, part, self.narrowed.run)
            made = given_by(self.whole, last, part, self.unpruned.run, until=after)
            if given is None or made is None:
                return {}
            wanted = [
                take(x)
                for take, x in zip(kept, tensors_of(made), strict=True)
                if x.is_floating_point()
            ]
            size = sum(x.numel() * x.element_size() for x in [*tensors_of(given), *wanted])
            if used + size <= self.options.memory or place <= max(self.left_out[0], self.train[0]):
                used += size
                held[place] = given, wanted
        return held

    def _parameters(self, modules: Sequence[nn.Module]) -> list[nn.Parameter]:
        """The parameters that only these modules use."""
        own = {id(inner) for module in modules for inner in module.modules()}
        elsewhere = {
            id(parameter)
            for module in self.model.modules()
            if id(module) not in own
            for parameter in module.parameters(recurse=False)
        }
        found = {id(p): p for module in modules for p in module.parameters()}
        return [
            parameter
            for identity, parameter in found.items()
            if identity not in elsewhere and parameter.is_floating_point()
        ]


@contextmanager
def _followed(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Generator[None]:
    """Only these parameters get gradients meanwhile."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wanted = set(map(id, parameters))
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in wanted)
        with torch.enable_grad():
            yield
    finally:
        for parameter, followed in before:
            parameter.grad = None
            parameter.requires_grad_(followed)


class _OtherShape(Exception):
    """A block gives tensors of another shape than it gave in the unpruned network."""


def _of_same_shape(
    outputs: Callable[[int], list[Tensor]], wanted: Mapping[int, list[Tensor]], part: int
) -> list[Tensor]:
    found = outputs(part)
    if [x.shape for x in found] != [x.shape for x in wanted[part]]:
        raise _OtherShape
    return found


def _floats(output: object) -> list[Tensor]:
    return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]
