"""What a network's own `forward` does between its modules, as steps of one tensor each."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node, Tracer

from secateurs.nets.trace import is_chain


@dataclass(frozen=True)
class Segment:
    """One step: the module at `path` called with one tensor, or else the operations of `graph`.

    Paths in the graph are those of the whole network.
    """

    path: str | None
    graph: Graph | None

    def module(self, model: nn.Module) -> nn.Module:
        """The step as a module that shares the model's modules and parameters."""
        if self.graph is None:
            return model.get_submodule(self.path or "")
        return GraphModule(model, self.graph)


class _RootTracer(Tracer):
    """Follows the network's own `forward` and plain sequences; everything else is one call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not is_chain(m)


def segments(model: nn.Module, where: str = "") -> tuple[Segment, ...] | None:
    """The forward of a network, or of its module at `where`, cut wherever one tensor goes on alone.

    It is followed symbolically by torch.fx, in eval mode, without looking into modules other than
    plain sequences. What is found must be compared with the network on real images: what a network
    does in dependence on values is not followed. None if it cannot be followed.
    """
    module = model.get_submodule(where)
    try:
        graph = _RootTracer().trace(module, concrete_args=_defaults(module))
    except Exception:  # whatever a network makes of symbols
        return None
    nodes = list(graph.nodes)
    first, last = nodes[0], nodes[-1]
    if first.op != "placeholder" or len(last.all_input_nodes) != 1:
        return None
    result = last.all_input_nodes[0]
    if last.args != (result,):  # a record or a tuple of results
        return None
    nodes = _needed(nodes, result)
    if first not in nodes or any(node.op == "placeholder" for node in nodes if node is not first):
        return None
    nodes = [node for node in nodes if node.op not in ("placeholder", "get_attr")]
    place = {node: k for k, node in enumerate(nodes)}
    found: list[Segment] = []
    start, entry = 0, first
    for k, node in enumerate(nodes):
        if _goes_on_alone(node, [first, *nodes[: k + 1]], place, last):
            found.append(_segment(module, where, nodes[start : k + 1], entry))
            start, entry = k + 1, node
    return tuple(found) if start == len(nodes) and found else None


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The values of the arguments after the first, which nobody gives."""
    given = list(inspect.signature(module.forward).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name: one.default for one in given if one.kind not in kinds}


def _needed(nodes: list[Node], result: Node) -> list[Node]:
    """The nodes that the result depends on: checks of shapes are left out."""
    wanted, left = set[Node](), [result]
    while left:
        node = left.pop()
        if node not in wanted:
            wanted.add(node)
            left += node.all_input_nodes
    return [node for node in nodes if node in wanted]


def _goes_on_alone(node: Node, before: list[Node], place: dict[Node, int], last: Node) -> bool:
    """Whether nothing but the result of `node`, the last of `before`, is used after it."""
    if node.target in (getattr, "size", "dim"):  # no tensor
        return False
    for other in before:
        later = any(user is last or place.get(user, -1) > place[node] for user in other.users)
        if later != (other is node):
            return False
    return True


def _segment(module: nn.Module, where: str, nodes: list[Node], entry: Node) -> Segment:
    start = f"{where}." if where else ""
    only = nodes[0]
    if len(nodes) == 1 and only.op == "call_module" and only.args == (entry,):
        path = str(only.target)
        own = inspect.signature(module.get_submodule(path).forward).parameters
        if all(key in own and own[key].default is value for key, value in only.kwargs.items()):
            return Segment(start + path, None)
    graph = Graph()
    copies: dict[Node, Node] = {entry: graph.placeholder("x")}

    def copy_of(node: Node) -> Node:
        if node not in copies:
            assert node.op == "get_attr", node  # a parameter or buffer of the network
            copies[node] = placed(graph.node_copy(node, copy_of))
        return copies[node]

    def placed(node: Node) -> Node:
        if node.op in ("get_attr", "call_module"):
            node.target = f"{start}{node.target}"
        return node

    for node in nodes:
        copies[node] = placed(graph.node_copy(node, copy_of))
    graph.output(copies[nodes[-1]])
    return Segment(None, graph)
