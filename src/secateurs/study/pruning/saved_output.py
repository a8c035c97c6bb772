"""The output of `secateurs prune`, the same for named layers and for a whole network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs
from secateurs.files import write_json
from secateurs.nets.backbones import layers
from secateurs.progress import Progress
from secateurs.ship.checkpoint import save
from secateurs.ship.cost import cost_lines
from secateurs.ship.export import export_onnx, onnx_obstacle
from secateurs.ship.spec import ModelSpec
from secateurs.study.pruning.savings import Priced, price_models
from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import Dataset

Record = dict[str, Any]
SCHEMA = 2  # of pruning.json
NUM_IMAGES = 16  # on which exports are checked and networks are timed
FILES = {
    "model": "model.json",
    "tensors": "model.safetensors",
    "onnx": "model.onnx",
    "card": "README.md",
    "ledger": "ledger.csv",
    "ledger_parquet": "ledger.parquet",
    "record": "pruning.json",
    "page": "pruning.html",
}


@dataclass(frozen=True)
class PrunedOutput:
    """A pruned network and the one that it was made from, with what describes them.

    `cut` is the network before a recovery. `tensors` is the file of the unpruned network's weights,
    `write_ledger` writes ledger.csv and ledger.parquet into a folder.
    """

    original: nn.Module
    original_spec: ModelSpec
    tensors: Path
    cut: nn.Module
    model: nn.Module
    spec: ModelSpec
    dataset: Dataset
    write_ledger: Callable[[Path], None]


def write_output(pruned: PrunedOutput, record: Record, out: Path, *, progress: Progress) -> Record:
    """Write the files of a pruned network into `out`; return what pruning.json holds.

    `record` is what is known of the pruning. Validation accuracy before and after, and the cost of
    both networks in PyTorch and ONNX Runtime, are measured here. Without the ONNX packages there is
    no ONNX file, which the record says.
    """
    device = next(pruned.model.parameters()).device
    for name in ("record", "onnx"):  # of an earlier network, should this be stopped
        (out / FILES[name]).unlink(missing_ok=True)
    save(pruned.model, pruned.spec, out)
    pruned.write_ledger(out)
    evaluations = {"cut": pruned.cut, "after": pruned.model}
    answer: Record = {
        "schema": SCHEMA,
        "backbone": pruned.spec.backbone,
        "classes": list(pruned.spec.classes),
        "data": {"name": pruned.dataset.name, "num_train": len(pruned.dataset.sides["train"])},
        **record,
        **{
            name: evaluate_model(model, pruned.dataset, "val", device).to_json()
            for name, model in evaluations.items()
        },
    }
    images = pruned.dataset.sides["train"].eval_views(slice(0, NUM_IMAGES), device)
    with tempfile.TemporaryDirectory() as temporary:
        before = Priced(pruned.original, pruned.tensors, Path(temporary) / "model.onnx")
        after = Priced(pruned.model, out / FILES["tensors"], out / FILES["onnx"])
        difference, note = _export(pruned, before, after, images.cpu(), progress)
        cost = price_models(before, after, images, progress=progress)
    answer["cost"] = cost | {"onnx_max_abs_difference": difference, "onnx_note": note}
    answer["num_parameters"] = {side: cost[side]["num_parameters"] for side in ("before", "after")}
    answer["files"] = {name: file for name, file in FILES.items() if _is_written(out, name)}
    answer["versions"] = {"secateurs": secateurs.__version__, "torch": str(torch.__version__)}
    write_json(out / FILES["record"], answer)
    return answer


def _export(
    pruned: PrunedOutput, before: Priced, after: Priced, images: torch.Tensor, progress: Progress
) -> tuple[float | None, str | None]:
    """Export both networks to ONNX; the largest difference of the pruned one, or why there is none.

    A network that cannot be exported does not make the pruning fail.
    """
    obstacle = onnx_obstacle(pruned.original)
    if obstacle is not None:
        return None, f"No ONNX file was written and ONNX Runtime was not timed: {obstacle}"
    assert before.onnx is not None
    assert after.onnx is not None
    try:
        with progress.task("export", 2) as advance:
            check = export_onnx(pruned.model, pruned.spec, after.onnx, images)
            advance(1)
            export_onnx(pruned.original, pruned.original_spec, before.onnx, images)
            advance(1)
    except (ValueError, RuntimeError) as error:
        for file in (before.onnx, after.onnx):
            file.unlink(missing_ok=True)
        return None, f"The network cannot be exported to ONNX: {' '.join(str(error).split()):.200}"
    return check.max_abs_difference, None


def _is_written(out: Path, name: str) -> bool:
    # The record, the card and the page follow.
    return name in ("record", "card", "page") or (out / FILES[name]).exists()


def layer_names(model: nn.Module, backbone: str) -> dict[str, str]:
    """The names of layers as options take them, by path.

    >>> from secateurs.nets.backbones import build
    >>> layer_names(build("alexnet", 3), "alexnet")["classifier.4"]
    'fc7'
    """
    return {layer.path: layer.alias for layer in layers(model, backbone)}


def pruning_summary(answer: Record) -> str:
    """Which units are kept, accuracy before and after, and the cost, for people."""
    lines = [
        f"{row['name']}: {row['num_kept']} of {row['num_units']} units kept{_dead(row)}"
        for row in answer["groups"]
        if row["num_kept"] < row["num_units"] or not answer["trajectory"]
    ]
    lines += [f"not pruned: {one['name']} ({one['reason']})" for one in answer["not_pruned"]]
    if answer["note"]:
        lines.append(f"only chains of layers were examined: {answer['note']}")
    before, after = answer["cost"]["before"], answer["cost"]["after"]
    lines.append(
        f"parameters {before['num_parameters'] / 1e6:.1f} M to "
        f"{after['num_parameters'] / 1e6:.1f} M, file {before['file_bytes'] / 1e6:.1f} MB to "
        f"{after['file_bytes'] / 1e6:.1f} MB"
    )
    lines.append(f"before: {evaluation_words(answer['before'], 'validation')}")
    if answer["recovery"] is None:
        lines.append(f"after: {evaluation_words(answer['after'], 'validation')}")
    else:
        lines.append(f"after pruning: {evaluation_words(answer['cut'], 'validation')}")
        lines.append(f"after recovery: {evaluation_words(answer['after'], 'validation')}")
    lines += cost_lines(answer["cost"]["sentence"])
    if answer["cost"]["onnx_note"]:
        lines.append(f"note: {answer['cost']['onnx_note']}")
    return "\n".join(lines + remarks(answer))


def _dead(row: Record) -> str:
    return f" ({row['num_dead']} never active)" if row.get("num_dead") else ""


def remarks(answer: Record) -> list[str]:
    """How the images relate to the network that was pruned, and cautions, a line each."""
    split = answer.get("split")
    lines = [f"note: {text}" for text in (split["notes"] if split else ())]
    return lines + [f"caution: {text}" for text in cautions(answer["after"], grouped=True)]
