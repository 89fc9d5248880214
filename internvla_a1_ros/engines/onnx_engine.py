"""Built graphs on ONNX Runtime, on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.graph_engine import STAGES, GraphEngine
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.words import Words
from internvla_a1_ros.model.sizes import Architecture

PICTURES = 1  # encoded in one call: more at once are no faster on a CPU, and so any number can be


def runtime() -> Any:
    """Import ONNX Runtime. Raises ConfigurationError in one sentence where it is absent."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(f"engine 'onnx' needs onnxruntime ({error}); type: pip install -r requirements/runtime.txt") from None
    return onnxruntime


def load_onnx(folder: Path, sizes: Architecture, threads: int) -> GraphEngine:
    """Load what was built in `folder`. Raises ConfigurationError where a file of it cannot be loaded."""
    with ThreadPoolExecutor(threads) as side_by_side:  # laying out one graph's weights takes one core
        opened = dict(zip(STAGES, side_by_side.map(lambda stage: open_graph(folder / f"{stage}.onnx", threads), STAGES), strict=True))

    def make(stage: str, given: Mapping[str, Tensor]) -> Session:
        return Session(opened.pop(stage), given)

    return GraphEngine("onnx", sizes, make, Words(folder, sizes), torch.float32, Graphs(torch.device("cpu")))


def open_graph(path: Path, threads: int) -> Any:
    """Let ONNX Runtime load a graph. Raises ConfigurationError where it cannot."""
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # the arena would round up
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are others' between two calls
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of errors share no better name
        reason = str(error).splitlines()[0][:200]
        raise ConfigurationError(f"engine 'onnx': '{path}' cannot be loaded, build it anew with --force ({reason})") from None


class Session:
    """One graph whose inputs and outputs stay where they are; memory that another graph shares is `given`."""

    def __init__(self, opened: Any, given: Mapping[str, Tensor]) -> None:
        self._session = opened
        self._binding = self._session.io_binding()
        ends = (self._session.get_inputs(), self._binding.bind_input), (self._session.get_outputs(), self._binding.bind_output)
        self.inputs, self.outputs = ({each.name: self._bound(bind, each, given.get(each.name)) for each in told} for told, bind in ends)

    def _bound(self, bind: Any, told: Any, given: Tensor | None) -> Tensor:
        tensor = torch.zeros(told.shape) if given is None else given
        if list(tensor.shape) != list(told.shape) or told.type != "tensor(float)" or not tensor.is_contiguous():
            raise ConfigurationError(f"engine 'onnx': '{told.name}' is {told.type} {told.shape}, expected float32 {list(tensor.shape)}")
        bind(told.name, "cpu", 0, np.float32, list(tensor.shape), tensor.data_ptr())
        return tensor

    def put(self, name: str, tensor: Tensor) -> None:
        self.inputs[name].copy_(tensor)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)
