"""The robot's end of the wires: states written as our nodes read them, commands read as our nodes write them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.nodes.joints import joint_values
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Command, JointTopic


class StateMessage:
    """One state topic's message from positions [dof]. `order`: in which of its joints they are named, where they have names."""

    def __init__(self, topic: JointTopic, profile: RobotProfile, order: list[int] | None = None) -> None:
        self.kind = message_class(topic.type)
        self._field, _, self._member = topic.field.partition(".")
        self._first = topic.first
        named = topic.names == "match" and "name" in self.kind.get_fields_and_field_types()
        order = order if named and order is not None else list(range(len(topic.joints)))
        self._names = [topic.joints[i] for i in order] if named else []
        self._slots = np.array([profile.joint_names.index(topic.joints[i]) for i in order])
        self._scale, self._offset = (numbers[self._slots] for numbers in profile.measured)
        self._element = _element_class(self.kind, self._field) if self._member else None

    def of(self, positions: FloatArray, stamp: Any) -> Any:
        """Return the message that says these positions."""
        message = self.kind()
        told = ((positions[self._slots] - self._offset) / self._scale).tolist()
        if self._names:
            message.name = self._names
        if self._element is not None:
            setattr(message, self._field, [self._element(**{self._member: value}) for value in told])
        elif isinstance(getattr(message, self._field), np.ndarray):
            getattr(message, self._field)[self._first : self._first + len(told)] = told
        else:
            setattr(message, self._field, [0.0] * self._first + told)
        if hasattr(message, "header"):
            message.header.stamp = stamp
        return message


class CommandReader:
    """What one command topic tells its joints, as positions."""

    def __init__(self, command: Command, profile: RobotProfile) -> None:
        self._joints = list(command.joints)
        self.slots = np.array([profile.joint_names.index(name) for name in command.joints])
        self._scale, self._offset = (numbers[self.slots] for numbers in profile.commanded)
        self._topic = None
        if not command.is_trajectory:
            self._topic = JointTopic(
                topic=command.topic, type=command.type, field=command.field, first=command.first, joints=command.joints
            )

    def set_point(self, message: Any) -> FloatArray:
        """Return the positions [joints] that a set-point asks for. Raises ValueError where a joint is missing or not finite."""
        assert self._topic is not None
        return (joint_values(message, self._topic) - self._offset) / self._scale

    def trajectory(self, message: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return times [n] s, positions and velocities [n, joints] of a JointTrajectory. Raises ValueError where joints are missing."""
        if sorted(message.joint_names) != sorted(self._joints):
            raise ValueError(f"trajectory: got joints {list(message.joint_names)}, expected {self._joints}")
        columns = [list(message.joint_names).index(name) for name in self._joints]
        times = np.array([point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points])
        places, speeds = (
            np.array([list(getattr(point, part)) for point in message.points]).reshape(len(times), len(columns))[:, columns]
            for part in ("positions", "velocities")
        )
        return times, (places - self._offset) / self._scale, speeds / self._scale


def _element_class(kind: Any, field: str) -> Any:
    """The message class of the elements of an array field, from its type as rosidl says it ('sequence<package/Name>')."""
    package, _, name = kind.get_fields_and_field_types()[field].removeprefix("sequence<").rstrip(">").partition("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)
