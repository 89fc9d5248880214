"""Experiments carried out: nothing is done twice, an end in the middle keeps what is whole, and policies are really trained."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from experiment_rig import VARIANTS, Hand, planned, write_experiment
from training_rig import Quiet, write_all

from internvla_a1_ros.cli import experiment as verb
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.experiment_plan import Plan, Policy
from internvla_a1_ros.evaluation.experiment_run import LEDGER, STOPPED, Ledger, Pace, carry_out, gathered, seconds_a_step
from internvla_a1_ros.learning.running import prepare, read_recipe, run
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.robots.document import read_mapping


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("experiment"))


def done(plan: Plan, hand: Hand, stop_after: int | None = None) -> bool:
    return carry_out(plan, hand, 2, lambda: stop_after is not None and len(hand.calls) >= stop_after, lambda text: None)


def really_trained(recipe: Path) -> None:
    ready = prepare(read_recipe(recipe), Quiet())
    assert run(ready, Quiet())


def test_policies_are_trained_one_from_the_other(keys: dict[str, Any], tmp_path: Path) -> None:
    variants = [*VARIANTS, {"name": "on", "told": "goes on", "after": "untaught", "recipe": {"steps": 2}}]
    plan = planned(tmp_path, keys, steps=2, variants=variants, seeds=[3])
    hand = Hand(really_trained)
    assert done(plan, hand) and len(hand.trained) == 3 and len(hand.calls) == 3 + 6
    first, second, on = plan.policies
    assert read_mapping(first.place / "manifest.yaml")["source"] == f"internvla-a1 train: {keys['start']}, 2 steps"
    assert read_mapping(on.place / "manifest.yaml")["source"] == f"internvla-a1 train: {second.place}, 1 steps"
    assert load_manifest(on.place).history.interval_s == 0  # of what it goes on from
    future = [json.loads((each.place / "log.jsonl").read_text().splitlines()[0]) for each in (first, second)]
    assert future[0]["loss"] > future[0]["action"] and future[1]["loss"] == pytest.approx(future[1]["action"])
    again = Hand(really_trained)
    assert done(plan, again) and again.calls == []


def test_nothing_is_done_twice_and_other_questions_share(keys: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, keys)
    hand = Hand()
    assert done(plan, hand) and len(hand.calls) == len(set(hand.calls)) == 4 + 8
    assert all({"--workers", "--force"} <= set(words) for words in hand.calls if words[0] == "evaluate")
    other = planned(tmp_path, keys, name="other", variants=[VARIANTS[1]], rollouts={"n": 10, "latencies_ms": [0, 400]})
    hand = Hand()
    assert done(other, hand) and [words[0] for words in hand.calls] == ["evaluate"] * 2  # at 400 ms alone
    more = planned(tmp_path, keys, seeds=[0, 1, 2])
    hand = Hand()
    assert done(more, hand) and len(hand.trained) == 2 and len(hand.calls) == 2 + 4


@pytest.mark.parametrize("stops_at", [0, 1, 4])
def test_an_end_in_the_middle_keeps_what_is_whole(keys: dict[str, Any], tmp_path: Path, stops_at: int) -> None:
    """A job that is stopped leaves a folder and is begun again; those before it are not."""
    plan = planned(tmp_path, keys)
    hand, rest = Hand(stops_at=stops_at), Hand()
    assert not done(plan, hand) and len(hand.calls) == stops_at + 1
    assert len(gathered(plan)) == sum(words[0] == "evaluate" for words in hand.calls[:-1])
    assert done(plan, rest) and rest.calls[0] == hand.calls[-1] and len(rest.calls) == 12 - stops_at
    assert len(gathered(plan)) == 8


def test_an_end_between_two_jobs(keys: dict[str, Any], tmp_path: Path) -> None:
    plan, hand = planned(tmp_path, keys), Hand()
    assert not done(plan, hand, stop_after=2) and len(hand.calls) == 2


def test_a_partial_result_and_a_damaged_ledger_are_not_done(keys: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, keys, seeds=[0])
    assert done(plan, Hand())
    path = plan.rolled[0].place / "metrics.json"
    path.write_text(path.read_text().replace('"partial": false', '"partial": true'))
    ledger = plan.root / LEDGER
    lines = ledger.read_text().splitlines()
    # Two lines a job; the last six jobs are the second policy and its rollouts, and a line of its is cut short.
    ledger.write_text("\n".join([*lines[:-11], lines[-11][:20]]))
    hand = Hand()
    assert done(plan, hand)
    assert [words[0] for words in hand.calls] == ["train", "evaluate", "train"] and done(plan, Hand(stops_at=0))


def test_a_policy_taught_anew_and_stopped_is_not_done(keys: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, keys, seeds=[0])
    assert done(plan, Hand())
    shutil.rmtree(plan.policies[0].place)
    assert not done(plan, Hand(stops_at=0))
    hand = Hand()
    assert done(plan, hand) and [words[0] for words in hand.calls] == ["train"]


def test_problems_end_with_a_sentence_and_keep_what_was_done(keys: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, keys)

    class Fails(Hand):
        def __call__(self, words: Any) -> int:
            return 2 if len(self.calls) == 3 else super().__call__(words)

    with pytest.raises(ConfigurationError, match=r"experiment 'tiny': `internvla-a1 train .*-seed0.yaml` ended with exit code 2"):
        done(plan, Fails())
    assert len(gathered(plan)) == 2
    with pytest.raises(ConfigurationError, match="left no result"):
        done(plan, Hand(train=lambda recipe: None))
    with alone(plan.root), pytest.raises(ConfigurationError, match="another experiment is at work in it"):
        done(plan, Hand())
    with pytest.raises(ConfigurationError, match="experiment 'tiny': 'nothing' is missing, it is made so: by hand"):
        done(planned(tmp_path, keys, needs={"nothing": "by hand"}), Hand())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="'.*file/root': cannot be written"):
        carry_out(Plan(plan.experiment, tmp_path / "file/root", plan.rolled, plan.jobs), Hand(), 1, lambda: False, lambda text: None)


def test_how_long_it_takes_is_told_by_what_was_measured(keys: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, keys, steps=100)
    training, rolling = plan.jobs[:2]
    assert isinstance(training, Policy) and seconds_a_step(plan) is None
    pace = Pace.measured(plan, Ledger(plan.root))
    assert pace.seconds(training) is None and pace.seconds(rolling) is None and pace.told(plan.jobs) == ""
    log = training.place / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": k, "seconds": s}) + "\n" for k, s in enumerate([9.0, 0.5, 0.5])) + '{"step": 4, "sec')
    Ledger(plan.root).add(rolling, 25.0)
    pace = Pace.measured(plan, Ledger(plan.root))
    assert pace.seconds(training) == 100 * 0.5 and pace.seconds(rolling) == 25.0
    assert pace.told(plan.jobs) == ", about 50 s; 7 min left"  # 4 * 50 s + 8 * 25 s
    assert Pace(1.0, None).told(plan.jobs) == ", about 2 min; 7 min left and what was never measured"


# ---- the command line --------------------------------------------------------------------------------------------------


class Pretended(Hand):
    """In place of child processes."""

    stops: int | None = None

    def __init__(self) -> None:
        super().__init__(stops_at=self.stops)

    def asked(self) -> bool:
        return False

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_verb(keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "Child", Pretended)
    path, out = write_experiment(tmp_path, keys), tmp_path / "out"
    words = ["experiment", str(path), "--out", str(out), "--n", "9", "--seeds", "1"]
    before = files(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*words, "--dry-run"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and files(tmp_path) == before
    assert "6 of 6 jobs to do: 0 s, and what has never been measured here (?)" in told and "train untaught, seed 0" in told
    monkeypatch.setattr(Pretended, "stops", 3)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == STOPPED and "stopped; the same command goes on" in capsys.readouterr().out
    assert json.loads((out / "tiny-seeds1-n9.json").read_text())["partial"]
    monkeypatch.setattr(Pretended, "stops", None)
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr().out
    assert ended.value.code == 0 and "no difference found" in told and "tiny-seeds1-n9.json" in told
    content = json.loads((out / "tiny-seeds1-n9.json").read_text())
    assert not content["partial"] and content["n"] == 9 and content["seeds"] == [0] and len(content["cells"]) == 4
    with pytest.raises(SystemExit) as ended:
        main([*words, "--dry-run"])
    assert "0 of 6 jobs to do: 0 s\n" in capsys.readouterr().out


def test_the_verb_without_a_name_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["experiment"])
    assert ended.value.code == 0 and "flow_steps" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "flow_stepz"])
    assert ended.value.code == 2 and "did you mean 'flow_steps'" in capsys.readouterr().err


class Process:
    """A child that is at work when the signal comes, and ends by itself or by what it is told."""

    def __init__(self, words: list[str], env: dict[str, str], start_new_session: bool) -> None:
        assert start_new_session and words[1:3] == ["-m", "internvla_a1_ros.cli.main"] and "GLIBC_TUNABLES" in env
        self.signals: list[int] = []
        self.code: int | None = None

    def wait(self) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        self.code = 1 if self.signals else 0
        return self.code

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def handlers() -> Iterator[None]:
    former = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_signal_reaches_the_child_once_and_no_more_is_begun(monkeypatch: pytest.MonkeyPatch, handlers: None) -> None:
    monkeypatch.setattr(verb.subprocess, "Popen", Process)
    with verb.Child() as child:
        assert not child.asked() and child(["train", "x"]) == STOPPED and child.asked()
        assert child._process is not None and child._process.signals == [signal.SIGINT]  # type: ignore[attr-defined]


def test_a_child_is_this_command_line() -> None:
    with verb.Child() as child:
        assert child(["--version"]) == 0 and child(["trian"]) == 2
