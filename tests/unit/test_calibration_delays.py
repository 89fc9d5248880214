"""Delays from simulated small motions with jittered stamps: within 5 ms, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_scene import belt_picture
from command_rig import small_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.commissioning.delays import Delay, Recording, actuation_delay, camera_delay, fit_delays, shrunk
from internvla_a1_ros.commissioning.motion import STILL_S, WHOLE_S, check_armed, check_motion, motion_chunk, small_motion
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.safety.checks import check_chunk

AMPLITUDE_RAD = 0.03
START_S = 1000.0
TEXTURE = belt_picture(np.random.default_rng(0), 0.6, 0.5, 400).astype(np.float32)


def angle(at_s: FloatArray) -> FloatArray:
    """The joint's true angle at times [n]."""
    return 0.4 + AMPLITUDE_RAD * small_motion(at_s - START_S)


def stamps(rate_hz: float, jitter_s: float, rng: np.random.Generator, whole_s: float = WHOLE_S + 1.0) -> FloatArray:
    regular = START_S - 0.5 + np.arange(0, whole_s, 1 / rate_hz)
    return np.sort(regular + rng.uniform(-jitter_s, jitter_s, len(regular)))


def logs(delay_s: float, rng: np.random.Generator, noise_rad: float = 0.0003) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return commands and a measured joint that follows them after `delay_s`, at 100 Hz each, jittered."""
    command_s, joint_s = stamps(100, 0.002, rng), stamps(100, 0.003, rng)
    return command_s, angle(command_s), joint_s, angle(joint_s - delay_s) + rng.normal(0, noise_rad, len(joint_s))


def pictures_of(picture_s: FloatArray, delay_s: float, rng: np.random.Generator, *, part: bool) -> FloatArray:
    """Return shrunk pictures of a texture that the joint carries 200 px a rad: the whole picture, or an arm in part of it."""
    made = []
    for moved_px in 200.0 * (angle(picture_s - delay_s) - 0.4):
        whole, share = 40 + int(np.floor(moved_px)), np.float32(moved_px - np.floor(moved_px))
        picture = TEXTURE[30:150, whole : whole + 160] * (1 - share) + TEXTURE[30:150, whole + 1 : whole + 161] * share
        if part:
            picture[:, :100] = TEXTURE[30:150, :100]
        picture += 4 * rng.standard_normal(picture.shape, np.float32)
        made.append(shrunk(np.clip(picture, 0, 255).astype(np.uint8)))
    return np.array(made)


@pytest.mark.parametrize("delay_s", [0.0, 0.023, 0.14])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_actuation_delay_within_5_ms(delay_s: float, seed: int) -> None:
    found = actuation_delay(*logs(delay_s, np.random.default_rng(seed)))
    assert found.delay_s == pytest.approx(delay_s, abs=0.005)
    assert found.explained > 0.9 and found.sigma_s < 0.002


def test_a_command_that_is_held_and_an_arm_that_lags() -> None:
    """A driver holds each command for 10 ms and a servo follows as a first-order lag of 30 ms: together some 35 ms."""
    rng = np.random.default_rng(4)
    fine_s = np.arange(START_S - 0.5, START_S + WHOLE_S + 0.5, 0.001)
    command_s = fine_s[::10]
    held = angle(command_s)[np.searchsorted(command_s, fine_s, side="right") - 1]
    measured = np.empty_like(held)
    measured[0] = held[0]
    for i in range(1, len(held)):
        measured[i] = measured[i - 1] + (held[i] - measured[i - 1]) * 0.001 / 0.030
    joint_s = stamps(100, 0.002, rng)[50:-50]
    found = actuation_delay(command_s, angle(command_s), joint_s, np.interp(joint_s, fine_s, measured))
    assert found.delay_s == pytest.approx(0.035, abs=0.005)


@pytest.mark.parametrize("part", [False, True], ids=["wrist camera", "head camera"])
@pytest.mark.parametrize("rate_hz", [30, 90])
@pytest.mark.parametrize(("seed", "delay_s"), [(1, 0.0), (2, 0.043)])
def test_camera_delay_within_5_ms(seed: int, delay_s: float, rate_hz: int, part: bool) -> None:
    rng = np.random.default_rng(seed)
    joint_s, picture_s = stamps(100, 0.002, rng), stamps(rate_hz, 0.002, rng)
    measured = angle(joint_s) + rng.normal(0, 0.0003, len(joint_s))
    found = camera_delay("head", picture_s, pictures_of(picture_s, delay_s, rng, part=part), joint_s, measured)
    assert found.delay_s == pytest.approx(delay_s, abs=0.005)


def test_the_standard_deviation_is_one() -> None:
    found = [actuation_delay(*logs(0.05, np.random.default_rng(seed), noise_rad=0.002)) for seed in range(20)]
    errors = np.array([each.delay_s - 0.05 for each in found])
    assert 0.5 < errors.std() / np.mean([each.sigma_s for each in found]) < 2.0


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 0.4), st.floats(-3, 3), st.floats(-2, 2).filter(lambda gain: abs(gain) > 0.5))
def test_gain_and_offset_of_the_follower_change_nothing(delay_s: float, offset: float, gain: float) -> None:
    command_s, commanded, joint_s, measured = logs(delay_s, np.random.default_rng(5), noise_rad=0.0)
    plain, other = (actuation_delay(command_s, commanded, joint_s, each) for each in (measured, offset + gain * measured))
    assert plain.delay_s == pytest.approx(delay_s, abs=0.001) and other.delay_s == pytest.approx(plain.delay_s, abs=1e-5)


def test_the_motion_begins_and_ends_at_rest_and_stays_small() -> None:
    t = np.arange(0, WHOLE_S, 0.001)
    motion = small_motion(t)
    assert np.abs(motion).max() <= 1.0 and np.abs(motion).max() > 0.7
    assert (motion[t < STILL_S] == 0).all() and np.abs(motion[t > WHOLE_S - STILL_S]).max() < 1e-12
    # 0.1 rad of it stays below 1.5 rad/s and 10 rad/s^2, the limits of the arm.
    assert 0.1 * np.abs(np.gradient(motion, t)).max() < 1.5 / 2
    assert 0.1 * np.abs(np.gradient(np.gradient(motion, t), t)).max() < 10.0 / 2


def refusal(*arguments: FloatArray) -> str:
    with pytest.raises(ConfigurationError) as caught:
        actuation_delay(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_motion_in_the_log() -> None:
    command_s, commanded, joint_s, measured = logs(0.03, np.random.default_rng(6))
    assert "there is no motion in the log" in refusal(command_s, np.full_like(commanded, 0.4), joint_s, measured)


def test_a_joint_that_does_not_follow() -> None:
    rng = np.random.default_rng(7)
    command_s, commanded, joint_s, _ = logs(0.03, rng)
    assert "the motion explains" in refusal(command_s, commanded, joint_s, rng.normal(0.4, 0.01, len(joint_s)))
    assert "the motion explains" in refusal(command_s, commanded, joint_s, np.full(len(joint_s), 0.4))


def test_too_short_a_log() -> None:
    command_s, commanded, joint_s, measured = logs(0.03, np.random.default_rng(8))
    assert "expected 50 or more of each" in refusal(command_s[:70], commanded[:70], joint_s[:70], measured[:70])
    assert "got 0 and 0 samples" in refusal(*[np.zeros(0)] * 4)


def test_a_delay_beyond_what_is_searched() -> None:
    command_s, commanded, joint_s, measured = logs(0.03, np.random.default_rng(9))
    text = refusal(command_s, commanded, joint_s + 0.6, measured)
    assert "are all stamps of one clock" in text or "the motion explains" in text


def test_stamped_before_it_happens() -> None:
    command_s, commanded, joint_s, measured = logs(0.0, np.random.default_rng(10))
    assert "expected none below zero" in refusal(command_s, commanded, joint_s - 0.03, measured)


def test_a_steady_motion_fits_every_delay() -> None:
    t = np.arange(0, 8, 0.01)
    assert "got a delay known to" in refusal(t, 0.05 * t, t, 0.05 * t + np.random.default_rng(11).normal(0, 1e-2, len(t)))


def test_a_picture_in_which_something_else_moves() -> None:
    rng = np.random.default_rng(12)
    joint_s, picture_s = stamps(100, 0.002, rng), stamps(30, 0.002, rng)
    other = pictures_of(picture_s, 1.7, rng, part=False)
    with pytest.raises(ConfigurationError, match="camera 'head': "):
        camera_delay("head", picture_s, other, joint_s, angle(joint_s))


def test_no_motion_in_the_pictures() -> None:
    rng = np.random.default_rng(13)
    joint_s, picture_s = stamps(100, 0.002, rng), stamps(30, 0.002, rng)
    still = np.array([shrunk(TEXTURE[:120, :160].astype(np.uint8))] * len(picture_s)) + rng.normal(0, 0.5, (len(picture_s), 1))
    with pytest.raises(ConfigurationError, match="does it move with this joint"):
        camera_delay("head", picture_s, still, joint_s, angle(joint_s))


def test_a_small_delay_below_zero_is_none() -> None:
    command_s, commanded, joint_s, measured = logs(0.0, np.random.default_rng(14), noise_rad=0.0)
    found = actuation_delay(command_s, commanded, joint_s - 0.002, measured)
    assert isinstance(found, Delay) and found.delay_s == 0.0


# Several motions, and the motion itself


def recorded(delay_s: float, camera_delays_s: dict[str, float], joint: int, rng: np.random.Generator) -> Recording:
    """Return a recording in which one of two joints moves and each camera sees that joint."""
    command_s, commanded, joint_s, measured = logs(delay_s, rng)
    commands, joints = np.full((len(command_s), 2), 0.4), np.full((len(joint_s), 2), 0.4)
    commands[:, joint], joints[:, joint] = commanded, measured
    picture_s = stamps(30, 0.002, rng)
    pictures = {name: (picture_s, pictures_of(picture_s, delay_s + delay, rng, part=False)) for name, delay in camera_delays_s.items()}
    return Recording(("left_joint1", "right_joint1"), command_s, commands, joint_s, joints, pictures)


def test_each_camera_is_taken_from_the_motion_it_saw() -> None:
    rng = np.random.default_rng(20)
    one, other = recorded(0.03, {"head": 0.02}, 0, rng), recorded(0.05, {"right": 0.06}, 1, rng)
    picture_s = one.pictures["head"][0]
    one.pictures["right"] = picture_s, 100.0 + rng.normal(0, 0.3, (len(picture_s), 432))  # type: ignore[index]
    arm, seen = fit_delays([one, other], ["head", "right"])
    assert [one.moving, other.moving] == [0, 1]
    assert [each.delay_s for each in arm] == pytest.approx([0.03, 0.05], abs=0.005)
    assert [seen["head"].delay_s, seen["right"].delay_s] == pytest.approx([0.02, 0.06], abs=0.005)
    with pytest.raises(ConfigurationError, match="camera 'right': the motion explains"):
        fit_delays([one], ["right"])
    with pytest.raises(ConfigurationError, match="camera 'left': got no pictures"):
        fit_delays([one], ["left"])


def test_the_plan_of_the_motion_moves_one_joint_and_follows_itself() -> None:
    profile, pose_rad = small_profile(), np.array([0.5, 1.0, -1.7])
    began_ns = 5_000_000_000
    chunks = [motion_chunk(profile, "cell_1", pose_rad, "elbow", 0.03, began_ns, began_ns + k * 100_000_000) for k in range(90)]
    for chunk in chunks:
        assert check_chunk(chunk, profile, "cell_1", chunk.stamp_ns, {"arm": began_ns})
        assert (chunk.positions[:, [0, 2]] == pose_rad[[0, 2]]).all()
        at_s = np.array([chunk.time_of(k) for k in range(len(chunk.positions))]) * 1e-9 - 5.0
        assert chunk.positions[:, 1] == pytest.approx(1.0 + 0.03 * small_motion(at_s))
    assert np.ptp([chunk.positions[:, 1] for chunk in chunks]) > 0.04
    assert (chunks[-1].positions[-1] == pose_rad).all()


@pytest.mark.parametrize(
    ("joint", "amplitude_rad", "pose_rad", "code"),
    [
        ("elbow", 0.03, 1.0, "ok"),
        ("elbow", 0.1, 1.0, "ok"),
        ("elbow", 0.1001, 1.0, "amplitude"),
        ("elbow", 0.0, 1.0, "amplitude"),
        ("elbow", -0.03, 1.0, "amplitude"),
        ("elbow", float("nan"), 1.0, "amplitude"),
        ("elbow", 0.03, -0.03, "limit"),
        ("elbow", 0.03, 2.98, "limit"),
        ("elbow", 0.03, float("nan"), "limit"),
        ("gripper", 0.03, 1.0, "joint"),
        ("wrist", 0.03, 1.0, "joint"),
    ],
)
def test_what_may_be_moved(joint: str, amplitude_rad: float, pose_rad: float, code: str) -> None:
    verdict = check_motion(small_profile(), np.array([0.5, pose_rad, -1.7]), joint, amplitude_rad)
    assert verdict.code == code and bool(verdict) == (code == "ok")


ARMED = {"instance": "cell_1", "dry_run": "False", "armed": "True", "mode": "hold"}


@pytest.mark.parametrize(
    ("change", "age_s", "code"),
    [
        ({}, 0.1, "ok"),
        ({"mode": "run"}, 0.1, "ok"),
        ({}, 1.5, "silent"),
        ({"instance": "cell_2"}, 0.1, "instance"),
        ({"dry_run": "True"}, 0.1, "dry_run"),
        ({"armed": "False"}, 0.1, "not_armed"),
        ({"mode": "stop"}, 0.1, "mode"),
        ({"mode": "pause"}, 0.1, "mode"),
    ],
)
def test_when_it_may_be_moved(change: dict[str, str], age_s: float, code: str) -> None:
    assert check_armed({**ARMED, **change}, "cell_1", age_s).code == code


def test_unknown_means_that_nothing_is_moved() -> None:
    assert check_armed({}, "cell_1", 0.0).code == "silent"
    for missing in ARMED:
        assert not check_armed({key: value for key, value in ARMED.items() if key != missing}, "cell_1", 0.1)
