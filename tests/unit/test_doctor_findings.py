"""The doctor's findings: levels, order, JSON; and a healthy robot has none."""

from __future__ import annotations

import json

import pytest
from doctor_rig import bad, healthy
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.commissioning.doctor import examine, read_model
from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, from_json, ok, ordered, stop, to_json, warning, worst
from internvla_a1_ros.core.errors import CheckpointError

WORDS = st.text(min_size=1, max_size=20)
FINDINGS = st.lists(
    st.one_of(
        st.builds(ok, WORDS, WORDS, WORDS), st.builds(warning, WORDS, WORDS, WORDS, WORDS), st.builds(stop, WORDS, WORDS, WORDS, WORDS)
    ),
    max_size=12,
)


def test_a_healthy_robot_has_nothing_to_say_against_it() -> None:
    assert bad(healthy()) == []


def test_every_subject_is_looked_at() -> None:
    from doctor_rig import MODEL, PROFILE

    checks = {finding.check for finding in examine(healthy(), PROFILE, MODEL)}
    assert checks == {
        *("present", "source", "rate", "latency", "stamps", "clock", "skew", "encoding", "size", "exposure", "sharpness", "frozen"),
        *("names", "range", "gripper", "statistics", "discovery", "publishers", "listeners", "engine", "command"),
        *("load", "memory", "realtime", "gpu", "disk"),
    }


def test_a_finding_that_is_not_ok_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="finding 'rate' of camera head: got level stop and remedy ''"):
        Finding("rate", "camera head", Level.STOP, "dead")
    with pytest.raises(ValueError, match="got level ok and remedy 'pray'"):
        Finding("rate", "camera head", Level.OK, "30 Hz", "pray")


@given(FINDINGS)
def test_json_is_a_round_trip(findings: list[Finding]) -> None:
    content = json.loads(json.dumps(to_json(findings, robot="r", source="live", seconds=5.0)))
    assert from_json(content) == findings
    assert content["level"] == worst(findings).value and content["robot"] == "r" and content["version"] == 1


def test_json_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="got version 2, expected 1"):
        from_json({**to_json([]), "version": 2})


@given(FINDINGS)
def test_the_worst_comes_first_and_nothing_is_lost(findings: list[Finding]) -> None:
    levels = [finding.level for finding in ordered(findings)]
    assert levels == sorted(levels, key=list(Level).index)
    assert sorted(map(repr, ordered(findings))) == sorted(map(repr, findings))
    assert not findings or ordered(findings)[0].level is worst(findings)
    for level in Level:
        assert [f for f in ordered(findings) if f.level is level] == [f for f in findings if f.level is level]


def test_a_checkpoint_that_is_none_is_one_sentence(tmp_path: object) -> None:
    with pytest.raises(CheckpointError, match="no manifest.yaml"):
        read_model(tmp_path)  # type: ignore[arg-type]
