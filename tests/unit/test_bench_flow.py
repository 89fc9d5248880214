"""`internvla-a1 bench flow` on the small model, and what it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internvla_a1_ros.cli.bench_flow import asked_plans
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.evaluation.drawing import log_log
from internvla_a1_ros.evaluation.flow_error import SOLUTION, FlowBench, Result, cheapest
from internvla_a1_ros.evaluation.stream import Stream
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

ARX = load_profile("arx_ac_one")
NANO = find_checkpoint("nano")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_it_prints_a_table_and_one_line_of_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "flow.png"
    words = "--observations 1 --seeds 2 --steps 1,2,4 --methods euler,ab2 --spacings uniform,dense_at_ends --picture"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "flow", *words.split(), str(picture)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out.splitlines()
    told = json.loads(printed[-1])
    assert not told["trained"] and "UNTRAINED" in "".join(printed)
    assert told["cases"] == 2 and not told["interrupted"] and told["solution"] == str(SOLUTION)
    errors = {(row["method"], row["steps"], row["spacing"]): row["error_rad"] for row in told["results"]}
    assert len(errors) == 13  # what was asked for, and Euler 10
    assert 0 < errors["euler", 10, "uniform"] < errors["euler", 4, "uniform"] < errors["euler", 1, "uniform"] < 0.05
    assert all(row["worst_rad"] > row["error_rad"] for row in told["results"])
    assert Image.open(picture).size == (960, 620)


def test_cut_off_between_cases_it_keeps_what_is_done() -> None:
    bench = FlowBench(NANO, ARX, make_engine("reference", NANO, threads=1), [make_plan("euler", 1)])
    cases = bench.draw(1, 2)
    first = next(cases)
    assert list(bench.measure(first)) == [make_plan("euler", 1), make_plan("ab3", 64)]
    next(bench.measure(next(cases)))  # left in the middle
    assert bench.cases == 1 and len(bench.results[make_plan("euler", 1)].rms_rad) == 1


def test_cases_repeat_and_differ() -> None:
    bench = FlowBench(NANO, ARX, make_engine("reference", NANO, threads=1), [])
    first, again = (list(bench.draw(2, 2)) for _ in range(2))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.noise, other.noise) and torch.equal(one.state, other.state)
    assert not torch.equal(first[0].noise, first[1].noise) and not torch.equal(first[0].state, first[2].state)


def test_the_error_is_in_radians_of_the_arms() -> None:
    bench = FlowBench(NANO, ARX, make_engine("reference", NANO, threads=1), [make_plan("euler", 3)])
    raw = {SOLUTION: torch.zeros(50, 32), make_plan("euler", 3): torch.ones(50, 32), make_plan("ab3", 64): torch.zeros(50, 32)}
    bench._flow = lambda cache, state, noise, plan: raw[plan]
    list(bench.measure(next(bench.draw(1, 1))))
    spread = json.loads((NANO / "stats.json").read_text())["ARX AC One"]["actions.left_joint.position"]["std"]
    assert bench.results[make_plan("euler", 3)].rms_rad[0] == pytest.approx(np.sqrt(np.mean(np.square(spread))), rel=1e-3)
    assert bench.second.rms_rad == [0.0]


def test_the_cheapest_within_the_error_is_recommended() -> None:
    def result(method: str, steps: int, error_rad: float) -> Result:
        return Result(make_plan(method, steps), [error_rad], [error_rad])

    known = [
        result("euler", 10, 1e-3),
        result("ab2", 4, 2e-3),
        result("ab3", 4, 1e-3),
        result("midpoint", 2, 3e-3),
        result("euler", 3, 9e-3),
    ]
    assert cheapest(known, 1e-3).plan == make_plan("ab3", 4)
    assert cheapest(known, 3.1e-3).plan == make_plan("ab3", 4), "midpoint evaluates twice a step"
    assert cheapest(known, 1e-2).plan == make_plan("euler", 3)


def test_plans_are_asked_for_in_words() -> None:
    assert asked_plans("euler", "1-3", "uniform", 20) == [make_plan("euler", n) for n in (10, 1, 2, 3)]
    assert len(asked_plans("", "1-20", "", 20)) == 4 * (3 * 20 + 2 * 10)
    for words in (("euler", "x", ""), ("eulr", "3", ""), ("euler", "3", "dens"), ("euler", "0", "")):
        with pytest.raises(ConfigurationError):
            asked_plans(*words, 20)


def test_the_stream_is_the_same_every_time() -> None:
    spec = HistorySpec(500_000_000, 33_333_333)
    one, other = (Stream(ARX, spec, 1.2) for _ in range(2))
    for now_ns in (0, 33_333_333, 33_333_334, 70_000_000, 1_100_000_000, 9_000_000_000):
        seen, again = (stream.observe(now_ns, stream.swing(1.0)) for stream in (one, other))
        assert 0 <= now_ns - seen.stamp_ns < 33_333_335 or now_ns > 1_200_000_000
        for frame, same in zip((*seen.current, *seen.past), (*again.current, *again.past), strict=True):
            assert frame is not None and same is not None and np.array_equal(frame.rgb, same.rgb)
    assert seen.past[0] is not None and seen.stamp_ns - seen.past[0].stamp_ns == 500_000_000
    assert one.observe(0, one.swing(0)).past[0].stamp_ns == 0  # type: ignore[union-attr]


def test_a_chart_without_a_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no point"):
        log_log(tmp_path / "x.png", "t", "x", "y", {"a": [(1, 0.0)]}, {})
