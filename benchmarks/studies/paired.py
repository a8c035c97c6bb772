"""What one setting does to validation accuracy, paired over splits: views K, precision, any other.

Each value of the setting is trained on the same splits with the same seeds (split s, its random
weights and its order of images all from seed s); differences to the first value are taken split
by split. The test images are not looked at.

    python benchmarks/studies/paired.py DATA --group-by REGEX --weights FILE --depths 3,5 \\
        --vary precision=float32,bfloat16
    python benchmarks/studies/paired.py DATA --group-by REGEX --weights FILE --depths 5 \\
        --vary views=0,1,2,4,8 --set rotation_deg=10 --set min_scale=0.5
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from secateurs.errors import InputError
from secateurs.files import cache_dir, write_json
from secateurs.progress import Console
from secateurs.study.setup.config import StudyConfig, from_preset, parse_depths
from secateurs.study.setup.trial_context import open_context
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial


@dataclass(frozen=True)
class Score:
    """One training: validation accuracy in 0..1 and what it took."""

    value: str
    depth: int
    seed: int
    accuracy: float
    seconds: float


def field_value(name: str, text: str) -> Any:
    """A configuration's value from words, of the type that the preset's has."""
    if name not in StudyConfig.__dataclass_fields__:
        raise InputError(f"{name}: not a setting of a study")
    kind = type(getattr(from_preset("quick"), name))
    if kind is bool:
        return text == "true"
    return kind(text) if kind in (int, float, str) else text


def settings(words: list[str]) -> dict[str, Any]:
    pairs = [word.split("=", 1) for word in words]
    return {name: field_value(name, text) for name, text in pairs}


def interval(differences: list[float]) -> str:
    """Mean and 95% t interval of paired differences, in points."""
    points = 100 * np.asarray(differences)
    half = student.ppf(0.975, len(points) - 1) * points.std(ddof=1) / len(points) ** 0.5
    return f"{points.mean():+.1f} ({points.mean() - half:+.1f} to {points.mean() + half:+.1f})"


def table(scores: list[Score], values: list[str]) -> str:
    lines = [
        "| depth | value | mean | against the first, points | s a training |",
        "|---" * 5 + "|",
    ]
    for depth in sorted({score.depth for score in scores}):
        runs = {
            value: {s.seed: s for s in scores if (s.value, s.depth) == (value, depth)}
            for value in values
        }
        first = runs[values[0]]
        for value in values:
            own = runs[value]
            shared = sorted(first.keys() & own.keys())
            if len(shared) < 2:
                continue
            gaps = [own[seed].accuracy - first[seed].accuracy for seed in shared]
            against = "" if value == values[0] else interval(gaps)
            mean = np.mean([own[seed].accuracy for seed in shared])
            seconds = np.median([own[seed].seconds for seed in shared])
            lines.append(f"| {depth} | {value} | {mean:.1%} | {against} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data")
    words.add_argument("--group-by")
    words.add_argument("--weights", default="auto")
    words.add_argument("--depths", default="5")
    words.add_argument("--seeds", type=int, default=5, help="splits 0, 1, ...")
    words.add_argument("--vary", required=True, metavar="NAME=A,B,...")
    words.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    words.add_argument("--preset", default="quick")
    words.add_argument("--json", type=Path, help="every score; read again to go on")
    given = words.parse_args()
    name, texts = given.vary.split("=", 1)
    values, depths = texts.split(","), parse_depths(given.depths)
    scores: list[Score] = []
    if given.json and given.json.exists():
        scores = [Score(**row) for row in json.loads(given.json.read_text())]
    done = {(score.value, score.depth, score.seed) for score in scores}
    progress = Console()
    for seed in range(given.seeds):
        config = from_preset(
            given.preset,
            **settings(given.set),
            group_by=given.group_by,
            weights=given.weights,
            depths=depths,
            seed=seed,
        )
        context = open_context(given.data, config, cache=cache_dir(), progress=progress)
        for value in values:
            missing = [depth for depth in depths if (value, depth, seed) not in done]
            if not missing:
                continue
            varied = from_preset(given.preset, **{name: field_value(name, value)})
            own = replace(context.config, **{name: getattr(varied, name)})
            if name == "precision":
                varied_bench = replace(context, config=own, precision=value)
            else:
                varied_bench = replace(context, config=own)
            shared = SharedInputs(progress=progress)
            with tempfile.TemporaryDirectory() as folder:
                for depth in missing:
                    trial, store = Trial(depth, 0), Store(Path(folder))
                    record, _ = run_trial(varied_bench, trial, shared, store, progress=progress)
                    reached, took = record["val_accuracy"] or 0.0, record["timing"]["seconds"]
                    scores.append(Score(value, depth, seed, reached, took))
                    text = f"split {seed}, depth {depth}, {name} {value}"
                    progress.note(f"{text}: {reached:.1%}, {took:.0f} s")
            if given.json:
                write_json(given.json, [vars(score) for score in scores])
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}; {name}, preset {given.preset}, "
        f"{' '.join(given.set) or 'as it is'}, {given.seeds} splits\n"
    )
    print(table(scores, values))


if __name__ == "__main__":
    main()
