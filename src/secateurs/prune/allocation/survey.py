"""One look at a whole network: what each group's readers receive, and what losing units costs."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.memory import give_memory_back
from secateurs.nets.batches import (
    Batch,
    Run,
    forward,
    num_samples,
    samples,
)
from secateurs.nets.layers import (
    BATCH_NORMS,
    LAYERS,
    kernel_of,
    matrix,
    row_length,
)
from secateurs.nets.runnable import runnable
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.all_groups import eliminate_all
from secateurs.prune.allocation.elimination import Elimination, Reader
from secateurs.prune.allocation.first_order import first_order
from secateurs.prune.allocation.importance import Importance, Loss, importance
from secateurs.prune.coupling.groups import Group, Member
from secateurs.prune.statistics.gram import add_products, mirror
from secateurs.prune.statistics.patches import (
    check_batches,
    count_runs,
    fewest_positions,
    visit_rows,
)
from secateurs.prune.statistics.rows import by_place

ROWS_PER_INPUT = 4  # samples for each input of a reader, where its positions give so many
FEWEST_ROWS = 2048
OFFSET = 4.0  # deviations from which on a mean is taken out before rounding
AT_ONCE = 512  # rows in one product
WIDE = 8192  # inputs beyond which `FEWEST_ROWS` samples do: a Gram matrix would take minutes


@dataclass(frozen=True)
class Targets:
    """Outputs of a layer: `values` (positions, samples, outputs), bfloat16, about a center.

    The `center` (outputs,) is the mean of the first batch where that is large against the
    deviations, which bfloat16's eight bits would lose, and 0 elsewhere: values near 0 are known
    best so.
    """

    values: Tensor
    center: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def to(self, like: Tensor | torch.dtype) -> Tensor:
        """The outputs (positions, samples, outputs) in the type, and on the device, of `like`."""
        return self.values.to(like) + self.center.to(like)


@dataclass(frozen=True)
class Survey:
    """What is known of the groups of a network before anything is cut.

    `eliminations` by group; `targets` what each reader gives, rows as `visit_rows` orders them for
    each batch and batches side by side; `positions` how many of a sample are looked at, `norms` the
    batch norm right after a reader, by reader; `importance` (outputs,) by reader, see `importance`;
    `repeats` how often readers run that run more than once. The rows of `routed` readers, as
    experts, are chosen by values: in a pruned network they are those of other samples.
    """

    eliminations: dict[str, Elimination]
    targets: dict[str, Targets]
    positions: dict[str, int]
    norms: dict[str, str]
    importance: dict[str, Tensor]
    repeats: dict[str, int] = field(default_factory=dict[str, int])
    routed: frozenset[str] = frozenset()


def survey(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Sequence[Batch],
    *,
    run: Run = forward,
    copies: int = 1,
    seed: int = 0,
    loss: Loss | None = None,
    at_once: int | None = None,
    progress: Progress = SILENT,
) -> Survey:
    """Measure the groups of a network on calibration batches.

    The batches are `copies` views of the same samples, view by view: a mirror image is no new one.
    The samples run through the network once; of the inputs of each reader only the Gram matrix is
    kept or, where there are fewer samples than inputs, the samples. Samples may differ in size
    between batches; a layer is then looked at in as many places as the smallest has. No more than
    `at_once` samples run at once. A `loss` decides between groups instead of the outputs' change
    (see `importance`).
    """
    check_batches(model, batches)
    num_images = _total(batches)
    readers = reader_paths(model, groups)
    positions = {path: _num_positions(model.get_submodule(path), num_images) for path in readers}
    # Rows of all batches stand side by side: a layer is looked at in as many places in each.
    fewest = fewest_positions(model, readers, batches, run=run)
    positions = {path: min(num, fewest.get(path, num)) for path, num in positions.items()}
    first = samples(batches[0], slice(0, 1))
    runs = count_runs(model, readers, [first], run=run)
    repeats = {path: counts[0] for path, counts in runs.items() if counts[0] > 1}
    norms = norms_after(model, first, run=run)
    sums = {path: _Sums(path, model.get_submodule(path), copies) for path in readers}
    targets: dict[str, list[Tensor]] = {path: [] for path in readers}
    centers: dict[str, Tensor] = {}
    num_in_part = 1
    shares: dict[str, set[tuple[int, float]]] = {path: set() for path in readers}

    def counted(network: nn.Module, part: Batch) -> object:
        nonlocal num_in_part
        num_in_part = num_samples(part)
        return run(network, part)

    def visit(path: str, rows: Tensor, outputs: Tensor, images: int) -> None:
        shares[path].add((images, images / num_in_part))
        if not images:  # an expert that no sample of this part went to
            return
        sums[path].add(rows)
        center = centers.setdefault(path, _center(outputs.float()))
        shaped = (outputs - center).view(-1, images, outputs.shape[-1])
        targets[path].append(shaped.to(torch.bfloat16))

    with progress.task("collecting activations", num_images) as advance:
        if readers:
            visit_rows(
                model,
                positions,
                batches,
                visit,
                run=counted,
                seed=seed,
                repeats=repeats,
                at_once=at_once,
                known=True,
                means=lambda path, rows: sums[path].means.append(rows),
                advance=advance,
            )
        give_memory_back()
    weights = Importance({}, {})
    if readers:
        with progress.task("following gradients", 1) as advance:
            weights = importance(
                model, readers, batches, run=run, seed=seed, loss=loss, at_once=at_once
            )
            advance(1)
        give_memory_back()
    unread = [group for group in groups if not group.side("in")]
    found: dict[str, Elimination] = {}
    if unread:
        found = first_order(model, unread, batches, run=run, seed=seed, loss=loss)
    with progress.task("scoring units", len(groups)) as advance:
        advance(len(unread))
        read = [group for group in groups if group.side("in")]
        last = {member.path: group for group in read for member in group.side("in")}

        def of_groups() -> Generator[tuple[str, list[Reader]]]:
            for group in read:
                members = group.side("in")
                yield (
                    group.name,
                    [_reader(model, member, group, sums, weights, norms) for member in members],
                )
                for path in {member.path for member in members if last[member.path] is group}:
                    del sums[path]  # no other group reads it

        found |= eliminate_all(of_groups(), done=lambda: advance(1))
        give_memory_back()
    held = {path: Targets(torch.cat(parts, 1), centers[path]) for path, parts in targets.items()}
    routed = _routed(model, shares, first, run)
    return Survey(found, held, positions, norms, weights.each, repeats, routed)


def _routed(
    model: nn.Module, shares: dict[str, set[tuple[int, float]]], first: Batch, run: Run
) -> frozenset[str]:
    """The readers whose rows are chosen by values.

    Others have as many rows for each sample or, of what does not depend on samples, in each part:
    as many as for one sample. `shares` are the rows of each part, in all and for each sample.
    """
    found: set[str] = set()
    for path, counts in shares.items():
        rows = {num for num, _ in counts}
        of_sample = {share for _, share in counts}
        whole = all(share == round(share) for share in of_sample)
        if (len(rows) > 1 and len(of_sample) > 1) or (
            len(rows) == 1 and not whole and rows != _rows_for(model, path, first, run)
        ):
            found.add(path)
    return frozenset(found)


def _rows_for(model: nn.Module, path: str, sample: Batch, run: Run) -> set[int]:
    """How many rows a layer has on one sample, in each of its runs."""
    found: set[int] = set()
    layer = model.get_submodule(path)
    handle = layer.register_forward_hook(
        lambda _, __, output: found.add(len(by_place(layer, output)))
    )
    try:
        with torch.no_grad(), eval_mode(model):
            run(model, sample)
    finally:
        handle.remove()
    return found


def _center(outputs: Tensor) -> Tensor:
    """The mean (outputs,) of each output (samples, outputs) that is `OFFSET` deviations or more."""
    mean, deviation = outputs.mean(0), outputs.std(0, correction=0)
    return torch.where(mean.abs() > OFFSET * deviation, mean, torch.zeros_like(mean))


def reader_paths(model: nn.Module, groups: Sequence[Group]) -> list[str]:
    """The layers that read a unit of one of the groups, in the order of the network's layers."""
    reading = {member.path for group in groups for member in group.side("in")}
    return [path for path, _ in model.named_modules() if path in reading]


def _num_positions(layer: nn.Module, num_images: int) -> int:
    inputs = row_length(layer)
    wanted = FEWEST_ROWS if inputs > WIDE else max(ROWS_PER_INPUT * inputs, FEWEST_ROWS)
    return math.ceil(wanted / num_images)


class _Sums:
    """Sums over a reader's rows: of the outer products, or the rows themselves while they are few.

    Rows are kept until they are as many as the inputs, then their sums take their place. Sums are
    about a value near the mean, the mean of the rows that came first: products of inputs that
    hardly vary about a large mean would otherwise be lost to rounding when the mean is taken out.
    """

    def __init__(self, path: str, layer: nn.Module, copies: int) -> None:
        self.path, self.inputs, self.copies = path, row_length(layer), copies
        self.rows: list[Tensor] = []  # not yet in the sums
        self.num_rows = self.waiting = 0
        self.shift: Tensor | None = None  # (inputs,)
        self.gram: Tensor | None = None  # its lower triangle
        self.total: Tensor | None = None
        self.means: list[Tensor] = []  # (samples, inputs) over the places of a sample

    def add(self, rows: Tensor) -> None:
        """Take in rows (samples, inputs)."""
        self.rows.append(rows)
        self.num_rows += len(rows)
        self.waiting += len(rows)
        if self.waiting >= (self.inputs if self.gram is None else AT_ONCE):
            self._sum_up()

    def _sum_up(self) -> None:
        rows = torch.cat(self.rows)
        self.rows, self.waiting = [], 0
        if self.gram is None:
            self.shift = _mean(rows)
            sizes = (self.inputs, self.inputs)
            self.gram = torch.zeros(sizes, dtype=torch.float32, device=rows.device)
            self.total = torch.zeros(self.inputs, dtype=torch.float64, device=rows.device)
        assert self.total is not None and self.shift is not None
        about = rows.float() - self.shift.float()
        add_products(self.gram, about)
        self.total += about.sum(0, dtype=torch.float64)

    def reader(
        self, weight: Tensor, columns: Tensor, *, centred: bool, together: float = 1.0
    ) -> Reader:
        """The reader of (inputs, outputs) weights, its inputs about their mean if `centred`.

        What is the same in all places of a sample counts `together` times. Raises InputError when
        an input was not finite.
        """
        reader = self._reader(weight, columns, centred)
        if together <= 1 or not self.means:
            return reader
        means = torch.cat(self.means).float()
        means = means - _mean(means) if centred else means
        if reader.gram is not None:
            scaled = means * math.sqrt((together - 1) / len(means))
            return replace(reader, gram=reader.gram.addmm_(scaled.T, scaled))
        assert reader.rows is not None
        # Mean squares over these rows are those over the rows alone, and the means' share.
        more = math.sqrt((together - 1) * len(reader.rows) / len(means))
        rows = torch.cat([reader.rows, more * means.to(reader.rows)])
        return replace(reader, rows=rows * math.sqrt(len(rows) / len(reader.rows)))

    def _reader(self, weight: Tensor, columns: Tensor, centred: bool) -> Reader:
        if self.gram is None:
            rows = torch.cat(self.rows)
            self._check(rows)
            rows = rows - _mean(rows) if centred else rows
            return Reader(weight, columns, len(rows) // self.copies, rows=rows)
        if self.rows:
            self._sum_up()
        assert self.total is not None and self.shift is not None
        self._check(self.total)
        gram = mirror(self.gram / self.num_rows)
        mean = (self.total / self.num_rows).float()  # of what is about the shift
        if centred:
            gram.addr_(mean, mean, alpha=-1)
        else:
            gram.addr_(mean, self.shift).addr_(self.shift, mean).addr_(self.shift, self.shift)
        self._check(gram)
        return Reader(weight, columns, self.num_rows // self.copies, gram=gram)

    def _check(self, values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            raise InputError(
                f"layer {self.path} receives values that are NaN, infinite or too large to square; "
                "check the images and the weights"
            )


def _mean(rows: Tensor) -> Tensor:
    """The mean (inputs,) of rows, summed in float64."""
    return rows.mean(0, dtype=torch.float64).to(rows.dtype)


def _reader(
    model: nn.Module,
    member: Member,
    group: Group,
    sums: dict[str, _Sums],
    weights: Importance,
    norms: dict[str, str],
) -> Reader:
    path = member.path
    layer = model.get_submodule(path)
    assert isinstance(layer, LAYERS)
    kernel = math.prod(kernel_of(layer))
    # Columns of a unit: every kernel place of every channel of it.
    order = member.unit.argsort(stable=True)
    channels = member.index[order].view(group.num_units, -1)
    columns = (channels[:, :, None] * kernel + torch.arange(kernel)).flatten(1)
    weight = matrix(layer).detach().T * weights.each[path].sqrt()
    centred = layer.bias is not None or path in norms
    together = weights.together.get(path, 1.0)
    return sums[path].reader(weight, columns, centred=centred, together=together)


def norms_after(model: nn.Module, sample: Batch, *, run: Run = forward) -> dict[str, str]:
    """The batch norm that receives a layer's output as it is, by the layer's path."""
    bare, sample = runnable(model, sample, run)
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no other tensor gets the same identity
    found: dict[str, str] = {}

    def note(path: str, module: nn.Module) -> None:
        def after(_: nn.Module, __: object, output: Tensor) -> None:
            kept.append(output)
            made[id(output)] = path

        def before(_: nn.Module, received: tuple[Tensor, ...]) -> None:
            if id(received[0]) in made:
                found[made[id(received[0])]] = path

        if isinstance(module, BATCH_NORMS):
            module.register_forward_pre_hook(before)
        elif isinstance(module, LAYERS):
            module.register_forward_hook(after)

    for path, module in bare.named_modules():
        note(path, module)
    with torch.no_grad():
        run(bare, sample)
    return found


def _total(batches: Sequence[Batch]) -> int:
    return sum(num_samples(batch) for batch in batches)
