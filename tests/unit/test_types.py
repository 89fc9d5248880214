"""The types check once, at construction, and say what they got and what they expected."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError, RobotMismatch, suggestion
from internvla_a1_ros.core.types import ACCEPTED, ActionChunk, ByteArray, Frame, JointState, Observation, float_array, refused

PICTURE = np.zeros((2, 3, 3), np.uint8)


def frame(camera: str = "head", stamp_ns: int = 0) -> Frame:
    return Frame(camera, stamp_ns, stamp_ns, PICTURE)


def test_float_array_is_a_read_only_copy_in_float64() -> None:
    source = np.array([1, 2], np.float32)
    array = float_array(source, (2,), "x")
    source[0] = 9
    assert array.dtype == np.float64 and array.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0.0


@pytest.mark.parametrize(
    ("value", "shape", "words"),
    [
        ([1.0, 2.0], (3,), r"x: got shape \(2,\), expected 3"),
        ([1.0], (None, 2), r"x: got shape \(1,\), expected anyx2"),
        ([[1.0, 2.0]], (None,), r"x: got shape \(1, 2\), expected any"),
        ([0.0, np.nan], (None,), r"x: got nan at \(1,\), expected finite"),
        ([[0.0], [-np.inf]], (None, 1), r"x: got -inf at \(1, 0\), expected finite"),
    ],
)
def test_float_array_names_what_is_wrong(value: object, shape: tuple[int | None, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        float_array(value, shape, "x")


@pytest.mark.parametrize(
    "picture",
    [PICTURE.astype(np.float32), PICTURE[0], PICTURE[:, :, :1], np.zeros((0, 3, 3), np.uint8), np.zeros((3, 0, 3), np.uint8)],
    ids=["float", "two axes", "grey", "no rows", "no columns"],
)
def test_a_frame_refuses_what_is_no_picture_at_once_or_on_first_use(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="camera 'left'.*expected uint8"):
        Frame("left", 0, 0, picture)
    later = Frame("left", 0, 0, lambda: picture)
    for _ in range(2):
        with pytest.raises(ValueError, match="camera 'left'.*expected uint8"):
            _ = later.rgb


def test_a_frame_decodes_once_and_only_when_used() -> None:
    calls: list[int] = []

    def decode() -> np.ndarray:
        calls.append(1)
        return PICTURE

    late = Frame("head", 5, 6, decode)
    assert not calls
    assert late.rgb is PICTURE and late.rgb is PICTURE
    assert len(calls) == 1 and (late.camera, late.stamp_ns, late.received_ns) == ("head", 5, 6)


def test_a_decoded_frame_lets_go_of_what_it_was_decoded_from() -> None:
    def decode() -> np.ndarray:
        return PICTURE

    decoder = weakref.ref(decode)
    late = Frame("head", 0, 0, decode)
    del decode
    assert decoder() is not None
    assert late.rgb is PICTURE and decoder() is None


def test_joint_states_are_finite_vectors() -> None:
    assert JointState(1, np.array([0.5, 1.0])).positions.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="joint state: got nan"):
        JointState(1, np.array([np.nan]))
    with pytest.raises(ValueError, match="joint state: got shape"):
        JointState(1, np.zeros((2, 2)))


def test_an_observation_has_a_past_for_every_view_it_has() -> None:
    joints = JointState(0, np.zeros(2))
    Observation(0, (frame(), None), (frame(), None), joints, 0)
    with pytest.raises(ValueError, match="view 1 has only one"):
        Observation(0, (frame(), frame()), (frame(), None), joints, 0)
    with pytest.raises(ValueError, match="view 0 has only one"):
        Observation(0, (None,), (frame(),), joints, 0)
    with pytest.raises(ValueError, match="got 1 current and 2 past"):
        Observation(0, (frame(),), (frame(), frame()), joints, 0)
    with pytest.raises(ValueError, match="got 0 current"):
        Observation(0, (), (), joints, 0)


def test_a_chunk_knows_when_each_action_is_meant() -> None:
    chunk = ActionChunk("r", ("a", "b"), 100, 130, 10, np.zeros((3, 2)))
    assert [chunk.time_of(k) for k in range(3)] == [130, 140, 150]
    assert chunk.end_ns == 150


@pytest.mark.parametrize(
    ("dt_ns", "positions", "words"),
    [
        (0, np.zeros((3, 2)), "got dt 0 ns"),
        (-1, np.zeros((3, 2)), "got dt -1 ns"),
        (10, np.zeros((0, 2)), "0 actions"),
        (10, np.zeros((3, 1)), r"got shape \(3, 1\), expected anyx2"),
        (10, np.zeros(2), "got shape"),
        (10, np.full((1, 2), np.inf), "got inf at"),
    ],
)
def test_a_chunk_refuses(dt_ns: int, positions: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ActionChunk("r", ("a", "b"), 0, 0, dt_ns, positions)


def test_a_verdict_is_true_when_accepted() -> None:
    verdict = refused("too_old", "chunk is 2 s old, allowed 1 s")
    assert ACCEPTED and ACCEPTED.code == "ok" and ACCEPTED.reason == ""
    assert not verdict and (verdict.code, verdict.reason) == ("too_old", "chunk is 2 s old, allowed 1 s")


def test_errors_of_configuration_are_one_family() -> None:
    assert issubclass(CheckpointError, ConfigurationError) and issubclass(RobotMismatch, ConfigurationError)
    assert issubclass(ConfigurationError, ValueError)


def test_a_near_miss_is_suggested_and_a_stranger_is_not() -> None:
    assert suggestion("max_sped", ["max_speed", "rate_hz"]) == ", did you mean 'max_speed'?"
    assert suggestion("zzz", ["max_speed", "rate_hz"]) == ""
    assert suggestion("x", []) == ""


def test_a_look_decodes_and_keeps_nothing() -> None:
    decoded = []

    def decode() -> ByteArray:
        decoded.append(1)
        return np.zeros((2, 3, 3), dtype=np.uint8)

    frame = Frame("head", 1, 1, decode)
    assert frame.look().shape == frame.look().shape == (2, 3, 3) and len(decoded) == 2
    assert frame.rgb is frame.rgb and frame.look() is frame.rgb and len(decoded) == 3, "kept once it was asked for as such"
