"""Which data is drawn: balanced, each frame once before any again, and the same from any point on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.balance import assign, effective_weights
from internvla_a1_ros.learning.mixture import Draw, Mixture, Sampler, sampling_weights, shuffled


def test_the_longest_first_to_whoever_has_least() -> None:
    made = assign([3, 10, 7, 5, 5], 2)
    assert made.shares == ((1, 4), (2, 3, 0)) and made.frames == (15, 15)
    assert made.imbalance == 1.0


def test_ties_go_to_the_lower_worker_and_the_earlier_dataset() -> None:
    assert assign([4, 4, 4], 3).shares == ((0,), (1,), (2,))
    assert assign([4, 4, 4, 4], 3).shares == ((0, 3), (1,), (2,))


def test_with_fewer_datasets_than_workers_the_list_is_gone_through_again() -> None:
    made = assign([5, 9], 5)
    assert made.shares == ((1,), (0,), (1,), (0,), (1,)) and made.frames == (9, 5, 9, 5, 9)


@pytest.mark.parametrize(("sizes", "workers"), [([], 1), ([3, 0], 1), ([3], 0)])
def test_what_cannot_be_assigned_is_said(sizes: list[int], workers: int) -> None:
    with pytest.raises(ConfigurationError, match="expected at least"):
        assign(sizes, workers)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 12))
def test_every_dataset_is_somewhere_whole_and_no_worker_is_empty(sizes: list[int], workers: int) -> None:
    made = assign(sizes, workers)
    flat = [i for share in made.shares for i in share]
    assert set(flat) == set(range(len(sizes))) and all(made.shares)
    assert made.frames == tuple(sum(sizes[i] for i in share) for share in made.shares)
    if len(sizes) >= workers:
        assert sorted(flat) == list(range(len(sizes)))
        assert max(made.frames) <= sum(sizes) / workers + max(sizes), "Graham's bound"
    assert effective_weights(made, [float(s) for s in sizes]).sum() == pytest.approx(1.0)


def test_drawing_by_frames_from_even_shares_weighs_each_dataset_as_its_frames() -> None:
    sizes = [10, 7, 3, 5, 5]
    assert effective_weights(assign(sizes, 2), [float(s) for s in sizes]) == pytest.approx(np.array(sizes) / 30)


def mixture(**changes: object) -> Mixture:
    told = {"name": "m", "datasets": [{"path": "a", "tier": "synthetic"}, {"path": "b"}, {"path": "c"}], **changes}
    return Mixture.model_validate(told)


def test_without_weights_frames_count() -> None:
    assert sampling_weights(mixture(), [60, 30, 10]).tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_tiers_weigh_against_each_other_and_datasets_within() -> None:
    told = mixture(tiers={"synthetic": 1.0, "task": 3.0})
    assert sampling_weights(told, [60, 30, 10]).tolist() == pytest.approx([0.25, 0.75 * 0.75, 0.75 * 0.25])
    weighed = mixture(datasets=[{"path": "a", "weight": 0.2}, {"path": "b", "weight": 0.8}])
    assert sampling_weights(weighed, [1, 1000]).tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tiers": {"synthetic": 0, "task": 0}}, "every dataset weighs 0"),
        ({"tiers": {"open_real": 1.0}}, "tier 'open_real' weighs 1 and has no dataset"),
        ({"tiers": {"synthetic": 40}}, "tiers: got none for 'task', expected one for each tier, or for none"),
        ({"datasets": [{"path": "a", "weight": 0.0}]}, "all weigh 0"),
        ({"datasets": [{"path": "a", "weight": 1.0}, {"path": "b"}]}, "weights for some of its datasets"),
    ],
)
def test_a_mixture_that_draws_nothing_is_refused(changes: dict[str, object], sentence: str) -> None:
    told = mixture(**changes)
    with pytest.raises(ConfigurationError, match=sentence):
        sampling_weights(told, [5] * len(told.datasets))


def test_a_dataset_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is listed twice"):
        mixture(datasets=[{"path": "a"}, {"path": "a"}])


@given(st.integers(1, 300), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_a_shuffle_holds_every_place_once(count: int, turn: int) -> None:
    assert sorted(shuffled(i, count, (7, turn)) for i in range(count)) == list(range(count))


def test_shuffles_differ_and_mix() -> None:
    first, second = ([shuffled(i, 1000, (1, turn)) for i in range(1000)] for turn in (0, 1))
    assert first != second
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1 and abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert shuffled(5, 10**12, (1,)) == shuffled(5, 10**12, (1,)) < 10**12


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(1, 400))
@settings(deadline=None, max_examples=40)
def test_after_any_number_of_draws_each_dataset_has_had_about_its_share(weights: list[float], n: int) -> None:
    sampler = Sampler(range(len(weights)), [50] * len(weights), weights, seed=3)
    counts = np.bincount([sampler.draw().dataset for _ in range(n)], minlength=len(weights))
    assert np.abs(counts - n * np.array(weights) / sum(weights)).max() < len(weights)


def test_every_frame_comes_once_before_any_comes_again_whatever_the_size_of_its_dataset() -> None:
    sampler = Sampler([0, 1], [4, 12], [0.25, 0.75], seed=0)
    drawn = [sampler.draw() for _ in range(32)]
    assert sorted(drawn[:16], key=lambda d: (d.dataset, d.frame)) == [*(Draw(0, k) for k in range(4)), *(Draw(1, k) for k in range(12))]
    assert set(drawn[:16]) == set(drawn[16:]) and drawn[:16] != drawn[16:]


def test_it_goes_on_to_the_sample_and_seeds_differ() -> None:
    whole, first = (Sampler([2, 0], [30, 9, 20], [1, 5, 2], seed=8) for _ in range(2))
    drawn = [whole.draw() for _ in range(200)]
    for _ in range(77):
        first.draw()
    resumed = Sampler([2, 0], [30, 9, 20], [1, 5, 2], seed=8)
    resumed.resume(first.state)
    assert [resumed.draw() for _ in range(123)] == drawn[77:]
    assert [Sampler([2, 0], [30, 9, 20], [1, 5, 2], seed=9).draw() for _ in range(5)] != drawn[:5]
    with pytest.raises(ConfigurationError, match="got a state of seed 8, 2 datasets, expected seed 9"):
        Sampler([2, 0], [30, 9, 20], [1, 5, 2], seed=9).resume(first.state)
