"""A command of Secateurs: `--help` in panels, earlier names, configuration files, safe places."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from secateurs.cli.options.panels import BASICS, OUTPUT, PANELS
from secateurs.cli.options.usual import EXAMPLES, USUAL
from secateurs.cli.parsing.config_file import Parameter, RunConfig, kind_of, read_config
from secateurs.cli.parsing.destinations import check_outside, default_out, image_folders
from secateurs.cli.parsing.earlier_names import RENAMED, current_names
from secateurs.cli.parsing.layout import first_column, panel, wrapped
from secateurs.errors import InputError
from secateurs.native_stderr import asked_of, print_note
from secateurs.paths import output_directory

RUN = "secateurs.run"  # where a context keeps its RunConfig
# Texts that may be paths, beside what is declared as one.
_TEXT_PATHS = ("data", "weights", "group_by")


class Command(TyperCommand):
    """One command of the program."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what the command does, and its options by panel."""
        formatter.write_usage(ctx.command_path, " ".join(self.usage_pieces(ctx)))
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write("\n" + wrapped(paragraph, formatter.width, indent="  ") + "\n")
        example = f"Example: secateurs {EXAMPLES[self.name or '']}"
        formatter.write("\n" + wrapped(example, formatter.width, indent="  ") + "\n")
        panels = self.panels(ctx)
        first = first_column(term for rows in panels.values() for term, _ in rows)
        for title, rows in panels.items():
            formatter.write("\n" + panel(title, rows, width=formatter.width, first=first))

    def usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name: options, then arguments, in brackets if optional."""
        pieces = ["[OPTIONS]"]
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                name = str(param.metavar)
                pieces.append(name if param.required else f"[{name}]")
        return pieces

    def panels(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """The lines of each panel, as (option, meaning)."""
        usual = USUAL[self.name or ""]
        placed: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{p: [] for p in PANELS}}
        # The usual ones in the order of the table, the others as they are declared.
        order = {name: at for at, name in enumerate(usual)}
        for param in sorted(self.get_params(ctx), key=lambda one: order.get(str(one.name), 99)):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                placed["Arguments"].append((str(param.metavar), record[1]))
            elif param.name in order:
                placed[BASICS].append(record)
            else:
                placed[getattr(param, "rich_help_panel", None) or OUTPUT].append(record)
        return {title: rows for title, rows in placed.items() if rows}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a command line, and those of its configuration file."""
        if ctx.resilient_parsing:  # completion
            return super().parse_args(ctx, args)
        words, notices = self._current(ctx, args)
        given, _, _ = self.make_parser(ctx).parse_args(args=list(words))
        file = given.get("config")
        from_file: dict[str, Any] = {}
        if file is not None and not given.get("help"):
            keys = {one.key: one for one in self.parameters(ctx)}
            from_file, more = read_config(Path(file), self.name or "", keys, RENAMED)
            notices += more
            from_file = {name: v for name, v in from_file.items() if given.get(name) in (None, ())}
            words = self._with(ctx, words, from_file, file)
        progress = asked_of(words)
        for text in notices:
            print_note(text, progress=progress)
        try:
            rest = super().parse_args(ctx, words)
        except ValueError as error:
            raise _named(error, ctx, from_file, file) from None
        except typer.BadParameter as error:
            if getattr(error.param, "name", None) in from_file:
                raise InputError(f"{file}: {error.format_message()}") from None
            raise
        self._settle(ctx)
        return rest

    def parameters(self, ctx: Any) -> tuple[Parameter, ...]:
        """What a configuration file may hold, in the order of the signature."""
        assert self.callback is not None, "every command has a function"
        hints = get_type_hints(inspect.unwrap(self.callback))
        found: list[Parameter] = []
        for param in self.get_params(ctx):
            name = str(param.name)
            if name not in hints:
                continue
            long = max(getattr(param, "opts", [name]), key=len)
            key = long.removeprefix("--") if long.startswith("--") else name.replace("_", "-")
            kind = kind_of(hints[name])
            is_path = name in _TEXT_PATHS or "Path" in str(hints[name])
            found.append(Parameter(key, name, kind, str(param.metavar or ""), is_path))
        return tuple(found)

    def _current(self, ctx: Any, args: list[str]) -> tuple[list[str], list[str]]:
        options = [one for one in self.get_params(ctx) if one.param_type_name == "option"]
        known = {word for one in options for word in (*one.opts, *one.secondary_opts)}
        valued = {word for one in options if not getattr(one, "is_flag", 0) for word in one.opts}
        return current_names(args, known, valued)

    def _with(self, ctx: Any, words: list[str], values: dict[str, Any], file: str) -> list[str]:
        """The words with those of a configuration file, options first and arguments last."""
        options: list[str] = []
        last: list[str] = []
        missing = ""
        for param in self.get_params(ctx):
            name = str(param.name)
            value = values.get(name)
            if param.param_type_name == "argument":
                if value is None:
                    missing = name if param.required and name not in values else missing
                    continue
                last += value if isinstance(value, list) else [value]
            elif isinstance(value, bool):
                options += param.opts[:1] if value else param.secondary_opts[:1]
            elif value is not None:
                options.append(f"{max(param.opts, key=len)}={value}")
        if not last:
            return [*options, *words]
        return [*options, *words, *([] if "--" in words else ["--"]), *last]

    def _settle(self, ctx: Any) -> None:
        """Fill in the default of `--out`, and refuse a place within the images."""
        params: dict[str, Any] = ctx.params
        out = params.get("out")
        default = next((one.default for one in self.get_params(ctx) if one.name == "out"), None)
        if isinstance(default, Path) and out == default:
            out = params["out"] = default_out(default, params)
            output_directory(out)
        for place in (out, params.get("html")):
            if isinstance(place, Path):
                check_outside(place, image_folders(params))
        ctx.meta[RUN] = RunConfig(self.name or "", self.parameters(ctx), dict(params))


def _named(error: ValueError, ctx: Any, from_file: Iterable[str], file: Any) -> ValueError:
    """An error of a value, with the configuration file that it is from."""
    # The value that was being read has a source, and is not among those that were read.
    culprit = next(
        (
            name
            for name in from_file
            if name not in ctx.params and ctx.get_parameter_source(name) is not None
        ),
        None,
    )
    if culprit is None or not isinstance(error, InputError):
        return error
    key = culprit.replace("_", "-")
    return InputError(f"{file}: {error}" if f"--{key}" in str(error) else f"{file}: {key}: {error}")


class Group(TyperGroup):
    """The program: its commands by what they are for, each with a whole line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what the program does, and its commands."""
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)))
        formatter.write("\n" + wrapped(self.help or "", formatter.width, indent="  ") + "\n")
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(title, []).append((name, summary(command.help or "")))
        first = first_column(term for rows in panels.values() for term, _ in rows)
        for title, rows in panels.items():
            formatter.write("\n" + panel(title, rows, width=formatter.width, first=first))
        records = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        rows = [record for record in records if record is not None]
        first = first_column(term for term, _ in rows)
        formatter.write("\n" + panel("Options", rows, width=formatter.width, first=first))


def summary(text: str) -> str:
    """The first paragraph of a help text."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
