"""Trials and answers for experiment trackers: what is logged, under which name, and only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.progress import Progress
from secateurs.study.config import StudyConfig

Record = dict[str, Any]

LOGS = ("tensorboard", "mlflow")
NEEDS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
CURVES = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/val": "val_accuracy",
}
# What a tracker's table of runs is for: the words that set a training.
SHOWN = (
    *("backbone", "weights", "split", "group_by", "epochs", "lr", "batch_size", "weight_decay"),
    *("label_smoothing", "dropout", "schedule", "patience", "views", "augment", "rotation_deg"),
    *("min_scale", "resize"),
)


@dataclass(frozen=True)
class Entry:
    """One run of a tracker: its name, what identifies its content, and what it shows.

    `key` is the same only for the same content; `curves` are values by name, one an epoch.
    """

    name: str
    key: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])


class Log(Protocol):
    """Where entries go. One of a name replaces the one before unless it has the same key."""

    def check(self) -> None:
        """Raise LogError when entries cannot be written."""
        ...

    def write(self, entry: Entry) -> bool:
        """Write an entry, whole or not at all; False when it was there already.

        Raises LogError when it cannot be written.
        """
        ...


class LogError(Exception):
    """A tracker did not take what it was given; no reason to lose a study."""


def tell(log: Log | None, entry: Callable[[], Entry], progress: Progress) -> None:
    """Write an entry to `log`, if there is one; a tracker that fails is a note."""
    if log is None:
        return
    given = entry()
    try:
        log.write(given)
    except LogError as error:
        progress.note(f"{given.name} is not logged: {error}; run again to log what is missing")


def trial_entry(record: Record, config: StudyConfig, *, of: str = "") -> Entry:
    """A finished trial's learning curves, parameters and final numbers; `of` tells sweeps apart."""
    words = config.to_json()
    kind = "depth {depth} run {run}" if record["pretrained"] else "scratch run {run}"
    metrics: dict[str, float | None] = {
        "best/val_accuracy": record["val_accuracy"],
        "best/val_loss": record["val_loss"],
        "best/epoch": None if record["best_epoch"] is None else record["best_epoch"] + 1,
        "epochs_run": record["epochs_run"],
        "seconds": record["timing"]["seconds"],
    }
    return Entry(
        name=" ".join(
            filter(None, [kind.format(depth=record["depth"], run=record["run"] + 1), of])
        ),
        key=record["key"],
        parameters={
            **{name: words[name] for name in SHOWN},
            **{name: record[name] for name in ("depth", "seed", "pretrained", "precision")},
            "run": record["run"] + 1,  # as people count, like the epochs
            "stopped": record["stopped"],
        },
        metrics=_known(metrics),
        curves={
            shown: [row[column] for row in record["curve"]] for shown, column in CURVES.items()
        },
    )


def answer_entry(results: Record) -> Entry:
    """A study's answer: the chosen network before and after pruning, its accuracy and its size."""
    chosen, pruned, cost = results["chosen"], results["pruned"], results["cost"]
    metrics: dict[str, float | None] = {}
    for name, part in (("unpruned", chosen), ("pruned", pruned)):
        for side in ("val", "test"):
            if part is not None:
                metrics[f"{name}/{side}_accuracy"] = part[side]["accuracy"]
    if cost is not None:
        for name, part in (("unpruned", cost["before"]), ("pruned", cost["after"])):
            if part is None:
                continue
            metrics[f"{name}/parameters"] = part["num_parameters"]
            metrics[f"{name}/macs"] = part["macs"]
            metrics[f"{name}/file_bytes"] = part["file_bytes"]
        for row in cost["latency"] or []:
            where = f"{row['runtime']}_{row['device']}_batch{row['batch']}_ms"
            metrics[f"unpruned/{where}"] = row["before_ms"]["median"]
            metrics[f"pruned/{where}"] = row["after_ms"]["median"]
    parameters: Record = {"depth": chosen["depth"], "run": chosen["run"] + 1}
    if pruned is not None:
        parameters |= {name: pruned[name] for name in ("rule", "compensation", "low_deg")}
        for layer in pruned["layers"]:
            metrics[f"pruned/{layer['layer']}_units"] = layer["num_kept"]
    shown = _known(metrics)
    key = fingerprint({"chosen": chosen["key"], "parameters": parameters, "metrics": shown})
    return Entry("answer", key, parameters, shown)


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None}


def one_at_a_time(folder: Path) -> AbstractContextManager[object]:
    """Held while an entry is looked for and written: several processes may share a study."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def check_log(kind: str | None) -> None:
    """InputError for a tracker that is not known or not installed, before anything long begins."""
    if kind is None:
        return
    if kind not in LOGS:
        raise InputError(f"log must be {' or '.join(LOGS)}, got {kind!r}")
    missing = [name for name in NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--log {kind} needs {', '.join(missing)}, which is not installed: "
            f"pip install 'secateurs[{kind}]'"
        )


def open_log(kind: str | None, out: Path) -> Log | None:
    """The tracker of a study in the directory `out`; nothing is written before its first entry.

    `tensorboard` writes to `out`/tensorboard; `mlflow` to the server that MLFLOW_TRACKING_URI
    names, else to `out`/mlflow. Raises InputError as `check_log` does, and for a server that does
    not answer.
    """
    check_log(kind)
    if kind is None:
        return None
    if kind == "tensorboard":
        from secateurs.study.log_tensorboard import TensorBoardLog

        log: Log = TensorBoardLog(out / "tensorboard")
    else:
        from secateurs.study.log_mlflow import MlflowLog

        log = MlflowLog(out)
    try:
        log.check()
    except LogError as error:
        raise InputError(f"--log {kind}: {error}") from None
    return log
