"""Learning rates at their corners, and the times of the flow against their distribution."""

from __future__ import annotations

import pytest
import torch

from internvla_a1_ros.learning.schedule import Schedule, flow_times


def test_cosine_with_warm_up() -> None:
    made = Schedule(peak=5e-5, end=5e-6, warmup_steps=100, decay_steps=1100)
    assert made.rate(0) == pytest.approx(5e-7) and made.rate(99) == 5e-5 and made.rate(100) == 5e-5
    assert made.rate(600) == pytest.approx((5e-5 + 5e-6) / 2)
    assert made.rate(1100) == pytest.approx(5e-6) and made.rate(10**6) == pytest.approx(5e-6)
    rates = [made.rate(step) for step in range(100, 1101)]
    assert rates == sorted(rates, reverse=True)


def test_constant_after_its_warm_up() -> None:
    made = Schedule(kind="constant", peak=5e-5, warmup_steps=10)
    assert made.rate(4) == pytest.approx(2.5e-5) and made.rate(10) == made.rate(700_000) == 5e-5
    assert Schedule(kind="constant", warmup_steps=0).rate(0) == 5e-5


@pytest.mark.parametrize("wrong", [{"end": 1e-3}, {"decay_steps": 2000}, {"peak": 0.0}])
def test_a_schedule_that_does_not_fall_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="schedule: got|greater than 0"):
        Schedule.model_validate(wrong)


def test_flow_times_are_of_the_distribution_and_repeat() -> None:
    times = flow_times(200_000, torch.Generator().manual_seed(0))
    assert times.dtype == torch.float32 and float(times.min()) >= 0.001 and float(times.max()) <= 1.0
    for quantile in (0.1, 0.5, 0.9):  # the inverse of x^1.5
        assert float(times.quantile(quantile)) == pytest.approx(0.999 * quantile ** (1 / 1.5) + 0.001, abs=3e-3)
    assert torch.equal(flow_times(5, torch.Generator().manual_seed(1)), flow_times(5, torch.Generator().manual_seed(1)))
