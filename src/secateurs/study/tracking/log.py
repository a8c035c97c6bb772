"""Trials and answers for experiment trackers: what is logged, under which name, and only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import fingerprint
from secateurs.progress import Progress
from secateurs.study.setup.config import StudyConfig
from secateurs.study.tracking.entry import Entry, Log, LogError

Record = dict[str, Any]

LOGS = ("tensorboard", "mlflow")
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
    *("min_scale", "resize", "image_size"),
)


def log_entry(log: Log | None, entry: Callable[[], Entry], progress: Progress) -> None:
    """Write an entry to `log`, if there is one; a tracker that fails is a note."""
    if log is None:
        return
    given = entry()
    try:
        log.write(given)
    except LogError as error:
        progress.note(f"{given.name} is not logged: {error}; run again to log what is missing")


def trial_entry(record: Record, config: StudyConfig, *, of: str = "") -> Entry:
    """A finished trial's curves, parameters and final numbers; `of` is the name of the sweep."""
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


def check_log(kind: str | None) -> None:
    """InputError for a tracker that is not known or not installed, before anything long begins."""
    if kind is None:
        return
    if kind not in LOGS:
        raise InputError(f"log must be {' or '.join(LOGS)}, got {kind!r}")
    require(kind, f"--log {kind}")


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
        from secateurs.study.tracking.tensorboard_runs import TensorBoardLog

        log: Log = TensorBoardLog(out / "tensorboard")
    else:
        from secateurs.study.tracking.mlflow_runs import MlflowLog

        log = MlflowLog(out)
    try:
        log.check()
    except LogError as error:
        raise InputError(f"--log {kind}: {error}") from None
    return log
