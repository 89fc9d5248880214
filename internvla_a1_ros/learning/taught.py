"""The model and its losses as one module, which is what DDP and FSDP wrap."""

from __future__ import annotations

from torch import Tensor, nn

from internvla_a1_ros.learning.motion import Readout
from internvla_a1_ros.model.flow import TrainingBatch, losses
from internvla_a1_ros.model.model import InternVLAA1


class Taught(nn.Module):
    def __init__(self, model: InternVLAA1, readout: Readout | None = None) -> None:
        """`readout`: where the generation expert is asked how far things have moved."""
        super().__init__()
        self.model, self.readout = model, readout

    def forward(
        self, inputs: TrainingBatch, noise: Tensor, times: Tensor, displaced: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Squared errors [B, H, D] of the velocity, not reduced, the loss of the imagined future (`model.flow.losses`) and that of motion.

        `displaced` [B, V, rows, columns, 3]: what is to be read out (`learning.motion.displaced`); without it or a readout the last is 0.
        """
        found = losses(self.model, inputs, noise, times)
        if self.readout is None or displaced is None:
            return found.action, found.generation, found.generation.new_zeros(())
        return found.action, found.generation, self.readout(found.tokens, displaced)
