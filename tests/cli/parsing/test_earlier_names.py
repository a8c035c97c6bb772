"""One name for one thing: options, fields of configurations and keys of results agree."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
import typer

from secateurs.cli.app import app, main
from secateurs.cli.parsing.earlier_names import RENAMED, current_names
from secateurs.fit.recipe import Recipe
from secateurs.prune.layer_grid import GridOptions
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.pruning.network import Budget
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.pruning.saved_grid import GridPlan
from secateurs.study.search.plan import GridSearch, Halving, Tpe
from secateurs.study.setup.config import StudyConfig

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def names(*records: type) -> set[str]:
    return {field.name for record in records for field in fields(record)}


RECOVERY = {f"recovery_{name}" for name in names(RecoveryOptions)}
STUDY = names(StudyConfig) | names(Recipe)
RECORDS = {
    "study": STUDY | names(FrontierOptions),
    "sweep": STUDY,
    "train": STUDY | {"depth"},  # of a trial
    "search": STUDY | names(GridSearch, Halving, Tpe) | {"method", "depth", "lr"},
    "prune": STUDY | names(Budget) | RECOVERY | {"calibration", "reconstruction"},
    "grid": STUDY | names(GridOptions, GridPlan),
    "paper": names(PaperPlan),
}
# What decides no number that is kept: what is read, where it goes and what is printed.
AROUND = {
    *("data", "model", "out", "cache", "cache_budget", "cache_in", "config", "overwrite", "json"),
    *("quiet", "progress", "log", "strict", "both_splits"),
    *("executor", "trial_cpus", "trial_gpus"),
}


@pytest.mark.parametrize("command", sorted(RECORDS))
def test_options_have_the_names_of_the_fields_that_they_set(command: str):
    for param in COMMANDS[command].params:
        long = max(param.opts, key=len).removeprefix("--").replace("-", "_")
        assert long in RECORDS[command] | AROUND, f"{command} --{long}"


def test_options_have_the_names_of_the_parameters_that_receive_them():
    different: set[tuple[str, str]] = set()
    for command in COMMANDS.values():
        for param in command.params:
            long = max(param.opts, key=len).removeprefix("--").replace("-", "_")
            if long != param.name:
                different.add((long, param.name))
    # Names of Python's own, or of the program.
    assert different == {("json", "as_json"), ("format", "kind"), ("open", "open_browser")}


def test_results_keep_angles_and_norms_under_the_names_of_the_options():
    plain = StudyConfig().to_json()
    for name in ("low_deg", "high_deg", "norm_std", "rotation_deg"):
        assert name in plain
        assert any(
            f"--{name.replace('_', '-')}" in param.opts for param in COMMANDS["study"].params
        )


def test_earlier_names_are_known_and_none_is_an_option_today():
    known = {word for one in COMMANDS.values() for param in one.params for word in param.opts}
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known


def test_only_options_are_renamed_never_their_values():
    known, valued = {"--low-deg", "--out", "--quiet"}, {"--low-deg", "--out"}
    words = ["--out", "--low", "--low=3", "--quiet", "--low", "4", "--", "--low"]
    assert current_names(words, known, valued) == (
        ["--out", "--low", "--low-deg=3", "--quiet", "--low-deg", "4", "--", "--low"],
        ["--low is now --low-deg"] * 2,
    )
    assert current_names(["--rotation", "3"], known, valued) == (["--rotation", "3"], [])


@pytest.mark.parametrize("mode", ["plain", "json", "none"])
def test_an_earlier_name_works_with_a_notice(mode: str, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "sys.argv", ["secateurs", "study", "faces", "--low", "200", "--progress", mode]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    *notices, error = capsys.readouterr().err.splitlines()
    assert "--low-deg is out of range: 200" in error
    text = "--low is now --low-deg"
    expected = {"plain": [text], "json": [json.dumps({"event": "note", "text": text})], "none": []}
    assert notices == expected[mode]
