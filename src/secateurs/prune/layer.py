"""A layer pruned from end to end: activations, selection, compensation, removal, parity."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.compensation.merging import Incoming, merge
from secateurs.prune.compensation.outgoing_weights import Outgoing, add, affine, drop, least_squares
from secateurs.prune.ledger import Ledger, ledger
from secateurs.prune.selection.pairwise import Selection
from secateurs.prune.selection.rules import SelectOptions, exactly, select
from secateurs.prune.similarity.angles import AngleHistogram, angle_histogram
from secateurs.prune.statistics.activations import collect
from secateurs.prune.statistics.gradients import loss_gradients
from secateurs.prune.surgery.parity import PARITY_LIMIT
from secateurs.prune.surgery.removal import find_consumer, parity, remove_units

Compensation = Literal["drop", "add", "affine", "least_squares", "merge"]
REFITTED = ("least_squares", "merge")  # steps that fit a target
Run = Callable[[nn.Module, Tensor], Tensor]
PARITY_INPUTS = 32  # inputs on which removing is compared with zeroing


@dataclass(frozen=True)
class PruneOptions(SelectOptions):
    """How a layer is pruned: the selection's options, and what is done with the survivors."""

    compensation: Compensation = "least_squares"
    batch_size: int = 256  # inputs sent through the network at a time
    copies: int = 1  # the inputs are so many views of the same images, view by view
    # Removed against zeroed in float64, and the histogram: a search wants them of its result only.
    check_parity: bool = True

    def check(self) -> None:
        """Raise InputError on an unknown word, and as the selection's options do."""
        super().check()
        if self.compensation not in get_args(Compensation):
            raise InputError(
                f"compensation: expected one of {', '.join(get_args(Compensation))}, "
                f"got {self.compensation!r}"
            )


@dataclass(frozen=True)
class PrunedLayer:
    """One layer cut: the new model and, as plain tensors, what to do to another copy of it."""

    model: nn.Module  # new; shares nothing with the model given
    path: str
    consumer_path: str
    selection: Selection
    outgoing: Outgoing  # new weight and bias of the consumer, for `remove_units`
    incoming: Incoming | None  # of the layer itself, where units were merged
    # Largest difference of logits between removed and zeroed, not compensated; None: unchecked.
    parity: float | None
    # Of angles as the rule compares them; None where a search only looks, as for `parity`.
    histogram: AngleHistogram | None
    ledger: Ledger
    seconds: float


def prune_layer(
    model: nn.Module,
    path: str,
    inputs: Tensor | Iterable[Tensor],
    *,
    options: PruneOptions | None = None,
    run: Run | None = None,
    reference: nn.Module | None = None,
    labels: Tensor | None = None,
    progress: Progress = SILENT,
) -> PrunedLayer:
    """Remove units of the linear layer at `path` and compensate in the layer that reads them.

    `model` may be a whole network or the tail behind a frozen part; `inputs` are the training
    inputs of `model`, one tensor or batches, and `run(model, batch)` gives logits (default: the
    model called). With a `reference`, the consumer is refitted to what that network's layer at the
    same path gives instead of to `model`'s own; least squares and merging only. Rule `taylor` needs
    the `labels` (samples,) of the inputs. The model given is not
    changed. Raises InputError for unknown layers and options, and when no unit would survive.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> cut = prune_layer(model, "0", torch.rand(20, 8), options=PruneOptions(low_deg=20))
    >>> cut.model[0].out_features == len(cut.selection.survivors), cut.parity < 1e-5
    (True, True)
    """
    started = time.perf_counter()
    options = options or PruneOptions()
    options.check()
    run = run or call
    consumer = find_consumer(model, path)
    if reference is not None and options.compensation not in REFITTED:
        raise InputError(
            "reference: only least_squares and merge fit another network, "
            f"got compensation {options.compensation}"
        )
    batches = split(inputs, options.batch_size)
    with progress.task(f"prune {path}", 4) as step:
        before = _activations(model, run, model.get_submodule(path), batches, None)
        with eval_mode(model):
            activations = consumer.after(before)
        target = None
        if reference is not None:
            other = reference.get_submodule(consumer.path)
            target = _activations(reference, run, other, batches, None)
        step(1)
        outgoing_weight, outgoing_bias = parameters(consumer.layer)
        layer = model.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        own = Incoming(*parameters(layer))
        gradients = None
        if options.rule == "taylor" and labels is not None:
            gradients = loss_gradients(
                lambda batch: run(model, batch), model, consumer.layer, batches, labels
            )
        selection = exactly(
            activations,
            options,
            lambda: select(activations, own.weight, outgoing_weight, options, gradients=gradients),
        )
        step(1)
        incoming = None
        if options.compensation == "merge":
            with eval_mode(model):
                incoming, outgoing = merge(
                    before,
                    consumer.after,
                    own,
                    outgoing_weight,
                    outgoing_bias,
                    selection,
                    target=target,
                    copies=options.copies,
                )
        else:
            outgoing = compensate(
                options.compensation,
                activations,
                outgoing_weight,
                outgoing_bias,
                selection,
                target=target,
                copies=options.copies,
            )
        pruned = _remove(model, path, selection, outgoing, incoming)
        step(1)
        difference = None
        if options.check_parity:
            few = batches[0][:PARITY_INPUTS]
            difference = parity(model, path, selection.survivors, few, run=run)
            assert difference <= PARITY_LIMIT, f"{path}: removed and zeroed differ: {difference}"
        histogram = None
        if options.check_parity:
            histogram = angle_histogram(activations, normalise=options.compared)
        step(1)
    return PrunedLayer(
        model=pruned,
        path=path,
        consumer_path=consumer.path,
        selection=selection,
        outgoing=outgoing,
        incoming=incoming,
        parity=difference,
        histogram=histogram,
        ledger=ledger(path, selection, options.compensation),
        seconds=time.perf_counter() - started,
    )


def prune_layers(
    model: nn.Module,
    paths: Sequence[str],
    inputs: Tensor | Iterable[Tensor],
    *,
    options: PruneOptions | Sequence[PruneOptions] | None = None,
    run: Run | None = None,
    labels: Tensor | None = None,
    progress: Progress = SILENT,
) -> tuple[PrunedLayer, ...]:
    """Prune layers one after the other; the last result holds the model with all of them cut.

    Each is measured on the network as already pruned; least squares and merging fit it to the
    outputs of the network given. `options` are one record for all or one a layer. Paths are in the
    order in which the layers run. Raises as `prune_layer` does, before anything is cut, and when a
    layer is named twice or none is.

    >>> import torch
    >>> steps = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)]
    >>> cuts = prune_layers(nn.Sequential(*steps), ["0", "2"], torch.rand(20, 8))
    >>> [cut.path for cut in cuts]
    ['0', '2']
    """
    if not paths or len(set(paths)) != len(paths):
        raise InputError(f"layers: expected one or more, each once, got {list(paths)}")
    each = (
        [options or PruneOptions()] * len(paths) if not isinstance(options, Sequence) else options
    )
    if len(each) != len(paths):
        raise InputError(f"options: expected one or {len(paths)}, one a layer, got {len(each)}")
    for path, own in zip(paths, each, strict=True):
        find_consumer(model, path)
        own.check()
    batches = split(inputs, each[0].batch_size)
    cuts: list[PrunedLayer] = []
    for path, own in zip(paths, each, strict=True):
        fit_reference = own.compensation in REFITTED
        cut = prune_layer(
            cuts[-1].model if cuts else model,
            path,
            batches,
            options=own,
            run=run,
            reference=model if cuts and fit_reference else None,
            labels=labels,
            progress=progress,
        )
        cuts.append(cut)
    return tuple(cuts)


def apply_cut(model: nn.Module, path: str, cut: PrunedLayer) -> nn.Module:
    """Cut another copy of the same layers, for instance the whole network of a pruned tail.

    Returns a new model. Raises as `remove_units` does.
    """
    return _remove(model, path, cut.selection, cut.outgoing, cut.incoming)


def _remove(
    model: nn.Module,
    path: str,
    selection: Selection,
    outgoing: Outgoing,
    incoming: Incoming | None,
) -> nn.Module:
    return remove_units(
        model,
        path,
        selection.survivors,
        weight=outgoing.weight,
        bias=outgoing.bias,
        incoming_weight=None if incoming is None else incoming.weight,
        incoming_bias=None if incoming is None else incoming.bias,
    )


def compensate(
    step: Compensation,
    activations: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    selection: Selection,
    *,
    target: Tensor | None = None,
    copies: int = 1,
) -> Outgoing:
    """Apply a step that leaves the incoming weights alone; the options are for least squares."""
    if step == "least_squares":
        return least_squares(activations, weight, bias, selection, target=target, copies=copies)
    assert step != "merge"
    plain = {"drop": drop, "add": add, "affine": affine}[step]
    return plain(activations, weight, bias, selection)


def parameters(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer, detached."""
    bias = dict(layer.named_parameters()).get("bias")
    return layer.weight.detach(), None if bias is None else bias.detach()


def call(model: nn.Module, batch: Tensor) -> Tensor:
    """Logits of a model that takes the batch as it is."""
    return model(batch)


def split(inputs: Tensor | Iterable[Tensor], batch_size: int) -> list[Tensor]:
    """Batches of inputs; raises InputError when there is none."""
    batches = list(inputs.split(batch_size)) if isinstance(inputs, Tensor) else list(inputs)
    if not batches or not any(len(batch) for batch in batches):
        raise InputError("inputs: no training input to measure activations on")
    return batches


def _activations(
    model: nn.Module,
    run: Run,
    layer: nn.Module,
    batches: Sequence[Tensor],
    after: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    return collect(lambda batch: run(model, batch), layer, batches, after=after, model=model)
