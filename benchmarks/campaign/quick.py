"""What makes a command end in seconds: a narrow AlexNet, a short timing, a small ONNX exporter.

Nothing here touches how files are written and read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision import models

from narrow_alexnet import narrow_alexnet

PAGES = (
    ("study.page", "render"),
    ("frontier.page", "render_frontier"),
    ("grid.page", "render_grid"),
    ("paper.page", "render_paper"),
    ("search.page", "render_search"),
    ("network.page", "render_network"),
)


def write_onnx(program: tuple[Any, int], said: Mapping[str, Any], path: Path) -> None:
    """An AlexNet as ONNX, in milliseconds; PyTorch's exporter takes seconds for it."""
    model, size = program
    nodes: list[Any] = []
    tensors: list[Any] = []

    def weights(step: nn.Conv2d | nn.Linear) -> list[str]:
        names = [f"{kind}{len(nodes)}" for kind in ("weight", "bias")]
        for name, value in zip(names, (step.weight, step.bias), strict=True):
            tensors.append(numpy_helper.from_array(value.detach().numpy(), name))
        return names

    def add(kind: str, last: str, *more: str, **options: Any) -> str:
        nodes.append(
            helper.make_node(
                kind, [last, *more], [f"x{len(nodes)}"], name=f"{kind}{len(nodes)}", **options
            )
        )
        return f"x{len(nodes) - 1}"

    last = "images"
    for step in [*model.features, model.avgpool, nn.Flatten(), *model.classifier]:
        if isinstance(step, nn.Conv2d):
            shape = {"strides": step.stride, "pads": 2 * step.padding}
            last = add("Conv", last, *weights(step), **shape)
        elif isinstance(step, nn.Linear):
            last = add("Gemm", last, *weights(step), transB=1)
        elif isinstance(step, nn.ReLU):
            last = add("Relu", last)
        elif isinstance(step, nn.MaxPool2d):
            last = add("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2])
        elif isinstance(step, nn.Flatten):
            last = add("Flatten", last)  # the pooling before it has 6 x 6 inputs and outputs
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", len(said["classes"])])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(
        made, {k: v if k == "backbone" else json.dumps(v) for k, v in said.items()}
    )
    onnx.save(made, path)


def _page(*_: Any, **__: Any) -> str:
    return "<!doctype html>"


def shorten() -> None:
    """Make every AlexNet of this process a narrow one, and skip what only takes time."""
    import secateurs.cli
    from secateurs.nets import backbones, stock
    from secateurs.ship import export, spec
    from secateurs.study.frontier import latency
    from secateurs.study.paper import protocol
    from secateurs.study.pruning import network, savings

    assert secateurs.cli
    models.get_model = narrow_alexnet
    stock._TRACES.clear()
    for built in (spec._bare_opened, backbones.bare, stock.bare_stock):
        built.cache_clear()
    for module, name in (
        (savings, "BUDGET_S"),
        (network, "LATENCY_S"),
        (latency, "BUDGET_S"),
    ):
        assert hasattr(module, name)
        setattr(module, name, 0.02)
    assert hasattr(export, "_write") and hasattr(export, "_program")
    real_program, real_write = export._program, export._write

    def program(network: nn.Module, sample: torch.Tensor, path: Path) -> Any:
        if isinstance(network, models.AlexNet):
            return network, sample.shape[-1]
        return real_program(network, sample, path)  # a head that reads two depths

    def write(made: Any, said: Mapping[str, Any], path: Path) -> None:
        (write_onnx if isinstance(made, tuple) else real_write)(made, said, path)

    export._program, export._write = program, write
    known = protocol.PaperPlan.__init__.__defaults__
    assert known is not None and known[-2:] == (protocol.PAPER_ANGLES, protocol.PAPER_STDS)
    protocol.PaperPlan.__init__.__defaults__ = (*known[:-2], (7.5, 12.5), (0.5, 1.5))
    for module, name in PAGES:
        page = import_module(f"secateurs.report.{module}")
        assert hasattr(page, name)
        setattr(page, name, _page)
    torch.set_num_threads(1)


def preload(lists: Iterable[Path]) -> None:
    """Import here what commands have imported, so that forked processes need not."""
    for path in lists:
        for name in path.read_text().split():
            if name not in sys.modules:
                try:
                    import_module(name)
                except Exception:  # some modules can only be imported from others
                    continue
