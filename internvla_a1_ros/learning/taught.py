"""The model and its losses as one module, which is what DDP and FSDP wrap."""

from __future__ import annotations

from torch import Tensor, nn

from internvla_a1_ros.model.flow import TrainingBatch, losses
from internvla_a1_ros.model.model import InternVLAA1


class Taught(nn.Module):
    def __init__(self, model: InternVLAA1) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: TrainingBatch, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors [B, H, D] of the velocity, not reduced, and the loss of the imagined future (`model.flow.losses`)."""
        found = losses(self.model, inputs, noise, times)
        return found.action, found.generation
