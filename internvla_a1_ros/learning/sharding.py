"""A model in shards (FSDP2): each process keeps its part of every weight, gradient and moment, and the whole of a weight while it is used.

Shards go along torch's own `fully_shard`. accelerate's way there shards layers of a class as a whole, on GPUs only; our layers' parts are
called one by one (keys and values of all experts first, `model/text.py`), so each product is a unit, and it runs on CPUs too.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from internvla_a1_ros.learning.taught import Taught
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.text import Attention, SwiGLU
from internvla_a1_ros.model.vision import VisionBlock
from internvla_a1_ros.model.vision_internvl import VisionLayer


def sharded(taught: Taught, device: torch.device, processes: int) -> Taught:
    """Keep a part of every weight but Cosmos's, which encodes outside of the losses and is frozen."""
    mesh, cosmos = init_device_mesh(device.type, (processes,)), taught.model.cosmos
    for unit in units(taught.model):
        fully_shard(unit, mesh=mesh)
    fully_shard(taught, mesh=mesh, ignored_params=set(cosmos.parameters()))
    cosmos.to(device)
    return taught


def units(model: InternVLAA1) -> Iterator[nn.Module]:
    """Yield what is gathered at once; the rest (token table, norms, projections) is gathered for the whole step."""
    for module in model.modules():
        if isinstance(module, (SwiGLU, VisionBlock, VisionLayer)):
            yield module
        elif isinstance(module, Attention):
            yield from (module.q_proj, module.k_proj, module.v_proj, module.o_proj)


def whole_of(tensor: Tensor, wanted: bool) -> Tensor:
    """Return a tensor in memory, put together where it was in shards (all processes ask at once); where not `wanted`, a shell of it."""
    if not isinstance(tensor, DTensor):
        return tensor.cpu()
    whole = tensor.full_tensor()
    return whole.cpu() if wanted else whole.to("meta")


def dealt(tensor: Tensor, like: Tensor) -> Tensor:
    """Return `tensor`, which every process holds, in the shards of `like` and on its device."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def norm_of(gradient_norm: Tensor) -> float:
    """Return a norm over all shards as a number."""
    return float(whole_of(gradient_norm, wanted=True))
