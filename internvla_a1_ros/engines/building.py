"""From a checkpoint to a built engine in the cache, and from there to an engine that runs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from internvla_a1_ros import __version__
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines import tensorrt_engine as tensorrt
from internvla_a1_ros.engines.artefact import Key, cache_folder
from internvla_a1_ros.engines.cpu import weight_bits
from internvla_a1_ros.engines.mapped import peak_bytes
from internvla_a1_ros.engines.onnx_engine import PICTURES, load_onnx, runtime
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.engines.weights import CheckpointSource, DrawnSource, Source
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.model.sizes import Architecture

LIBRARIES = {"onnx": ("onnxruntime",), "tensorrt": ("tensorrt", "tensorrt-rtx", "tensorrt-cu12", "tensorrt-cu13")}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built: `place` is where its weights come from, in words that the user knows."""

    engine: str
    precision: str
    source: Source
    place: str

    @classmethod
    def of_checkpoint(cls, engine: str, precision: str, checkpoint: Path, sizes: Architecture | None = None) -> Order:
        """Raises CheckpointError where the folder is no checkpoint."""
        source = CheckpointSource(checkpoint, sizes or load_architecture(checkpoint))
        return cls(engine, precision, source, str(checkpoint.resolve()))

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, keys and values."""
        dtype: torch.dtype = torch.float32 if self.precision == "int8" else getattr(torch, self.precision)
        return dtype

    @property
    def key(self) -> Key:
        return Key(
            {
                "place": self.place,
                "weights": self.source.identity,
                "engine": self.engine,
                "precision": self.precision,
                "sizes": repr(self.source.sizes),
                "package": __version__,
                "libraries": _versions("onnx", *LIBRARIES[self.engine]),
                "machine": self._machine(),
            }
        )

    def _machine(self) -> str:
        if self.engine == "tensorrt":
            return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        return f"{weight_bits()} bits" if self.precision == "int8" else "any"

    def recipe(self, layers: int) -> Recipe:
        """What another process needs to make the same with `layers` layers in each stack (0: all)."""
        return Recipe(self.precision, self.place, self.source.sizes, getattr(self.source, "seed", None), layers)

    def command(self) -> str:
        return f"internvla-a1 build {self.place} --engine {self.engine} --precision {self.precision}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """An order in numbers and words. `seed` None: the weights are a checkpoint's, at `place`."""

    precision: str
    place: str
    sizes: Architecture
    seed: int | None
    layers: int

    def source(self) -> Source:
        sizes = self.sizes
        if self.layers:
            sizes = sizes.with_layers(self.layers)
        return CheckpointSource(Path(self.place), sizes) if self.seed is None else DrawnSource(sizes, self.seed)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiling one stage took."""

    layers: int
    nodes: int
    write_s: float
    compile_s: float
    plan_bytes: int
    peak_bytes: int


def compile_one(recipe: Recipe, stage: str) -> Compiled:
    """Export and compile one stage in a folder that is gone afterwards. Raises ConfigurationError where it does not compile."""
    from internvla_a1_ros.engines.dialect import Dialect
    from internvla_a1_ros.engines.exporting import record, write
    from internvla_a1_ros.engines.stages import stages

    trt, source = tensorrt.library(), recipe.source()
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        path, began = Path(folder) / f"{stage}.onnx", time.perf_counter()
        graph = record(source, stages(source.sizes, source.sizes.views)[stage], Dialect(fused=False), getattr(torch, recipe.precision))
        write(graph, source, path)
        written = time.perf_counter()
        tensorrt.compile_stage(trt, path)
        done, peak = time.perf_counter(), peak_bytes()
        plan = path.with_suffix(".plan").stat().st_size
    return Compiled(source.sizes.action.layers, len(graph.nodes), written - began, done - written, plan, peak)


def build(order: Order, say: Say = lambda _: None, check: Callable[[Path], None] = lambda _: None) -> Path:
    """Export an order's graphs into the cache, whatever is there; return its folder. Raises ConfigurationError.

    `check` looks at the folder before it takes its place; where it raises, what was there before stays.
    """
    if order.engine == "tensorrt":
        tensorrt.library()
        tensorrt.need_gpu()
    else:
        runtime()
    with order.key.building() as folder:
        export(order, folder, say)
        check(folder)
    return order.key.folder


def ensure_built(order: Order, say: Say = lambda _: None) -> None:
    """Build, unverified, what is not built yet."""
    if not order.key.is_built:
        build(order, say)


def export(order: Order, folder: Path, say: Say) -> None:
    """Write an order's graphs, weights and words into `folder`."""
    try:
        from internvla_a1_ros.engines.exporting import record, write
    except ImportError as error:
        raise ConfigurationError(f"exporting needs onnx ({error}); install it with: pip install -r requirements/runtime.txt") from None
    from internvla_a1_ros.engines.dialect import Dialect
    from internvla_a1_ros.engines.stages import stages
    from internvla_a1_ros.engines.words import write_words

    on_gpu = order.engine == "tensorrt"
    dialect = Dialect(fused=not on_gpu, int8=order.precision == "int8")
    every = stages(order.source.sizes, order.source.sizes.views if on_gpu else PICTURES)
    for i, (name, stage) in enumerate(every.items()):
        say(f"exporting {name} ({i + 1} of {len(every)})")
        write(record(order.source, stage, dialect, order.dtype), order.source, folder / f"{name}.onnx", weight_bits())
    say("writing the table of words")
    write_words(folder, order.source)
    if on_gpu:
        tensorrt.compile_folder(folder, say)


def load(order: Order, threads: int | None) -> Engine:
    """Load what was built. Raises ConfigurationError with the command to type where it was not, or not for this."""
    key = order.key
    if not key.is_built:
        raise ConfigurationError(
            f"engine '{order.engine}' ({order.precision}) is not built for '{order.place}' as it is now; type: {order.command()}"
        )
    return load_from(key.folder, order, threads)


def load_from(folder: Path, order: Order, threads: int | None) -> Engine:
    """Load from any folder that holds a whole engine. `threads`: of a CPU."""
    if order.engine == "tensorrt":
        return tensorrt.load_tensorrt(folder, order.source.sizes, order.dtype)
    return load_onnx(folder, order.source.sizes, threads or len(os.sched_getaffinity(0)))


def _versions(*packages: str) -> str:
    found: list[str] = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)
