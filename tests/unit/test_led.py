"""Where somebody else had the arms: such a step is no sample, and what comes after it is no label of one before. Nor, where that is
asked for, is what was done for another instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_rig import LENGTHS, prepared, trained, write_all, write_dataset, write_mixture

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.training import Shares

LED = (range(4, 7), range(0, 2))
CHANGES = (2, 8)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("led")
    made = write_all(folder)
    write_dataset(folder / "led", led=LED)
    write_dataset(folder / "parts", led=LED, changes=CHANGES)
    return made


def mixture_of(keys: dict[str, Any], folder: Path, data: str, **source: Any) -> str:
    return str(write_mixture(folder / f"{data}.yaml", {"path": str(Path(keys["mixture"]).with_name(data)), **source}))


def test_its_steps_are_no_samples(keys: dict[str, Any], tmp_path: Path) -> None:
    samples = prepared(keys, mixture=mixture_of(keys, tmp_path, "led", led="led")).trainer.samples
    want = [(number, step) for number, length in enumerate(LENGTHS) for step in range(length) if step not in LED[number]]
    assert [samples.place(Draw(0, k)) for k in range(samples.materials[0].frames)] == want
    unaware = prepared(keys, mixture=mixture_of(keys, tmp_path, "led")).trainer.samples
    assert unaware.materials[0].frames == sum(LENGTHS)


def test_labels_end_before_it(keys: dict[str, Any], tmp_path: Path) -> None:
    led = prepared(keys, mixture=mixture_of(keys, tmp_path, "led", led="led")).trainer.samples
    every = prepared(keys, mixture=mixture_of(keys, tmp_path, "data")).trainer.samples
    chunk = led.sample(Draw(0, 0)).actions.shape[0]
    for k in range(led.materials[0].frames):
        number, step = led.place(Draw(0, k))
        mine, whole = led.sample(Draw(0, k)), every.sample(Draw(0, sum(LENGTHS[:number]) + step))
        until = LED[number].start - step if step < LED[number].start else chunk
        assert mine.known.tolist() == [1.0] * min(until, chunk) + [0.0] * max(0, chunk - until)
        assert whole.known.tolist() == [1.0] * chunk and torch.equal(mine.inside, whole.inside)
        assert torch.equal(mine.actions[:until], whole.actions[:until]) and torch.equal(mine.latents, whole.latents)


def test_labels_end_where_something_else_is_asked_for(keys: dict[str, Any], tmp_path: Path) -> None:
    every = prepared(keys, mixture=mixture_of(keys, tmp_path, "parts", led="led")).trainer.samples
    within = prepared(keys, mixture=mixture_of(keys, tmp_path, "parts", led="led", one_task=True)).trainer.samples
    assert within.materials[0].frames == every.materials[0].frames  # the first step of each part is one
    for k in range(within.materials[0].frames):
        number, step = within.place(Draw(0, k))
        mine, whole = within.sample(Draw(0, k)), every.sample(Draw(0, k))
        until = min([at - step for at in CHANGES if at > step] + [len(whole.known)])
        assert mine.known.tolist() == [float(known and i < until) for i, known in enumerate(whole.known)]
        assert torch.equal(mine.ids, whole.ids) and torch.equal(mine.latents, whole.latents)
        assert torch.equal(mine.foreseeable, whole.foreseeable)  # what comes next is seen, though nobody says yet what to do then
    alone = prepared(keys, mixture=mixture_of(keys, tmp_path, "parts", one_task=True)).trainer.samples
    assert alone.materials[0].frames == sum(LENGTHS) and alone.sample(Draw(0, 0)).known.tolist()[:3] == [1.0, 1.0, 0.0]


def test_only_a_future_that_nobody_else_makes_is_imagined(keys: dict[str, Any], tmp_path: Path) -> None:
    """Half a second is five steps here. The loss of the future is a mean over those that count, and 0 where none does."""
    trainer = prepared(keys, mixture=mixture_of(keys, tmp_path, "led", led="led")).trainer
    frames = range(trainer.samples.materials[0].frames)
    samples = {trainer.samples.place(Draw(0, k)): trainer.samples.sample(Draw(0, k)) for k in frames}
    for (number, step), sample in samples.items():
        assert bool(sample.foreseeable) == (step >= LED[number].start or min(step + 5, LENGTHS[number] - 1) < LED[number].start)

    def imagined(*places: tuple[int, int]) -> float:
        batch = trainer.samples.stacked([samples[place] for place in places], trainer.model.sizes.grid)
        noise, times = torch.zeros_like(batch.inputs.actions), torch.full((len(places),), 0.5)
        return float(trainer.loss(batch, noise, times, Shares.of([batch], mask_padding=False))[1].detach())

    blind, one, other = (0, 2), (0, 7), (1, 3)
    assert imagined(blind) == 0.0
    assert imagined(blind, one) == pytest.approx(imagined(one), rel=1e-5)
    assert imagined(one, blind, other) == pytest.approx((imagined(one) + imagined(other)) / 2, rel=1e-5)


def test_only_labels_count(keys: dict[str, Any], tmp_path: Path) -> None:
    """Whatever would stand beyond, the loss of a step stays; and it is a mean over what is labelled."""
    trainer = prepared(keys, mixture=mixture_of(keys, tmp_path, "led", led="led")).trainer
    sample = trainer.samples.sample(Draw(0, 2))  # two steps before it
    batch = trainer.samples.stacked([sample], trainer.model.sizes.grid)
    assert Shares.of([batch], mask_padding=False).actions == 2
    noise, times = torch.zeros_like(batch.inputs.actions), torch.full((1,), 0.5)
    shares = Shares.of([batch], mask_padding=False)
    before, *_ = trainer.loss(batch, noise, times, shares)
    # Actions see each other, so what the unlabelled ones say is not without effect; their own errors are.
    errors, *_ = trainer._errors(batch.inputs, noise, times, None)
    width = trainer.model.sizes.robot_width
    assert float(before) == pytest.approx(float(errors[0, :2, :width].mean()), rel=1e-6)


def test_it_trains(keys: dict[str, Any], tmp_path: Path) -> None:
    _, reports = trained(keys, mixture=mixture_of(keys, tmp_path, "led", led="led"), out=str(tmp_path / "out"), steps=2)
    assert len(reports) == 2


def test_a_key_that_there_is_not(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'lead'.*did you mean 'led'"):
        prepared(keys, mixture=mixture_of(keys, tmp_path, "led", led="lead"))


def test_an_episode_in_which_nothing_is_its_own(keys: dict[str, Any], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", led=(range(12), range(3)))
    mixture = write_mixture(tmp_path / "m.yaml", {"path": str(data), "led": "led"})
    (material,) = prepared(keys, mixture=str(mixture)).trainer.samples.materials
    assert [episode.index for episode in material.episodes] == [1]
    assert "got 12 steps, expected one from step 0 on where 'led' is 0 (after_s)" in material.left_out[0]
