"""The training loop: cross-entropy and Adam over a tail, stoppable, resumable, reproducible."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from secateurs.data.views import counter_uniforms
from secateurs.errors import InputError
from secateurs.fit.config import FitConfig, distillation_loss, learning_rate
from secateurs.fit.inputs import Inputs
from secateurs.fit.metrics import predict_logits
from secateurs.fit.precision import arithmetic
from secateurs.fit.recipe import (
    Average,
    Mix,
    balanced_weights,
    draw_mix,
    fix_norms,
    parameter_groups,
    pull_back,
    rate_shares,
)
from secateurs.fit.state import TrainState, adam_state, load_adam, load_state, save_state
from secateurs.nets.strided import safe_strides
from secateurs.stopping import StopFlag, StopRequested

AUTOSAVE_S = 60.0

Outcome = Literal["completed", "patience", "diverged"]


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve; `epoch` from 0, losses in nats, accuracies in 0..1."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Fit:
    """A finished training: its curve and the state at the epoch kept, the best or the last.

    `best_epoch` is the epoch kept, from 0; -1, and `best` the initial state, when not one epoch
    ended with a finite loss. `stopped` says why it ended; `message` is empty unless something went
    wrong.
    """

    curve: tuple[Epoch, ...]
    best_epoch: int
    best: dict[str, Tensor]
    stopped: Outcome
    message: str


def epoch_order(num: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `num` images in an epoch, a pure function of (seed, epoch)."""
    draws = counter_uniforms(seed, epoch, np.arange(num, dtype=np.uint64), 1)[:, 0]
    return np.argsort(draws, kind="stable")


def changing_state(tail: nn.Module) -> dict[str, Tensor]:
    """The tensors that training may change: trained parameters and buffers, by name."""
    trained = {name: p.detach() for name, p in tail.named_parameters() if p.requires_grad}
    return trained | dict(tail.named_buffers())


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def restore(tail: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a saved state into the tail, in place; names and shapes must agree."""
    current = changing_state(tail)
    if current.keys() != state.keys():
        odd = sorted(current.keys() ^ state.keys())
        raise InputError(f"the saved state is of another network: it differs in {', '.join(odd)}")
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(state[name])


def switch_off_dropout(tail: nn.Module) -> None:
    """Put every dropout layer of the tail into eval mode."""
    for part in tail.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):  # pyright: ignore[reportPrivateUsage]
            part.eval()


def _step_seed(seed: int, epoch: int, step: int) -> int:
    draw = counter_uniforms(seed, epoch, np.array([2**40 + step], dtype=np.uint64), 1)
    return int(draw[0, 0] * 2**53)


@dataclass
class _Sums:
    # Running sums of an epoch, on the device: reading them at every step would stall a GPU.
    loss: Tensor
    correct: Tensor
    num: int = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += loss.detach().double() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.num += len(labels)


def _better(row: Epoch, best: Epoch | None) -> bool:
    if best is None:
        return True
    return (row.val_accuracy, -row.val_loss) > (best.val_accuracy, -best.val_loss)


class _Run:
    """One training under way: what a saved state must hold, and how it is carried on."""

    def __init__(
        self,
        tail: nn.Module,
        inputs: Inputs,
        config: FitConfig,
        *,
        steps_per_epoch: int,
        rests_on: str,
    ) -> None:
        self.rests_on = rests_on
        self.tail, self.inputs, self.config = tail, inputs, config
        self.steps_per_epoch = steps_per_epoch
        self.labels = torch.from_numpy(inputs.images.labels).to(inputs.device)
        self.trained = {n: p for n, p in tail.named_parameters() if p.requires_grad}
        recipe = config.recipe
        self.optimizer = torch.optim.Adam(
            parameter_groups(tail, lr=config.lr, layer_decay=recipe.layer_decay),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.start = [p.detach().clone() for p in self.trained.values()] if recipe.l2_sp else []
        self.rate_shares = list(rate_shares(tail, recipe.layer_decay).values())
        self.average = Average(changing_state(tail), recipe.average) if recipe.average else None
        self.class_weights: Tensor | None = None
        self.curve: list[Epoch] = []
        self.best_row: Epoch | None = None
        self.best = _copy(changing_state(tail))
        self.epoch, self.step = 0, 0
        self.sums = self._no_sums()
        self.saved_at = time.monotonic()

    def _no_sums(self) -> _Sums:
        device = self.inputs.device
        return _Sums(
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.int64, device=device),
        )

    def _identity(self) -> dict[str, Any]:
        more = {"rests_on": self.rests_on} if self.rests_on else {}
        return self.config.identity() | more

    def resume(self, path: Path) -> None:
        state = load_state(path, self._identity(), discard=bool(self.rests_on))
        if state is None:
            return
        restore(self.tail, state.current)
        load_adam(self.optimizer, self.trained, state.adam)
        self.best = {name: t.to(self.inputs.device) for name, t in state.best.items()}
        if self.average is not None:
            self.average.state = {n: t.to(self.inputs.device) for n, t in state.average.items()}
        self.curve = [Epoch(**row) for row in state.curve]
        self.best_row = None if state.best_epoch < 0 else self.curve[state.best_epoch]
        self.epoch, self.step = state.epoch, state.step
        self.sums.loss += state.sums[0]
        self.sums.correct += state.sums[1]
        self.sums.num = state.sums[2]

    def save(self, path: Path) -> None:
        state = TrainState(
            epoch=self.epoch,
            step=self.step,
            curve=[asdict(row) for row in self.curve],
            best_epoch=-1 if self.best_row is None else self.best_row.epoch,
            sums=(float(self.sums.loss), int(self.sums.correct), self.sums.num),
            current=changing_state(self.tail),
            best=self.best,
            adam=adam_state(self.optimizer, self.trained),
            average={} if self.average is None else self.average.state,
        )
        save_state(path, state, self._identity())
        self.saved_at = time.monotonic()

    def train_step(self, rows: NDArray[np.int64]) -> None:
        config, device = self.config, self.inputs.device
        done = (self.epoch + self.step / self.steps_per_epoch) / config.epochs
        rate = learning_rate(config, progress=done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        target = self.labels[torch.from_numpy(rows).to(device, non_blocking=True)]
        batch = self.inputs.batch(self.epoch, rows)
        seed = _step_seed(config.seed, self.epoch, self.step)
        mix: Mix | None = None
        if config.recipe.mixup:
            mix = draw_mix(len(rows), config.recipe.mixup, seed=seed, device=device)
            batch = mix.inputs(batch)
        with safe_strides(self.tail):
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                with arithmetic(config.precision, device):
                    logits = self.tail(batch)
            logits = logits.float()
            loss = self._label_loss(logits, target, mix)
            if config.distil:
                teacher_logits = self.inputs.teacher_logits(self.epoch, rows)
                if mix is not None:
                    teacher_logits = mix.inputs(teacher_logits)
                soft = distillation_loss(logits, teacher_logits, temperature=config.temperature)
                loss = (1 - config.distil) * loss + config.distil * soft
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        if config.recipe.l2_sp:
            shares = [min(1.0, rate * share * config.recipe.l2_sp) for share in self.rate_shares]
            pull_back(self.trained.values(), self.start, shares)
        if self.average is not None:
            steps = self.epoch * self.steps_per_epoch + self.step
            self.average.add(changing_state(self.tail), steps)
        self.sums.add(loss, logits, target)
        self.step += 1

    def _label_loss(self, logits: Tensor, target: Tensor, mix: Mix | None) -> Tensor:
        """Cross-entropy with the labels, and with those of the partners where inputs are mixed."""
        own = self._cross_entropy(logits, target)
        if mix is None:
            return own
        other = self._cross_entropy(logits, target[mix.partners])
        return mix.share * own + (1 - mix.share) * other

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing
        if self.config.recipe.class_weights == "none":
            return functional.cross_entropy(logits, target, label_smoothing=smoothing)
        if self.class_weights is None:
            self.class_weights = balanced_weights(self.labels, logits.shape[1])
        # Not the weighted mean of the batch, in which a class would count by what is beside it.
        each = functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
        return (each * self.class_weights[target]).mean()

    def finish_epoch(self, val_labels: Tensor) -> Epoch | None:
        """Validate and move on to the next epoch; None when a loss was not finite."""
        current = None if self.average is None else _copy(changing_state(self.tail))
        if self.average is not None:
            restore(self.tail, self.average.state)
        logits = predict_logits(self.tail, self.inputs.val)
        row = Epoch(
            self.epoch,
            float(self.sums.loss) / self.sums.num,
            int(self.sums.correct) / self.sums.num,
            float(functional.cross_entropy(logits.double(), val_labels)),
            float((logits.argmax(1) == val_labels).double().mean()),
        )
        if not (math.isfinite(row.train_loss) and math.isfinite(row.val_loss)):
            return None
        self.curve.append(row)
        if self.config.keep == "last" or _better(row, self.best_row):
            self.best_row, self.best = row, _copy(changing_state(self.tail))
        if current is not None:
            restore(self.tail, current)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, self._no_sums()
        return row

    def out_of_patience(self) -> bool:
        if self.config.patience is None or self.best_row is None:
            return False
        return self.epoch - 1 - self.best_row.epoch >= self.config.patience

    def result(self, stopped: Outcome, message: str = "") -> Fit:
        restore(self.tail, self.best)
        best_epoch = -1 if self.best_row is None else self.best_row.epoch
        return Fit(tuple(self.curve), best_epoch, self.best, stopped, message)


def fit(
    tail: nn.Module,
    inputs: Inputs,
    val_labels: NDArray[np.int64],
    config: FitConfig,
    *,
    train_mode: Callable[[], None],
    state_file: Path | None = None,
    rests_on: str = "",
    stop: StopFlag | None = None,
    on_start: Callable[[int], None] = lambda num_done: None,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
) -> Fit:
    """Train the parameters of `tail` that require a gradient, in place; leave it at its best.

    `train_mode` puts the network into training mode, frozen parts excepted. The best epoch has
    the highest validation accuracy, the lower validation loss among equals; with `keep` "last" it
    is the last one whose losses are finite. Every number is a
    function of the configuration and the inputs: a run that was stopped (`stop`, looked at after
    each step) and called again with the same `state_file` gives what an unstopped run gives.
    `rests_on` names all else that decides the numbers, where the file's own name does not: a state
    that rests on something else is discarded.
    `on_start` gets the number of epochs done already, `on_epoch` each one that ends.
    Raises StopRequested after saving, and InputError for a batch larger than the training set or
    a state file of another run; a damaged one is removed, and training starts again.
    """
    num = len(inputs.images)
    batch_size = num if config.batch_size is None else config.batch_size
    if batch_size > num:
        raise InputError(
            f"batch size {batch_size} is larger than the {num} training images: "
            "use a smaller one, or full"
        )
    run = _Run(tail, inputs, config, steps_per_epoch=math.ceil(num / batch_size), rests_on=rests_on)
    if state_file is not None:
        run.resume(state_file)
    on_start(run.epoch)
    true_val = torch.from_numpy(np.asarray(val_labels, dtype=np.int64))
    while run.epoch < config.epochs:
        train_mode()
        if config.recipe.norms == "fixed":
            fix_norms(tail)
        if config.dropout == "off" or (config.dropout == "first-epoch" and run.epoch > 0):
            switch_off_dropout(tail)
        order = epoch_order(num, seed=config.seed, epoch=run.epoch)
        while run.step * batch_size < num:
            run.train_step(order[run.step * batch_size : (run.step + 1) * batch_size])
            if stop is not None and stop.requested:
                if state_file is not None:
                    run.save(state_file)
                raise StopRequested
        row = run.finish_epoch(true_val)
        if row is None:
            message = (
                f"the loss was not finite in epoch {run.epoch + 1} at learning rate {config.lr:g}: "
                "the last good state is kept; try a smaller learning rate"
            )
            return run.result("diverged", message)
        on_epoch(row)
        if run.out_of_patience():
            return run.result("patience")
        if state_file is not None and time.monotonic() - run.saved_at > AUTOSAVE_S:
            run.save(state_file)
    return run.result("completed")
