"""For each torch function that the model calls, the standard ONNX nodes that do the same. Shapes are known, so views are plain reshapes.

A writer gets the recorder, the result without numbers, and the call's own arguments; it returns the result, bound to its node.
`dialect.py` has those that depend on what runs the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from internvla_a1_ros.engines.recording import Recorder

Operation = Callable[..., Any]


def reshaped(recorder: Recorder, name: str, shape: Sequence[int]) -> str:
    return recorder.node("Reshape", name, recorder.number(*shape, dtype=torch.long))


def _reshape(recorder: Recorder, result: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    if result.shape == x.shape:
        return recorder.bind(result, recorder.name(x))
    return recorder.bind(result, reshaped(recorder, recorder.name(x), result.shape))


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
    flat = reshaped(recorder, recorder.name(x), (x.shape[0], groups, -1))
    plain = [recorder.number(*[value] * groups, dtype=x.dtype) for value in (1.0, 0.0)]
    normed = reshaped(recorder, recorder.node("InstanceNormalization", flat, *plain, epsilon=eps), x.shape)
    for op, part in (("Mul", weight), ("Add", bias)):
        normed = recorder.node(op, normed, reshaped(recorder, recorder.name(part), (1, -1, *(1,) * (x.ndim - 2))))
    return recorder.bind(result, normed)


def _gelu(recorder: Recorder, result: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    return recorder.bind(result, recorder.node("Gelu", recorder.name(x), approximate=approximate))


def _softmax(recorder: Recorder, result: Tensor, x: Tensor, dim: int) -> Tensor:
    return recorder.bind(result, recorder.node("Softmax", recorder.name(x), axis=dim))


def pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def conv2d(recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, *_: Any) -> Tensor:
    names = [recorder.name(part) for part in (x, weight, bias)]
    kernel = list(weight.shape[2:])
    return recorder.bind(result, recorder.node("Conv", *names, kernel_shape=kernel, strides=pair(stride), pads=pair(padding) * 2))


def conv_transpose2d(recorder: Recorder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, *_: Any) -> Tensor:
    names = [recorder.name(part) for part in (x, weight, bias)]
    return recorder.bind(result, recorder.node("ConvTranspose", *names, kernel_shape=list(weight.shape[2:]), strides=pair(stride)))


def _cat(recorder: Recorder, result: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return recorder.bind(result, recorder.node("Concat", *(recorder.name(part) for part in parts), axis=dim))


def _stack(recorder: Recorder, result: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    at = dim % result.ndim
    shape = [1 if axis == at else size for axis, size in enumerate(result.shape)]
    return recorder.bind(result, recorder.node("Concat", *(reshaped(recorder, recorder.name(part), shape) for part in parts), axis=at))


def _pieces(recorder: Recorder, result: Sequence[Tensor], x: Tensor, *arguments: int) -> tuple[Tensor, ...]:
    """Equal pieces of chunk, or single rows of unbind and unpacking, whose axis is gone."""
    gone = result[0].ndim < x.ndim
    dim = (arguments[0] if gone else arguments[1]) % x.ndim if len(arguments) > (0 if gone else 1) else 0
    first = recorder.node("Split", recorder.name(x), outputs=len(result), axis=dim, num_outputs=len(result))
    names = [first, *(f"{first}.{i}" for i in range(1, len(result)))]
    if gone:
        names = [reshaped(recorder, name, piece.shape) for name, piece in zip(names, result, strict=True)]
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
    return recorder.bind(result, reshaped(recorder, name, result.shape))


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
    name = recorder.node("Expand", reshaped(recorder, recorder.name(x), wide), recorder.number(*more, dtype=torch.long))
    return recorder.bind(result, reshaped(recorder, name, result.shape))


def _pad(recorder: Recorder, result: Tensor, x: Tensor, pad: Sequence[int], **_: Any) -> Tensor:
    """torch names the last axis first."""
    axes = len(pad) // 2
    before = [0] * (x.ndim - axes) + [pad[2 * i] for i in reversed(range(axes))]
    after = [0] * (x.ndim - axes) + [pad[2 * i + 1] for i in reversed(range(axes))]
    return recorder.bind(result, recorder.node("Pad", recorder.name(x), recorder.number(*before, *after, dtype=torch.long)))


def _mean(recorder: Recorder, result: Tensor, x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    axes = recorder.number(dim % x.ndim, dtype=torch.long)
    return recorder.bind(result, recorder.node("ReduceMean", recorder.name(x), axes, keepdims=int(keepdim)))


def plain_operations() -> dict[str, Operation]:
    """Torch's function names, without underscores around them, and their writers."""
    reshapes = ("reshape", "view", "view_as", "flatten", "unflatten", "unsqueeze", "squeeze", "contiguous", "clone")
    casts = ("to", "float", "type_as")
    table: dict[str, Operation] = {name: _reshape for name in reshapes} | {name: _cast for name in casts}
    for op, names in {"Add": ("add", "iadd", "radd"), "Mul": ("mul", "rmul", "imul"), "Sub": ("sub",), "Div": ("div", "truediv")}.items():
        table |= {name: _binary(op) for name in names}
    return table | {
        "matmul": _matmul,
        "layer_norm": _layer_norm,
        "group_norm": _group_norm,
        "gelu": _gelu,
        "softmax": _softmax,
        "neg": _unary("Neg"),
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
        "conv2d": conv2d,
        "conv_transpose2d": conv_transpose2d,
    }
