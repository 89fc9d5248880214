"""Where a model is taught: on which device, and by which processes together.

Several processes are met through `accelerate` (started by `torchrun`; on GPUs by `accelerate launch` too). Each takes its rows of every
step; gradients are summed over all, by DDP where each holds the whole model, by FSDP where it is `sharded`. One process needs none of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.motion import Readout
from internvla_a1_ros.learning.sharding import sharded, whole_of
from internvla_a1_ros.learning.taught import Taught
from internvla_a1_ros.model.flow import TrainingBatch
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.threads import torch_threads

Device = Literal["auto", "cpu", "cuda"]
# Inputs, noise, flow times and what was displaced -> squared errors of the velocity, the losses of the imagined future and of motion.
Errors = Callable[[TrainingBatch, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
_PATIENCE = timedelta(hours=12)  # the leader may be decoding a cache


@dataclass(frozen=True, slots=True, eq=False)
class Team:
    """This process is number `rank` of `size`, of which `beside` are on its machine, and computes on `device`.

    `accelerator`: accelerate's, where there are several.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False
    accelerator: Any = None
    beside: int = 1

    @classmethod
    def joined(cls, environment: Mapping[str, str], device: Device = "auto", sharded: bool = False) -> Team:
        """Meet the others, where there are any. Raises ConfigurationError where they cannot be met or there is no such device."""
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigurationError("device: got 'cuda', but torch finds no CUDA device here; expected 'cpu' or 'auto'")
        chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if int(environment.get("WORLD_SIZE", "1")) == 1:
            return cls(device=torch.device(chosen))
        try:
            met = _met(chosen)
        except ImportError:
            raise ConfigurationError("several processes need the package accelerate: pip install accelerate") from None
        except (RuntimeError, ValueError) as problem:
            raise ConfigurationError(f"the other processes cannot be met: {str(problem).splitlines()[0]}") from None
        return cls(met.process_index, met.num_processes, met.device, sharded, met, int(environment.get("LOCAL_WORLD_SIZE", "1")))

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mine(self, first: int, count: int) -> range:
        """Which of `count` rows from `first` on are this process's: dealt in turn."""
        return range(first + (self.rank - first) % self.size, first + count, self.size)

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Return each number summed over all processes; the same to the bit everywhere."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return tuple(values.tolist())

    def taught(self, model: InternVLAA1, readout: Readout | None = None) -> Errors:
        """Return what computes the errors of `model` and, when gradients are asked for, sums them over all processes.

        Weights of a sharded model are other objects afterwards, of the same names.
        """
        taught = Taught(model, readout)
        if self.sharded:
            return sharded(taught, self.device, self.size)
        if self.size > 1:
            prepared: Errors = self.accelerator.prepare_model(taught)
            return prepared
        return taught.to(self.device)

    def part(self, errors: Errors, last: bool) -> AbstractContextManager[Any]:
        """Inside, gradients of one part of a step are made; they are summed over the processes with the last."""
        return nullcontext() if last or self.size == 1 or self.sharded else self.accelerator.no_sync(errors)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this process's part of the loss: DDP and FSDP take the mean over the processes, a step wants the sum."""
        (loss if self.size == 1 else loss * self.size).backward()  # type: ignore[no-untyped-call]

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a weight or moment as one tensor in memory; where it was in shards, those that do not lead get an empty shell."""
        return whole_of(tensor.detach(), self.leads)

    def wait(self) -> None:
        if self.size > 1:
            self.accelerator.wait_for_everyone()

    @contextmanager
    def others_wait(self) -> Iterator[None]:
        """Inside, torch computes with the threads of all processes on this machine."""
        with torch_threads(torch.get_num_threads() * self.beside):
            yield


def _met(device: str) -> Any:
    """Wait for the other processes. What they are told by `accelerate launch` about precision or sharding is the recipe's to say."""
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.utils import (  # type: ignore[import-untyped]
        DistributedDataParallelKwargs,
        DistributedType,
        InitProcessGroupKwargs,
    )

    # Of the understanding expert's last layer only keys and values are used: the rest never gets a gradient.
    handlers = [InitProcessGroupKwargs(timeout=_PATIENCE), DistributedDataParallelKwargs(find_unused_parameters=True)]
    met = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=handlers)
    if met.distributed_type not in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ValueError(f"accelerate was started for {met.distributed_type.value}, expected plain processes, sharded by the recipe")
    return met


ALONE = Team()
