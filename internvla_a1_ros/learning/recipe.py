"""The recipe of one training run, as a person writes it in YAML. Paths are relative to where the command is started."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from internvla_a1_ros.learning.optimiser import Kind
from internvla_a1_ros.learning.schedule import Schedule
from internvla_a1_ros.learning.team import Device
from internvla_a1_ros.robots.document import Document

Text = Annotated[str, Field(min_length=1)]
Place = Annotated[Text, AfterValidator(os.path.expanduser)]
Count = Annotated[int, Field(ge=1)]
Freeze = Literal["none", "vision", "understanding", "experts_only"]
Precision = Literal["float32", "bf16"]
# What may differ when a run goes on: everything else decides which weights come out (another device, other threads round otherwise).
CHANGEABLE = ("out", "steps", "save_every", "name", "device", "sharded", "processes", "threads")
# What may lie elsewhere, and has to be there or not as before: pictures from a cache are rounded.
MOVABLE = ("cache",)


class Recipe(Document):
    """What is learned from what, and how (MODEL.md 5).

    `start`: a checkpoint folder in the released format, or the name of a model that comes along; `mixture`: a file, or the name of one
    that comes along; `manifest` and `stats`: files that stand in for the start's own. A step is `batch` times `accumulation` samples,
    each with `draws` noises and flow times. `shift_px`: pictures of the understanding expert are moved by up to so many pixels.
    `mask_padding`: steps beyond an episode's end do not count (the released code counts them).
    `from_mean`: the share of the draws whose flow time is 1 and whose noise is 0: nothing but what is seen tells the chunk, and it is
    all that one step with `noise: 0` (`policy/manifest.py`) ever asks.
    `optimiser`: `muon` moves the products inside the layers by Muon, at the same rates, and all else by AdamW.
    `vision_rate`: the share of the learning rate with which the vision tower moves: what it was taught before is soon unlearned.
    `lambda_generation`: how much the imagined future counts, where not as the start says; 0 leaves it untaught.
    `motion`: how much it counts that the generation expert tells how far parcels have come, where a dataset says it (`simulation.seen`).
    `ema`: the weights written are a running mean with this decay. `workers`: the datasets are dealt to so many, each drawing from its own.
    `cache_tokens`: what a frozen vision tower says of each picture is kept in the cache too.
    `processes`: so many on this machine do it together, each with `threads`, where nobody else (`torchrun`) has started several.
    `sharded`: of several processes each keeps a part of the weights (FSDP).
    """

    stage: Literal["policy"] = "policy"
    name: Text
    start: Text
    mixture: Text
    out: Place
    steps: Count
    manifest: Place | None = None
    stats: Place | None = None
    batch: Count = 8
    accumulation: Count = 1
    draws: Count = 1
    from_mean: Annotated[float, Field(ge=0, le=1)] = 0.0
    shift_px: Annotated[int, Field(ge=0)] = 0
    schedule: Schedule = Schedule()
    optimiser: Kind = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "float32"
    saved_precision: Precision = "float32"
    gradient_checkpointing: bool = False
    freeze: Freeze = "none"
    vision_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    mask_padding: bool = False
    lambda_generation: Annotated[float, Field(ge=0)] | None = None
    motion: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    save_every: Count = 1000
    cache: Place | None = None
    cache_tokens: bool = False
    workers: Count = 1
    processes: Count = 1
    threads: Count | None = None
    device: Device = "auto"
    sharded: bool = False

    @model_validator(mode="after")
    def _whole_matrices(self) -> Recipe:
        if self.optimiser == "muon" and self.sharded:
            raise ValueError("optimiser: got muon with sharded: true, expected adamw: Muon needs every weight whole")
        return self

    @model_validator(mode="after")
    def _tokens_stay_true(self) -> Recipe:
        """What is kept of the tower must not change: neither its weights nor what it is shown."""
        if self.cache_tokens and self.cache is None:
            raise ValueError("cache_tokens: got true, expected a `cache` to keep them in")
        if self.cache_tokens and moves(TOWER, self.freeze):
            raise ValueError(f"cache_tokens: got true with freeze: {self.freeze}, expected a vision tower that stays as it is")
        if self.cache_tokens and self.shift_px:
            raise ValueError(f"cache_tokens: got true with shift_px: {self.shift_px}, expected 0: moved pictures are seen anew")
        return self

    @property
    def samples_a_step(self) -> int:
        return self.batch * self.accumulation


TOWER = "understanding.vision."

_FROZEN: dict[Freeze, tuple[str, ...]] = {
    "none": ("cosmos.",),
    "vision": ("cosmos.", TOWER),
    "understanding": ("cosmos.", "understanding."),
}


def moves(name: str, freeze: Freeze) -> bool:
    """Whether a weight is trained; Cosmos never is. `experts_only`: the layers of the generation and action experts alone."""
    if freeze == "experts_only":
        return name.startswith(("generation.", "action."))
    return not name.startswith(_FROZEN[freeze])
