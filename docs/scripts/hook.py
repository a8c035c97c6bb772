"""What mkdocs fills in: the command line's page, formulas, and links out of docs/."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MARK = "<!-- every command -->"
UPWARD = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")  # links to a folder above the page's
# Formulas in TeX, as GitHub shows them: a fence of the language math, and $`...`$ within a line.
DISPLAYED = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`]+)`\$")
HELD = re.compile(r"<p>(block)-formula-([0-9a-f]+)-end</p>|(inline)-formula-([0-9a-f]+)-end")


def on_config(config: Any, **_: Any) -> Any:
    """Leave out of the navigation the pages that are not written yet."""
    folder = Path(config["docs_dir"])
    config["nav"] = [_there(entry, folder) for entry in config["nav"]]
    return config


def _there(entry: Any, folder: Path) -> Any:
    """A part of the navigation without pages that have no file."""
    name, value = next(iter(entry.items()))
    if isinstance(value, str):
        return entry
    pages = [page for page in value if (folder / next(iter(page.values()))).exists()]
    return {name: pages}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the mark on the command line's page, show links to files outside as their names.

    Formulas are held back as words of letters and digits, which Markdown leaves as they are.
    """
    if MARK in markdown:
        markdown = markdown.replace(MARK, commands_markdown())
    markdown = DISPLAYED.sub(lambda found: _held("block", found.group(1)), markdown)
    markdown = INLINE.sub(lambda found: _held("inline", found.group(1)), markdown)
    folder = posixpath.dirname(page.file.src_uri)
    return UPWARD.sub(lambda found: found[1] if _leaves(folder, found[2]) else found[0], markdown)


def _leaves(folder: str, link: str) -> bool:
    """Whether a link from a page in this folder goes to a file that is only in the repository."""
    return posixpath.normpath(posixpath.join(folder, link)).startswith("..")


def on_page_content(html: str, **_: Any) -> str:
    """Put the formulas back as MathML; a table heading without text becomes an ordinary cell."""
    html = HELD.sub(
        lambda found: mathml(bytes.fromhex(found[2] or found[4]).decode(), found[1] or found[3]),
        html,
    )
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def on_post_page(output: str, **_: Any) -> str:
    """Give the theme's search dialog a name."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _held(kind: str, tex: str) -> str:
    """A formula as a word that names its kind and holds its text."""
    return f"{kind}-formula-{tex.strip().encode().hex()}-end"


def mathml(tex: str, kind: str = "inline") -> str:
    """A formula in TeX as MathML, which browsers draw without a script."""
    from latex2mathml.converter import convert

    formula = convert(tex, display=kind)
    return f'<div class="formula">{formula}</div>' if kind == "block" else formula


def commands_markdown() -> str:
    """Every command with its arguments and options, from what `--help` is made of."""
    sys.path.insert(0, str(ROOT / "src"))
    from typer.main import get_command

    from secateurs.cli.app import app

    parts: list[str] = []
    for name, command in sorted(get_command(app).commands.items()):
        parts.append(command_markdown(name, command))
    return "\n".join(parts)


def command_markdown(name: str, command: Any) -> str:
    """One command: what it does, how it is called, and tables of what it takes."""
    from secateurs.cli.options.panels import BASICS, PANELS
    from secateurs.cli.options.usual import EXAMPLES

    context = command.make_context(name, [], resilient_parsing=True)
    tables: dict[str, list[tuple[str, str]]] = {"Argument": [], **{panel: [] for panel in PANELS}}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if param.name == "help" or record is None:
            continue
        panel = getattr(param, "rich_help_panel", None) or BASICS
        tables["Argument" if param.param_type_name == "argument" else panel].append(record)
    words = sorted(command.usage_pieces(context), key="[OPTIONS]".__eq__)  # options last
    usage = " ".join(["secateurs", name, *words])
    lines = [f"## secateurs {name}", ""]
    lines += [" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n")]
    lines += ["```text", usage, "```", ""]
    lines += ["```sh", f"secateurs {EXAMPLES[name]}", "```", ""]
    for panel, records in tables.items():
        if records:
            lines += [f"| {panel} | meaning | default |", "|---|---|---|", *map(_row, records), ""]
    return "\n".join(lines)


def _row(record: tuple[str, str]) -> str:
    """A line of `--help` as a row: the words, what they mean, the default if one is said."""
    word, text = record
    word = word if word.startswith("-") else word.split()[0]
    said = re.search(r"\[default: ([^\]]*)\]", text)
    default = said.group(1) if said else "required" if "[required]" in text else ""
    meaning = re.sub(r"\s*\[(default: [^\]]*|required)\]", "", text)
    # Pieces of their own, so that a narrow column breaks between them.
    words = " ".join(f"<code>{_cell(part)}</code>" for part in word.replace(" / ", " ").split())
    return f"| {words} | {_cell(meaning)} | {_cell(default)} |"


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is, also within a table."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[|*_`\[\]\\^$]", lambda found: f"&#{ord(found.group())};", plain)
