"""The container file: what it copies is there, and its command is one that the program takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from secateurs.cli.app import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_is_sent_to_the_builder():
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.M) for name in line.split()]
    assert {"pyproject.toml", "src", "constraints.txt"} <= set(copied)
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in sent


def test_the_command_is_one_that_the_program_takes(net: Path):
    [words] = [json.loads(text) for text in re.findall(r"^ENTRYPOINT (.*)$", TEXT, re.M)]
    [last] = [json.loads(text) for text in re.findall(r"^CMD (.*)$", TEXT, re.M)]
    assert words[0] == "secateurs" and last == ["/model"]
    command: Any = get_command(app).commands[words[1]]  # pyright: ignore[reportAttributeAccessIssue]
    context = command.make_context(words[1], [*words[2:], str(net)])
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8000)
    [port] = re.findall(r"^EXPOSE (\d+)$", TEXT, re.M)
    assert f"http://127.0.0.1:{port}/health" in TEXT


def test_it_names_no_registry_and_runs_as_an_ordinary_user():
    [image] = re.findall(r"^FROM (\S+)$", TEXT, re.M)
    assert re.fullmatch(r"python:3\.\d+-slim", image)
    assert re.findall(r"\w+://[^/:'\"]+", TEXT) == ["http://127.0.0.1"]
    assert TEXT.index("\nUSER serve") < TEXT.index("\nENTRYPOINT")
