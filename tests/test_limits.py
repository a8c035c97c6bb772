"""Every number a user can give: NaN, infinity, negative and huge ones are one line, exit code 2."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest
import typer

from secateurs.cli.app import app, main
from secateurs.data.views import Augmentation
from secateurs.errors import InputError
from secateurs.fit.config import FitConfig
from secateurs.limits import LIMITS, Range, check_fields, check_number
from secateurs.prune.layer import PruneOptions
from secateurs.prune.layer_grid import GridOptions
from secateurs.prune.to_budget import Budget
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.search.plan import GridSearch, Halving, Tpe
from secateurs.study.setup.config import StudyConfig

HUGE = 10**40
# Options of which a negative number means something.
SIGNED = {"max_loss"}
LISTS = {"0-7|5,6", "N|full", "N|N,N", "A,B,...", "A-B:STEP|A,B|N", "LOW,HIGH"}
BAD_LISTS = ("nan", "inf", "-1", str(HUGE), "9" * 5000, "²", ",".join(["1"] * 20_000))

GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands


def _options(numeric: bool) -> list[tuple[str, Any]]:
    return [
        (name, option)
        for name, command in COMMANDS.items()
        for option in command.params
        if option.param_type_name == "option" and not getattr(option, "is_flag", False)
        if (
            option.type_descriptor.annotation in (int, float)
            if numeric
            else str(option.metavar) in LISTS
        )
    ]


def _error(capsys, monkeypatch, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    monkeypatch.setattr("typer.main.get_command", lambda app: GROUP)  # built once, for speed
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2, words
    assert printed.out == ""
    assert re.fullmatch(r"error: [^\n]{1,300}\n", printed.err), printed.err
    return printed.err


def test_there_are_numbers_to_check():
    found = {name for name, _ in _options(numeric=True)}
    assert found == set(COMMANDS) - {"report", "results"}
    assert len(_options(numeric=True)) > 70
    assert {str(option.metavar) for _, option in _options(numeric=False)} == LISTS


@pytest.mark.parametrize("command", sorted({name for name, _ in _options(numeric=True)}))
def test_every_number_on_the_command_line_has_bounds(command: str, capsys, monkeypatch):
    for name, option in _options(numeric=True):
        if name != command:
            continue
        for text in ("nan", "inf", "-1", str(HUGE)):
            if text == "-1" and option.name in SIGNED:
                continue
            error = _error(capsys, monkeypatch, command, option.opts[0], text)
            assert option.opts[0] in error


@pytest.mark.parametrize("place", range(len(_options(numeric=False))))
def test_every_list_of_numbers_has_bounds(
    place: int, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
):
    command, option = _options(numeric=False)[place]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    words = ["faces"] if command in ("study", "sweep", "search", "paper", "train") else []
    if command in ("prune", "grid"):
        words = [".", "faces"]
    if command == "search" and option.name in ("depths", "lr_range"):
        words += ["--method", "halving"]

    def work(*args: object, **options: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("secateurs.study.setup.trial_context.open_images", work)
    said = option.opts[0].removeprefix("--").replace("-", ".")
    for text in BAD_LISTS:
        given = ["--out", "x", f"{option.opts[0]}={text}"]
        assert re.search(said, _error(capsys, monkeypatch, command, *words, *given)), text


RECORDS = (
    (StudyConfig(), None),
    (FitConfig(), None),
    (PruneOptions(), PruneOptions.check),
    (GridOptions(), GridOptions.check),
    (PaperPlan(), None),
    (GridSearch(), None),
    (Halving(), None),
    (Tpe(), None),
    (Budget(params=0.5), None),
    (RecoveryOptions(), None),
    (Augmentation(), None),
)


@pytest.mark.parametrize(("record", "check"), RECORDS, ids=lambda one: type(one).__name__)
def test_every_number_of_a_record_has_bounds(record: Any, check: Any):
    seen = 0
    for field in fields(record):
        kinds = set(re.findall(r"\w+", str(field.type)))
        if not kinds & {"int", "float"} or "Literal" in kinds:
            continue
        seen += 1
        listed = "tuple" in kinds
        for value in (float("nan"), float("inf"), -1, HUGE, "5", True):
            given = (value, value) if listed else value
            with pytest.raises(InputError) as raised:
                changed = replace(record, **{field.name: given})
                if check is not None:
                    check(changed)
            assert len(str(raised.value)) < 300
    assert seen >= 2


def test_limits_are_said():
    with pytest.raises(InputError) as raised:
        check_number("--lr", float("inf"), LIMITS["lr"])
    assert str(raised.value) == (
        "--lr is out of range: inf; expected a number above 0, up to 1e+30"
    )
    with pytest.raises(InputError, match="got 2,000"):
        StudyConfig(depths=tuple(range(2000)))
    with pytest.raises(InputError, match="runs is out of range: None"):
        StudyConfig(runs=None)  # type: ignore[arg-type]
    assert 0 in Range(0, 1)
    assert 1 not in Range(0, 1, open_high=True)
    assert 1.5 not in Range(0, 9, whole=True)
    check_fields(StudyConfig(batch_size=None))
