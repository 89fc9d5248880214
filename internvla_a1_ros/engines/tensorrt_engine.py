"""Built graphs on TensorRT (workstations with a GPU, Jetson) or TensorRT-RTX (RTX machines): one code, two names of the library.

Never run on a GPU by this project yet: the compiler is, on machines without one; everything here is tested against a stand-in of
the runtime's interface (`tests/unit/test_tensorrt_engine.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.graph_engine import STAGES, GraphEngine
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.words import Words
from internvla_a1_ros.model.sizes import Architecture

LIBRARIES = ("tensorrt", "tensorrt_rtx")  # in the order they are looked for; TensorRT's PyPI package alone may be a stub
DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}
Say = Callable[[str], None]


def library() -> Any:
    """Import TensorRT by either name. Raises ConfigurationError in one sentence where neither works."""
    troubles = []
    for name in LIBRARIES:
        try:
            found = importlib.import_module(name)
            if hasattr(found, "Builder"):
                return found
            troubles.append(f"{name} is a stub without its libraries")
        except (ImportError, OSError) as error:
            troubles.append(str(error).splitlines()[0])
    raise ConfigurationError(
        f"engine 'tensorrt' needs TensorRT ({'; '.join(troubles)}); it comes with NVIDIA's images and JetPack, "
        "on an RTX machine type: pip install tensorrt-rtx"
    )


def compile_stage(trt: Any, path: Path) -> None:
    """Compile the graph at `path` into a .plan beside it. Raises ConfigurationError with the compiler's reason."""
    log = _Log(trt)
    builder = trt.Builder(log.logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the RTX library knows no other way
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(path)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(min(2, parser.num_errors)))
        raise ConfigurationError(f"TensorRT cannot read '{path.name}': {reasons}")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise ConfigurationError(f"TensorRT cannot compile '{path.name}': {log.last or 'it gave no reason'}")
    path.with_suffix(".plan").write_bytes(memoryview(plan))


def compile_folder(folder: Path, say: Say) -> None:
    """Compile every stage's graph in `folder`, and keep the plans instead of the graphs."""
    trt = library()
    for i, stage in enumerate(STAGES):
        say(f"compiling {stage} ({i + 1} of {len(STAGES)})")
        compile_stage(trt, folder / f"{stage}.onnx")
        for suffix in (".onnx", ".weights"):
            (folder / stage).with_suffix(suffix).unlink()


def load_tensorrt(folder: Path, sizes: Architecture, dtype: torch.dtype, device: str = "cuda") -> GraphEngine:
    """Load what was built in `folder` onto a GPU. Raises ConfigurationError where there is none, or a plan does not fit it."""
    trt = library()
    need_gpu()
    return assemble(trt, folder, sizes, dtype, torch.device(device), torch.cuda, pinned)


def need_gpu() -> None:
    """Raise ConfigurationError where there is none."""
    if not torch.cuda.is_available():
        raise ConfigurationError(
            "engine 'tensorrt' needs an NVIDIA GPU that torch can use, none was found; on a CPU use engine 'onnx' "
            "(`internvla-a1 build --compile-only` tries the compiler without a GPU)"
        )


def pinned(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory of the CPU that a GPU can copy from while the CPU goes on."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def assemble(
    trt: Any, folder: Path, sizes: Architecture, dtype: torch.dtype, device: torch.device, cuda: Any, pin: Callable[..., Tensor]
) -> GraphEngine:
    """`trt`, `cuda`, `pin`: the libraries, which tests replace."""
    runtime = trt.Runtime(_Log(trt).logger)

    def make(stage: str, given: Mapping[str, Tensor]) -> Plan:
        return Plan(trt, runtime.deserialize_cuda_engine, folder / f"{stage}.plan", given, device, cuda, pin)

    return GraphEngine("tensorrt", sizes, make, Words(folder, sizes), dtype, Graphs(device, cuda))


class Plan:
    """One compiled graph with its memory on the GPU; what comes from the CPU passes through pinned memory."""

    def __init__(
        self,
        trt: Any,
        read: Callable[[bytes], Any],
        path: Path,
        given: Mapping[str, Tensor],
        device: torch.device,
        cuda: Any,
        pin: Callable[..., Tensor],
    ) -> None:
        """`read`: turns a plan's bytes into an engine of the library, or None."""
        try:
            self._engine = read(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"engine 'tensorrt': '{path}' cannot be read ({error.strerror}), build it anew with --force") from None
        if self._engine is None:
            raise ConfigurationError(f"engine 'tensorrt': '{path}' is cut short or of another GPU or TensorRT, build it anew with --force")
        self._context, self._cuda, self._pin = self._engine.create_execution_context(), cuda, pin
        self._staged: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = DTYPES[self._engine.get_tensor_dtype(name).name]
            tensor = given.get(name)
            if tensor is None:
                tensor = torch.zeros(shape, dtype=dtype, device=device)
            if tuple(tensor.shape) != shape or tensor.dtype != dtype or not tensor.is_contiguous():
                raise ConfigurationError(
                    f"engine 'tensorrt': '{name}' is {dtype} {list(shape)}, expected {tensor.dtype} {list(tensor.shape)}; build it anew"
                )
            self._context.set_tensor_address(name, tensor.data_ptr())
            ends = self.inputs if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else self.outputs
            ends[name] = tensor

    def put(self, name: str, tensor: Tensor) -> None:
        """Copy into an input; from the CPU through pinned memory, so that the copy runs beside what the CPU does next."""
        held = self.inputs[name]
        if tensor.device.type != "cpu":
            held.copy_(tensor)
            return
        if name not in self._staged:
            self._staged[name] = self._pin(held.shape, held.dtype)
        else:
            self._cuda.current_stream().synchronize()  # the copy before may still be reading
        self._staged[name].copy_(tensor)
        held.copy_(self._staged[name], non_blocking=True)

    def run(self) -> None:
        if not self._context.execute_async_v3(self._cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT refused to run a graph; its log says why")


class _Log:
    """Keeps TensorRT's last complaint for our own sentence instead of printing it."""

    def __init__(self, trt: Any) -> None:
        self.last = ""
        outer = self

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    outer.last = text.splitlines()[0] if text else ""

        self.logger = Logger()
