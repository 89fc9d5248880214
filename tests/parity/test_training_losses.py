"""The losses of the released code, through what training does with a sample: stacking, dealing to the step, means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_parity import PLACES, reference

from internvla_a1_ros.evaluation.comparison import Limits
from internvla_a1_ros.evaluation.parity import ModelParity
from internvla_a1_ros.learning.recipe import Recipe
from internvla_a1_ros.learning.samples import Sample, Samples
from internvla_a1_ros.learning.training import Shares, Trainer

RECIPE = Recipe(name="parity", start="-", mixture="-", out="-", steps=1, batch=1, device="cpu")


def sample_of(parity: ModelParity) -> Sample:
    """The reference's inputs as one row of a batch."""
    return Sample(
        pixels=parity.pixel_values,
        ids=parity.input_ids[0],
        mask=parity.mask[0],
        views=parity.view_mask[0],
        latents=parity.latents[0],
        state=parity.io["in.state"][0],
        actions=parity.io["in.train_actions"][0],
        known=torch.ones(parity.io["in.train_actions"].shape[1]),
        inside=torch.ones(parity.io["in.train_actions"].shape[1]),
        foreseeable=torch.tensor(True),
    )


@pytest.mark.parametrize("name", ["a1_3b_tiny", "a1_3b_tiny_missing_camera"])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_means_of_a_step_are_the_released_ones(name: str, copies: int) -> None:
    if name.endswith("missing_camera") and not (PLACES[0] / name).is_dir():
        pytest.skip("the reference with a missing camera is not in the committed copy")
    parity = ModelParity(reference(name), "reference", "float32", "cpu", Limits())
    list(parity.rows())  # makes the inputs on its way
    assert parity.model is not None
    nothing: Any = None  # samples and samplers: a step is not asked for
    trainer = Trainer(recipe_of(copies), parity.model, nothing, ())
    batch = Samples.stacked([sample_of(parity)] * copies, parity.sizes.grid)
    noise, times = (parity.io[f"in.train_{part}"].repeat_interleave(copies, 0) for part in ("noise", "time"))
    with torch.no_grad():
        action, generation, _ = trainer.loss(batch, noise, times, Shares.of([batch], mask_padding=False))
    want = parity.io["out.loss_action"][..., : parity.model.sizes.robot_width].mean()
    assert float(action) == pytest.approx(float(want), rel=1e-4)
    assert float(generation) == pytest.approx(float(parity.io["out.loss_generation"].mean()), rel=1e-4)
    if copies > 1:  # another sample changes them
        other = replace(sample_of(parity), actions=sample_of(parity).actions + 1)
        batch = Samples.stacked([other, *[sample_of(parity)] * (copies - 1)], parity.sizes.grid)
        with torch.no_grad():
            assert float(trainer.loss(batch, noise, times, Shares.of([batch], mask_padding=False))[0]) > 1.01 * float(action)


def recipe_of(copies: int) -> Recipe:
    return RECIPE.model_copy(update={"batch": copies})
