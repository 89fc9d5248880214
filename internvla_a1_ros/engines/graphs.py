"""CUDA graphs: a function of tensors is recorded once and then replayed as one launch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_KEPT = 64  # recordings; the one used longest ago is dropped first
_WARM_UPS = 3  # cuBLAS and cuDNN choose their kernels and workspaces in the first calls, which must not be recorded


class Graphs:
    """Runs bodies as they are on a CPU, as recorded graphs on a GPU.

    A body reads its inputs and the engine's buffers, whose addresses never change, and returns tensors that the next
    call of the same key overwrites. With its recording a body is kept, and so is whatever it reads.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        """`cuda`: the runtime, which tests replace."""
        self._records = device.type == "cuda"
        self._cuda = cuda
        self._known: OrderedDict[Hashable, tuple[Any, tuple[Tensor, ...], Any, Callable[..., Any]]] = OrderedDict()

    def __call__(self, key: Hashable, body: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return `body(*inputs)`. What decides the body's shapes and branches must be in `key`."""
        if not self._records:
            return body(*inputs)
        if key not in self._known:
            self._known[key] = (*self._record(body, inputs), body)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        graph, held, result, _ = self._known[key]
        for buffer, fresh in zip(held, inputs, strict=True):
            buffer.copy_(fresh, non_blocking=True)
        graph.replay()
        return result

    def _record(self, body: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...], Any]:
        held = tuple(tensor.clone() for tensor in inputs)
        aside = self._cuda.Stream()
        aside.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(aside):
            for _ in range(_WARM_UPS):
                body(*held)
        self._cuda.current_stream().wait_stream(aside)
        graph = self._cuda.CUDAGraph()
        with self._cuda.graph(graph):
            result = body(*held)
        return graph, held, result
