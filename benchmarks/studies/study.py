"""Run a study and print its figures as the markdown that docs/notebook.md holds.

    python benchmarks/studies/study.py DATA --out DIR [--group-by REGEX] [--weights FILE] \\
        [--depths 3,4,5]
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import Any

from secateurs.files import cache_dir
from secateurs.progress import Console
from secateurs.report.study.page import write_report
from secateurs.study.setup.config import from_preset, parse_depths
from secateurs.study.study import run_study


def percent(evaluation: dict[str, Any]) -> str:
    low, high = evaluation["accuracy_low"], evaluation["accuracy_high"]
    return f"{evaluation['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def how(pruned: dict[str, Any]) -> str:
    """The rule and, where one decided, the angle."""
    angle = "" if pruned["low_deg"] is None else f" at {pruned['low_deg']:.1f} degrees"
    return f"pruned by {pruned['rule']}{angle}, {pruned['compensation']}"


def markdown(results: dict[str, Any], seconds: float) -> str:
    versions, counts = results["versions"], results["split"]["counts"]
    lines = [
        f"{datetime.date.today().isoformat()}, {versions['machine']}, torch {versions['torch']}; "
        f"{results['data']['name']}, split {results['split']['rule']} "
        f"({counts['train']}/{counts['val']}/{counts['test']}), "
        f"preset {results['config']['preset']}; {seconds:.0f} s in all.",
        "",
        results["weights"]["sentence"] + ".",
        "",
        "| depth | runs | validation accuracy, mean | deviation | 95% interval | s a trial |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["sweep"]:
        name = row["depth"] if row["pretrained"] else "scratch"
        spread = interval = "-"
        if row["val_accuracy_std"] is not None:
            spread = f"{row['val_accuracy_std']:.1%}"
            interval = f"{row['val_accuracy_low']:.1%} to {row['val_accuracy_high']:.1%}"
        lines.append(
            f"| {name} | {row['num_runs']} | {row['val_accuracy_mean']:.1%} | {spread} | "
            f"{interval} | {row['timing']['seconds_per_trial']:.0f} |"
        )
    chosen, pruned, cost = results["chosen"], results["pruned"], results["cost"]
    before, after = cost["before"], cost["after"]
    lines += [
        "",
        f"| depth {chosen['depth']} | unpruned | {how(pruned)} |",
        "|---|---|---|",
        f"| validation | {percent(chosen['val'])} | {percent(pruned['val'])} |",
        f"| test | {percent(chosen['test'])} | {percent(pruned['test'])} |",
    ]
    lines += [
        f"| {layer['layer']} units | {layer['num_units']} | {layer['num_kept']} |"
        for layer in pruned["layers"]
    ]
    lines += [
        f"| parameters | {before['num_parameters']:,} | {after['num_parameters']:,} |",
        f"| file, bytes | {before['file_bytes']:,} | {after['file_bytes']:,} |",
    ]
    lines += [
        f"| {row['runtime']}, {row['device']}, batch {row['batch']}, ms | "
        f"{row['before_ms']['median']:.1f} | {row['after_ms']['median']:.1f} |"
        for row in cost["latency"]
    ]
    lines += [
        "",
        f"Pruning itself took {pruned['timing']['seconds']:.1f} s with its search; largest "
        f"difference of the ONNX file from PyTorch {cost['onnx_max_abs_difference']:.1e}.",
    ]
    return "\n".join(lines)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data")
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--group-by")
    words.add_argument("--weights", default="auto")
    words.add_argument("--preset", default="quick")
    words.add_argument("--depths", type=parse_depths)
    words.add_argument("--runs", type=int)
    words.add_argument("--seed", type=int)
    words.add_argument("--layers", type=lambda text: tuple(text.split(",")))
    given = vars(words.parse_args())
    data, out, preset = given.pop("data"), given.pop("out"), given.pop("preset")
    started = time.perf_counter()
    config = from_preset(preset, **given)
    results = run_study(data, config, out, cache=cache_dir(), progress=Console())
    seconds = time.perf_counter() - started
    write_report(results, out)
    print(markdown(results, seconds))


if __name__ == "__main__":
    main()
