"""A probe as a command: its directory, resumed where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import secateurs
from secateurs.directories import INSTEAD, clear_output, open_output
from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.progress import SILENT, Progress
from secateurs.shape import check_record
from secateurs.stopping import StopFlag
from secateurs.study.labelling import TABLE, csv_text, label_findings
from secateurs.study.probe.run import FOLDER, SCHEMA, Probed, run_probe
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import settle_split

MARKER = "probe.json"
Record = dict[str, Any]


def probe_data(
    data: str,
    config: StudyConfig,
    backbones: Sequence[str],
    out: Path,
    *,
    depths: Sequence[int] | None = None,
    balanced: bool = False,
    cache: Path,
    strict: bool = False,
    overwrite: bool = False,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Probed:
    """Probe networks and write `out`/probe.json and labels.csv.

    What `out` holds of the same probe is believed.
    Raises InputError for bad input and when `out` holds a probe of other options or anything else,
    StopRequested when asked to stop.
    """
    config = settle_split(data, config)
    open_output(out, marker=MARKER, kind="a probe", early=(FOLDER, TABLE, "thumbnails"))
    settings = _settings(config, backbones, depths, balanced=balanced)
    if overwrite:
        clear_output(out, "probe")
    elif (out / MARKER).exists():
        _check_settings(out, settings)
    found = run_probe(
        data,
        config,
        backbones,
        out,
        depths=depths,
        balanced=balanced,
        cache=cache,
        strict=strict,
        stop=stop,
        progress=progress,
    )
    found.record["config"] = settings
    found.record["versions"] = {
        "secateurs": secateurs.__version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": np.__version__,
    }
    found.record["labels"], table = label_findings(found, out)
    write_text(out / TABLE, csv_text(table))
    write_sealed(out / MARKER, found.record)
    return found


def _settings(
    config: StudyConfig, backbones: Sequence[str], depths: Sequence[int] | None, *, balanced: bool
) -> Record:
    return {
        "backbones": list(dict.fromkeys(backbones)),
        "depths": "auto" if depths is None else list(depths),
        "balanced": balanced,
        "weights": config.weights,
        "split": config.split,
        "group_by": config.group_by,
        "resize": config.resize,
        "seed": config.seed,
    }


def _check_settings(out: Path, settings: Record) -> None:
    path = out / MARKER
    stored = read_sealed(path)
    if stored is None:
        raise InputError(f"{path}: damaged; {INSTEAD}")
    shape = {"config": dict}
    found = check_record(stored, shape, schema=SCHEMA, where=str(path), what="a probe")
    old = found["config"]
    for name, value in settings.items():
        if old.get(name) != value:
            raise InputError(
                f"{out}: holds a probe with {name} {old.get(name)!r}, not {value!r}; {INSTEAD}"
            )
