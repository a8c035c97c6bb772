"""The sizes along a whole network's path, computed one after the other while they are looked at."""

from __future__ import annotations

import base64
import io
import shlex
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from secateurs.data.images.decode import decode
from secateurs.data.views import normalise
from secateurs.errors import InputError
from secateurs.files import atomic_folder, write_json
from secateurs.fit.metrics import evaluate
from secateurs.fit.precision import resolve_device
from secateurs.progress import SILENT, Progress
from secateurs.prune.to_budget import Budget
from secateurs.ship.checkpoint import TENSORS_NAME, Loaded, save
from secateurs.ship.cost import cost
from secateurs.ship.latency import compare_latency, spread
from secateurs.ship.spec import describe
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.pruning.network import SurveyedNetwork, survey_whole
from secateurs.study.saved.confidence import without_confidence
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.location import Location
from secateurs.study.saved.opened import own_config, saved_dataset, unpruned_model
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, settle_split

# Shares of the multiply-accumulates, in the order in which they are computed: a rough path first.
SHARES = (0.5, 0.25, 0.75, 0.35, 0.15, 0.6, 0.9, 0.42, 0.2, 0.3, 0.68, 0.82, 0.1)
CALIBRATION = 128  # training images, half of a study's: what is looked at should come soon
LATENCY_S = 1.0
TOP = 5  # answers to a picture
WAITING, RUNNING, READY, FAILED = "waiting", "running", "ready", "failed"
Record = dict[str, Any]


@dataclass
class _Position:
    """A share of the multiply-accumulates, and what is known of the network there."""

    share: float
    state: str = WAITING
    row: Record = field(default_factory=dict[str, Any])
    model: nn.Module | None = None
    kept: dict[str, list[int]] = field(default_factory=dict[str, list[int]])


class Steps:
    """Progress that keeps where it is, and stops the work at its next step when asked to."""

    def __init__(self, stop: StopFlag) -> None:
        self._stop = stop
        self.now: list[str] = []  # the open tasks, each with its steps

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Check at every step."""
        at, place = done, len(self.now)

        def advance(steps: int) -> None:
            nonlocal at
            self._stop.check()
            at += steps
            self.now[place:] = [f"{name}, {at} of {total}"]

        self._stop.check()
        self.now.append(f"{name}, {at} of {total}")
        try:
            yield advance
        finally:
            del self.now[place:]

    def note(self, text: str) -> None:
        """Show nothing."""


class SizePath:
    """An unpruned network and its sizes; `work` computes them, other threads read what is there."""

    def __init__(
        self,
        place: Location,
        loaded: Loaded,
        config: StudyConfig,
        dataset: Dataset,
        *,
        shares: Sequence[float] = SHARES,
    ) -> None:
        self.place, self.loaded, self.config, self.dataset = place, loaded, config, dataset
        self.device = resolve_device(config.device)
        self.stop = StopFlag()
        self.failure = ""
        self._positions = [_Position(1.0), *(_Position(share) for share in shares)]
        self._lock = threading.Lock()
        self._steps = Steps(self.stop)
        self._header = _header_bytes(place.model, loaded.model)
        whole = self._positions[0]
        whole.model = loaded.model.to(self.device).eval()
        self.labels = torch.from_numpy(dataset.sides["val"].labels)
        self.logits = side_logits(whole.model, dataset, "val", self.device)
        self._view = dataset.sides["val"].eval_views(slice(0, 1), self.device)
        whole.row, whole.state = self._measured(whole.model, self.logits), READY

    def work(self) -> None:
        """Compute every size, until it is done or `stop` is requested; failures are kept as text.

        Sizes come without recovery: that is training, and takes minutes each.
        """
        try:
            network = self._surveyed()
            for position in self._positions[1:]:
                self.stop.check()
                self._compute(position, network)
        except StopRequested:
            return
        except InputError as error:
            self.failure = str(error)

    def state(self) -> Record:
        """What is known by now, as plain data, the largest size first."""
        with self._lock:
            rows: list[Record] = [
                {"share": one.share, "state": one.state, **one.row} for one in self._positions
            ]
        return {
            "positions": sorted(rows, key=lambda row: -row["share"]),
            "num_ready": sum(row["state"] == READY for row in rows),
            "done": bool(self.failure) or all(row["state"] in (READY, FAILED) for row in rows),
            "failure": self.failure,
            "step": next(reversed(self._steps.now), ""),
        }

    def answers(self, view: torch.Tensor, share: float) -> Record:
        """What the unpruned network and that at a share answer to a view (1, 3, size, size)."""
        before = self._best(self._ready(1.0), view)
        after = self._best(self._ready(share), view)
        agree = before[0]["label"] == after[0]["label"]
        return {"before": before, "after": after, "agree": agree}

    def view_of(self, path: Path, *, max_pixels: int) -> tuple[torch.Tensor, str]:
        """An image file as the networks' input, and as a `data:` address.

        Raises DecodeError for a file that cannot be used.
        """
        wanted = self.loaded.spec.preprocessing
        pixels: NDArray[np.uint8] = wanted.pixels(decode(path, max_pixels=max_pixels))
        batch = normalise(torch.from_numpy(pixels[None].copy()), mean=wanted.mean, std=wanted.std)
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, format="JPEG", quality=90)
        address = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
        return batch.to(self.device), address

    def save(self, share: float, out: Path) -> Record:
        """Save the network at a share in `out`, whole or not at all, with the record pruning.json.

        Raises InputError when `out` holds anything, and for a share that is not computed.
        """
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: is there already and not empty; choose another name")
        position = self._at(share)
        model, spec = self._ready(share), self.loaded.spec
        saved = describe(
            model,
            spec.backbone,
            spec.classes,
            spec.preprocessing,
            kept=position.kept,
            extra=without_confidence(spec.extra),
            split=spec.split,
        )
        record = {"budget": {"macs": share}, "command": self.command(share), **position.row}
        with atomic_folder(out) as folder:
            save(model, saved, folder)
            write_json(folder / "pruning.json", record)
        return {"folder": str(out), **position.row}

    def command(self, share: float) -> str:
        """The words with which `secateurs prune` makes this size and trains it on."""
        words = ["secateurs", "prune", str(self.place.model), self.place.data]
        return (
            shlex.join([*words, "--macs", f"{share:g}", "--recovery-epochs", "10"]) + " --out DIR"
        )

    def _surveyed(self) -> SurveyedNetwork:
        model = self._ready(1.0)
        return survey_whole(
            model,
            self.dataset,
            self.config,
            device=self.device,
            num_images=CALIBRATION,
            stop=self.stop,
            progress=self._steps,
        )

    def _compute(self, position: _Position, network: SurveyedNetwork) -> None:
        with self._lock:
            position.state = RUNNING
        try:
            found = network.prune(Budget(macs=position.share), stop=self.stop, progress=self._steps)
        except InputError as error:
            with self._lock:
                position.row, position.state = {"reason": str(error)}, FAILED
            return
        model = found.model.eval()
        logits = side_logits(model, self.dataset, "val", self.device)
        row = self._measured(model, logits)
        with self._lock:
            position.model, position.kept = model, found.pruned.channels
            position.row, position.state = row, READY

    def _measured(self, model: nn.Module, logits: torch.Tensor) -> Record:
        found = evaluate(
            logits, self.labels, self.dataset.classes, self.dataset.side_groups("val")
        ).to_json()
        size = _tensor_bytes(model) + self._header
        price = cost(model, size=self.loaded.spec.preprocessing.size, file_bytes=size).to_json()
        names = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "num_images")
        return {
            **{name: found.get(name) for name in names},
            "num_changed": int((logits.argmax(1) != self.logits.argmax(1)).sum()),
            "bytes": size,
            "num_parameters": price["num_parameters"],
            "macs": price["macs"],
            "ms": self._ms(model),
        }

    @torch.inference_mode()
    def _ms(self, model: nn.Module) -> float:
        """Milliseconds of one image, as if measured when the unpruned network was.

        Both are timed in the same rounds, since other work on the machine comes and goes.
        """
        view, unpruned = self._view, self._positions[0]
        before = unpruned.row.get("ms")
        assert unpruned.model is not None
        runs = {"one": model} if before is None else {"one": model, "unpruned": unpruned.model}
        # Weights as they are read from a file: another layout in memory takes another time.
        times = compare_latency(
            {
                name: partial(deepcopy(run).to(memory_format=torch.contiguous_format), view)
                for name, run in runs.items()
            },
            budget_s=LATENCY_S,
            repeats=20,
        )
        if before is None:
            return spread(times["one"]).median
        ratios = [one / other for one, other in zip(times["one"], times["unpruned"], strict=True)]
        return before * spread(ratios).median

    def _at(self, share: float) -> _Position:
        for one in self._positions:
            if abs(one.share - share) < 1e-9:
                return one
        raise InputError(f"share: expected one of the path's sizes, got {share:g}")

    def _ready(self, share: float) -> nn.Module:
        model = self._at(share).model
        if model is None:
            raise InputError(f"the size with {share:.0%} of the MACs is not computed yet")
        return model

    @torch.inference_mode()
    def _best(self, model: nn.Module, view: torch.Tensor) -> list[Record]:
        probabilities, order = model(view)[0].float().softmax(0).sort(descending=True)
        classes = self.dataset.classes
        pairs = zip(probabilities[:TOP].tolist(), order[:TOP].tolist(), strict=True)
        return [{"label": classes[k], "probability": p} for p, k in pairs]


def _tensor_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _header_bytes(folder: Path, model: nn.Module) -> int:
    """What the file of a saved model has beside its tensors: about as much at every size."""
    return max(0, (folder / TENSORS_NAME).stat().st_size - _tensor_bytes(model))


def open_path(
    place: Location,
    *,
    changes: Record,
    cache: Path,
    shares: Sequence[float] = SHARES,
    progress: Progress = SILENT,
) -> SizePath:
    """The path of a study's unpruned network; nothing of it is computed yet.

    `changes` are fields of StudyConfig, for instance another split. Raises InputError for bad input
    and for a network that is already pruned.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    loaded = unpruned_model(place.model)
    config = settle_split(place.data, own_config(loaded.spec, given))
    dataset = saved_dataset(
        loaded.spec, place.data, config, cache=cache, progress=progress, sides=("train", "val")
    )
    return SizePath(place, loaded, config, dataset, shares=shares)
