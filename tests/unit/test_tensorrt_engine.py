"""The TensorRT engine without a GPU: its code against a stand-in of the runtime's interface, its graphs through the real compiler.

The stand-in runs the very graphs that are compiled, on ONNX Runtime, at the addresses it is given: bindings, shared memory, order of
calls and numbers are checked, kernels and speed are not.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import TINY, TINY_2B, VARIANTS, inputs

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines import make_engine, tensorrt_engine
from internvla_a1_ros.engines.building import Order
from internvla_a1_ros.engines.dialect import Dialect
from internvla_a1_ros.engines.exporting import record, write
from internvla_a1_ros.engines.graph_engine import STAGES, GraphEngine
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.engines.stages import stages
from internvla_a1_ros.engines.tensorrt_engine import assemble, compile_stage, library
from internvla_a1_ros.engines.weights import CheckpointSource, DrawnSource, Source
from internvla_a1_ros.engines.words import write_words
from internvla_a1_ros.evaluation.verification import Gates, measure, verify
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.model.integrators import Guidance, make_plan
from internvla_a1_ros.model.sizes import Architecture

NANO = Path(__file__).parents[2] / "models" / "nano"
STREAM = 4711


class StandIn:
    """What `trt` offers of its runtime, as far as the engine uses it."""

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

        def __init__(self) -> None:
            pass

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.addresses: dict[str, set[int]] = {}

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: FakeEngine(self, data) if data.endswith(b".onnx") else None)


class FakeEngine:
    def __init__(self, trt: StandIn, data: bytes) -> None:
        self.trt = trt
        self.session = onnxruntime.InferenceSession(data.decode(), providers=["CPUExecutionProvider"])
        self.ends = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.ends)

    def named(self, name: str) -> Any:
        return next(each for each in self.ends if each.name == name)

    def get_tensor_name(self, i: int) -> str:
        return str(self.ends[i].name)

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.named(name).shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in [each.name for each in self.session.get_inputs()] else "out"

    def create_execution_context(self) -> Any:
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.addresses = engine, dict[str, int]()

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address
        self.engine.trt.addresses.setdefault(name.removeprefix("old_"), set()).add(address)

    def array(self, each: Any) -> np.ndarray:
        count = math.prod(each.shape)
        memory = (ctypes.c_float * count).from_address(self.addresses[each.name])
        return np.frombuffer(memory, dtype=np.float32).reshape(each.shape)

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.trt.runs.append(stream)
        session = self.engine.session
        fed = {each.name: self.array(each).copy() for each in session.get_inputs()}
        for each, made in zip(session.get_outputs(), session.run(None, fed), strict=True):
            self.array(each)[...] = made
        return True


class FakeCuda:
    """Streams and graphs; a recorded body cannot be run again here, so a replay is only counted."""

    def __init__(self) -> None:
        self.synchronised = self.replays = self.recorded = 0

    def current_stream(self) -> Any:
        def synchronise() -> None:
            self.synchronised += 1

        return SimpleNamespace(cuda_stream=STREAM, synchronize=synchronise, wait_stream=lambda other: None)

    Stream = current_stream

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    def CUDAGraph(self) -> Any:
        def replay() -> None:
            self.replays += 1

        return SimpleNamespace(replay=replay)

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.recorded += 1
        yield


def write_graphs(source: Source, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    for name, stage in stages(source.sizes, source.sizes.views).items():
        write(record(source, stage, Dialect(fused=False), dtype), source, folder / f"{name}.onnx")
        (folder / f"{name}.plan").write_text(str(folder / f"{name}.onnx"))
    write_words(folder, source)


class Rig:
    """The engine around the stand-in."""

    def __init__(self, folder: Path, sizes: Architecture) -> None:
        self.source, self.folder = DrawnSource(sizes, 3), folder
        write_graphs(self.source, folder)
        self.cuda, self.staged = FakeCuda(), list[torch.Tensor]()
        self.load()

    def load(self) -> GraphEngine:
        def pin(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
            self.staged.append(torch.empty(shape, dtype=dtype))
            return self.staged[-1]

        self.trt = StandIn()
        self.engine = assemble(self.trt, self.folder, self.source.sizes, torch.float32, torch.device("cpu"), self.cuda, pin)
        return self.engine


@pytest.mark.parametrize("name", ["2b", *VARIANTS])
def test_on_a_stand_in_for_the_runtime_the_engine_agrees_with_the_reference(name: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY_2B if name == "2b" else VARIANTS[name])
    reference = ReferenceEngine(rig.source.whole(torch.float32))
    expected = [measure(reference, seed, 3)[0] for seed in (0, 1)]
    gates = Gates(dict.fromkeys(expected[0], 0.999999))
    assert verify(expected, rig.load, 3, gates, None).troubles == []


def cycle(engine: GraphEngine, guidance: Guidance | None = None) -> torch.Tensor:
    given = inputs(TINY)
    latents = engine.encode(given["pictures"][: TINY.views])
    prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
    cache = engine.generate(prefix, latents, latents, given["view_mask"])
    actions = engine.flow(cache, given["state"], given["noise"], make_plan("euler", 2), guidance)
    engine.decode(cache)
    return actions


def test_on_a_stand_in_caches_are_shared_and_everything_runs_on_the_current_stream(tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY)
    cycle(rig.engine)
    assert set(rig.trt.runs) == {STREAM}
    assert len(rig.trt.runs) == 4 + 2, "one run a call, one an evaluation"
    last = TINY.generation.layers - 1
    # Written by one graph and read by the next: the prefix's memory and the generation's, and no third.
    assert all(len(rig.trt.addresses[f"key_{i}"]) == 2 for i in range(last + 1))
    assert rig.trt.addresses["key"] <= rig.trt.addresses[f"key_{last}"]


def test_on_a_stand_in_copies_pass_through_pinned_memory_that_is_had_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY)
    cycle(rig.engine)
    staged = len(rig.staged)
    assert staged >= 6
    before = rig.cuda.synchronised
    cycle(rig.engine)
    assert len(rig.staged) == staged
    assert rig.cuda.synchronised > before, "what is still being copied is waited for"


def test_on_a_stand_in_a_stage_is_recorded_once_and_replayed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY)
    rig.engine._graphs = Graphs(torch.device("cuda"), rig.cuda)
    cycle(rig.engine)
    recorded, runs = rig.cuda.recorded, len(rig.trt.runs)
    assert recorded == len(STAGES)
    cycle(rig.engine)
    assert rig.cuda.recorded == recorded and len(rig.trt.runs) == runs, "the second cycle launches graphs only"
    assert rig.cuda.replays == 2 * len(STAGES)
    cycle(rig.engine, Guidance(torch.zeros(TINY.chunk, TINY.action_width), torch.zeros(TINY.chunk)))
    assert rig.cuda.recorded == recorded + 1, "guidance is another graph, its numbers are inputs"


def test_on_a_stand_in_guidance_of_weight_zero_changes_no_bit(tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY)
    free = Guidance(torch.ones(TINY.chunk, TINY.action_width), torch.zeros(TINY.chunk))
    assert torch.equal(cycle(rig.engine), cycle(rig.engine, free))
    assert not torch.equal(cycle(rig.engine), cycle(rig.engine, Guidance(free.actions, torch.ones(TINY.chunk))))


def test_on_a_stand_in_a_plan_of_another_machine_is_one_sentence(tmp_path: Path) -> None:
    rig = Rig(tmp_path, TINY)
    (tmp_path / "flow.plan").write_bytes(b"cut short")
    with pytest.raises(ConfigurationError, match=r"flow\.plan.*build it anew"):
        rig.load()
    (tmp_path / "flow.plan").unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        rig.load()
    (tmp_path / "flow.plan").write_text(str(tmp_path / "generate.onnx"))
    with pytest.raises(ConfigurationError, match="expected"):
        rig.load()


def test_an_absent_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tensorrt_engine.LIBRARIES:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigurationError, match="pip install tensorrt-rtx"):
        library()
    with pytest.raises(ConfigurationError, match="needs TensorRT"):
        make_engine("tensorrt", NANO, build=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_an_absent_gpu_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this machine")
    with pytest.raises(ConfigurationError, match="NVIDIA GPU.*engine 'onnx'"):
        tensorrt_engine.load_tensorrt(tmp_path, TINY, torch.float16)


# The real compiler


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("model", ["tiny", "2b", "nano"])
def test_every_stage_compiles_without_a_gpu(model: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this machine")
    trt = library()
    source: Source = (
        CheckpointSource(NANO, load_architecture(NANO)) if model == "nano" else DrawnSource(TINY_2B if model == "2b" else TINY, 0)
    )
    for name, stage in stages(source.sizes, source.sizes.views).items():
        path = tmp_path / f"{name}.onnx"
        write(record(source, stage, Dialect(fused=False), getattr(torch, precision)), source, path)
        compile_stage(trt, path)
        assert path.with_suffix(".plan").stat().st_size > 10_000


def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this machine")
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ConfigurationError, match=r"cannot read 'broken\.onnx'"):
        compile_stage(library(), path)


@pytest.mark.gpu
def test_on_a_gpu_the_built_engine_agrees_with_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path))
    order = Order.of_checkpoint("tensorrt", "float16", NANO)
    engine = make_engine("tensorrt", NANO, precision="float16", build=True)
    reference = ReferenceEngine(order.source.whole(torch.float32))
    expected = [measure(reference, seed, 10)[0] for seed in (0, 1)]
    assert verify(expected, lambda: engine, 10, Gates({"prefix KV": 0.999, "chunk": 0.999}), None).troubles == []
