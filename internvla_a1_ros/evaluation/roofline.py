"""What one chunk costs at least, from the sizes alone, and the time below which no machine can go (its roofline).

The model runs without numbers (torch's meta device); its products, convolutions and attentions are counted as they are called, so
that the count cannot drift from the code, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from internvla_a1_ros.model.checkpoint import empty_model
from internvla_a1_ros.model.flow import VelocityField
from internvla_a1_ros.model.sizes import FRAMES, Architecture

# Bytes of a weight and of an activation.
PRECISIONS: dict[str, tuple[int, int]] = {"float32": (4, 4), "bfloat16": (2, 2), "float16": (2, 2), "int8": (1, 4), "fp8": (1, 2)}


@dataclass(frozen=True, slots=True)
class Cost:
    """One stage of a chunk: floating-point operations (a multiply-add is two), bytes of weights read, bytes of activations in and out.

    Only products, convolutions and attentions count: everything else can be fused into them.
    """

    flop: int
    weight_bytes: int
    activation_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.weight_bytes + other.weight_bytes, self.activation_bytes + other.activation_bytes)

    def times(self, n: int) -> Cost:
        return Cost(n * self.flop, n * self.weight_bytes, n * self.activation_bytes)

    def floor_s(self, flop_per_s: float, bytes_per_s: float) -> float:
        """Seconds below which a machine of these rates cannot do it: it computes while it reads."""
        return max(self.flop / flop_per_s, self.reading_s(bytes_per_s))

    def reading_s(self, bytes_per_s: float) -> float:
        """Seconds of reading weights and activations once."""
        return (self.weight_bytes + self.activation_bytes) / bytes_per_s


@dataclass(frozen=True, slots=True)
class Machine:
    """Published peak rates: dense tensor operations a second in bfloat16 and in 8 bits (float32 accumulation), memory bytes a second."""

    name: str
    half_flop_per_s: float
    byte_flop_per_s: float
    bytes_per_s: float
    source: str

    def flop_per_s(self, precision: str) -> float:
        return self.byte_flop_per_s if precision in ("int8", "fp8") else self.half_flop_per_s


MACHINES = (
    Machine("H100 SXM", 989.4e12, 1978.9e12, 3.35e12, "NVIDIA H100 Tensor Core GPU datasheet, half of its figures with sparsity"),
    Machine("RTX 4090", 165.2e12, 330.3e12, 1.008e12, "NVIDIA Ada GPU architecture whitepaper, appendix A"),
    Machine("RTX 5090", 209.5e12, 419.0e12, 1.792e12, "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix A"),
    Machine(
        "Jetson Thor",
        258.75e12,
        517.5e12,
        0.273e12,
        "NVIDIA Jetson T5000 datasheet, 2070 TFLOP/s FP4 with sparsity, halved to dense, to 8 and to 16 bits",
    ),
)


def stage_costs(sizes: Architecture, steps: int, cached_past: bool, precision: str = "float32") -> dict[str, Cost]:
    """Return what each stage of one chunk costs: vision, prefix, encode, generate, flow (`steps` evaluations), and decode.

    `cached_past`: the latents of the past frames are known, so that half the frames are encoded. decode, the imagined pictures, is
    not needed for control.
    """
    model = empty_model(sizes)
    counter = _Counter(*PRECISIONS[precision])

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    views, tokens = sizes.views, sizes.prefix_tokens
    costs: dict[str, Cost] = {}
    with torch.inference_mode(), counter:
        pixels = empty(1, views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width)
        ids, mask = empty(1, tokens, dtype=torch.long), empty(1, tokens, dtype=torch.bool)
        embeddings = counter.stage(costs, "vision", lambda: model.embed_prefix(pixels, ids, sizes.grid))
        positions = model.prefix_positions(mask, views, sizes.grid)
        prefix = counter.stage(costs, "prefix", lambda: model.prefix(embeddings, mask, positions))
        frames = views * (1 if cached_past else FRAMES)
        counter.stage(costs, "encode", lambda: model.encode(empty(frames, 3, *sizes.cosmos_picture)))
        latents = empty(1, views, FRAMES, sizes.cosmos.latent_channels, *sizes.latent_grid)
        cache = counter.stage(
            costs, "generate", lambda: model.generate(prefix, model.embed_generation(latents), empty(1, views, dtype=torch.bool))
        )
        field = VelocityField(model, cache, empty(1, sizes.state_width), sizes.chunk)
        counter.stage(costs, "flow", lambda: field(empty(1, sizes.chunk, sizes.action_width), empty(1)))
        costs["flow"] = costs["flow"].times(steps)
        counter.stage(
            costs,
            "decode",
            lambda: model.decode(model.predict_latents(model.generation_hidden(cache), views, sizes.generation_grid)[0]),
        )
    return costs


class _Counter(TorchFunctionMode):
    """Counts the calls that a stage makes."""

    def __init__(self, weight_bytes: int, activation_bytes: int) -> None:
        super().__init__()
        self.bytes = weight_bytes, activation_bytes
        self.flop = self.activations = 0
        self.weights: dict[int, int] = {}

    def stage(self, costs: dict[str, Cost], name: str, run: Callable[[], Any]) -> Any:
        self.flop = self.activations = 0
        self.weights.clear()
        result = run()
        costs[name] = Cost(self.flop, sum(self.weights.values()) * self.bytes[0], self.activations * self.bytes[1])
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in (*args, *(kwargs or {}).values()):
            if isinstance(tensor, torch.nn.Parameter) and getattr(func, "__name__", "") != "__get__":  # asked for its dtype, say
                rows = min(tensor.numel(), out.numel()) if func is F.embedding else tensor.numel()
                self.weights[id(tensor)] = max(rows, self.weights.get(id(tensor), 0))
        if (flop := _flop(func, args, out)) is not None:
            self.flop += flop
            moved = [tensor for tensor in (*args, out) if isinstance(tensor, Tensor) and not isinstance(tensor, torch.nn.Parameter)]
            self.activations += sum(tensor.numel() for tensor in moved)
        return out


def _flop(func: Any, args: Any, out: Any) -> int | None:
    """Floating-point operations of a product, convolution or attention; None for anything else."""
    if func in (F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__):
        return 2 * int(out.numel()) * int(args[0].shape[-1])
    if func is torch.conv2d or func is F.conv2d:
        return 2 * int(out.numel()) * int(args[1][0].numel())
    if func in (torch.conv_transpose2d, F.conv_transpose2d):
        return 2 * int(args[0].numel()) * int(args[1][0].numel())
    if func is F.scaled_dot_product_attention:
        query, key = args[0], args[1]
        return 4 * int(query.numel()) * int(key.shape[-2])
    return None
