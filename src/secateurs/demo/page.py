"""The page that classifies in a browser: one file with everything in it, or a folder."""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from markupsafe import Markup
from PIL import Image

import secateurs
from secateurs.demo.runtime import VERSION, Runtime
from secateurs.errors import InputError
from secateurs.files import atomic_folder, atomic_path
from secateurs.report.common.formatting import percent, plural
from secateurs.report.common.render import embedded_json, policy, templates

OWN = Path(__file__).parent / "templates"
MARK = "<!-- files -->"
RUNTIME = "runtime.wasm"
MAX_PAGE_MB = 150  # of models in one file: browsers give up on much longer texts
PORT = 8000
PIECE = 3 << 20  # of bytes written at a time; a multiple of 3, which base64 needs

Record = dict[str, Any]


@dataclass(frozen=True)
class DemoModel:
    """A model of the page: an ONNX file and how its outputs become answers.

    `preprocessing` is that of `ImageInput.to_json`; below `threshold`, if any, the page answers
    "don't know"; `facts` are further lines of its table, such as accuracy and parameters.
    """

    title: str
    onnx: bytes
    classes: tuple[str, ...]
    preprocessing: Record
    temperature: float = 1.0
    threshold: float | None = None
    facts: dict[str, str] = field(default_factory=dict[str, str])


def write_demo(
    models: Sequence[DemoModel], out: Path, runtime: Runtime, *, title: str | None = None
) -> int:
    """Write the page of one model, or of two side by side, and return its bytes.

    `out` is the page when it ends in .html, else a folder with index.html, the models and the
    runtime, which browsers load only from a server. Whole or not at all; a folder must be new or
    empty. Raises InputError for models with different classes, and for models that are too large
    for one file.
    """
    check_models(models, out)
    files = {RUNTIME: runtime.wasm} | {
        f"model-{number}.onnx": model.onnx for number, model in enumerate(models, start=1)
    }
    head, tail = _page(models, out, runtime, title or _title(models)).split(MARK)
    try:
        if is_page(out):
            with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as page:
                page.write(head)
                for name, content in files.items():
                    _embed(name, content, page)
                page.write(tail)
            return out.stat().st_size
        with _folder(out) as folder:
            (folder / "index.html").write_text(head + tail, encoding="utf-8")
            for name, content in files.items():
                (folder / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return sum(path.stat().st_size for path in out.iterdir())


def is_page(out: Path) -> bool:
    """Whether a path means one file, and not a folder."""
    return out.suffix.lower() in (".html", ".htm")


def check_models(models: Sequence[DemoModel], out: Path) -> None:
    """Raise InputError unless these models can stand on one page."""
    if not 1 <= len(models) <= 2:
        raise InputError(f"a page shows one or two models, got {len(models)}")
    first, last = models[0], models[-1]
    if set(first.classes) != set(last.classes):
        odd = sorted(set(first.classes) ^ set(last.classes))[0]
        raise InputError(
            f"the models have different classes ({odd!r:.80} is one of a single model): they "
            "cannot be compared"
        )
    num_mb = sum(len(model.onnx) for model in models) / 10**6
    if is_page(out) and num_mb > MAX_PAGE_MB:
        raise InputError(
            f"{out}: models of {num_mb:.0f} MB are too large for one file (at most {MAX_PAGE_MB} "
            "MB); give a folder, or int8 models"
        )


@cache
def columns_first() -> bool:
    """Whether the Pillow installed resizes tall images along columns first, as newer ones do.

    The order of the two passes, each of which rounds, decides the last bit of some pixels.
    """
    noise = np.random.default_rng(0).integers(0, 256, (200, 40), dtype=np.uint8)
    image, method = Image.fromarray(noise), Image.Resampling.BILINEAR
    at_once = np.asarray(image.resize((30, 30), method))
    by_columns = np.asarray(image.resize((40, 30), method).resize((30, 30), method))
    return bool(np.array_equal(at_once, by_columns))


def server_line(out: Path) -> tuple[str, str]:
    """A command that serves the page on this machine, and the address to open then.

    >>> server_line(Path("demo.html"))[1]
    'http://127.0.0.1:8000/demo.html'
    """
    folder = out.parent if is_page(out) else out
    line = f"python3 -m http.server {PORT} --bind 127.0.0.1"
    if str(folder) != ".":
        line += f" --directory {shlex.quote(str(folder))}"
    return line, f"http://127.0.0.1:{PORT}/{out.name if is_page(out) else ''}"


def _page(models: Sequence[DemoModel], out: Path, runtime: Runtime, title: str) -> str:
    names = ("resize.js", "demo.js")
    own = "\n".join((OWN / name).read_text(encoding="utf-8") for name in names)
    line, address = server_line(out)
    connect = "'none'" if is_page(out) else "'self'"
    rules = policy((runtime.script, own)).replace("script-src ", "script-src 'wasm-unsafe-eval' ")
    shown = [
        {
            "title": model.title,
            "file": f"model-{number}.onnx",
            "classes": list(model.classes),
            "preprocessing": {**model.preprocessing, "columns_first": columns_first()},
            "temperature": model.temperature,
            "threshold": model.threshold,
        }
        for number, model in enumerate(models, start=1)
    ]
    page = templates(OWN).get_template("demo.html.j2")
    return page.render(
        title=title,
        lead=_lead(models),
        models=shown,
        facts=_facts(models),
        folder=not is_page(out),
        server=line,
        address=address,
        version=secateurs.__version__,
        runtime_version=VERSION,
        policy=f"{rules}; connect-src {connect}",
        style=Markup((OWN / "demo.css").read_text(encoding="utf-8")),
        runtime=Markup(runtime.script),
        script=Markup(own),
        models_json=embedded_json(shown),
        mark=Markup(MARK),
    )


def _title(models: Sequence[DemoModel]) -> str:
    classes = list(models[0].classes)
    named = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    return f"Image classifier: {named}"


def _lead(models: Sequence[DemoModel]) -> str:
    what = plural(len(models[0].classes), "class", "classes")
    if len(models) == 1:
        return f"Give it images and it says which of {what} they show."
    return f"Give both models images, and compare which of {what} they say."


def _facts(models: Sequence[DemoModel]) -> list[tuple[str, list[str]]]:
    rows: list[tuple[str, list[str]]] = [
        ("File", [f"{len(model.onnx) / 1e6:.2f} MB" for model in models]),
        (
            "Don’t know below",
            ["answers always" if m.threshold is None else percent(m.threshold) for m in models],
        ),
        ("Input", [f"{m.preprocessing['size']} × {m.preprocessing['size']} px" for m in models]),
    ]
    names = dict.fromkeys(name for model in models for name in model.facts)
    return rows + [(name, [model.facts.get(name, "–") for model in models]) for name in names]


def _embed(name: str, content: bytes, page: TextIO) -> None:
    packed = gzip.compress(content, compresslevel=6, mtime=0)
    page.write(f'<script type="text/plain" id="file-{name}">')
    for first in range(0, len(packed), PIECE):
        page.write(base64.b64encode(packed[first : first + PIECE]).decode("ascii"))
    page.write("</script>\n")


@contextmanager
def _folder(out: Path) -> Generator[Path]:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: there already and not an empty folder; choose a new one")
    with atomic_folder(out) as folder:
        yield folder
