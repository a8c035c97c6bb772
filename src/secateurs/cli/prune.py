"""The command `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from secateurs.cli.options.data import Data, Model, OwnSplitOptions
from secateurs.cli.options.network import OwnDevice
from secateurs.cli.options.output import ModelOut, Overwrite, SessionOptions
from secateurs.cli.options.pruning import (
    Calibration,
    Compensation,
    HighDeg,
    Keep,
    KeepFraction,
    Latency,
    LatencyBatch,
    Layers,
    LowDeg,
    Macs,
    MaxLoss,
    NormStd,
    Params,
    Reconstruction,
    RecoveryDistil,
    RecoveryEpochs,
    RecoveryLr,
    RecoveryNorms,
    RoundTo,
    Rule,
    Starts,
)
from secateurs.cli.parsing.session import layer_names, open_session
from secateurs.errors import InputError


def prune(
    context: typer.Context,
    *,
    model: Model,
    data: Data,
    out: ModelOut = Path("models/MODEL-pruned"),
    layers: Layers = None,
    low_deg: LowDeg = None,
    high_deg: HighDeg = None,
    norm_std: NormStd = None,
    max_loss: MaxLoss = 2.0,
    rule: Rule = None,
    keep: Keep = None,
    keep_fraction: KeepFraction = None,
    compensation: Compensation = "merge",
    params: Params = None,
    macs: Macs = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = 64,
    round_to: RoundTo = 8,
    starts: Starts = 5,
    calibration: Calibration = 256,
    reconstruction: Reconstruction = "blocks",
    recovery_epochs: RecoveryEpochs = 0,
    recovery_lr: RecoveryLr = None,
    recovery_distil: RecoveryDistil = 0.5,
    recovery_norms: RecoveryNorms = "auto",
    split: OwnSplitOptions,
    device: OwnDevice = None,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Prune a saved model: merge units with similar activations on the training images of DATA.

    With --params, --macs or --latency, or with --layers all, the whole network is pruned: units of
    every layer are removed where they cost the least loss for what they save.
    """
    from secateurs.prune.to_budget import Budget
    from secateurs.report.network.card import write_card
    from secateurs.report.network.page import write_network_page
    from secateurs.study.pruning.recovery import RecoveryOptions
    from secateurs.study.pruning.saved_layers import prune_saved
    from secateurs.study.pruning.saved_network import shrink_saved
    from secateurs.study.pruning.saved_output import pruning_summary
    from secateurs.study.setup.config import parse_keep, rule_of

    session = open_session(session_options, context)
    if not overwrite:
        session.check_earlier(out, "pruning.json")
    own_options = vars(split) | {"device": device}
    has_budget = any(limit is not None for limit in (params, macs, latency))
    of_layers = (low_deg, high_deg, norm_std, rule, keep, keep_fraction)
    common: dict[str, Any] = {
        "cache": session.cache,
        "overwrite": overwrite,
        "progress": session.progress,
    }
    if has_budget or layers == "all":
        if any(value is not None for value in of_layers):
            raise InputError(
                "--low-deg, --high-deg, --norm-std, --rule, --keep and --keep-fraction are for "
                "named layers; for a whole network give --params, --macs, --latency or --max-loss"
            )
        if reconstruction not in ("blocks", "off"):
            raise InputError(
                f"--reconstruction: expected blocks or off, got {reconstruction!r:.40}"
            )
        budget = Budget(
            params=params,
            macs=macs,
            latency=latency,
            max_loss=None if has_budget or max_loss < 0 else max_loss,
            latency_batch=latency_batch,
            round_to=round_to,
            starts=starts,
        )
        recovery = RecoveryOptions(
            epochs=recovery_epochs,
            lr=recovery_lr,
            distil=recovery_distil,
            norms=recovery_norms,  # type: ignore[arg-type]  # checked there
        )
        with session.running(out) as stop:
            answer = shrink_saved(
                model,
                data,
                out,
                budget,
                recovery=recovery,
                calibration=calibration or None,
                reconstruction=None if reconstruction == "off" else "blocks",
                changes=own_options,
                stop=stop,
                **common,
            )
    else:
        if recovery_epochs:
            raise InputError(
                "--recovery-epochs is for a whole network; give --params, --macs or --latency, or "
                "leave it out"
            )
        changes = {
            "layers": None if layers is None else layer_names(layers),
            "low_deg": 15.0 if low_deg is None else low_deg,
            "high_deg": 165.0 if high_deg is None else high_deg,
            "norm_std": norm_std,
            "max_loss": max_loss,
            "rule": rule_of(
                rule,
                search=max_loss >= 0 or keep is not None or keep_fraction is not None,
                low_deg=low_deg,
                high_deg=high_deg,
                norm_std=norm_std,
            ),
            "keep": None if keep is None else parse_keep(keep),
            "keep_fraction": keep_fraction,
            "compensation": compensation,
            **own_options,
        }
        answer = prune_saved(model, data, out, changes=changes, **common)
    answer = session.keep(out, "pruning.json", answer)
    write_card(answer, out)
    page = write_network_page(answer, out, model=model, data=data)
    session.answer(answer, f"{pruning_summary(answer)}\nmodel: {out}\npage: {page}")
