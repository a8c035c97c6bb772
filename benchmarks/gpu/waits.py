"""Two more parts: where pruning waits for the card, and what a CUDA graph brings."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import parts as of

Row = dict[str, Any]
Add = Callable[[str, Row], None]
STEPS = 20


def waits(add: Add) -> None:
    """How often pruning ResNet-18 waits for the card, by the line of the source that does."""
    import secateurs

    model, images = of.random_network("resnet18", 64, of.DEVICE)
    batches = images[:128].split(32)
    on_card = of.DEVICE == "cuda"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_card:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            secateurs.prune(model, batches, secateurs.Budget(macs=0.5), num_samples=128)
        finally:
            if on_card:
                torch.cuda.set_sync_debug_mode("default")
    lines = Counter(
        f"{Path(str(w.filename)).parent.name}/{Path(str(w.filename)).name}:{w.lineno}"
        for w in caught
        if "synchroniz" in str(w.message).lower()
    )
    add("waits", {"in_all": sum(lines.values()), "most": dict(lines.most_common(30))})


def graph_step(add: Add, *, num: int = 400) -> None:
    """Milliseconds of forward and backward of AlexNet's tails, launched and as a CUDA graph."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    model = alexnet(num_classes=of.CLASSES).to(of.DEVICE).train()
    tails: list[tuple[str, nn.Module, tuple[int, ...]]] = [
        ("depth 0", model, (num, 3, 224, 224)),
        ("depth 5", model.classifier, (num, 256 * 6 * 6)),
    ]
    labels = torch.arange(num, device=of.DEVICE) % of.CLASSES
    for name, tail, shape in tails:
        inputs = torch.randn(*shape, device=of.DEVICE)
        trained = list(tail.parameters())

        def step(tail: nn.Module = tail, inputs: torch.Tensor = inputs) -> torch.Tensor:
            with torch.autocast(of.DEVICE, dtype=torch.bfloat16):
                logits = tail(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            return loss

        def launched(trained: list[nn.Parameter] = trained, step: Any = step) -> None:
            for _ in range(STEPS):
                for parameter in trained:
                    parameter.grad = None
                step()

        launched()
        seconds, _ = of.timed(launched)
        row: Row = {"launched_ms": round(seconds / STEPS * 1e3, 3)}
        if of.DEVICE == "cuda":
            for parameter in trained:
                parameter.grad = None
            torch.cuda.manual_seed(7)
            plain = float(step())
            plain_grad = trained[-2].grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
            for parameter in trained:
                parameter.grad = None
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = step()
            torch.cuda.manual_seed(7)
            graph.replay()
            again = float(loss)
            grad = trained[-2].grad
            assert grad is not None
            difference = float((grad - plain_grad).abs().max() / plain_grad.abs().max())

            def replayed(graph: torch.cuda.CUDAGraph = graph) -> None:
                for _ in range(STEPS):
                    graph.replay()

            seconds, _ = of.timed(replayed)
            row |= {
                "graph_ms": round(seconds / STEPS * 1e3, 3),
                "loss": [plain, again],
                "gradient_difference": difference,
            }
        add("graph_step", {name: row})
