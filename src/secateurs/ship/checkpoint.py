"""A model as two files, model.json and model.safetensors: no pickle, rebuilt bit for bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import (
    atomic_path,
    fingerprint,
    read_json,
    sha256_file,
    to_json,
    write_json,
)
from secateurs.fit.tensors import write_tensors
from secateurs.nets.attention import open_attention
from secateurs.nets.backbones import build
from secateurs.ship.spec import (
    FORMAT,
    VERSION,
    ModelSpec,
    Shapes,
    bare,
    parse_spec,
    shown_name,
    shown_value,
)
from secateurs.ship.widths import tensors_of, widths_of, with_shapes, with_widths

JSON_NAME = "model.json"
EXPORTED = (".onnx", ".pt2", ".xml", ".pte", ".tflite")
TENSORS_NAME = "model.safetensors"
MOST_KNOWN = 256
_known_to_run: set[str] = set()  # fingerprints of architectures that ran in this process


@dataclass(frozen=True)
class Loaded:
    """A model read back, in eval mode on the CPU, and its recipe."""

    model: nn.Module
    spec: ModelSpec


def save(model: nn.Module, spec: ModelSpec, folder: Path) -> Path:
    """Write a model into `folder`, each file whole or not at all; return model.json's path.

    Raises InputError when the recipe does not describe the model (see `describe`).
    """
    where = "the recipe given"
    try:
        to_json(spec.to_json())
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: extra: not plain data ({error})") from None
    parse_spec(spec.to_json(), where=where)
    for key, value in model.state_dict().items():
        if value.is_meta:
            raise InputError(f"the model given: tensor {key!r} has a shape and no values")
    tensors = {
        key: value.detach().to("cpu", copy=True).contiguous()
        for key, value in model.state_dict().items()
    }
    _check_finite(tensors, where="the model given")
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in tensors.items()}
    _check_tensors(_planned(spec, where=where), shapes, where="the model given")
    path, tensors_path = folder / JSON_NAME, folder / TENSORS_NAME
    with atomic_path(tensors_path) as temporary:
        write_tensors(tensors, temporary)
        digest, num_bytes = sha256_file(temporary), temporary.stat().st_size
        # Stopped between the two files, there is no model, rather than one with another's tensors.
        path.unlink(missing_ok=True)
    record = {"file": TENSORS_NAME, "sha256": digest, "num_bytes": num_bytes}
    write_json(path, {"format": FORMAT, "version": VERSION, **spec.to_json(), "tensors": record})
    return path


def load(path: Path | str) -> Loaded:
    """Read a model back from its folder or its model.json; outputs are those of the model saved.

    Nothing is built, and no memory taken, before the recipe's claims agree with the tensors' own
    shapes. Raises InputError, naming file and field, for anything missing, changed, cut off or
    contradictory.
    """
    path = Path(path)
    path = path / JSON_NAME if path.is_dir() else path
    if path.suffix in EXPORTED and path.is_file():
        raise InputError(
            f"{path}: an exported file; expected the model that it was made from, a folder with "
            f"{JSON_NAME} (`predict` and `serve` read exported files)"
        )
    data = read_json(path)
    _check_format(data, path)
    spec = parse_spec(data, where=str(path))
    tensors_path = _check_file(data.get("tensors"), path)
    try:
        with safe_open(tensors_path, framework="pt") as file:
            shapes = {key: _shape(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118
    # What a damaged file makes the library raise is not documented.
    except Exception as error:
        reason = shown_name(str(error))
        raise InputError(f"{tensors_path}: not readable as safetensors ({reason})") from None
    resized = _planned(spec, where=str(path))
    _check_tensors(resized, shapes, where=str(tensors_path), claimed=f"{path}: widths")
    _check_runs(resized, spec, where=str(path))
    # A copy of what is in the file: the file may be replaced while the model is in use.
    tensors = OrderedDict((key, value.clone()) for key, value in load_file(tensors_path).items())
    _check_finite(tensors, where=str(tensors_path))
    # Module versions, which state_dict() carries and MNASNet insists on: these are today's names.
    vars(tensors)["_metadata"] = vars(resized.state_dict())["_metadata"]
    resized.load_state_dict(tensors, strict=True, assign=True)
    _fill_values(resized, spec, where=str(path))
    return Loaded(resized.eval(), spec)


def _check_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{where}: tensor {key!r} holds values that are not finite")


def _check_format(data: Any, path: Path) -> None:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path}: format: expected {FORMAT!r}; this is not a model of Secateurs")
    if data.get("version") != VERSION:
        raise InputError(
            f"{path}: version: this Secateurs reads {VERSION}, got "
            f"{shown_value(data.get('version'))}"
        )


def _check_file(record: Any, path: Path) -> Path:
    if not isinstance(record, dict) or record.get("file") != TENSORS_NAME:
        raise InputError(f"{path}: tensors.file: expected {TENSORS_NAME!r}")
    file = path.parent / TENSORS_NAME
    if not file.exists():
        raise InputError(f"{file}: no such file, and {path.name} needs it")
    if not file.is_file():
        raise InputError(f"{file}: not a regular file")
    if file.stat().st_size != record.get("num_bytes"):
        raise InputError(
            f"{file}: {file.stat().st_size} bytes, {path.name} says tensors.num_bytes is "
            f"{shown_value(record.get('num_bytes'))}; cut off or replaced"
        )
    if sha256_file(file) != record.get("sha256"):
        raise InputError(f"{file}: its SHA-256 is not {path.name}'s tensors.sha256; changed since")
    return file


_DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "BOOL": torch.bool}


def _shape(part: Any) -> tuple[tuple[int, ...], torch.dtype | None]:
    return tuple(part.get_shape()), _DTYPES.get(part.get_dtype())


def _planned(spec: ModelSpec, *, where: str) -> nn.Module:
    """The network of a recipe, with shapes and no values; raises InputError naming the field."""
    try:
        stock = bare(spec.backbone, len(spec.classes), spec.attention)
    except InputError as error:  # attention that cannot be opened
        raise InputError(f"{where}: {error}") from None
    stock_widths = {path: widths_of(module) for path, module in stock.named_modules()}
    for path, width in spec.widths.items():
        known = stock_widths.get(path)
        if not known or set(width) - {"groups"} != set(known) - {"groups"}:
            raise InputError(
                f"{where}: widths.{shown_name(path)}: {spec.backbone} has no such layer"
            )
        for side, number in width.items():
            # Cutting never widens, so no claim can ask for more than the stock network.
            if number > known.get(side, 1):
                raise InputError(
                    f"{where}: widths.{path}.{side}: {shown_value(number)}, {spec.backbone} has "
                    f"only {known.get(side, 1)}"
                )
    model, shapes = with_widths(stock, spec.widths), _known_shapes(spec, stock, where)
    model = with_shapes(model, shapes) if shapes else model
    _set_attributes(model, spec, where)
    for path, units in spec.kept.items():
        known = stock_widths.get(path)
        if not known:
            raise InputError(f"{where}: kept.{shown_name(path)}: {spec.backbone} has no such layer")
        num_out = spec.widths.get(path, known)["out"]
        if len(units) != num_out:
            raise InputError(
                f"{where}: kept.{path}: {len(units)} units, but the layer is {num_out} wide"
            )
        if units and units[-1] >= known["out"]:
            raise InputError(
                f"{where}: kept.{path}: unit {shown_value(units[-1])} is outside "
                f"0..{known['out'] - 1}"
            )
    return model


def _known_shapes(spec: ModelSpec, stock: nn.Module, where: str) -> Shapes:
    known = tensors_of(stock)
    for key, shape in spec.shapes.items():
        if key not in known:
            raise InputError(
                f"{where}: shapes.{shown_name(key)}: {spec.backbone} has no such tensor"
            )
        own = tuple(known[key].shape)
        pairs = list(zip(shape, own, strict=False))
        if len(shape) != len(own) or any(size > most for size, most in pairs):
            raise InputError(
                f"{where}: shapes.{key}: {shown_value(shape)}, {spec.backbone} has {own}"
            )
    return spec.shapes


def _set_attributes(model: nn.Module, spec: ModelSpec, where: str) -> None:
    modules = dict(model.named_modules())
    for path, numbers in spec.attributes.items():
        for name, value in numbers.items():
            own = vars(modules[path]).get(name) if path in modules else None
            if type(own) is not type(value) or not _is_at_most(value, own):
                raise InputError(
                    f"{where}: attributes.{shown_name(f'{path}.{name}')}: {shown_value(value)}, "
                    f"{spec.backbone} has {shown_value(own)}"
                )
            setattr(modules[path], name, value)


def _is_at_most(value: Any, own: Any) -> bool:
    if not isinstance(own, tuple):
        return value <= own
    return len(value) == len(own) and all(
        type(most) is int and size <= most for size, most in zip(value, own, strict=True)
    )


def _check_tensors(
    planned: nn.Module,
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype | None]],
    *,
    where: str,
    claimed: str = "widths",
) -> None:
    wanted = planned.state_dict()
    for key in sorted(wanted.keys() - shapes.keys()):
        raise InputError(f"{where}: tensor {key!r} is missing")
    for key in sorted(shapes.keys() - wanted.keys()):
        raise InputError(f"{where}: tensor '{shown_name(key)}' has no place in this network")
    for key, tensor in wanted.items():
        shape, dtype = shapes[key]
        if shape != tuple(tensor.shape):
            raise InputError(
                f"{where}: tensor {key!r} is {shape}, expected {tuple(tensor.shape)} from "
                f"{claimed}.{key.rpartition('.')[0]}"
            )
        if dtype != tensor.dtype:
            raise InputError(f"{where}: tensor {key!r} is {dtype}, expected {tensor.dtype}")


def _check_runs(planned: nn.Module, spec: ModelSpec, *, where: str) -> None:
    """Run a network without values; one that ran before is not run again, which takes a while."""
    size = spec.preprocessing.size
    known = fingerprint(
        [
            *(spec.backbone, len(spec.classes), spec.attention, size),
            *(spec.widths, spec.shapes, spec.attributes),
        ]
    )
    if known in _known_to_run:
        return
    try:
        with torch.no_grad():
            planned.eval()(torch.empty(2, 3, size, size, device="meta"))
    except Exception as error:  # whatever shapes that do not fit make a network raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where}: widths and preprocessing.size do not make a network that runs ({reason})"
        ) from None
    if len(_known_to_run) >= MOST_KNOWN:
        _known_to_run.clear()
    _known_to_run.add(known)


def _fill_values(model: nn.Module, spec: ModelSpec, *, where: str) -> None:
    """Give values to what is no part of a state_dict: tables computed when building."""
    left = [path for path, tensor in _tables(model).items() if tensor.is_meta]
    if not left:
        return
    stock = build(spec.backbone, len(spec.classes))
    stock = open_attention(stock) if spec.attention == "open" else stock
    own, given = _tables(model), _tables(stock)
    for path in left:
        owner, _, name = path.rpartition(".")
        if own[path].shape != given[path].shape:
            raise InputError(f"{where}: {shown_name(path)} is cut, and its values are not saved")
        setattr(model.get_submodule(owner), name, given[path])


def _tables(model: nn.Module) -> dict[str, Tensor]:
    """Buffers, and tensors that modules keep as plain attributes."""
    found = dict(model.named_buffers())
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                found[f"{path}.{name}" if path else name] = value
    return found
