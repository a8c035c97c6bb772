"""A probe as a command: its directory, resumed where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import secateurs
from secateurs.directories import clear_output, open_output
from secateurs.files import write_text
from secateurs.nets.backbones import check_name
from secateurs.nets.candidates import AUTO
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.labelling import TABLE, csv_text, label_findings
from secateurs.study.probe.run import FOLDER, Probed, run_probe
from secateurs.study.records.checksummed import write_sealed
from secateurs.study.records.sameness import refuse_other, refuse_other_images, shown_place
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import settle_split

MARKER = "probe.json"
KIND = "a probe"
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

    What `out` holds of the same probe is believed. Raises InputError for bad input and when `out`
    holds a probe of other options or images, or anything else, StopRequested when asked to stop.
    """
    config = settle_split(data, config)
    open_output(out, marker=MARKER, kind=KIND, early=(FOLDER, TABLE, "thumbnails"))
    if tuple(backbones) != AUTO:  # some of those may need a package that is not installed
        for name in backbones:
            check_name(name)
    settings = _settings(data, config, backbones, depths, balanced=balanced)
    if overwrite:
        clear_output(out, "probe")
    else:
        refuse_other(out / MARKER, settings, KIND)
    found = run_probe(
        data,
        config,
        backbones,
        out,
        depths=depths,
        balanced=balanced,
        cache=cache,
        strict=strict,
        on_dataset=lambda dataset: refuse_other_images(out / MARKER, dataset.identity(), KIND),
        stop=stop,
        progress=progress,
    )
    found.record["identity"] = found.dataset.identity()
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
    data: str,
    config: StudyConfig,
    backbones: Sequence[str],
    depths: Sequence[int] | None,
    *,
    balanced: bool,
) -> Record:
    return {
        "data": shown_place(data),
        "backbones": list(dict.fromkeys(backbones)),
        "depths": "auto" if depths is None else list(depths),
        "balanced": balanced,
        "weights": config.weights,
        "split": config.split,
        "group_by": config.group_by,
        "resize": config.resize,
        "seed": config.seed,
    }
