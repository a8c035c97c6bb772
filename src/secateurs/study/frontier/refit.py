"""The recommended network trained once more, on the training and validation images together.

Everything is chosen by then, so that the validation images have no other use any more. The test
images are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateurs.fit.cache import PrefixCache
from secateurs.fit.images import Images
from secateurs.fit.probe.head import start_head
from secateurs.fit.probe.probing import fit_head
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import Loaded, load
from secateurs.stopping import StopFlag
from secateurs.study.pruning.recovery import RecoveryOptions, recover
from secateurs.study.setup.seen_images import REFIT
from secateurs.study.setup.trial_context import Dataset, TrialContext
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, train_trial, trial_key

Record = dict[str, Any]


@dataclass(frozen=True)
class Refit:
    """How the network of a point is trained again.

    `row` is the point's, `teacher` the folder of the network that it was pruned from, if it was.
    """

    row: Record
    teacher: Path
    recovery: RecoveryOptions
    store: Store
    kept: PrefixCache
    stop: StopFlag
    progress: Progress = SILENT

    def run(self, network: Loaded, context: TrialContext) -> tuple[Loaded, Record]:
        """The network trained on both sides, with what is kept of that; as it was if that fails.

        A frozen network gets the classifier of both sides; a fine-tuned one is trained from the
        start, in the same way and from that classifier, to the end of its learning rates; a pruned
        one recovers once more, taught by the unpruned one. Each keeps its last epoch. Raises
        StopRequested when asked to stop.
        """
        both = replace(context, dataset=joined(context.dataset))
        how = {"probe": self._head, "fine-tuned": self._trained, "pruned": self._recovered}
        model, reason = how[self.row["kind"]](network, both)
        record: Record = {
            "num_train": len(context.dataset.sides["train"]),
            "num_val": len(context.dataset.sides["val"]),
            "reason": reason,
        }
        if model is None:
            self.progress.note(f"not trained on the validation images: {reason}")
            return network, record
        spec = network.spec
        return Loaded(model.cpu(), replace(spec, extra={**spec.extra, REFIT: "all"})), record

    def _head(self, network: Loaded, both: TrialContext) -> tuple[nn.Module | None, str | None]:
        name = both.config.backbone
        started = self._context(both)
        if started.head is None:
            return None, f"{name} has no linear classifier as its last layer"
        return start_head(network.model, name, started.head), None

    def _context(self, both: TrialContext) -> TrialContext:
        """The context whose networks start with the classifier of both sides."""
        head = fit_head(
            replace(both, head=None).new_model(seed=both.config.seed, pretrained=True),
            both.config.backbone,
            both.dataset.sides["train"],
            num_classes=len(both.dataset.classes),
            groups=both.dataset.side_groups("train"),
            device=both.device,
            precision=both.precision,
            stop=self.stop,
            progress=self.progress,
        )
        return replace(both, head=head)

    def _trained(self, network: Loaded, both: TrialContext) -> tuple[nn.Module | None, str | None]:
        config = replace(both.config, keep_epoch="last", patience=None)
        context = self._context(replace(both, config=config, depths=(self.row["depth"],)))
        trial = Trial(self.row["depth"], self.row["run"])
        state = self.store.state(trial_key(context, trial))
        record, model = train_trial(
            context,
            trial,
            SharedInputs(self.kept, progress=self.progress),
            state_file=state,
            stop=self.stop,
            progress=self.progress,
        )
        state.unlink(missing_ok=True)
        return (None, record["message"]) if record["stopped"] == "diverged" else (model, None)

    def _recovered(
        self, network: Loaded, both: TrialContext
    ) -> tuple[nn.Module | None, str | None]:
        if not self.recovery.epochs:
            return None, "a pruned network without recovery is not trained"
        state = self.store.root / "stages" / "refit.recovery.state.safetensors"
        found = recover(
            network.model.to(both.device),
            load(self.teacher).model.to(both.device),
            both.dataset,
            both.config,
            self.recovery,
            device=both.device,
            keep="last",
            state_file=state,
            rests_on=self.row["tensors"],
            stop=self.stop,
            progress=self.progress,
        )
        state.unlink(missing_ok=True)
        failed = found.fit.stopped == "diverged"
        return (None, found.fit.message) if failed else (found.model, None)


def joined(dataset: Dataset) -> Dataset:
    """The dataset with its validation images among the training images, and on their own side too.

    The order is that of the folder, as on every side.
    """
    split, sides = dataset.split, dataset.sides
    rows = np.concatenate([split.train, split.val])
    order = np.argsort(rows, kind="stable")
    train = _joined(sides["train"], sides["val"]).take(order)
    return replace(
        dataset, split=replace(split, train=rows[order]), sides={**sides, "train": train}
    )


def _joined(one: Images, other: Images) -> Images:
    names = ("pixels", "eval_pixels", "ids", "sizes", "labels")
    parts = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names}
    return replace(one, **parts)
