"""The calls whose nodes depend on what runs the graph: fused ones, and products in 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from internvla_a1_ros.engines.operations import Operation, conv2d, conv_transpose2d, pair, plain_operations, reshaped
from internvla_a1_ros.engines.recording import Recorder

MICROSOFT = "com.microsoft"  # ONNX Runtime's own nodes


@dataclass(frozen=True, slots=True)
class Dialect:
    """`fused`: ONNX Runtime's own nodes where they are faster. `int8`: products run in 8 bits where both sides are at least `int8_from`."""

    fused: bool
    int8: bool = False
    int8_from: int = 64

    def operations(self) -> dict[str, Operation]:
        return plain_operations() | {
            "linear": self.linear,
            "conv2d": self.conv2d,
            "conv_transpose2d": self.conv_transpose2d,
            "rms_norm": self.rms_norm,
            "silu": self.silu,
            "scaled_dot_product_attention": self.attention,
        }

    def linear(self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        name = self.product(recorder, recorder.name(x), recorder.matrix(weight), x.dtype, None if bias is None else recorder.name(bias))
        return recorder.bind(result, name)

    def conv2d(
        self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, *_: Any
    ) -> Tensor:
        """Where the kernel steps by its own size every tile is one product, which can run in 8 bits."""
        out, channels, rows, columns = weight.shape
        if pair(stride) != [rows, columns] or rows * columns == 1 or pair(padding) != [0, 0]:
            if self.int8 and min(out, channels) >= self.int8_from:
                return _conv2d_in_8_bits(recorder, result, x, weight, bias, pair(stride), pair(padding))
            return conv2d(recorder, result, x, weight, bias, stride, padding)
        n, height, width = x.shape[0], *x.shape[2:]
        down, across = height // rows, width // columns
        split = reshaped(recorder, recorder.name(x), (n, channels, down, rows, across, columns))
        tiles = recorder.node("Transpose", split, perm=[0, 2, 4, 1, 3, 5])
        matrix = recorder.matrix(weight, (1, 2, 3, 0), channels * rows * columns)
        flat = reshaped(recorder, tiles, (1, n * down * across, channels * rows * columns))
        made = reshaped(recorder, self.product(recorder, flat, matrix, x.dtype, recorder.name(bias)), (n, down, across, out))
        return recorder.bind(result, recorder.node("Transpose", made, perm=[0, 3, 1, 2]))

    def conv_transpose2d(self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, *_: Any) -> Tensor:
        """The way back of `conv2d`: every pixel becomes a tile."""
        channels, out, rows, columns = weight.shape
        if pair(stride) != [rows, columns]:
            return conv_transpose2d(recorder, result, x, weight, bias, stride)
        n, height, width = x.shape[0], *x.shape[2:]
        pixels = recorder.node("Transpose", recorder.name(x), perm=[0, 2, 3, 1])
        matrix = recorder.matrix(weight, (0, 1, 2, 3), channels)
        flat = reshaped(recorder, pixels, (1, n * height * width, channels))
        made = reshaped(recorder, self.product(recorder, flat, matrix, x.dtype, None), (n, height, width, out, rows, columns))
        made = reshaped(recorder, recorder.node("Transpose", made, perm=[0, 3, 1, 4, 2, 5]), result.shape)
        shift = reshaped(recorder, recorder.name(bias), (1, out, 1, 1))
        return recorder.bind(result, recorder.node("Add", made, shift))

    def product(self, recorder: Recorder, x: str, matrix: str, dtype: torch.dtype, bias: str | None) -> str:
        """x [..., in] times a matrix [in, out], and a bias [out]."""
        if self.int8 and min(recorder.graph.matrices[matrix].shape) >= self.int8_from:
            name = _product_in_8_bits(recorder, x, matrix, dtype)
        else:
            name = recorder.node("MatMul", x, matrix)
        return name if bias is None else recorder.node("Add", name, bias)

    def rms_norm(self, recorder: Recorder, result: Tensor, x: Tensor, shape: Any, weight: Tensor, eps: float) -> Tensor:
        if self.fused:
            scaled = recorder.node("SimplifiedLayerNormalization", recorder.name(x), recorder.name(weight), axis=-1, epsilon=eps)
            return recorder.bind(result, scaled)
        name, dtype = recorder.name(x), x.dtype
        square = recorder.node("ReduceMean", recorder.node("Mul", name, name), recorder.number(-1, dtype=torch.long), keepdims=1)
        root = recorder.node("Sqrt", recorder.node("Add", square, recorder.number(eps, dtype=dtype, scalar=True)))
        return recorder.bind(result, recorder.node("Mul", recorder.node("Div", name, root), recorder.name(weight)))

    def silu(self, recorder: Recorder, result: Tensor, x: Tensor, inplace: bool = False) -> Tensor:
        name = recorder.name(x)
        if self.fused:
            return recorder.bind(result, recorder.node("QuickGelu", name, domain=MICROSOFT, alpha=1.0))
        return recorder.bind(result, recorder.node("Mul", name, recorder.node("Sigmoid", name)))

    def attention(
        self, recorder: Recorder, result: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor | None = None, enable_gqa: bool = False
    ) -> Tensor:
        """Query heads that share a key head stand below each other, so that no key is ever copied: q as [B, K, heads a key * T, d]."""
        batch, heads, tokens, width = q.shape
        groups, seen = k.shape[1], k.shape[2]
        shared = heads // groups
        query, key = reshaped(recorder, recorder.name(q), (batch, groups, shared * tokens, width)), recorder.name(k)
        factor = 1 / math.sqrt(width)
        if self.fused:
            met = recorder.node("FusedMatMul", query, key, domain=MICROSOFT, transB=1, alpha=factor)
        else:
            query = recorder.node("Mul", query, recorder.number(factor, dtype=q.dtype, scalar=True))
            met = recorder.node("MatMul", query, recorder.node("Transpose", key, perm=[0, 1, 3, 2]))
        if scores is not None:
            if shared > 1:
                met = reshaped(recorder, met, (batch, groups, shared, tokens, seen))
                more = reshaped(recorder, recorder.name(scores), (batch, 1, 1, *scores.shape[2:]))
                met = reshaped(recorder, recorder.node("Add", met, more), (batch, groups, shared * tokens, seen))
            else:
                met = recorder.node("Add", met, recorder.name(scores))
        mixed = recorder.node("MatMul", recorder.node("Softmax", met, axis=-1), recorder.name(v))
        return recorder.bind(result, reshaped(recorder, mixed, (batch, heads, tokens, width)))


def _product_in_8_bits(recorder: Recorder, x: str, matrix: str, dtype: torch.dtype) -> str:
    """Each row is first brought to a largest number of 1, so that one far-out token does not cost the others their precision."""
    recorder.graph.quantised.add(matrix)

    def largest() -> str:
        size = recorder.node("ReduceMax", recorder.node("Abs", x), recorder.number(-1, dtype=torch.long), keepdims=1)
        return recorder.node("Max", size, recorder.number(1e-20, dtype=dtype, scalar=True))

    row = recorder.once(("largest", x), largest)
    scaled = recorder.once(("scaled", x), lambda: recorder.node("Div", x, row))
    return recorder.node("Mul", recorder.node("DynamicQuantizeMatMul", scaled, matrix, f"{matrix}.scale", domain=MICROSOFT), row)


def _conv2d_in_8_bits(
    recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    """What lies under the kernel's windows, already in 8 bits, side by side, times the kernel: one product.

    ONNX Runtime's own convolution in 8 bits is six times slower than its one in float32, this is three times faster (LOG.md).
    """
    out, channels, rows, columns = weight.shape
    n, height, width = result.shape[0], *result.shape[2:]
    turned = recorder.node("Transpose", recorder.name(x), perm=[0, 2, 3, 1])
    pixels = recorder.node("DynamicQuantizeLinear", turned, outputs=3)
    scale, zero = f"{pixels}.1", f"{pixels}.2"
    if padding != [0, 0]:
        pads = recorder.number(0, *padding, 0, 0, *padding, 0, dtype=torch.long)
        pixels = recorder.node("Pad", pixels, pads, zero)
    windows = []
    for row in range(rows):
        for column in range(columns):
            start, steps = (row, column), recorder.number(*stride, dtype=torch.long)
            end = (row + (height - 1) * stride[0] + 1, column + (width - 1) * stride[1] + 1)
            cut = (
                recorder.number(*start, dtype=torch.long),
                recorder.number(*end, dtype=torch.long),
                recorder.number(1, 2, dtype=torch.long),
            )
            windows.append(recorder.node("Slice", pixels, *cut, steps))
    side_by_side = recorder.node("Concat", *windows, axis=3) if len(windows) > 1 else windows[0]
    matrix = recorder.matrix(weight, (2, 3, 1, 0), rows * columns * channels)
    recorder.graph.quantised.add(matrix)
    flat = reshaped(recorder, side_by_side, (1, n * height * width, rows * columns * channels))
    made = recorder.node("MatMulIntegerToFloat", flat, matrix, scale, f"{matrix}.scale", zero, domain=MICROSOFT)
    made = reshaped(recorder, recorder.node("Add", made, recorder.name(bias)), (n, height, width, out))
    return recorder.bind(result, recorder.node("Transpose", made, perm=[0, 3, 1, 2]))
