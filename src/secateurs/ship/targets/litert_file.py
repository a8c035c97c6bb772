"""`.tflite` for LiteRT on phones and boards; one image at a time, classes in a JSON beside it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path, sha256_file
from secateurs.nets.trace import copied
from secateurs.ship.about import about, read_beside, write_beside
from secateurs.ship.export import check_example
from secateurs.ship.lacking import cannot_hold, first_line
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.checking import checked, cpu_images
from secateurs.ship.targets.target import FileCheck, Images, Logits, OpenedFile

NAME = "LiteRT"
ENDING = ".tflite"
EXTRA = "litert"


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model for single images, with a JSON file beside it; see `Target.write`."""
    require(EXTRA, "a LiteRT file")
    size = check_example(spec, example)
    network, sample = copied(model).cpu().eval(), torch.zeros(1, 3, size, size)
    with atomic_path(path) as temporary:
        made = temporary.with_name(f"{temporary.name}{ENDING}")  # the converter wants the ending
        try:
            # The converter prints each of its steps.
            with warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                converter: Any = import_module("litert_torch")
                converter.convert(network, (sample,)).export(str(made))
            made.replace(temporary)
        except OSError:
            raise
        except Exception as error:  # of the converter's own kinds
            raise cannot_hold(path, NAME, error, network, sample) from None
        finally:
            made.unlink(missing_ok=True)
        images = cpu_images(example)
        difference = checked(_runner(temporary), network, images, path, batches=(1,))
        write_beside(path, about(spec, card), sha256=sha256_file(temporary))
    return FileCheck(path, difference, path.stat().st_size)


def open(path: Path) -> OpenedFile:
    """Open a file that Secateurs wrote; see `Target.open`."""
    require(EXTRA, "a LiteRT file")
    spec = read_beside(path)  # first: a damaged file may end the process
    try:
        return OpenedFile(spec, _runner(path))
    except Exception as error:  # of LiteRT's own kinds
        raise InputError(f"{path}: not readable as LiteRT ({first_line(error)})") from None


def _runner(path: Path) -> Any:
    module: Any = import_module("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(model_content=path.read_bytes())
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    found = interpreter.get_output_details()[0]["index"]

    def run(images: Images) -> Logits:
        rows: list[Logits] = []
        for image in images:
            interpreter.set_tensor(given, image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(found))
        return np.concatenate(rows)

    return run
