"""A layer cut at every angle and every norm threshold, from one look at its pairs and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.limits import LIMITS, check_numbers, shown
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.compensation.merging import groups
from secateurs.prune.compensation.shared_ridge import Merged, share
from secateurs.prune.layer import compensate, parameters
from secateurs.prune.selection.grid_selection import Candidates, Cut, candidates
from secateurs.prune.selection.pairwise import make_selection
from secateurs.prune.selection.published_rule import add_rows
from secateurs.prune.similarity.normalise import Directions, directions
from secateurs.prune.surgery.removal import find_consumer
from secateurs.threads import one_thread

GridRule = Literal["pairwise", "published"]
GridCompensation = Literal["drop", "add", "affine", "least_squares", "merge"]
BUDGET_BYTES = 512 * 2**20  # for a byte a pair, or nine where cosines are wanted too
MAX_ANGLES = 255
PARENTAL = ("add", "affine", "merge")  # steps that need to know who stands for whom
# The founding paper's grid, which its author published whole.
PAPER_ANGLES = (7.5, 10.0, 12.5, 15.0, 17.5)
PAPER_STDS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)


@dataclass(frozen=True)
class LayerView:
    """A linear layer within a network: what it gives, who reads it, and what comes after that."""

    train: Tensor  # (samples, units) training activations as the next layer receives them
    outputs: Tensor  # (images, units) the layer's outputs on the evaluated images
    bias: Tensor | None  # (units,) the layer's own
    between: nn.Sequential  # the elementwise modules between the two layers
    weight: Tensor  # (outputs, units) of the layer that reads the units
    offset: Tensor | None  # (outputs,) its bias
    rest: nn.Sequential  # from its output to the logits
    before: Tensor | None = (
        None  # (samples, units) the layer's training outputs; merging needs them
    )
    copies: int = 1  # the samples are so many views of the same images, view by view

    @torch.no_grad()
    def logits(self, answers: Tensor) -> Tensor:
        """Logits (images, classes), float32 on the CPU, for what the next layer gives."""
        with eval_mode(self.rest):
            return self.rest(answers.to(self.weight.dtype)).float().cpu()

    @torch.no_grad()
    def receive(self, outputs: Tensor) -> Tensor:
        """What the next layer receives (images, units) for outputs of the layer."""
        with eval_mode(self.between):
            # A copy, because a non-linearity may work in place.
            return self.between(outputs.clone())

    @torch.no_grad()
    def answer(self, activations: Tensor) -> Tensor:
        """What the next layer gives (images, outputs) for activations that it receives."""
        return nn.functional.linear(activations, self.weight, self.offset)


@dataclass(frozen=True)
class GridOptions:
    """The cells of a grid, and what is done in each; angles in degrees.

    A pair is similar below the angle and opposite above 180 less the angle. `compensation` is for
    `pairwise`; `published` changes the incoming weights and has none.
    """

    angles_deg: tuple[float, ...] = PAPER_ANGLES
    norm_stds: tuple[float, ...] = PAPER_STDS
    rule: GridRule = "pairwise"
    compensation: GridCompensation = "least_squares"

    def check(self) -> None:
        """Raise InputError on an empty or repeating list, a value out of range, unknown words."""
        for name, values in (("angles_deg", self.angles_deg), ("norm_stds", self.norm_stds)):
            if not values:
                raise InputError(f"{name}: expected at least one number, got none")
            if len(values) > MAX_ANGLES:
                raise InputError(f"{name}: expected at most {MAX_ANGLES}, got {len(values)}")
        check_numbers("norm_stds", self.norm_stds, LIMITS["norm_stds"])
        for word, value, known in (
            ("rule", self.rule, get_args(GridRule)),
            ("compensation", self.compensation, get_args(GridCompensation)),
        ):
            if value not in known:
                raise InputError(f"{word}: expected one of {', '.join(known)}, got {value!r}")
        least = "above 0" if self.rule == "published" else "at least 0"
        for angle in self.angles_deg:
            if angle not in LIMITS["angles_deg"] or (angle == 0 and self.rule == "published"):
                raise InputError(
                    f"angles_deg: expected degrees, {least} and below 90 (opposite units are those "
                    f"above 180 less the angle), got {shown(angle)}"
                )
        for name, values in (("angles_deg", self.angles_deg), ("norm_stds", self.norm_stds)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise InputError(f"{name}: {twice[0]:g} is given twice")


@dataclass(frozen=True)
class Cell:
    """One cell: which units went, and what the network then answers; None when all would go."""

    low_deg: float
    norm_std: float
    num_candidates: int
    alive: Tensor  # (units,) bool
    logits: Tensor | None  # (images, classes) float32 on the CPU
    ridge: float | None = None

    @property
    def num_removed(self) -> int:
        """Units that went; under `published`, the count that the paper reports."""
        return int((~self.alive).sum())


def view_layer(tail: nn.Sequential, path: str, train: Tensor, images: Tensor) -> LayerView:
    """Run training and evaluated inputs of `tail` through its linear layer `path`, once.

    `train` and `images` are inputs of the tail, for instance outputs of a frozen prefix. Raises
    InputError for an unknown layer, and unless it and the layer that reads it are steps of the
    tail, since what comes after must run by itself.
    """
    consumer = find_consumer(tail, path)
    names = [name for name, _ in tail.named_children()]
    if path not in names or consumer.path not in names:
        raise InputError(f"layer {path}: the network cannot be run from {consumer.path} on")
    at, last = names.index(path), names.index(consumer.path)
    layer = tail[at]
    assert isinstance(layer, nn.Linear)
    with eval_mode(tail), torch.no_grad():
        before = tail[: at + 1](train)
        # A copy, because a non-linearity may work in place.
        activations = consumer.after(before.clone())
        outputs = tail[: at + 1](images)
    weight, offset = parameters(consumer.layer)
    return LayerView(
        train=activations,
        outputs=outputs,
        bias=parameters(layer)[1],
        between=nn.Sequential(*consumer.between),
        weight=weight,
        offset=offset,
        rest=tail[last + 1 :],
        before=before,
    )


def grid_cells(
    view: LayerView,
    options: GridOptions,
    *,
    budget_bytes: int = BUDGET_BYTES,
    progress: Progress = SILENT,
) -> tuple[Cell, ...]:
    """Every cell of the grid, by norm threshold, then by angle, as the options list them.

    Each cell keeps exactly the units that `pairwise` or `published` keep at its thresholds. All
    pairs of the widest norm filter's candidates are decided once against all angles, a byte a
    pair; beyond `budget_bytes` each cell looks for its own, with the same result. Cells with the
    same survivors share their refit. Raises InputError on bad options and as the rules do.

    >>> steps = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)]
    >>> view = view_layer(nn.Sequential(*steps), "0", torch.rand(20, 8), torch.rand(5, 8))
    >>> cells = grid_cells(view, GridOptions(angles_deg=(5.0, 15.0), norm_stds=(0.0, 1.0)))
    >>> [(cell.norm_std, cell.low_deg) for cell in cells]
    [(0.0, 5.0), (0.0, 15.0), (1.0, 5.0), (1.0, 15.0)]
    """
    options.check()
    merges = options.rule == "pairwise" and options.compensation == "merge"
    if merges and view.before is None:
        raise InputError("compensation: merge needs what the layer gives on the training samples")
    with one_thread(), torch.no_grad():
        return _cells(view, options, budget_bytes, progress)


def _cells(
    view: LayerView, options: GridOptions, budget_bytes: int, progress: Progress
) -> tuple[Cell, ...]:
    source = directions(view.train)
    angles = tuple(sorted(options.angles_deg))
    wants_parents = options.rule == "pairwise" and options.compensation in PARENTAL
    widest = candidates(
        source,
        _eligible(source, options.rule),
        angles,
        min(options.norm_stds),
        with_cosine=wants_parents,
        budget_bytes=budget_bytes,
    )
    published = _Published(view) if options.rule == "published" else None
    cuts: dict[tuple[float, float], Cut] = {}
    found: dict[tuple[float, float], tuple[Tensor | None, float | None]] = {}
    with progress.task("survivors", len(options.norm_stds) * len(angles)) as advance:
        for std in options.norm_stds:
            mine = widest.narrowed(std)
            for k, angle in enumerate(angles):
                if published is None:
                    cuts[std, angle] = mine.pairwise(k, parents=wants_parents)
                else:
                    cuts[std, angle], logits = published.cut(mine, k)
                    found[std, angle] = logits, None
                advance(1)
    if published is None:
        with progress.task("refits", len(cuts)) as advance:
            found = _answers(view, source, options.compensation, cuts, advance)
    return tuple(
        Cell(
            angle, std, cuts[std, angle].num_candidates, cuts[std, angle].alive, *found[std, angle]
        )
        for std in options.norm_stds
        for angle in options.angles_deg
    )


def _eligible(source: Directions, rule: GridRule) -> Tensor:
    """(units,) bool: units that the rule looks at, before the norm filter."""
    if rule == "pairwise":
        return source.live
    # The program divides zero by zero when all activations are the same: nothing is a candidate.
    same = (source.activations == source.activations[0, 0]).all()
    return (~same).expand(source.num_units)


class _Published:
    """The published rule on the layer's outputs, which are linear in the weights it changes."""

    def __init__(self, view: LayerView) -> None:
        self._view = view
        self._bias = 0.0 if view.bias is None else view.bias.double()[:, None]
        sums = view.outputs.double().T - self._bias  # (units, images)
        self._sums = sums.cpu().numpy()
        self._logits = view.logits(view.answer(view.receive(view.outputs)))

    def cut(self, mine: Candidates, k: int) -> tuple[Cut, Tensor]:
        sums, removed, changed = add_rows(self._sums, mine.pairs(k))
        device = mine.chosen.device
        cut = Cut(int(mine.chosen.sum()), torch.from_numpy(~removed).to(device))
        if not changed.any():
            return cut, self._logits
        view = self._view
        outputs = (torch.from_numpy(sums).to(device) + self._bias).T.to(view.outputs.dtype)
        return cut, view.logits(view.answer(view.receive(outputs)))


def _answers(
    view: LayerView,
    source: Directions,
    step: GridCompensation,
    cuts: dict[tuple[float, float], Cut],
    advance: Callable[[int], None],
) -> dict[tuple[float, float], tuple[Tensor | None, float | None]]:
    """Logits and ridge of each cell; those of equal survivors and parents are computed once."""
    received = view.receive(view.outputs)
    # A cut without a selection has no live unit.
    place = {
        id(cut): groups(cut.selection)
        for cut in cuts.values()
        if step == "merge" and cut.selection is not None
    }
    shared = None
    if step in ("least_squares", "merge"):
        kept = torch.stack([cut.alive for cut in cuts.values()]).all(0)
        for one in place.values():
            kept &= ~_in_groups(one)
        shared = share(view.train, received, view.weight, view.answer(received), kept)
    known: dict[bytes, tuple[Tensor | None, float | None]] = {}
    found: dict[tuple[float, float], tuple[Tensor | None, float | None]] = {}
    for spot, cut in cuts.items():
        key = cut.alive.cpu().numpy().tobytes()
        if cut.selection is not None:
            # A parent is a candidate: equal survivors may stand for others under another filter.
            key += cut.selection.parent.cpu().numpy().tobytes()
        if key not in known:
            if not bool(cut.alive.any()):
                known[key] = None, None
            elif shared is not None:
                mine = place.get(id(cut))
                merged = None if mine is None else _merged(view, cut.alive, mine)
                answers, ridge = shared.refit(cut.alive, merged, copies=view.copies)
                known[key] = view.logits(answers), ridge
            else:
                known[key] = view.logits(_compensated(view, source, step, received, cut)), None
        found[spot] = known[key]
        advance(1)
    return found


def _in_groups(place: Tensor) -> Tensor:
    """(units,) bool: units that share their `place` (units,) int64 with others."""
    sizes = torch.bincount(place[place >= 0], minlength=int(place.max()) + 1)
    return (place >= 0) & (sizes[place] > 1)


def _merged(view: LayerView, alive: Tensor, place: Tensor) -> Merged:
    """The groups of two or more of a cut; `place` as `merging.groups` gives it."""
    assert view.before is not None
    members = _in_groups(place)
    roots = (members & alive).nonzero().flatten()
    where = torch.full_like(place, -1)
    where[place[roots]] = torch.arange(len(roots), device=place.device)
    inside = members.nonzero().flatten()
    group = where[place[inside]]

    def sums(rows: Tensor) -> Tensor:
        total = rows.new_zeros((len(roots), rows.shape[1]), dtype=torch.float64)
        return total.index_add_(0, group, rows[inside].double())

    sizes = torch.bincount(group, minlength=len(roots))[:, None]

    def receive(outputs: Tensor) -> Tensor:
        return view.receive((sums(outputs.T) / sizes).T.to(outputs.dtype)).T.double()

    return Merged(members, receive(view.before), receive(view.outputs), sums(view.weight.T))


def _compensated(
    view: LayerView, source: Directions, step: GridCompensation, received: Tensor, cut: Cut
) -> Tensor:
    selection = cut.selection
    if selection is None:
        nobody = torch.full_like(cut.alive, -1, dtype=torch.int64)
        selection = make_selection("pairwise", source, cut.alive, nobody)
    new = compensate(step, view.train, view.weight, view.offset, selection, copies=view.copies)
    return nn.functional.linear(received[:, selection.survivors], new.weight, new.bias)
