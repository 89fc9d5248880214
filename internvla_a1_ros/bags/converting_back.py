"""An episode of a LeRobot dataset to a bag of the robot's own topics, so that whatever reads bags can look at it or replay it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from internvla_a1_ros.bags.converting_keys import Columns, columns_of
from internvla_a1_ros.bags.converting_messages import empty, joint_message, stamp
from internvla_a1_ros.bags.converting_tracks import INSTRUCTIONS
from internvla_a1_ros.bags.datasets import Dataset, Episode
from internvla_a1_ros.bags.types import known_types
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Command, JointTopic

# A dataset knows no date.
BEGIN_NS = 1_600_000_000_000_000_000
JPEG_QUALITY = 95

Message = tuple[int, str, str, Any]  # when (received, ns), topic, type, message


def convert_back(
    dataset: Path,
    episode: int,
    profile: RobotProfile,
    out: Path,
    *,
    robot_type: str = "",
    progress: Callable[[float], None] = lambda share: None,
) -> list[str]:
    """Write one episode as an MCAP bag `out` and return what is to be said of it.

    The state at a step and its pictures are stamped with the step's time, the action is the command of that time. Raises
    ConfigurationError where the dataset is of another robot, lacks a key or a picture, or the bag cannot be written.
    """
    opened = Dataset.open(dataset)
    columns = columns_of(profile, robot_type or opened.robot_type)
    opened.need((*columns.states, *columns.actions))
    if episode >= len(opened.episodes):
        raise ConfigurationError(f"dataset '{dataset}': got episode {episode}, it has {len(opened.episodes)}, from 0")
    if out.exists():
        raise ConfigurationError(f"bag '{out}': exists already, expected a new folder")
    chosen, store = opened.episodes[episode], known_types()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with Writer(part / out.name, version=9, storage_plugin=StoragePlugin.MCAP) as writer:  # its files bear the folder's name
            made: dict[str, Any] = {}
            for time_ns, topic, kind, message in _messages(chosen, chosen.told(opened.tasks), columns, profile, store):
                topic = topic if topic.startswith("/") else f"/{topic}"
                if topic not in made:
                    made[topic] = writer.add_connection(topic, kind, typestore=store)
                writer.write(made[topic], time_ns, store.serialize_cdr(message, kind))
                progress((time_ns - BEGIN_NS) * 1e-9 * opened.fps / max(chosen.length, 1))
        os.replace(part / out.name, out)
    except OSError as problem:
        raise ConfigurationError(f"bag '{out}': cannot be written: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    actions = [command.topic for command in profile.commands if "/action/" in command.type]
    return [f"command '{topic}' is an action, which no bag holds: left out" for topic in actions]


def _messages(
    episode: Episode, instructions: Sequence[str], columns: Columns, profile: RobotProfile, store: Typestore
) -> Iterator[Message]:
    """Yield everything in order of time; an instruction at its first step."""
    said: str | None = None
    table = episode.table((*columns.states, *columns.actions))
    measured, asked = _positions(table, columns, profile)
    told = measured_and_told(profile, measured, asked)
    shown = {
        camera.name: episode.frames(columns.cameras[camera.name])
        for camera in profile.cameras
        if columns.cameras[camera.name] in episode.info.features or not camera.optional
    }
    for k in range(episode.length):
        time_ns = BEGIN_NS + round(k * 1e9 / episode.info.fps)
        if instructions[k] != said:
            said = instructions[k]
            yield time_ns, INSTRUCTIONS[0], "std_msgs/msg/String", store.types["std_msgs/msg/String"](data=said)
        for wire, values in told:
            yield time_ns, wire.topic, wire.type, joint_message(store, wire, values[k], time_ns)
        for camera in profile.cameras:
            if camera.name in shown:
                kind = "sensor_msgs/msg/CompressedImage" if camera.type == "compressed" else "sensor_msgs/msg/Image"
                taken_ns = time_ns + round(camera.delay_s * 1e9)
                yield time_ns, camera.topic, kind, _picture(store, kind, next(shown[camera.name]), taken_ns)


def _positions(table: dict[str, Any], columns: Columns, profile: RobotProfile) -> tuple[FloatArray, FloatArray]:
    """Return states and actions [n, dof] as positions of the robot. A gripper that the state never saw is where it was asked to be."""
    state, action = (np.concatenate([table[key] for key in keys], axis=1, dtype=np.float64) for keys in (columns.states, columns.actions))
    asked = GripperMap(profile).action(action)
    for gripper in profile.grippers:
        i = profile.joint_names.index(gripper.joint)
        assert not isinstance(gripper.state, str)
        back = gripper.state.inverse
        state[:, i] = asked[:, i] if gripper.zero_state else back.scale * state[:, i] + back.offset
    return state, asked


def measured_and_told(profile: RobotProfile, measured: FloatArray, asked: FloatArray) -> list[tuple[JointTopic | Command, FloatArray]]:
    """Return for each topic its values [n, joints of the topic] in the wire's units."""
    (scale, offset), (told_scale, told_offset) = profile.measured, profile.commanded
    read, told = (measured - offset) / scale, asked * told_scale + told_offset
    wires: list[tuple[JointTopic | Command, FloatArray]] = []
    for state in profile.states:
        wires.append((state, read[:, [profile.joint_names.index(name) for name in state.joints]]))
    for command in profile.commands:
        if "/action/" not in command.type:
            wires.append((command, told[:, [profile.joint_names.index(name) for name in command.joints]]))
    return wires


def _picture(store: Typestore, kind: str, rgb: ByteArray, taken_ns: int) -> Any:
    message = stamp(store, empty(store, kind), taken_ns)
    if kind.endswith("CompressedImage"):
        coded = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        message.format, message.data = "jpeg", np.frombuffer(coded.tobytes(), np.uint8)
    else:
        message.height, message.width, message.encoding, message.step = rgb.shape[0], rgb.shape[1], "rgb8", 3 * rgb.shape[1]
        message.data = rgb.reshape(-1)
    return message
