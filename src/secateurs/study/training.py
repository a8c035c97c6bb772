"""One network trained and saved, with its split and its test accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.directories import clear_output, sweep_output
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import save
from secateurs.stopping import StopFlag
from secateurs.study.saved.evaluation import evaluate_model, model_spec
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context
from secateurs.study.tracking.log import Log, log_entry, trial_entry
from secateurs.study.trials.store import Store, load_weights, save_weights
from secateurs.study.trials.trial import SharedInputs, plan_trials, run_trial, trial_key

Record = dict[str, Any]


def train_model(
    data: str,
    config: StudyConfig,
    out: Path,
    *,
    cache: Path,
    strict: bool = False,
    overwrite: bool = False,
    prefix_cache: PrefixCache | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
    log: Log | None = None,
) -> Record:
    """Fine-tune at the one depth of `config` and save the network in `out`.

    Returns the trial's record with the `val` evaluation; also in `out`/training.json. Run again
    after a stop it goes on where it was; when all is done it only answers. The test images are
    not used. Raises InputError for bad input.
    """
    sweep_output(out)
    context = open_context(data, config, cache=cache, strict=strict, progress=progress)
    (trial,) = plan_trials(context)
    if overwrite:
        clear_output(out, "train")
    store, key = Store(out), trial_key(context, trial)
    store.tidy()
    record = store.read(key)
    if record is not None and store.has_weights(key):
        model = context.new_model(seed=0, pretrained=False)
        load_weights(model, store.weights(key))
        model.eval()
    else:
        shared = SharedInputs(prefix_cache, progress=progress)
        record, model = run_trial(context, trial, shared, store, stop=stop, progress=progress)
        shared.cache.close()
        save_weights(model, store.weights(key))
    (out / "training.json").unlink(missing_ok=True)  # of an earlier network
    save(model, model_spec(model, context, depth=trial.depth, kept={}), out)
    answer = record | {
        "val": evaluate_model(model, context.dataset, "val", context.device).to_json()
    }
    write_json(out / "training.json", answer)
    log_entry(log, lambda: trial_entry(record, context.config), progress)
    return answer
