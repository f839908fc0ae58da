"""A backbone in two parts, cut where the first layer that is trained begins.

What the frozen part puts out is the same in every step, so that it is worth computing once. The cut is found in the
network's own graph (torch.fx): layers whose parameters are all frozen, or all trained, stay whole as they are; only
those that are both are looked into. Both parts hold the backbone's own layers, not copies.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tlcore.errors import PluginError

__all__ = ["Frozen", "Rest", "Split", "Whole", "split"]

_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Whole:
    """The backbone cannot be cut, or a cut is worth nothing. why: one phrase."""

    why: str


@dataclass(frozen=True)
class Split:
    """rest(frozen(x)) = backbone(x) in eval mode.

    frozen: images float32 [n, 3, H, W] to what enters the rest: one float tensor [n, ...], in the shape that the
        network gives it; where the cut crosses several tensors, all of them flattened, [n, their sizes' sum].
    rest: from there to the backbone's output. shapes: of each tensor at the cut, for one image.
    """

    frozen: Frozen
    rest: Rest
    shapes: tuple[tuple[int, ...], ...]

    @property
    def values(self) -> int:
        """Numbers per image at the cut."""
        return sum(reduce(operator.mul, shape, 1) for shape in self.shapes)


class Frozen:
    """The part that nothing trains: in eval mode and without gradients whenever it is called.

    Dropout and stochastic depth among its layers are therefore off, also while the rest is trained.
    """

    def __init__(self, layers: fx.GraphModule, packed: bool) -> None:
        self.layers, self._packed = layers, packed

    def __call__(self, images: Tensor) -> Tensor:
        with _eval_mode(self.layers), torch.no_grad():
            parts = cast(tuple[Tensor, ...], self.layers(images))
        return torch.cat([part.flatten(1) for part in parts], 1) if self._packed else parts[0]


class Rest(nn.Module):
    """The part that is trained, on the backbone's own layers and parameters: steps on it are steps on the backbone,
    and train() and eval() of either are seen by both."""

    def __init__(self, layers: fx.GraphModule, shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.layers, self._shapes = layers, shapes

    def forward(self, cut: Tensor) -> Tensor:
        if len(self._shapes) == 1:
            return cast(Tensor, self.layers(cut))
        sizes = [reduce(operator.mul, shape, 1) for shape in self._shapes]
        parts = torch.split(cut, sizes, 1)
        return cast(
            Tensor,
            self.layers(
                *(part.reshape(len(part), *shape) for part, shape in zip(parts, self._shapes, strict=True))
            ),
        )


def split(backbone: nn.Module, moving: Collection[str], example: Tensor) -> Split | Whole:
    """Cut the backbone before the first layer with a parameter that moves, and try both parts on the example.

    The cut is proven, not assumed: in eval mode rest(frozen(x)) must equal backbone(x) to 1e-5 of its largest
    value, for the example and for a batch of another size. Call it with the network where it will be used: on its
    device, in its memory format. The network's weights, modes and random state are left as they were.

    Args:
        moving: names of the backbone's parameters that will be trained, as in `named_parameters`.
        example: float32 [n, 3, H, W], normalised images or noise; not blank, which would prove little.

    Raises:
        PluginError: a name that the backbone has no parameter for.
    """
    named = dict(backbone.named_parameters(remove_duplicate=False))
    unknown = sorted(set(moving) - named.keys())
    if unknown:
        raise PluginError(f"the backbone has no parameter {', '.join(unknown[:3])}", choices=tuple(named)[:8])
    trained = {id(named[name]) for name in moving}
    if not trained:
        return Whole("no parameter of it is trained")
    if len(example) == 1:
        example = torch.cat([example, example.flip(-1)])  # a first dimension of 1 may be no batch
    with _eval_mode(backbone), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            graph, owner = _traced(backbone, trained)
            parts = _cut(graph, owner, trained, example)
        except Exception as error:  # noqa: BLE001 - a forward that cannot be traced may raise anything
            return Whole(f"its forward cannot be followed: {type(error).__name__}: {_first_line(error)}")
        if isinstance(parts, Whole):
            return parts
        return _proven(backbone, parts, example)


def _proven(backbone: nn.Module, parts: Split, example: Tensor) -> Split | Whole:
    for images in (example, torch.cat([example, example.flip(0)])[: len(example) + 1]):
        try:
            whole = backbone(images)
            joined = parts.rest(parts.frozen(images))
        except Exception as error:  # noqa: BLE001 - sizes that were taken for constants, or anything else
            return Whole(f"its parts do not fit together: {type(error).__name__}: {_first_line(error)}")
        gap = (joined - whole).abs().max() if joined.shape == whole.shape else torch.tensor(torch.nan)
        if not gap <= _TOLERANCE * whole.abs().max():
            return Whole(f"its parts together differ from it by {float(gap):.2g}")
    return parts


class _Tracer(fx.Tracer):
    """Looks into a layer only where some of its parameters move and others do not; a layer that cannot be looked
    into stays whole."""

    def __init__(self, trained: set[int]) -> None:
        from timm.layers import get_notrace_functions, get_notrace_modules

        functions = tuple(item for item in get_notrace_functions() if callable(item))
        super().__init__(autowrap_functions=functions)
        self._trained, self._whole = trained, tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        states = {id(value) in self._trained for value in m.parameters()}
        return (
            len(states) < 2 or isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # noqa: BLE001 - whatever control flow on a stand-in for a tensor raises
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def _traced(backbone: nn.Module, trained: set[int]) -> tuple[fx.Graph, nn.Module]:
    """The graph and the module that holds what it names: a shell around the backbone's layers, since the tracer
    stores constants in what it traces.

    Raises:
        PluginError: what the forward does outside of its layers depends on the mode.
    """
    graphs = []
    was_training = {module: module.training for module in backbone.modules()}
    try:
        for mode in (True, False):
            backbone.train(mode)
            owner = copy.copy(backbone)
            graphs.append(_Tracer(trained).trace(owner))
    finally:
        for module, training in was_training.items():
            module.training = training
    if str(graphs[0]) != str(graphs[1]):
        raise PluginError("outside of its layers it does something else in training")
    return graphs[1], owner


def _cut(graph: fx.Graph, owner: nn.Module, trained: set[int], example: Tensor) -> Split | Whole:
    batched = _Batched(owner, graph, len(example))
    batched.run(example)
    image = next(node for node in graph.nodes if node.op == "placeholder")
    end = next(node for node in graph.nodes if node.op == "output")
    moves: set[fx.Node] = set()
    for node in graph.nodes:
        if _has_trained(node, owner, trained) or any(before in moves for before in node.all_input_nodes):
            moves.add(node)
    rest: set[fx.Node] = set()
    crossing: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node in rest or node in crossing:
            continue
        # A size or a weight is no activation: the rest works it out for itself.
        if node in moves or (node is not image and node not in batched.found):
            rest.add(node)
            waiting += node.all_input_nodes
        else:
            crossing.add(node)
    if end not in moves:
        return Whole("nothing that is trained reaches its output")
    if image in crossing:
        return Whole("what is trained reads the image itself")
    ordered = [node for node in graph.nodes if node in crossing]
    wanted = _closure(ordered)
    if not any(_has_parameters(node, owner) for node in wanted):
        return Whole("nothing that is frozen comes before what is trained")
    kinds = {batched.found[node][1] for node in crossing}
    if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
        return Whole(f"the cut crosses tensors of {', '.join(sorted(str(kind) for kind in kinds))}")
    shapes = tuple(batched.found[node][0] for node in ordered)
    first, second = fx.Graph(), fx.Graph()
    mapped: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in wanted:
            mapped[node] = first.node_copy(node, mapped.__getitem__)
    first.output(tuple(mapped[node] for node in ordered))
    mapped = {node: second.placeholder(f"cut_{place}") for place, node in enumerate(ordered)}
    for node in graph.nodes:
        if node in rest:
            mapped[node] = second.node_copy(node, mapped.__getitem__)
    return Split(
        Frozen(fx.GraphModule(owner, first), len(shapes) > 1),
        Rest(fx.GraphModule(owner, second), shapes),
        shapes,
    )


class _Batched(fx.Interpreter):
    """Runs the graph and notes which values are tensors with one row per image: shape of a row, and type."""

    def __init__(self, owner: nn.Module, graph: fx.Graph, count: int) -> None:
        module = fx.GraphModule(owner, graph)
        super().__init__(module)
        self._count = count
        self._origin = dict(zip(module.graph.nodes, graph.nodes, strict=True))
        self.found: dict[fx.Node, tuple[tuple[int, ...], torch.dtype]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op != "get_attr" and value.ndim > 1 and len(value) == self._count:
            self.found[self._origin[n]] = tuple(value.shape[1:]), value.dtype
        return value


def _has_trained(node: fx.Node, owner: nn.Module, trained: set[int]) -> bool:
    if node.op == "call_module":
        layer = owner.get_submodule(str(node.target))
        return any(id(value) in trained for value in layer.parameters())
    return node.op == "get_attr" and id(reduce(getattr, str(node.target).split("."), owner)) in trained


def _has_parameters(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_module":
        return any(True for _ in owner.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr"


def _closure(nodes: list[fx.Node]) -> set[fx.Node]:
    """The nodes and all that they are made of; the images too, even of a part that does not look at them."""
    found: set[fx.Node] = {node for node in nodes[0].graph.nodes if node.op == "placeholder"}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    was_training = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in was_training:
            layer.training = training


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]
