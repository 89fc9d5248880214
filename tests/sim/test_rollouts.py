"""Rollouts: the judge, the conventions of time and the command runtime leave the expert its success, and a seed gives one outcome."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.rollout_expert import copied
from internvla_a1_ros.evaluation.rollout_result import band, of, summed
from internvla_a1_ros.evaluation.rollout_rig import Job, Order, Rig
from internvla_a1_ros.evaluation.rollout_trials import seeds
from internvla_a1_ros.evaluation.rollout_workers import run_jobs
from internvla_a1_ros.evaluation.rollouts import Rollouts, Series
from internvla_a1_ros.evaluation.wilson import Share
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.recording import Plan
from internvla_a1_ros.simulation.tasks import start_trial
from internvla_a1_ros.simulation.trial import RANGES, ROLLOUT_SEEDS, TASKS, Conditions

EXPERT = Order("ingredient_picking", "arx_ac_one", None)
# A belt on which a piece has passed after some two seconds: short trials for what does not depend on the task.
QUICK = (0.3, 0.3)


@pytest.fixture(scope="module")
def expert() -> Any:
    rig = Rig(EXPERT)
    yield rig
    rig.close()


# The loop


def test_the_expert_picks_through_the_command_runtime(expert: Rig) -> None:
    row = expert.run(Job(seeds(0, 4)[3], 0.0))
    assert row["succeeded"] and row["grasped"] and row["failure"] == "" and row["video"] is None
    # Ten chunks a second, each taken at once; nothing held, nothing refused.
    assert row["chunks"] == pytest.approx(10 * row["duration_s"], abs=2)
    assert row["late_ms"] == 0.0
    assert not (row["holds"] or row["faults"] or row["refused"] or row["no_chunk"])
    assert [text for _, text in row["instructions"]] == ["Track the parcel on the belt and grasp it with the right arm."]


def test_a_seed_gives_one_outcome_here_and_in_another_process(expert: Rig) -> None:
    jobs = [Job(seed, 400.0) for seed in seeds(3, 2)]
    order = Order("ingredient_picking", "arx_ac_one", None, belt_m_s=QUICK)
    waiting = iter(jobs)
    beside = {row["seed"]: row for row in run_jobs(order, lambda: next(waiting, None), 2)}
    here = Rig(order)
    here.run(Job(seeds(4, 1)[0], 400.0))  # what was run before leaves no trace
    for job in jobs:
        assert here.run(job) == beside[job.seed]
    here.close()
    assert beside[jobs[0].seed] != beside[jobs[1].seed]
    # A chunk is handed over so long after its observation.
    assert all(row["late_ms"] == pytest.approx(400.0, abs=1.0) for row in beside.values())


def test_the_expert_sorts_through_the_command_runtime() -> None:
    rig = Rig(Order("express_sorting", "arx_ac_one", None))
    row = rig.run(Job(seeds(0, 1)[0], 0.0))
    rig.close()
    assert row["succeeded"] and row["grasped"] and not row["holds"] and len(row["instructions"]) > 1


def test_a_copy_goes_on_alike_and_leaves_the_trial_alone() -> None:
    cell = Cell()
    trial = start_trial(cell, Conditions.drawn("ingredient_picking", ROLLOUT_SEEDS))
    cell.step(0.4)
    before = cell.data.qpos.copy()
    ahead = copied(trial)
    ahead.cell.step(3.0)  # until other parcels have come
    assert (cell.data.qpos == before).all() and cell.time_s == pytest.approx(0.4)
    cell.step(3.0)
    assert (cell.data.qpos == ahead.cell.data.qpos).all()
    assert [parcel.code for parcel in cell.parcels()] == [parcel.code for parcel in ahead.cell.parcels()]
    cell.close()


def test_a_model_is_tried_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result"
    words = ["evaluate", "rollouts", "--n", "1", "--latency", "0,100", "--compute", "40", "--belt", "0.3:0.3", "--out", str(out)]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--most-videos", "1", "--preset", "fast"])
    told = json.loads((out / "metrics.json").read_text())
    assert told["n"] == 2 and told["success_rate"] == 0.0 and told["grasp_rate"] == 0.0 and not told["partial"]
    assert told["success_interval"] == pytest.approx([0.0, 0.6576], abs=1e-4)
    assert set(told["by"]) == {"latency_ms", "belt_m_s", "label", "kind"} and set(told["by"]["latency_ms"]) == {"0", "100"}
    assert told["what"]["model"] == "nano" and len(told["what"]["sha256"]) == 64 and told["what"]["compute_ms"] == 40.0
    trial = told["trials"][0]
    assert trial["seed"] == ROLLOUT_SEEDS and trial["failure"] and trial["conditions"]["belt_speed_m_s"] == 0.3
    assert trial["late_ms"] == pytest.approx(40.0, abs=10.0) and trial["guided"] > 0
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html", "videos"]
    assert [path.name for path in (out / "videos").iterdir()] == [f"{ROLLOUT_SEEDS}-0ms.mp4"]
    page = (out / "report.html").read_text()
    assert re.findall(r'<video [^>]*src="([^"]*)"', page) == [f"videos/{ROLLOUT_SEEDS}-0ms.mp4"]
    assert "untrained" in capsys.readouterr().out


def test_films_show_what_the_policy_saw(expert: Rig, tmp_path: Path) -> None:
    import av

    path = tmp_path / "film.mp4"
    row = Rig(Order("ingredient_picking", "arx_ac_one", None, belt_m_s=QUICK)).run(Job(seeds(5, 1)[0], 400.0, path, film_success=True))
    assert row["video"] == path.name and [each.name for each in tmp_path.iterdir()] == [path.name]
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == pytest.approx(row["duration_s"] * 15, abs=1.5)
    assert pictures[0].shape == (280, 960, 3) and pictures[-1][:40].max() > 200 and pictures[-1][40:].std() > 20


def test_a_success_is_not_kept_as_a_video_of_a_failure(expert: Rig, tmp_path: Path) -> None:
    row = expert.run(Job(seeds(0, 4)[3], 0.0, tmp_path / "film.mp4"))
    assert row["succeeded"] and row["video"] is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_success_leaves_its_place_among_the_videos_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """However many are at work, of which only some are filmed."""

    def fake(_order: Order, following: Any, count: int) -> Any:
        at_work = [following() for _ in range(count)]
        while (job := at_work.pop(0)) is not None:
            failed = job.seed % 2 == 1
            if job.film and failed:
                job.film.touch()
            yield made_row(job.seed, failure="passed" if failed else "") | {"video": job.film.name if job.film and failed else None}
            at_work.append(following())

    monkeypatch.setattr("internvla_a1_ros.evaluation.rollouts.run_jobs", fake)
    rollouts = Rollouts(EXPERT, Series(0, 12, (0.0,), most_videos=2), tmp_path)
    rollouts.run(workers, lambda _: None)
    kept = [row["video"] for row in rollouts.rows if row["video"]]
    assert len(rollouts.rows) == 12 and len(kept) == 2 and kept == sorted(path.name for path in (tmp_path / "videos").iterdir())


def test_what_was_done_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {(seed, latency): made_row(seed, latency) for seed in seeds(0, 3) for latency in (0.0, 100.0)}

    def interrupted(_order: Order, following: Any, _workers: int) -> Any:
        for _ in range(3):
            job = following()
            yield rows[job.seed, job.latency_ms]
        raise KeyboardInterrupt

    monkeypatch.setattr("internvla_a1_ros.evaluation.rollouts.run_jobs", interrupted)
    rollouts = Rollouts(EXPERT, Series(0, 3, (0.0, 100.0)), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rollouts.run(1, lambda _: None)
    told = rollouts.metrics({"model": "expert", "trained": True}, interrupted=True)
    rollouts.write(told)
    assert told["partial"] and told["n"] == 3 and (tmp_path / "report.html").is_file()
    assert told["by"]["latency_ms"]["0"]["n"] == 2 and not (tmp_path / "videos").exists()


# Which trials


def test_the_belt_runs_as_fast_as_it_is_said_to() -> None:
    assert {task: ranges.belt_speed_m_s for task, ranges in RANGES.items()} == dict.fromkeys(TASKS, (0.05, 0.15))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 1000))
def test_seeds_are_no_demonstrations_and_no_other_runs(run: int, other: int, n: int) -> None:
    mine = seeds(run, n)
    assert len(mine) == n and mine[0] >= ROLLOUT_SEEDS
    assert run == other or not set(mine) & set(seeds(other, 1000))
    with pytest.raises(ValueError, match="expected seeds below"):
        Plan(episodes=1, seed=mine[0])


@given(st.integers(0, 1000))
def test_a_belt_of_another_range_changes_the_belt_alone(i: int) -> None:
    seed = ROLLOUT_SEEDS + i
    drawn, stretched, still = (Conditions.drawn("ingredient_picking", seed, belt) for belt in (None, (0.2, 0.3), (0.0, 0.0)))
    low, high = RANGES["ingredient_picking"].belt_speed_m_s
    assert (stretched.belt_speed_m_s - 0.2) / 0.1 == pytest.approx((drawn.belt_speed_m_s - low) / (high - low))
    assert (stretched.kind, stretched.label, stretched.first_y_m) == (drawn.kind, drawn.label, drawn.first_y_m)
    assert still.belt_speed_m_s == 0.0 and -0.4 < still.first_y_m < -0.08


# The figures


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(27, 30, 0.7438, 0.9654), (15, 30, 0.3315, 0.6685), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    assert Share(hits, n).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_shrinks_with_more(tries: tuple[int, int]) -> None:
    share, more = Share(*tries), Share(4 * tries[0], 4 * tries[1])
    low, high = share.interval
    assert 0.0 <= low <= (share.rate or 0.0) <= high <= 1.0
    assert np.subtract(*more.interval[::-1]) < high - low


def test_nothing_tried_says_nothing() -> None:
    assert Share(0, 0).rate is None and Share(0, 0).interval == (0.0, 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        Share(3, 2)


def made_row(seed: int, latency_ms: float = 0.0, failure: str = "", speed: float = 0.1, kind: str = "bread") -> dict[str, Any]:
    conditions = {"belt_speed_m_s": speed, "kind": kind, "label": "up" if kind == "parcel" else ""}
    counts: dict[str, Any] = {"holds": {"exhausted": 1}, "faults": {}, "refused": {}}
    rest = {"duration_s": 3.0, "late_ms": 0.0, "chunks": 30, "limited": 0.5, "video": None}
    outcome = {"grasped": failure != "passed", "succeeded": not failure, "failure": failure}
    return {"seed": seed, "latency_ms": latency_ms, "conditions": conditions, **counts, **rest, **outcome}


def test_rows_are_summed_up_by_what_they_began_with() -> None:
    rows = [
        made_row(1, 0.0, "", 0.05),
        made_row(1, 100.0, "passed", 0.05),
        made_row(2, 0.0, "dropped", 0.15, "parcel"),
        made_row(2, 100.0, "passed", 0.15, "parcel"),
    ]
    told = summed(rows, (0.05, 0.15))
    assert (told["n"], told["success_rate"], told["grasp_rate"]) == (4, 0.25, 0.5)
    assert told["failures"] == {"passed": 2, "dropped": 1} and told["holds"] == {"exhausted": 4}
    assert list(told["by"]["latency_ms"]) == ["0", "100"]
    assert {key: each["success_rate"] for key, each in told["by"]["belt_m_s"].items()} == {"0.050-0.083": 0.5, "0.117-0.150": 0.0}
    assert set(told["by"]["label"]) == {"up", "none"} and set(told["by"]["kind"]) == {"bread", "parcel"}
    assert told["limited"] == pytest.approx(0.5) and of([rows[0], {**rows[1], "limited": 0.1}])["limited"] == pytest.approx(0.3)
    assert of([])["success_rate"] is None and of([{**rows[0], "limited": None}])["limited"] is None


@given(st.floats(0.05, 0.15))
def test_every_speed_is_in_one_band_that_holds_it(speed: float) -> None:
    low, high = (float(end) for end in band(speed, (0.05, 0.15)).split("-"))
    assert low - 1e-3 <= speed <= high + 1e-3


# Bad input


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task", "expres_sorting"], "--task: got 'expres_sorting', expected .*did you mean 'express_sorting'"),
        (["--latency", "0,soon"], "--latency: got '0,soon', expected milliseconds"),
        (["--latency", "0,0"], "expected each once"),
        (["--latency", "nan"], "--latency: got 'nan', expected milliseconds"),
        (["--compute", "inf"], "--compute: got inf, expected a number that is finite"),
        (["--live", "--belt", "0:0"], "--live: got --belt, expected it without"),
        (["--live", "--compute", "40"], "--live: got --compute, expected it without"),
        (["--belt", "0.4:0.1"], "--belt: got 0.4 to 0.1 m/s"),
        (["--model", "nanno"], "checkpoint 'nanno': no such folder, did you mean 'nano'"),
        (["--policy", "expert", "--preset", "fast"], "--policy expert: got --preset, expected it without"),
        (["--policy", "expert", "--model", "nano2"], "--policy expert: got --model, expected it without"),
        (["--pace", "0.5"], "--pace: got it without --live, expected --live too"),
        (["--domain-id", "9"], "--domain-id: got it without --live"),
        (["--policy", "oracle"], "--policy: got 'oracle', expected model, expert"),
        (["--robot", "jtc_dual_arm", "--policy", "expert"], "the cell has arms for"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "rollouts", "--out", str(tmp_path / "out"), *words])
    said = capsys.readouterr().err
    assert re.search(sentence, said) and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_an_earlier_result_is_not_written_over(tmp_path: Path) -> None:
    from internvla_a1_ros.cli.evaluate_rollouts import run_rollouts

    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="is not empty"):
        run_rollouts(EXPERT, Series(0, 1, (0.0,)), 1, tmp_path, False, measure=False, command="")


@pytest.mark.parametrize("problem", [ConfigurationError("a worker ended with exit code -9"), OSError("no more -9"), RuntimeError("GL -9")])
@pytest.mark.parametrize("done", [0, 2])
def test_what_was_done_before_a_worker_died_is_kept(
    done: int, problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from internvla_a1_ros.cli.evaluate_rollouts import run_rollouts
    from internvla_a1_ros.evaluation import rollouts

    def dying(order: Order, following: Any, workers: int) -> Any:
        for _ in range(done):
            yield made_row(following().seed, 0.0, "", 0.05)
        raise problem

    monkeypatch.setattr(rollouts, "run_jobs", dying)
    with pytest.raises(Exception, match="-9"):
        run_rollouts(EXPERT, Series(0, 3, (0.0,)), 2, tmp_path / "out", False, measure=False, command="")
    if done:
        told = json.loads((tmp_path / "out/metrics.json").read_text())
        assert told["partial"] and told["n"] == done
    assert bool(list(tmp_path.iterdir())) == bool(done)


def test_a_full_disk_takes_the_folder_and_not_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from internvla_a1_ros.cli.evaluate_rollouts import run_rollouts
    from internvla_a1_ros.evaluation import rollouts

    monkeypatch.setattr(rollouts, "run_jobs", lambda order, following, workers: iter([made_row(following().seed, 0.0, "", 0.05)]))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollouts, "write_metrics", full)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        run_rollouts(EXPERT, Series(0, 1, (0.0,)), 1, tmp_path / "out", False, measure=False, command="")
    assert "100 % (21-100)" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_worker_that_cannot_work_says_why() -> None:
    order = Order("ingredient_picking", "arx_ac_one", find_checkpoint("nano"), preset="slow")
    with pytest.raises(ConfigurationError, match="preset: got 'slow'"):
        list(run_jobs(order, lambda: Job(ROLLOUT_SEEDS, 0.0), 2))
