"""An ONNX graph run part by part, so that its weights can be changed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.ship.latency import onnx_session

Batches = list[NDArray[Any]]


class Walk:
    """A graph on its way through batches of images: every node runs once.

    `values` holds, for each tensor that later nodes read, its batches. `initializers` are those of
    the model itself: a change of one is seen by the nodes that have not run yet.
    """

    def __init__(self, model: Any, batches: Sequence[NDArray[np.float32]]) -> None:
        self._model = model
        self.nodes: list[Any] = list(model.graph.node)
        self.initializers: dict[str, Any] = {one.name: one for one in model.graph.initializer}
        self.values: dict[str, Batches] = {model.graph.input[0].name: list(batches)}
        self._position = 0
        self._constant = _constant_nodes(self.nodes, set(self.initializers))
        self._last_reader: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            self._last_reader |= dict.fromkeys(node.input, index)
        self._last_reader |= {output.name: len(self.nodes) for output in model.graph.output}

    def run_until(self, index: int) -> None:
        """Run the nodes before `index` that have not run, and drop what no later node reads."""
        own = [
            node
            for node in self.nodes[self._position : index]
            if not any(output in self._constant for output in node.output)
        ]
        self._position = max(index, self._position)
        if own:
            self._run(own, index)
        for name in list(self.values):
            if self._last_reader.get(name, -1) < index:
                del self.values[name]

    def _run(self, own: list[Any], index: int) -> None:
        import onnx

        nodes = [*self._constants_of(own), *own]
        read = {name for node in nodes for name in node.input}
        inputs = [name for name in self.values if name in read]
        outputs = [
            name for node in own for name in node.output if self._last_reader.get(name, -1) >= index
        ]
        dtype_of = onnx.helper.np_dtype_to_tensor_dtype
        graph = onnx.helper.make_graph(
            nodes,
            "segment",
            [
                onnx.helper.make_tensor_value_info(n, dtype_of(self.values[n][0].dtype), None)
                for n in inputs
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self.initializers[name] for name in sorted(read) if name in self.initializers],
        )
        segment = onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        session = onnx_session(segment.SerializeToString())
        num_batches = len(next(iter(self.values.values())))
        found = [
            session.run(outputs, {name: self.values[name][batch] for name in inputs})
            for batch in range(num_batches)
        ]
        for place, name in enumerate(outputs):
            self.values[name] = [one[place] for one in found]

    def _constants_of(self, nodes: list[Any]) -> list[Any]:
        """The nodes that compute constants for these, in running order."""
        wanted: dict[int, Any] = {}
        left = [name for node in nodes for name in node.input]
        while left:
            index = self._constant.get(left.pop())
            if index is not None and index not in wanted:
                wanted[index] = self.nodes[index]
                left += self.nodes[index].input
        return [wanted[index] for index in sorted(wanted)]


def _constant_nodes(nodes: Sequence[Any], constant: set[str]) -> dict[str, int]:
    """Outputs that depend on no image, and the index of the node of each."""
    found: dict[str, int] = {}
    for index, node in enumerate(nodes):
        inputs = [name for name in node.input if name]
        if all(name in constant or name in found for name in inputs):
            found |= dict.fromkeys(node.output, index)
    return found
