"""Turns what the model calls into a graph of ONNX nodes: the eager model is run once without numbers, and every call is noted.

The graph cannot differ from the model's code, whatever the layout, because it is that code. What does not depend on a graph's inputs
(tables of positions, folded weights) is computed once, with the real weights, and stays in the graph as a number. Weights are only
named here; `exporting.py` writes them one at a time, so that a model never has to fit into memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from internvla_a1_ros.core.errors import ConfigurationError

FACTORIES = ("arange", "linspace", "zeros", "ones", "full", "tensor", "zeros_like", "ones_like")
Attribute = int | float | str | list[int]


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight multiplied from the right: its axes in `order`, then reshaped to `shape` [in, out]. `source`: its name, or the numbers."""

    source: str | Tensor
    order: tuple[int, ...]
    shape: tuple[int, int]
    dtype: torch.dtype


@dataclass(slots=True)
class Graph:
    """Nodes in order, and what they read besides each other. Shapes are fixed."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)  # by the model's names; without numbers
    matrices: dict[str, Matrix] = field(default_factory=dict)
    quantised: set[str] = field(default_factory=set)  # matrices whose products are meant to run in 8 bits


class Recorder(TorchFunctionMode):
    """Runs a function of a model without numbers and notes its calls in `graph`."""

    def __init__(self, model: nn.Module, load: Callable[[str], Tensor], operations: Mapping[str, Any]) -> None:
        """`model` has no numbers; `load` gives those of a weight by name; `operations`: torch function name -> writer of nodes."""
        super().__init__()
        self.graph = Graph()
        self._load, self._operations = load, operations
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []  # ids are only unique among the living
        self._derived: dict[tuple[str, ...], str] = {}
        self._constants = 0
        self.words: Tensor | None = None  # what looking up words gives: an input of the graph, not a table in it

    def input(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device="meta")
        self.graph.inputs[name] = self._called(tensor, name)
        return tensor

    def output(self, name: str, tensor: Tensor) -> None:
        self.graph.outputs[name] = tensor
        self.graph.nodes.append(Node("Identity", (self.name(tensor),), (name,), "", {}))

    def name(self, tensor: Tensor) -> str:
        """Return the graph's name for a traced tensor, a weight or a constant."""
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        if (weight := self._parameters.get(id(tensor))) is not None:
            self.graph.weights[weight] = tensor
            return weight
        self._constants += 1
        name = f"constant_{self._constants}"
        self.graph.constants[name] = tensor.contiguous()
        self._called(tensor, name)
        return name

    def number(self, *values: int | float, dtype: torch.dtype, scalar: bool = False) -> str:
        """Return the name of a constant; the same numbers are kept once."""
        key = ("number", str(values), str(dtype), str(scalar))
        if key not in self._derived:
            self._derived[key] = self.name(torch.tensor(values[0] if scalar else values, dtype=dtype))
        return self._derived[key]

    def matrix(self, weight: Tensor, order: tuple[int, ...] = (1, 0), rows: int | None = None) -> str:
        """Return the name of a weight as a matrix [in, out]: its axes in `order`, then `rows` by the rest. As it is, it is [out, in]."""
        source = self._parameters.get(id(weight))
        name = f"{self.name(weight) if source is None else source}.matrix"
        if source is None:
            self.graph.constants.pop(self.name(weight), None)
        height = weight.shape[order[0]] if rows is None else rows
        self.graph.matrices[name] = Matrix(source or weight, order, (height, weight.numel() // height), weight.dtype)
        return name

    def once(self, key: tuple[str, ...], make: Callable[[], str]) -> str:
        """Return what `make` made for this key the first time."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def node(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Attribute) -> str:
        """Add a node; return the name of its (first) output, the others end in .1, .2 ..."""
        name = f"{op}_{len(self.graph.nodes)}"
        names = (name, *(f"{name}.{i}" for i in range(1, outputs)))
        self.graph.nodes.append(Node(op, inputs, names, domain, attributes))
        return name

    def bind(self, tensor: Tensor, name: str) -> Tensor:
        """Say that `tensor` is what `name` holds in the graph. An alias of a traced tensor is a tensor of its own."""
        if id(tensor) in self._names and self._names[id(tensor)] != name:
            tensor = tensor.clone()
        return self._called(tensor, name)

    def _called(self, tensor: Tensor, name: str) -> Tensor:
        self._names[id(tensor)] = name
        self._alive.append(tensor)
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        called = getattr(func, "__name__", "")
        if called == "__get__" or called in ("size", "dim", "numel", "stride", "__len__", "is_floating_point"):
            return func(*args, **kwargs)
        if called == "embedding" and self.words is not None:
            return self.words
        tensors = _tensors(args) + _tensors(kwargs)
        if not any(id(tensor) in self._names and tensor.is_meta for tensor in tensors):
            if called in FACTORIES:
                kwargs["device"] = "cpu"
            return func(*self._real(args), **self._real(kwargs))
        operation = self._operations.get(called.strip("_"))
        if operation is None:
            raise ConfigurationError(f"export: the model calls torch's '{called}', which has no counterpart in engines/operations.py yet")
        result = func(*_empty(args), **_empty(kwargs))
        return operation(self, result, *args, **kwargs)

    def _real(self, value: Any) -> Any:
        """Put the real numbers in place of weights."""
        if isinstance(value, Tensor):
            name = self._parameters.get(id(value))
            return value if name is None else self._load(name).to(value.dtype)
        if isinstance(value, (list, tuple)):
            return type(value)(self._real(each) for each in value)
        if isinstance(value, dict):
            return {key: self._real(each) for key, each in value.items()}
        return torch.device("cpu") if isinstance(value, torch.device) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for each in value for tensor in _tensors(each)]
    if isinstance(value, dict):
        return _tensors(list(value.values()))
    return []


def _empty(value: Any) -> Any:
    """Take the numbers away, so that constants meet inputs on torch's device without numbers."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_empty(each) for each in value)
    if isinstance(value, dict):
        return {key: _empty(each) for key, each in value.items()}
    return value
