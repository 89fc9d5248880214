"""For each torch function that the model calls, the ONNX nodes that do the same. Shapes are known, so views are plain reshapes.

A writer gets the recorder, the result without numbers, and the call's own arguments; it returns the result, bound to its node.
`Dialect` says what the runtime at hand likes better than the standard nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from internvla_a1_ros.engines.recording import Recorder

MICROSOFT = "com.microsoft"
Operation = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`fused`: ONNX Runtime's own nodes where they are faster. `int8`: products run in 8 bits where both sides are at least `int8_from`."""

    fused: bool
    int8: bool = False
    int8_from: int = 64

    def operations(self) -> dict[str, Operation]:
        reshapes = ("reshape", "view", "view_as", "flatten", "unflatten", "unsqueeze", "squeeze", "contiguous", "clone")
        casts = ("to", "float", "type_as")
        table: dict[str, Operation] = {name: _reshape for name in reshapes} | {name: _cast for name in casts}
        for op, names in {
            "Add": ("add", "iadd", "radd"),
            "Mul": ("mul", "rmul", "imul"),
            "Sub": ("sub",),
            "Div": ("div", "truediv"),
        }.items():
            table |= {name: _binary(op) for name in names}
        return table | {
            "linear": self.linear,
            "rms_norm": self.rms_norm,
            "silu": self.silu,
            "scaled_dot_product_attention": self.attention,
            "matmul": _matmul,
            "layer_norm": _layer_norm,
            "group_norm": _group_norm,
            "gelu": _gelu,
            "softmax": _softmax,
            "neg": _unary("Neg"),
            "conv2d": self.conv2d,
            "conv_transpose2d": self.conv_transpose2d,
            "cat": _cat,
            "concat": _cat,
            "stack": _stack,
            "chunk": _pieces,
            "unbind": _pieces,
            "iter": lambda recorder, result, x: iter(_pieces(recorder, list(result), x)),
            "getitem": _getitem,
            "transpose": _transpose,
            "permute": _permute,
            "expand": _expand,
            "expand_as": _expand,
            "repeat_interleave": _repeat_interleave,
            "pad": _pad,
            "mean": _mean,
        }

    def linear(self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        name = self.product(recorder, recorder.name(x), recorder.matrix(weight), x.dtype, None if bias is None else recorder.name(bias))
        return recorder.bind(result, name)

    def conv2d(
        self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, *_: Any
    ) -> Tensor:
        """Where the kernel steps by its own size every tile is one product, which can run in 8 bits."""
        out, channels, rows, columns = weight.shape
        if _pair(stride) != [rows, columns] or rows * columns == 1 or _pair(padding) != [0, 0]:
            if self.int8 and min(out, channels) >= self.int8_from:
                return _conv2d_in_8_bits(recorder, result, x, weight, bias, _pair(stride), _pair(padding))
            return _conv2d(recorder, result, x, weight, bias, stride, padding)
        n, height, width = x.shape[0], *x.shape[2:]
        down, across = height // rows, width // columns
        split = _reshaped(recorder, recorder.name(x), (n, channels, down, rows, across, columns))
        tiles = recorder.node("Transpose", split, perm=[0, 2, 4, 1, 3, 5])
        matrix = recorder.matrix(weight, (1, 2, 3, 0), channels * rows * columns)
        flat = _reshaped(recorder, tiles, (1, n * down * across, channels * rows * columns))
        made = _reshaped(recorder, self.product(recorder, flat, matrix, x.dtype, recorder.name(bias)), (n, down, across, out))
        return recorder.bind(result, recorder.node("Transpose", made, perm=[0, 3, 1, 2]))

    def conv_transpose2d(self, recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, *_: Any) -> Tensor:
        """The way back of `conv2d`: every pixel becomes a tile."""
        channels, out, rows, columns = weight.shape
        if _pair(stride) != [rows, columns]:
            return _conv_transpose2d(recorder, result, x, weight, bias, stride)
        n, height, width = x.shape[0], *x.shape[2:]
        pixels = recorder.node("Transpose", recorder.name(x), perm=[0, 2, 3, 1])
        matrix = recorder.matrix(weight, (0, 1, 2, 3), channels)
        flat = _reshaped(recorder, pixels, (1, n * height * width, channels))
        made = _reshaped(recorder, self.product(recorder, flat, matrix, x.dtype, None), (n, height, width, out, rows, columns))
        made = _reshaped(recorder, recorder.node("Transpose", made, perm=[0, 3, 1, 4, 2, 5]), result.shape)
        shift = _reshaped(recorder, recorder.name(bias), (1, out, 1, 1))
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
        query, key = _reshaped(recorder, recorder.name(q), (batch, groups, shared * tokens, width)), recorder.name(k)
        factor = 1 / math.sqrt(width)
        if self.fused:
            met = recorder.node("FusedMatMul", query, key, domain=MICROSOFT, transB=1, alpha=factor)
        else:
            query = recorder.node("Mul", query, recorder.number(factor, dtype=q.dtype, scalar=True))
            met = recorder.node("MatMul", query, recorder.node("Transpose", key, perm=[0, 1, 3, 2]))
        if scores is not None:
            if shared > 1:
                met = _reshaped(recorder, met, (batch, groups, shared, tokens, seen))
                more = _reshaped(recorder, recorder.name(scores), (batch, 1, 1, *scores.shape[2:]))
                met = _reshaped(recorder, recorder.node("Add", met, more), (batch, groups, shared * tokens, seen))
            else:
                met = recorder.node("Add", met, recorder.name(scores))
        mixed = recorder.node("MatMul", recorder.node("Softmax", met, axis=-1), recorder.name(v))
        return recorder.bind(result, _reshaped(recorder, mixed, (batch, heads, tokens, width)))


def _product_in_8_bits(recorder: Recorder, x: str, matrix: str, dtype: torch.dtype) -> str:
    """Each row is first brought to a largest number of 1, so that one far-out token does not cost the others their precision."""
    recorder.graph.quantised.add(matrix)

    def largest() -> str:
        size = recorder.node("ReduceMax", recorder.node("Abs", x), recorder.number(-1, dtype=torch.long), keepdims=1)
        return recorder.node("Max", size, recorder.number(1e-20, dtype=dtype, scalar=True))

    row = recorder.once(("largest", x), largest)
    scaled = recorder.once(("scaled", x), lambda: recorder.node("Div", x, row))
    return recorder.node("Mul", recorder.node("DynamicQuantizeMatMul", scaled, matrix, f"{matrix}.scale", domain=MICROSOFT), row)


def _reshaped(recorder: Recorder, name: str, shape: Sequence[int]) -> str:
    return recorder.node("Reshape", name, recorder.number(*shape, dtype=torch.long))


def _reshape(recorder: Recorder, result: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    if result.shape == x.shape:
        return recorder.bind(result, recorder.name(x))
    return recorder.bind(result, _reshaped(recorder, recorder.name(x), result.shape))


ONNX_TYPES = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16, torch.int64: 7, torch.bool: 9, torch.int8: 3}


def _cast(recorder: Recorder, result: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    if result.dtype == x.dtype:
        return recorder.bind(result, recorder.name(x))
    return recorder.bind(result, recorder.node("Cast", recorder.name(x), to=ONNX_TYPES[result.dtype]))


def _operand(recorder: Recorder, value: Any, dtype: torch.dtype) -> str:
    if not isinstance(value, Tensor):
        return recorder.number(value, dtype=dtype, scalar=True)
    if value.dtype == dtype:
        return recorder.name(value)
    return recorder.node("Cast", recorder.name(value), to=ONNX_TYPES[dtype])


def _binary(op: str) -> Operation:
    def write(recorder: Recorder, result: Tensor, a: Any, b: Any) -> Tensor:
        return recorder.bind(result, recorder.node(op, _operand(recorder, a, result.dtype), _operand(recorder, b, result.dtype)))

    return write


def _unary(op: str) -> Operation:
    return lambda recorder, result, x: recorder.bind(result, recorder.node(op, recorder.name(x)))


def _matmul(recorder: Recorder, result: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return recorder.bind(result, recorder.node("MatMul", recorder.name(a), recorder.name(b)))


def _layer_norm(recorder: Recorder, result: Tensor, x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    names = [recorder.name(part) for part in (x, weight, bias)]
    return recorder.bind(result, recorder.node("LayerNormalization", *names, axis=-1, epsilon=eps))


def _group_norm(recorder: Recorder, result: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """As an instance norm over groups: ONNX Runtime has no group norm for a CPU."""
    flat = _reshaped(recorder, recorder.name(x), (x.shape[0], groups, -1))
    plain = [recorder.number(*[value] * groups, dtype=x.dtype) for value in (1.0, 0.0)]
    normed = _reshaped(recorder, recorder.node("InstanceNormalization", flat, *plain, epsilon=eps), x.shape)
    for op, part in (("Mul", weight), ("Add", bias)):
        normed = recorder.node(op, normed, _reshaped(recorder, recorder.name(part), (1, -1, *(1,) * (x.ndim - 2))))
    return recorder.bind(result, normed)


def _gelu(recorder: Recorder, result: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    return recorder.bind(result, recorder.node("Gelu", recorder.name(x), approximate=approximate))


def _softmax(recorder: Recorder, result: Tensor, x: Tensor, dim: int) -> Tensor:
    return recorder.bind(result, recorder.node("Softmax", recorder.name(x), axis=dim))


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _conv2d(recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, *_: Any) -> Tensor:
    names = [recorder.name(part) for part in (x, weight, bias)]
    kernel = list(weight.shape[2:])
    return recorder.bind(result, recorder.node("Conv", *names, kernel_shape=kernel, strides=_pair(stride), pads=_pair(padding) * 2))


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
    flat = _reshaped(recorder, side_by_side, (1, n * height * width, rows * columns * channels))
    made = recorder.node("MatMulIntegerToFloat", flat, matrix, scale, f"{matrix}.scale", zero, domain=MICROSOFT)
    made = _reshaped(recorder, recorder.node("Add", made, recorder.name(bias)), (n, height, width, out))
    return recorder.bind(result, recorder.node("Transpose", made, perm=[0, 3, 1, 2]))


def _conv_transpose2d(recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, *_: Any) -> Tensor:
    names = [recorder.name(part) for part in (x, weight, bias)]
    return recorder.bind(result, recorder.node("ConvTranspose", *names, kernel_shape=list(weight.shape[2:]), strides=_pair(stride)))


def _cat(recorder: Recorder, result: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return recorder.bind(result, recorder.node("Concat", *(recorder.name(part) for part in parts), axis=dim))


def _stack(recorder: Recorder, result: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    at = dim % result.ndim
    shape = [1 if axis == at else size for axis, size in enumerate(result.shape)]
    return recorder.bind(result, recorder.node("Concat", *(_reshaped(recorder, recorder.name(part), shape) for part in parts), axis=at))


def _pieces(recorder: Recorder, result: Sequence[Tensor], x: Tensor, *arguments: int) -> tuple[Tensor, ...]:
    """Equal pieces of chunk, or single rows of unbind and unpacking, whose axis is gone."""
    gone = result[0].ndim < x.ndim
    dim = (arguments[0] if gone else arguments[1]) % x.ndim if len(arguments) > (0 if gone else 1) else 0
    first = recorder.node("Split", recorder.name(x), outputs=len(result), axis=dim, num_outputs=len(result))
    names = [first, *(f"{first}.{i}" for i in range(1, len(result)))]
    if gone:
        names = [_reshaped(recorder, name, piece.shape) for name, piece in zip(names, result, strict=True)]
    return tuple(recorder.bind(piece, name) for piece, name in zip(result, names, strict=True))


def _getitem(recorder: Recorder, result: Tensor, x: Tensor, index: Any) -> Tensor:
    """Slices, single rows, new axes and an ellipsis."""
    index = index if isinstance(index, tuple) else (index,)
    given = sum(each is not None and each is not Ellipsis for each in index)
    cuts: list[tuple[int, int, int, int]] = []
    axis = 0
    for each in index:
        if each is None:
            continue
        if each is Ellipsis:
            axis += x.ndim - given
            continue
        if isinstance(each, int):
            start = each % x.shape[axis]
            cuts.append((start, start + 1, axis, 1))
        else:
            start, stop, step = each.indices(x.shape[axis])
            if (start, stop, step) != (0, x.shape[axis], 1):
                cuts.append((start, stop, axis, step))
        axis += 1
    name = recorder.name(x)
    if cuts:
        name = recorder.node("Slice", name, *(recorder.number(*part, dtype=torch.long) for part in zip(*cuts, strict=True)))
    return recorder.bind(result, _reshaped(recorder, name, result.shape))


def _transpose(recorder: Recorder, result: Tensor, x: Tensor, a: int, b: int) -> Tensor:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return recorder.bind(result, recorder.node("Transpose", recorder.name(x), perm=order))


def _permute(recorder: Recorder, result: Tensor, x: Tensor, *order: Any) -> Tensor:
    axes = list(order[0]) if len(order) == 1 else list(order)
    return recorder.bind(result, recorder.node("Transpose", recorder.name(x), perm=[axis % x.ndim for axis in axes]))


def _expand(recorder: Recorder, result: Tensor, x: Tensor, *_: Any) -> Tensor:
    if result.shape == x.shape:
        return recorder.bind(result, recorder.name(x))
    return recorder.bind(result, recorder.node("Expand", recorder.name(x), recorder.number(*result.shape, dtype=torch.long)))


def _repeat_interleave(recorder: Recorder, result: Tensor, x: Tensor, repeats: int, dim: int) -> Tensor:
    at = dim % x.ndim
    wide = (*x.shape[: at + 1], 1, *x.shape[at + 1 :])
    more = (*x.shape[: at + 1], repeats, *x.shape[at + 1 :])
    name = recorder.node("Expand", _reshaped(recorder, recorder.name(x), wide), recorder.number(*more, dtype=torch.long))
    return recorder.bind(result, _reshaped(recorder, name, result.shape))


def _pad(recorder: Recorder, result: Tensor, x: Tensor, pad: Sequence[int], **_: Any) -> Tensor:
    """torch names the last axis first."""
    axes = len(pad) // 2
    before = [0] * (x.ndim - axes) + [pad[2 * i] for i in reversed(range(axes))]
    after = [0] * (x.ndim - axes) + [pad[2 * i + 1] for i in reversed(range(axes))]
    return recorder.bind(result, recorder.node("Pad", recorder.name(x), recorder.number(*before, *after, dtype=torch.long)))


def _mean(recorder: Recorder, result: Tensor, x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    axes = recorder.number(dim % x.ndim, dtype=torch.long)
    return recorder.bind(result, recorder.node("ReduceMean", recorder.name(x), axes, keepdims=int(keepdim)))
