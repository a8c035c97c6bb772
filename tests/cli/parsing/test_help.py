"""`--help`: panels, the usual options first, readable at 80 and 100 columns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from secateurs.cli.app import app, main
from secateurs.cli.options.panels import PANELS, QUANTIZATION, SERVICE
from secateurs.cli.options.usual import EXAMPLES, USUAL

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def help_of(capsys, monkeypatch: pytest.MonkeyPatch, *words: str, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.argv", ["secateurs", *words, "--help"])
    monkeypatch.setattr("typer.main.get_command", lambda _: GROUP)
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out


GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_help_fits_and_breaks_no_words(command: str, columns: int, capsys, monkeypatch):
    words = [command] if command else []
    text = help_of(capsys, monkeypatch, *words, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b" not in text
    flat = " ".join(text.split())
    commands = COMMANDS.values() if not command else [COMMANDS[command]]
    for one in commands:
        first = " ".join((one.help or "").split("\n\n")[0].split())
        assert first in flat
    if not command:
        return
    context = COMMANDS[command].make_context(command, [], resilient_parsing=True)
    for param in COMMANDS[command].get_params(context):
        term, meaning = param.get_help_record(context)
        assert " ".join(meaning.split()) in flat, term


def test_study_shows_its_eight_usual_options_first(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "study")
    panels = re.findall(r"^(\w+):\n", text, re.M)
    assert panels == ["Arguments", *(one for one in PANELS if one not in (QUANTIZATION, SERVICE))]
    basics = re.search(r"^Basics:\n(.*?)\n\n", text, re.M | re.S)
    assert basics is not None
    shown = re.findall(r"^  (--[\w-]+)", basics[1], re.M)
    assert shown == [
        *("--out", "--preset", "--backbones", "--max-mb", "--max-ms", "--max-loss", "--group-by"),
        "--config",
    ]


def test_usage_brackets_what_may_be_left_out(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "evaluate")
    assert text.startswith("Usage: secateurs evaluate [OPTIONS] MODEL [DATA]\n")
    assert " predict [OPTIONS] MODEL IMAGE...\n" in help_of(capsys, monkeypatch, "predict")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_example_is_a_command_line_of_the_command(
    command: str, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "plain").mkdir(parents=True)
    for folder in (
        "models/photos",
        "models/half",
        "studies/photos/model",
        "studies/photos/unpruned",
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.json").write_text("{}")
    (tmp_path / "studies" / "photos" / "study.json").write_text("{}")
    name, *words = shlex.split(EXAMPLES[command])
    assert name == command
    context = COMMANDS[command].make_context(name, words)
    assert words, command
    assert context.params["config"] is None
    assert f"Example: secateurs {command} " in help_of(capsys, monkeypatch, command)


def test_the_table_of_usual_options_names_options_that_there_are():
    assert set(USUAL) == set(EXAMPLES) == set(COMMANDS)
    for command, names in USUAL.items():
        assert set(names) <= {param.name for param in COMMANDS[command].params}, command


def test_every_option_has_a_panel_and_every_output_an_example():
    for command in COMMANDS.values():
        for param in command.params:
            if param.param_type_name == "option":
                assert param.rich_help_panel in PANELS, (command.name, param.name)
            if param.name == "out":
                assert "for example --out " in param.help, command.name
