"""What every engine does: five calls with static shapes, one observation at a time.

V views, L prefix tokens, N pictures, P patches of a view, H actions of a chunk, D padded state and action width, z latent
channels, (lh, lw) latents of a picture. All sizes are in `sizes`, an engine's inputs must have them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture


@runtime_checkable
class Engine(Protocol):
    """Runs the model. Calls come from one thread.

    Caches are opaque, may be used more than once and are valid until the next `prefix` call, which may write over them. Their
    `tokens` are those that `tokens.mask` calls valid, in order; what an engine keeps of the others, if anything, means nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def sizes(self) -> Architecture: ...

    @property
    def encodes_early(self) -> bool:
        """Whether it pays to encode the first picture while others are still being decoded, as it does where both happen on CPU cores."""
        ...

    def encode(self, pictures: Tensor) -> Tensor:
        """Cosmos: pictures [N, 3, ch, cw] in [-1, 1] -> latents [N, z, lh, lw]."""
        ...

    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        """Understanding: patches [V, P, patch width], token ids [L] and their validity [L] (a missing view's tokens are False)."""
        ...

    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        """Generation: latents [V, z, lh, lw] of both frames and which views are there [V]."""
        ...

    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        """Action: normalised state [D] and noise [H, D] -> normalised actions [H, D] float32, integrated by `plan`.

        `guidance`: actions that are committed already and that the chunk is to continue; with all weights 0 the same bits as None.
        Raises ConfigurationError where it asks for gradients and the engine has none (attribute `differentiable`, absent: none).
        """
        ...

    def decode(self, cache: GenerationCache) -> Tensor:
        """The imagined future of each view, raw pictures [V, 3, ch, cw] of about [-1, 1]; those of missing views mean nothing."""
        ...
