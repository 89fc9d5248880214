"""Teach the small model's action expert one smooth motion, so that integrators and guidance can be judged on a trained field.

    python tools/teach_nano.py OUT [STEPS]

The motion is a made-up one, not a task: every joint drifts to one side or the other, whichever the noise says, with a pull to the
middle. Two ways out of every moment is what makes chunks disagree. 4000 steps take some seven minutes on one core.
"""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.evaluation.flow_error import FlowBench
from internvla_a1_ros.model.flow import VelocityField
from internvla_a1_ros.model.model import GenerationCache
from internvla_a1_ros.model.text import KeysValues
from internvla_a1_ros.model.writing import write_checkpoint
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import models_folder

BATCH, RATE, WARM_UP = 16, 1.5e-3, 100
TAUGHT = ("action", "state_proj")


def main(out: Path, steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nano, profile = models_folder() / "nano", load_profile("arx_ac_one")
    engine = make_engine("reference", nano, threads=1)
    assert isinstance(engine, ReferenceEngine)
    model, sizes = engine.model, engine.sizes
    cache = batched([case.cache for case in FlowBench(nano, profile, engine, []).draw(4, 1)])
    taught = [weight.requires_grad_() for name, weight in model.named_parameters() if name.startswith(TAUGHT)]
    optimiser = torch.optim.AdamW(taught, lr=RATE, weight_decay=0.01)
    still = torch.ones(sizes.action_width)
    still[profile.dof :] = 0
    still[: profile.dof][torch.from_numpy(profile.is_gripper.copy())] = 0
    mean = float("nan")
    for step in range(steps):
        rate = RATE * min(1.0, (step + 1) / WARM_UP) * max(0.02, (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        state, actions = motion(sizes.chunk, sizes.action_width)
        state[:, profile.dof :] = 0
        noise = torch.randn_like(actions)
        time = torch.distributions.Beta(1.5, 1.0).sample((BATCH,)) * 0.999 + 0.001
        at = time[:, None, None]
        velocity = VelocityField(model, cache, state, sizes.chunk)(at * noise + (1 - at) * actions * still, time)
        loss = (velocity - (noise - actions * still)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimiser.step()
        now = float(loss.detach())
        mean = now if step == 0 else 0.98 * mean + 0.02 * now
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} of {steps}: loss {mean:.4f}", flush=True)
    shutil.copytree(nano, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    write_checkpoint(out, model.requires_grad_(False), torch.float32)
    shutil.copy(nano / "stats.json", out)
    manifest = (nano / "manifest.yaml").read_text().splitlines()
    lines = ["name: taught" if line.startswith("name:") else line for line in manifest]
    (out / "manifest.yaml").write_text("\n".join("trained: true" if line.startswith("trained:") else line for line in lines) + "\n")


def motion(chunk: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw states [B, D] and normalised actions [B, H, D]: a drift to one of two sides, a bend, a pull to the middle."""
    share = ((torch.arange(chunk) + 1) / chunk)[None, :, None]
    state, side, bend = torch.randn(3, BATCH, 1, width)
    drift = side.sign() * (1 + 0.15 * torch.randn(BATCH, 1, width))
    return state[:, 0], share * (1.2 * drift - 0.8 * state) + torch.sin(2 * math.pi * share) * 0.3 * bend


def batched(caches: list[GenerationCache]) -> GenerationCache:
    """Stack caches of one observation each, again and again until the batch is full."""
    many = [caches[i % len(caches)] for i in range(BATCH)]
    layers = range(len(caches[0].tokens.keys))
    keys, values = (tuple(torch.cat([getattr(cache.tokens, name)[i] for cache in many]) for i in layers) for name in ("keys", "values"))
    tokens = KeysValues(keys, values, torch.cat([cache.tokens.mask for cache in many]))
    return replace(caches[0], tokens=tokens, last_position=torch.cat([cache.last_position for cache in many]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4000)
