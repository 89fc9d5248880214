"""Flow matching over action chunks: the velocity field, sampling, the training losses.

Time 1 is noise, time 0 the actions (the paper writes both the other way round). B batch, H actions, D padded width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.model.integrators import FlowPlan, Guidance, guided
from internvla_a1_ros.model.model import GenerationCache, InternVLAA1
from internvla_a1_ros.model.positions import following
from internvla_a1_ros.model.sizes import Pair
from internvla_a1_ros.model.text import KeysValues, additive, rotary_tables

Field = Callable[[Tensor, Tensor], Tensor]  # x [B, H, D] at times [B] -> velocity [B, H, D]


def time_embedding(time: Tensor, width: int, min_period: float, max_period: float) -> Tensor:
    """Return sines then cosines [B, width] of flow times [B], periods geometric from min to max; angles in float64."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angles = 2 * torch.pi * time.double()[:, None] / period
    return torch.cat((angles.sin(), angles.cos()), 1).float()


class VelocityField:
    """The action expert over one cache and one state: everything that the flow's steps share is computed once.

    The state token sees prefix, generation and itself; action tokens see everything.
    """

    def __init__(self, model: InternVLAA1, cache: GenerationCache, state: Tensor, chunk: int) -> None:
        """`state` [B, D] normalised; `chunk`: actions H."""
        self.model, self.cache = model, cache
        self.state_token = model.state_proj(state.to(model.dtype))[:, None]
        batch, tokens = state.shape[0], 1 + chunk
        self.valid = torch.ones(batch, tokens, dtype=torch.bool, device=state.device)
        positions = following(cache.last_position, self.valid)
        self.cos, self.sin = rotary_tables(positions, model.sizes.expert_rope, model.sizes.action.head_dim)
        among = self.valid[:, None].repeat(1, tokens, 1)
        among[:, 0, 1:] = False
        self.scores = additive(torch.cat((cache.tokens.mask[:, None].expand(-1, tokens, -1), among), 2), model.dtype)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """Velocity [B, H, D] float32 of noisy actions `x` [B, H, D] at `time` [B]."""
        velocity: Tensor = self.model.action_out_proj(self.hidden(x, time))
        return velocity

    def hidden(self, x: Tensor, time: Tensor) -> Tensor:
        """What the velocity is read from: the action tokens [B, H, h] float32 after the expert's final norm."""
        sizes = self.model.sizes
        return self.hidden_at(x, time_embedding(time, sizes.action.hidden, sizes.min_period, sizes.max_period))

    def hidden_at(self, x: Tensor, embedded: Tensor) -> Tensor:
        """The same, with the time embedded already [B, h]."""
        model = self.model
        suffix = torch.cat((self.state_token, model.embed_actions(x, embedded)), 1)
        tokens, entering = model.action.run(suffix, self.cos, self.sin, self.valid, self.scores, self.cache.tokens)
        return model.action.finish(entering, self.cos, self.sin, tokens, self.scores)[:, 1:].float()


def sample(field: Field, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> tuple[Tensor, Tensor]:
    """Integrate `noise` [B, H, D] from time 1 to 0 by `plan`.

    Returns normalised actions [B, H, D] and the velocities as they were used [B, evaluations, H, D], all float32.
    """
    x = y = noise.float()
    velocities: list[Tensor] = []
    for evaluation in plan.evaluations:
        velocities.append(steered(field, y, evaluation.time, guidance))
        y = x
        for weight, velocity in zip(evaluation.weights, reversed(velocities), strict=False):
            if weight != 0.0:
                y = y + weight * velocity
        if evaluation.advance:
            x = y
    return x, torch.stack(velocities, 1)


def steered(field: Field, x: Tensor, time: float, guidance: Guidance | None) -> Tensor:
    """Return the velocity [B, H, D] at `time`, towards what `guidance` asks for."""
    at = torch.full((x.shape[0],), time, device=x.device)
    if guidance is None:
        return field(x, at)
    actions, weights = guidance.actions.to(x), guidance.weights.to(x)
    if guidance.gradient_clip is None:
        return guided(field(x, at), x, time, actions, weights)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        velocity = field(x, at)
        estimate = x - time * velocity
    missing = weights[:, None] * (actions - estimate.detach())
    (pull,) = torch.autograd.grad(estimate, x, missing)
    return velocity.detach() - pull_factor(time, guidance.gradient_clip) * pull


def pull_factor(time: float, clip: float) -> float:
    """How strongly pseudo-inverse guidance pulls at `time`: equation 2 of arXiv 2506.07339, whose time is 1 - ours."""
    if time >= 1.0:
        return clip
    return min(clip, ((1 - time) ** 2 + time**2) / ((1 - time) * time))


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """One batch as the losses read it. `latents` [B, V, 3 (past, now, future), z, lh, lw] come from the frozen Cosmos encoder.

    `seen` [B, V, T, h]: what a frozen vision tower says of the pictures, where that is known; `pixel_values` are then not read.
    `foreseeable` [B]: whose future follows from what is seen and asked; all, where it is not said.
    """

    pixel_values: Tensor
    grid: Pair
    input_ids: Tensor
    attention_mask: Tensor
    view_mask: Tensor
    latents: Tensor
    state: Tensor
    actions: Tensor
    seen: Tensor | None = None
    foreseeable: Tensor | None = None

    @property
    def imagined(self) -> Tensor:
        """Views [B, V] whose future is asked for."""
        return self.view_mask if self.foreseeable is None else self.view_mask & self.foreseeable[:, None]


@dataclass(frozen=True, slots=True)
class Losses:
    """`action` [B, H, D] squared errors of the velocity, not reduced; `generation` scalar; `total` what training minimises.

    `tokens` [B, G, h]: what enters the generation expert's last layer, as deep as the action expert looks.
    """

    action: Tensor
    generation: Tensor
    total: Tensor
    tokens: Tensor


def losses(model: InternVLAA1, batch: TrainingBatch, noise: Tensor, time: Tensor) -> Losses:
    """Compute the losses of `batch` at flow times `time` [B*K] with `noise` [B*K, H, D]: K draws of each sample, which follow each other.

    What is seen is understood once for all draws of a sample. `action` is [B*K, H, D] then.
    `total` = mean over the robot's own widths + lambda * mean over the future latents of the views whose future is asked for.
    """
    sizes, views = model.sizes, batch.view_mask.shape[1]
    positions = model.prefix_positions(batch.attention_mask, views, batch.grid)
    seen = model.seen(batch.pixel_values, batch.grid) if batch.seen is None else batch.seen
    prefix = model.prefix(model.laid(seen, batch.input_ids), batch.attention_mask, positions)
    cache = model.generate(prefix, model.embed_generation(batch.latents[:, :, :-1]), batch.view_mask, masked_advance=False)

    at, draws = time[:, None, None], len(time) // len(batch.state)
    state, actions = (each.repeat_interleave(draws, 0) for each in (batch.state, batch.actions))
    hidden = VelocityField(model, repeated(cache, draws), state, actions.shape[1]).hidden(at * noise + (1 - at) * actions, time)
    with torch.autocast(hidden.device.type, enabled=False):  # a velocity is float32, as where the policy is run
        velocity = model.action_out_proj(hidden)
    action = F.mse_loss(velocity, noise - actions, reduction="none")

    stride = sizes.latent_stride
    token_grid = (batch.latents.shape[-2] // stride, batch.latents.shape[-1] // stride)
    predicted = model.predict_latents(model.generation_hidden(cache), views, token_grid)
    off = F.mse_loss(predicted.float(), batch.latents[:, :, -1].float(), reduction="none").mean((2, 3, 4))
    generation = (off * batch.imagined).sum() / batch.imagined.sum().clamp(min=1)
    total = action[..., : sizes.robot_width].mean() + sizes.lambda_generation * generation
    return Losses(action, generation, total, cache.entering_last_layer)


def repeated(cache: GenerationCache, draws: int) -> GenerationCache:
    """Return what the action expert reads of `cache`, each sample `draws` times in a row."""
    if draws == 1:
        return cache
    tokens, last = cache.tokens, cache.last_position.repeat_interleave(draws, 0)
    keys, values = (tuple(each.repeat_interleave(draws, 0) for each in some) for some in (tokens.keys, tokens.values))
    return replace(cache, tokens=KeysValues(keys, values, tokens.mask.repeat_interleave(draws, 0)), last_position=last)
