"""The five calls on ONNX Runtime, on a CPU.

Keys and values are written by one graph into the memory from which the next reads them; all memory is had once, when the engine is
made. A cache is therefore good until the next call of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.stages import Lengths, layer_names
from internvla_a1_ros.engines.tables import TableMaker, Tables
from internvla_a1_ros.engines.words import Words
from internvla_a1_ros.model.flow import sample
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import KeysValues

STAGES = ("encode", "prefix", "generate", "flow", "decode")
PICTURES = 1  # encoded in one call: more at once are no faster on a CPU, and so any number can be


def runtime() -> Any:
    """Import ONNX Runtime. Raises ConfigurationError in one sentence where it is absent."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            f"engine 'onnx' needs onnxruntime ({error}); install it with: pip install -r requirements/runtime.txt"
        ) from None
    return onnxruntime


class Session:
    """One graph whose inputs and outputs stay where they are; inputs that another graph writes are handed in as `given`."""

    def __init__(self, path: Path, threads: int, given: Mapping[str, Tensor]) -> None:
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # the arena would round up
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are others' between two calls
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own kinds of errors share no better name
            reason = str(error).splitlines()[0][:200]
            raise ConfigurationError(f"engine 'onnx': '{path}' cannot be loaded, build it anew with --force ({reason})") from None
        self._binding = self._session.io_binding()
        self.inputs: dict[str, Tensor] = {}
        for each in self._session.get_inputs():
            self.inputs[each.name] = self._bound(self._binding.bind_input, each, given.get(each.name))
        self.outputs = {
            each.name: self._bound(self._binding.bind_output, each, given.get(each.name)) for each in self._session.get_outputs()
        }

    def _bound(self, bind: Any, told: Any, given: Tensor | None) -> Tensor:
        tensor = torch.zeros(told.shape) if given is None else given
        if list(tensor.shape) != list(told.shape) or told.type != "tensor(float)" or not tensor.is_contiguous():
            raise ConfigurationError(f"engine 'onnx': '{told.name}' is {told.type} {told.shape}, expected float32 {list(tensor.shape)}")
        import numpy as np

        bind(told.name, "cpu", 0, np.float32, list(tensor.shape), tensor.data_ptr())
        return tensor

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


@dataclass(frozen=True, slots=True)
class _Now:
    """What the caches handed out last belong to."""

    prefix: PrefixCache
    tables: Tables


class OnnxEngine:
    """`Engine` over built graphs; shapes as in the protocol. Caches are good until the next `prefix` or `generate`."""

    name = "onnx"

    def __init__(self, folder: Path, sizes: Architecture, threads: int) -> None:
        """Load what was built in `folder`. Raises ConfigurationError where a file of it cannot be loaded."""
        self.sizes = sizes
        self._maker, self._words = TableMaker(sizes, torch.float32), Words(folder, sizes)
        names, lengths, stack = layer_names(sizes), Lengths.of(sizes), sizes.action
        first, both = (
            {name: torch.zeros(1, stack.kv_heads, tokens, stack.head_dim) for name in names} for tokens in (lengths.prefix, lengths.cached)
        )
        old = {f"old_{name}": tensor for name, tensor in first.items()}
        last = sizes.generation.layers - 1
        path = {stage: folder / f"{stage}.onnx" for stage in STAGES}
        self._encode = Session(path["encode"], threads, {})
        self._prefix = Session(path["prefix"], threads, first)
        self._generate = Session(path["generate"], threads, {**old, **both})
        self._flow = Session(path["flow"], threads, {f"old_{name}": tensor for name, tensor in both.items()})
        entering = self._generate.outputs["entering"]
        tables = {name: self._generate.inputs[name] for name in ("cos", "sin", "scores")}
        self._decode = Session(
            path["decode"], threads, {"entering": entering, "key": both[f"key_{last}"], "value": both[f"value_{last}"], **tables}
        )
        self._caches = [tuple(buffers[name] for name in names) for buffers in (first, both)]
        self._tables: dict[bytes, Tables] = {}
        self._times: dict[float, Tensor] = {}
        self._now: _Now | None = None
        self._then: GenerationCache | None = None

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        latents = []
        for each in pictures.split(PICTURES):
            self._encode.inputs["pictures"].copy_(each)
            self._encode.run()
            latents.append(self._encode.outputs["latents"].clone())
        return torch.cat(latents)

    @torch.inference_mode()
    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        mask = attention_mask.bool()
        tables = self._remembered(b"prefix" + mask.numpy().tobytes(), lambda: self._maker.prefix(mask))
        self._prefix.inputs["pixels"].copy_(pixel_values[None])
        self._prefix.inputs["words"].copy_(self._words(input_ids))
        self._put(self._prefix, tables)
        self._prefix.run()
        cache = PrefixCache(self._tokens(0, tables), tables.last_position)
        self._now, self._then = _Now(cache, tables), None
        return cache

    @torch.inference_mode()
    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        if self._now is None or prefix is not self._now.prefix:
            raise ConfigurationError("engine 'onnx': the prefix cache is of an earlier cycle, expected the last one made")
        before, seen = self._now.tables, view_mask.bool()
        tables = self._remembered(
            b"generation" + before.mask.numpy().tobytes() + seen.numpy().tobytes(), lambda: self._maker.generation(before, seen)
        )
        self._generate.inputs["latents"].copy_(torch.stack((latents_past, latents_now), 1)[None])
        self._put(self._generate, tables)
        self._generate.run()
        suffix = self._remembered(b"suffix" + tables.mask.numpy().tobytes(), lambda: self._maker.suffix(tables))
        self._put(self._flow, suffix)
        entering = self._generate.outputs["entering"]
        self._then = GenerationCache(self._tokens(1, tables), tables.last_position, entering, tables.cos, tables.sin, tables.scores)
        return self._then

    @torch.inference_mode()
    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        self._check(cache)
        if guidance is not None and guidance.gradient_clip is not None:
            raise ConfigurationError("engine 'onnx' has no gradients; guidance: use 'hard' or 'soft', or engine 'reference'")
        self._flow.inputs["state"].copy_(state[None])
        return sample(self._velocity, noise[None], plan, guidance)[0][0]

    def _velocity(self, x: Tensor, time: Tensor) -> Tensor:
        at = float(time[0])
        if at not in self._times:
            self._times[at] = self._maker.time(at)
        self._flow.inputs["time"].copy_(self._times[at])
        self._flow.inputs["x"].copy_(x)
        self._flow.run()
        return self._flow.outputs["velocity"].clone()

    @torch.inference_mode()
    def decode(self, cache: GenerationCache) -> Tensor:
        self._check(cache)
        self._decode.run()
        return self._decode.outputs["pictures"].clone()

    def _check(self, cache: GenerationCache) -> None:
        if cache is not self._then:
            raise ConfigurationError("engine 'onnx': the generation cache is of an earlier cycle, expected the last one made")

    def _tokens(self, which: int, tables: Tables) -> KeysValues:
        named = self._caches[which]
        return KeysValues(named[0::2], named[1::2], tables.mask)

    def _put(self, session: Session, tables: Tables) -> None:
        for name in ("cos", "sin", "scores"):
            session.inputs[name].copy_(getattr(tables, name))

    def _remembered(self, key: bytes, make: Any) -> Tables:
        """Make tables once per set of valid tokens; they are small, and few sets ever come."""
        if key not in self._tables:
            if len(self._tables) > 64:
                self._tables.clear()
            self._tables[key] = make()
        return self._tables[key]
