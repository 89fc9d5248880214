"""The 2B layout stated a second time, plainly: float64, one whole pass per velocity, no cache, nothing shared with `model/`.

It reads weights by their released names and draws those that are not there, so the same lines are checked against the released
numbers and make folders of other sizes. Written from the facts: mixture of transformers with one key/value sequence, InternVL
tower, Qwen2 layers, Cosmos CI8x8, Euler steps. One observation, no batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from plain_cosmos import PlainCosmos
from torch import Tensor
from torch.nn import functional as F

UND = "internvl_with_expert.und_expert.model"
EXPERTS = (f"{UND}.language_model", "internvl_with_expert.gen_expert.model", "internvl_with_expert.act_expert.model")
MEAN, STD = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Plain(PlainCosmos):
    """The model, over weights that are given or drawn."""

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return unit * self.w(f"{name}.weight", x.shape[-1]) + self.w(f"{name}.bias", x.shape[-1])

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.w(f"{name}.weight", x.shape[-1])

    # ---- pictures to tokens

    def look(self, pictures: Tensor) -> Tensor:
        """[V, 3, h, w] in [0, 1] -> [V * tokens, hidden]."""
        hidden, mlp, heads, layers = self.spec.vision
        name = f"{UND}.vision_tower"
        side = self.spec.patch
        patches = self.conv(f"{name}.embeddings.patch_embeddings.projection", (pictures - MEAN) / STD, hidden, side, side)
        rows, columns = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)
        table = self.w(f"{name}.embeddings.position_embeddings", 1, 1 + self.spec.table**2, hidden)[0]
        square = table[1:].view(self.spec.table, self.spec.table, hidden)
        square = torch.einsum("ra,cb,abh->rch", cubic(self.spec.table, rows), cubic(self.spec.table, columns), square)
        first = self.w(f"{name}.embeddings.cls_token", 1, 1, hidden)[0] + table[:1]
        x = torch.cat((first.expand(len(x), 1, hidden), x + square.flatten(0, 1)), 1)
        for i in range(layers):
            layer = f"{name}.encoder.layer.{i}"
            y = self.layer_norm(f"{layer}.layernorm_before", x, 1e-6)
            q, k, v = (self.linear(f"{layer}.attention.{part}_proj", y, hidden).unflatten(-1, (heads, -1)) for part in "qkv")
            scores = torch.einsum("vqhd,vkhd->vhqk", q, k) / math.sqrt(hidden // heads)
            mixed = torch.einsum("vhqk,vkhd->vqhd", scores.softmax(-1), v).flatten(2)
            x = x + self.w(f"{layer}.lambda_1", hidden) * self.linear(f"{layer}.attention.projection_layer", mixed, hidden)
            y = F.gelu(self.linear(f"{layer}.mlp.fc1", self.layer_norm(f"{layer}.layernorm_after", x, 1e-6), mlp))
            x = x + self.w(f"{layer}.lambda_2", hidden) * self.linear(f"{layer}.mlp.fc2", y, hidden)
        x = x[:, 1:].unflatten(1, (rows, columns))
        tokens = [
            torch.cat([x[view, 2 * row + i, 2 * column + j] for i in (0, 1) for j in (0, 1)])
            for view in range(len(x))
            for row in range(rows // 2)
            for column in range(columns // 2)
        ]
        y = self.layer_norm(f"{UND}.multi_modal_projector.layer_norm", torch.stack(tokens), 1e-5)
        y = F.gelu(self.linear(f"{UND}.multi_modal_projector.linear_1", y, self.spec.hidden))
        return self.linear(f"{UND}.multi_modal_projector.linear_2", y, self.spec.hidden)

    def embed_prefix(self, pictures: Tensor, ids: Tensor) -> Tensor:
        table = self.w(f"{EXPERTS[0]}.embed_tokens.weight", self.spec.vocabulary, self.spec.hidden)
        return torch.cat((self.look(pictures), table[ids] * math.sqrt(self.spec.hidden)))

    # ---- the mixture

    def embed_generation(self, latents: Tensor) -> Tensor:
        """[V, 2, z, lh, lw] -> [G, hidden] in the order view, time, row, column."""
        hidden, stride = self.spec.hidden, self.spec.stride
        x = self.conv("downsample_conv", self.conv("gen_in_proj", latents.flatten(0, 1), hidden, 1), hidden, stride, stride)
        return x.permute(0, 2, 3, 1).flatten(0, 2)

    def embed_suffix(self, state: Tensor, x: Tensor, time: float) -> Tensor:
        hidden, half = self.spec.hidden, self.spec.hidden // 2
        periods = [4e-3 * (4.0 / 4e-3) ** (i / (half - 1)) for i in range(half)]
        wave = [f(2 * math.pi * time / period) for f in (math.sin, math.cos) for period in periods]
        both = torch.cat((self.linear("action_in_proj", x, hidden), torch.tensor(wave).double().expand(len(x), hidden)), 1)
        y = self.linear("action_time_mlp_in", both, hidden)
        return torch.cat((self.linear("state_proj", state, hidden)[None], self.linear("action_time_mlp_out", y * y.sigmoid(), hidden)))

    def mix(self, given: list[Tensor], valid: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """All tokens through all layers at once -> final hidden states of each part, and each layer's keys and values."""
        spec, d, parts = self.spec, self.spec.head_dim, list(given)
        lengths = [len(part) for part in parts]
        # Later tokens see earlier parts whole; the state alone of the last part does not see the actions.
        order = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
        if len(parts) == 3:
            order[-lengths[2] + 1 :] += 1
        may_look = (order[None] <= order[:, None]) & valid[None]
        positions = (valid.long().cumsum(0) - 1).tolist()
        theta = [spec.thetas[0] if i < lengths[0] else spec.thetas[1] for i in range(len(positions))]
        angles = torch.tensor(
            [[p / t ** (2 * j / d) for j in range(d // 2)] for p, t in zip(positions, theta, strict=True)], dtype=torch.float64
        )[:, None]
        names, all_keys, all_values = EXPERTS[: len(parts)], [], []
        for i in range(spec.layers):
            layers = [f"{name}.layers.{i}" for name in names]
            normed = [self.rms_norm(f"{layer}.input_layernorm", part) for layer, part in zip(layers, parts, strict=True)]
            q, k, v = (
                torch.cat([self.linear(f"{layer}.self_attn.{which}_proj", x, heads * d) for layer, x in zip(layers, normed, strict=True)])
                for which, heads in (("q", spec.heads), ("k", spec.kv_heads), ("v", spec.kv_heads))
            )
            q, k, v = (turn(q.unflatten(1, (-1, d)), angles), turn(k.unflatten(1, (-1, d)), angles), v.unflatten(1, (-1, d)))
            all_keys.append(k)
            all_values.append(v)
            mixed = []
            for head in range(spec.heads):
                shared = head // (spec.heads // spec.kv_heads)
                scores = q[:, head] @ k[:, shared].T / math.sqrt(d)
                mixed.append(scores.masked_fill(~may_look, -1e30).softmax(-1) @ v[:, shared])
            attended = torch.cat(mixed, 1).split(lengths)
            for at, layer in enumerate(layers):
                x = parts[at] + self.linear(f"{layer}.self_attn.o_proj", attended[at], spec.hidden, bias=False)
                parts[at] = x + self.swiglu(layer, self.rms_norm(f"{layer}.post_attention_layernorm", x))
        return [self.rms_norm(f"{name}.norm", part) for name, part in zip(names, parts, strict=True)], all_keys, all_values

    def swiglu(self, layer: str, x: Tensor) -> Tensor:
        gate, up = (self.linear(f"{layer}.mlp.{which}_proj", x, self.spec.mlp, False) for which in ("gate", "up"))
        return self.linear(f"{layer}.mlp.down_proj", gate * gate.sigmoid() * up, self.spec.hidden, False)

    def predict(self, hidden: Tensor) -> Tensor:
        """Generation's hidden states -> latents [V, z, lh, lw]."""
        unit = (self.spec.cosmos_patch << self.spec.halvings) * self.spec.stride
        grid = (self.spec.cosmos_picture[0] // unit, self.spec.cosmos_picture[1] // unit)
        x = hidden.view(self.spec.views, 2, *grid, -1).mean(1).permute(0, 3, 1, 2)
        h, stride = self.spec.hidden, self.spec.stride
        x = F.conv_transpose2d(x, self.w("upsample_conv.weight", h, h, stride, stride), self.w("upsample_conv.bias", h), stride)
        x = self.layer_norm("gen_out_layer_norm", x.permute(0, 2, 3, 1), 1e-5)
        return self.linear("gen_out_proj", x, self.spec.cosmos[3]).permute(0, 3, 1, 2)

    # ---- everything

    def outputs(self, io: dict[str, Tensor], steps: tuple[int, ...]) -> dict[str, Tensor]:
        """What a reference folder of the inputs `io` holds, for other numbers of `steps` too; rows that mean nothing are NaN."""
        spec = self.spec
        pictures = io["in.views_uint8"][0].double() / 255  # [V, 3 times, 3, h, w]
        view_mask, text_mask = io["in.image_mask"][0], io["in.attention_mask"][0].bool()
        prefix = self.embed_prefix(pictures[:, 1], io["in.input_ids"][0])
        view_tokens = (len(prefix) - spec.text) // spec.views
        latents = self.encode(pictures.flatten(0, 1)).unflatten(0, (spec.views, 3))
        generation = self.embed_generation(latents[:, :2])
        valid_prefix = torch.cat((view_mask.repeat_interleave(view_tokens), text_mask))
        valid_generation = view_mask.repeat_interleave(len(generation) // spec.views)
        valid = torch.cat((valid_prefix, valid_generation))
        state, noise = io["in.state"][0].double(), io["in.noise"][0].double()

        (_, hidden), keys, values = self.mix([prefix, generation], valid)
        everything = torch.cat((valid, torch.ones(1 + spec.chunk, dtype=torch.bool)))

        def velocity(x: Tensor, time: float) -> Tensor:
            parts, _, _ = self.mix([prefix, generation, self.embed_suffix(state, x, time)], everything)
            return self.linear("action_out_proj", parts[2][1:], spec.width)

        def sample(count: int) -> tuple[Tensor, Tensor]:
            x, time, step, met = noise, np.float32(1), np.float32(-1 / count), []
            for _ in range(count):
                met.append(velocity(x, float(time)))
                x, time = x + float(step) * met[-1], np.float32(time + step)
            return x, torch.stack(met)

        actions, velocities = sample(spec.steps)
        future = self.predict(hidden)
        shown = self.decode(future)
        time, target = float(io["in.train_time"][0]), io["in.train_noise"][0].double() - io["in.train_actions"][0].double()
        noisy = time * io["in.train_noise"][0].double() + (1 - time) * io["in.train_actions"][0].double()
        out = {
            "prefix_pad_mask": valid_prefix,
            "prefix_embeddings": rows(prefix, valid_prefix),
            "generation_pad_mask": valid_generation,
            "generation_embeddings": rows(generation, valid_generation),
            "generation_hidden": rows(hidden, valid_generation),
            "cosmos_latents": latents,
            "predicted_future_latents": rows(future, view_mask),
            "predicted_future_images": rows(shown, view_mask)[..., ::4, ::4],
            "velocities": velocities,
            "actions": actions,
            "loss_action": (velocity(noisy, time) - target).square(),
            "loss_generation": (future - latents[:, 2])[view_mask].square().mean(),
        }
        for i in range(spec.layers):
            for name, table in (("key", keys[i]), ("value", values[i])):
                out[f"prefix_{name}_{i}"] = rows(table, valid)[: len(prefix)].transpose(0, 1)
                out[f"prefix_and_generation_{name}_{i}"] = rows(table, valid).transpose(0, 1)
        out |= {f"actions_{count}_steps": sample(count)[0] for count in steps}
        return {f"out.{name}": (x.float() if x.is_floating_point() else x)[None].contiguous() for name, x in out.items()}


def rows(x: Tensor, valid: Tensor) -> Tensor:
    """`x` with NaN where it means nothing."""
    return torch.where(valid.view(-1, *[1] * (x.dim() - 1)), x, torch.nan)


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions of [T, heads, d] by angles [T, 1, d/2]."""
    a, b = x.split(x.shape[-1] // 2, -1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)


def cubic(before: int, after: int) -> Tensor:
    """Matrix [after, before] of cubic convolution (a = -0.75) between pixel centres, edges repeated."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        at = (i + 0.5) * before / after - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            s = abs(at - tap)
            weight = 1.25 * s**3 - 2.25 * s**2 + 1 if s <= 1 else -0.75 * s**3 + 3.75 * s**2 - 6 * s + 3
            matrix[i, min(max(tap, 0), before - 1)] += weight
    return matrix
