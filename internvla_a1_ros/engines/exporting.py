"""Writes recorded graphs as ONNX files, their weights beside them in files that are mapped, not read, when they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from internvla_a1_ros.engines.dialect import MICROSOFT, Dialect
from internvla_a1_ros.engines.operations import ONNX_TYPES
from internvla_a1_ros.engines.recording import Graph, Node, Recorder
from internvla_a1_ros.engines.stages import Record
from internvla_a1_ros.engines.weights import Source
from internvla_a1_ros.model.checkpoint import empty_model

OPSET = 21
ALIGNMENT = 4096  # a mapped piece of a file begins on a page
INLINE = 1024  # bytes; smaller numbers stay in the graph itself, where the runtime can see them when it plans
Progress = Callable[[str], None]


def record(source: Source, stage: Record, dialect: Dialect, dtype: torch.dtype = torch.float32) -> Graph:
    """Record one stage of the model in the given precision."""
    model = empty_model(source.sizes)
    for name, precision in model.precision(dtype):
        owner = model.get_submodule(name.rpartition(".")[0])
        parameter = owner.get_parameter(name.rpartition(".")[2])
        setattr(owner, name.rpartition(".")[2], torch.nn.Parameter(parameter.to(precision), requires_grad=False))
    recorder = Recorder(model, source.load, dialect.operations())
    recording: AbstractContextManager = recorder
    with torch.no_grad(), recording:
        stage(recorder, model)
    return recorder.graph


def write(graph: Graph, source: Source, path: Path, bits: int = 8) -> None:
    """Write `graph` to `path`, its weights to the file of the same name ending in .weights. `bits`: of 8-bit products' weights, 7 or 8.

    Not every CPU adds up 8-bit products without overflow (`cpu.py`); 7 bits always fit.
    """
    initializers: list[TensorProto] = []
    data = path.with_suffix(".weights")
    with data.open("wb") as file:
        for name, tensor in _numbers(graph, source, bits):
            flat = tensor.contiguous()
            raw = flat.view(torch.uint8) if flat.ndim else flat.reshape(1).view(torch.uint8)
            proto = TensorProto(name=name, data_type=ONNX_TYPES[tensor.dtype], dims=list(tensor.shape))
            if raw.numel() < INLINE:
                proto.raw_data = raw.numpy().tobytes()
            else:
                file.seek(-file.tell() % ALIGNMENT, 1)
                proto.data_location = TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", file.tell()), ("length", raw.numel())):
                    proto.external_data.add(key=key, value=str(value))
                file.write(raw.reshape(-1).numpy().tobytes())
            initializers.append(proto)
    nodes = [_node(node) for node in graph.nodes]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, ONNX_TYPES[tensor.dtype], list(tensor.shape)) for name, tensor in part.items()]
        for part in (graph.inputs, graph.outputs)
    )
    made = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), str(path))


def _node(node: Node) -> onnx.NodeProto:
    made = helper.make_node(node.op, list(node.inputs), list(node.outputs), domain=node.domain)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in node.attributes.items())
    return made


def _numbers(graph: Graph, source: Source, bits: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every number the graph reads, one weight at a time."""
    yield from graph.constants.items()
    for name, weight in graph.weights.items():
        yield name, source.load(name).to(weight.dtype)
    for name, matrix in graph.matrices.items():
        weight = source.load(matrix.source) if isinstance(matrix.source, str) else matrix.source
        weight = weight.permute(matrix.order).reshape(matrix.shape)
        if name in graph.quantised:
            quantised, scale = quantise(weight.float(), bits)
            yield name, quantised
            yield f"{name}.scale", scale
        else:
            yield name, weight.to(matrix.dtype)


def quantise(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """[in, out] -> 8-bit integers of `bits` bits [in, out] and each column's scale [out]."""
    largest = 2 ** (bits - 1) - 1
    scale = matrix.abs().amax(0).clamp(min=1e-20) / largest
    return (matrix / scale).round().to(torch.int8), scale
