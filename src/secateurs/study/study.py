"""A study from end to end: audit, sweep, choice, pruning, export, cost; done parts are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from secateurs.directories import INSTEAD, clear_output
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.paths import FACES
from secateurs.progress import SILENT, Progress
from secateurs.ship.cost import cost_lines
from secateurs.stopping import StopFlag
from secateurs.study.pruning.tail import layers_to_cut
from secateurs.study.records.kinds import STUDY_SCHEMA, odd_keys
from secateurs.study.records.study_directory import open_study, read_study
from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
from secateurs.study.setup.config import StudyConfig, difference
from secateurs.study.setup.defaults import no_layer_words
from secateurs.study.setup.trial_context import (
    TrialContext,
    open_context,
    settle_split,
)
from secateurs.study.stages import (
    FILES,
    SCHEMA,
    SWEEP_FILES,
    UNPRUNED_FILES,
    Stages,
    files_of,
    keep_chosen,
    prune_stages,
    unpruned_stage,
    versions,
)
from secateurs.study.sweep.sweep import (
    Record,
    choose,
    chosen_model,
    discard_weights,
    layers_frozen_at_random,
    run_sweep,
    summarise_sweep,
)
from secateurs.study.tracking.log import Log, answer_entry, log_entry, trial_entry
from secateurs.study.trials.machines import machine_rows
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor


def run_study(
    data: str,
    config: StudyConfig,
    out: Path,
    *,
    cache: Path,
    prune: bool = True,
    both_splits: bool = False,
    strict: bool = False,
    overwrite: bool = False,
    prefix_cache: PrefixCache | None = None,
    executor: Executor | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
    log: Log | None = None,
) -> Record:
    """Run a study of `data` in the directory `out` and return what it writes to `results.json`.

    What is already done is not done again. Without `prune` it ends with the choice: a sweep, which
    a study in the same directory continues. With `both_splits` the sweep is run once more with
    images split at random, groups ignored, for comparison. The trials run where the `executor` has
    them run, by default here. `log` receives each trial as it ends,
    and the answer, each only once. With `overwrite` an earlier study in `out` is deleted as soon as
    the new one has passed all checks. Raises InputError for bad input and when `out` holds a study
    of another configuration or other images, StopRequested when asked to stop.
    """
    stop = stop or StopFlag()
    config = settle_split(data, config)
    open_study(out, kind=None)
    if not overwrite:
        _check_configuration(out, config)
    context = open_context(data, config, cache=cache, strict=strict, progress=progress)
    if both_splits and (config.split != "random" or context.dataset.groups is None):
        raise InputError("both splits: groups must be known; give --group-by, with --split random")
    if prune:
        layers_to_cut(context.new_model(seed=config.seed, pretrained=False), context.config)
    not_pruned = "" if context.config.layers or not prune else no_layer_words(config.backbone)
    if not_pruned:
        progress.note(f"the study ends without pruning: {not_pruned}")
    if overwrite:
        clear_output(out, "study")
    _claim(out, config, context, data)
    stages, store = Stages(out), Store(out)
    store.tidy()
    kept = prefix_cache or PrefixCache()
    sweeping: dict[str, Any] = {
        "executor": executor,
        "stop": stop,
        "progress": progress,
        "log": log,
    }
    trials = _logged_sweep(context, store, kept, **sweeping)
    choice = choose(
        trials,
        num_images=len(context.dataset.sides["val"]),
        random_frozen=layers_frozen_at_random(context),
    )
    for sentence in (*choice.advice.sentences, choice.advice.cost):
        progress.note(sentence)

    pruned: Record | None = None
    cost: Record | None = None
    # One process at a time: what another one has done meanwhile is found done.
    with store.wait_for("stages", stop, progress=progress):
        chosen = stages.run(
            "chosen",
            {"trial": choice.record["key"], "reason": choice.reason},
            lambda: keep_chosen(
                context,
                choice,
                chosen_model(
                    context, store, choice, prefix_cache=kept, stop=stop, progress=progress
                ),
                out,
            ),
            makes=(out / FILES["unpruned"], out / "unpruned" / "model.safetensors"),
        )
        discard_weights(store)
        stop.check()
        if not_pruned:
            cost = unpruned_stage(context, stages, choice.record["key"], progress=progress)
        elif prune:
            pruned, cost = prune_stages(
                context, stages, choice.record["key"], stop=stop, progress=progress
            )
    other: Record | None = None
    if both_splits:
        progress.note("the same sweep with images split at random, groups ignored")
        ungrouped = replace(config, split="ungrouped")
        second = open_context(data, ungrouped, cache=cache, progress=progress)
        records = _logged_sweep(second, store, kept, **sweeping, of="split at random")
        discard_weights(store)
        other = {"split": second.dataset.split_json()} | _sweep_json(second, records)
    kept.close()

    results = _results(context, trials, chosen, pruned, cost, other, not_pruned or None)
    if cost is not None and cost.get("onnx_note"):
        progress.note(cost["onnx_note"])
    write_json(out / "results.json", results)
    log_entry(log, lambda: answer_entry(results), progress)
    return results


def _results(
    context: TrialContext,
    trials: list[Record],
    chosen: Record,
    pruned: Record | None,
    cost: Record | None,
    ungrouped: Record | None,
    not_pruned: str | None,
) -> Record:
    """What `results.json` holds; keys of the stages that stand elsewhere in it are taken out."""
    seconds = {
        "sweep": sum(record["timing"]["seconds"] for record in trials),
        "choice": chosen.pop("timing")["seconds"],
    }
    results: Record = {
        "schema": SCHEMA,
        "config": {"data": context.dataset.name, **context.config.to_json()},
        "data": context.dataset.audit.to_json() | {"name": context.dataset.name},
        "split": context.dataset.split_json(),
        "weights": context.weights.to_json(),
        **_sweep_json(context, trials),
        "ungrouped": ungrouped,
        "chosen": chosen,
        "pruned": pruned,
        "not_pruned": not_pruned,
        "cost": cost,
        "samples": None,
        "merged": None,
        "files": files_of(
            FILES if pruned else UNPRUNED_FILES if not_pruned else SWEEP_FILES,
            onnx=cost is None or cost.get("onnx_note") is None,
        ),
        "versions": versions(context),
        "machines": machine_rows(trials),
    }
    if cost is not None:
        seconds["cost"] = cost.pop("timing")["seconds"]
    if pruned is not None and cost is not None:
        results["samples"] = pruned.pop("samples")
        results["merged"] = pruned.pop("merged")
        cost["onnx_max_abs_difference"] = pruned.pop("onnx_max_abs_difference")
        seconds["pruning"] = pruned["timing"]["seconds"]
    results["timing"] = seconds | {"total": sum(seconds.values())}
    return results


def _logged_sweep(
    context: TrialContext,
    store: Store,
    kept: PrefixCache,
    *,
    executor: Executor | None,
    stop: StopFlag,
    progress: Progress,
    log: Log | None,
    of: str = "",
) -> list[Record]:
    def log_trial(record: Record) -> None:
        log_entry(log, lambda: trial_entry(record, context.config, of=of), progress)

    records = run_sweep(
        context,
        store,
        prefix_cache=kept,
        executor=executor,
        stop=stop,
        progress=progress,
        on_trial=log_trial,
    )
    for record in records:  # those of an earlier run, or of another process
        log_trial(record)
    return records


def _sweep_json(context: TrialContext, trials: list[Record]) -> Record:
    num_images, random_frozen = len(context.dataset.sides["val"]), layers_frozen_at_random(context)
    advice = choose(trials, num_images=num_images, random_frozen=random_frozen).advice
    return {
        "trials": trials,
        "sweep": summarise_sweep(trials, num_images=num_images, random_frozen=random_frozen),
        "recommendation": {
            "depth": advice.depth,
            "best": advice.best,
            "sentences": list(advice.sentences),
            "timing": {"sentence": advice.cost},
        },
    }


def _check_configuration(out: Path, config: StudyConfig) -> None:
    """Refuse another configuration before anything long begins."""
    if not (out / "study.json").exists():
        return
    found = read_study(out)
    if found.get("frontier") is not None:
        raise InputError(f"{out}: holds a study over several networks; {INSTEAD}")
    differs = difference(found["config"], config.to_json())
    if differs:
        raise InputError(f"{out}: holds a study with another configuration: {differs}; {INSTEAD}")


def _claim(out: Path, config: StudyConfig, context: TrialContext, data: str) -> None:
    """Mark a new directory as this study's, or check that it holds the same images and weights.

    Where the images are is kept as well, for `secateurs explore`.
    """
    identity = context.dataset.identity() | {"weights": list(context.weights.loaded)}
    mine = {
        "schema": STUDY_SCHEMA,
        "config": config.to_json(),
        "identity": identity,
        "data": data if data == FACES else str(Path(data).resolve()),
    }
    path = out / "study.json"
    if not path.exists():
        write_json(path, mine)
        return
    found = read_study(out)
    odd = odd_keys(found["identity"], identity)
    if odd:
        raise InputError(f"{out}: holds a study of other {' and '.join(odd)}; {INSTEAD}")


def headline(results: Record) -> str:
    """A study's answer in a few lines."""
    chosen, pruned, cost = results["chosen"], results["pruned"], results["cost"]
    lines = [chosen["reason"], evaluation_words(chosen["test"], "unpruned, test")]
    if pruned is None:
        ending = [f"not pruned: {results['not_pruned']}"] if results["not_pruned"] else []
        advice = results["recommendation"]["sentences"][1:]
        return "\n".join([*advice, *lines, *ending, *_cautions(results, chosen["test"])])
    lines.append(evaluation_words(pruned["test"], "pruned, test"))
    for layer in pruned["layers"]:
        lines.append(f"{layer['layer']}: {layer['num_kept']} of {layer['num_units']} units kept")
    before, after = cost["before"], cost["after"]
    lines.append(
        f"parameters {before['num_parameters'] / 1e6:.1f} M to "
        f"{after['num_parameters'] / 1e6:.1f} M, file {before['file_bytes'] / 1e6:.0f} MB to "
        f"{after['file_bytes'] / 1e6:.0f} MB"
    )
    lines += cost_lines(cost["sentence"])
    return "\n".join([*lines, *_cautions(results, pruned["test"])])


def _cautions(results: Record, evaluation: Record) -> list[str]:
    known = results["split"]["leakage"]["same_group"] is not None
    grouped = known or results["config"]["split"] in ("folders", "paper")
    return [f"caution: {text}" for text in cautions(evaluation, grouped=grouped)]
