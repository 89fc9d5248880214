"""What one robot type is: joints and limits, topics, cameras, grippers, the layout of its data. Values live in YAML."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.document import Document, read_document

BoolArray = npt.NDArray[np.bool_]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NonEmpty = Annotated[str, Field(min_length=1)]
Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*$")]
MessageType = Annotated[str, Field(pattern=r"^\w+/msg/\w+$")]

PROFILE_FOLDER = Path(__file__).parent


class Motion(Document):
    """Limits of motion of one kind of joint, in the joint's unit (radians, or the gripper's readout) and seconds.

    The stop pair is used by e-stop and fault only; it is never below the normal pair. `max_tracking_error` is the distance
    between command and measurement that counts as failed when it lasts; absent where the joint may be blocked on purpose
    (a gripper around a parcel). `margin` is how far beyond a position limit a plan may ask before it is refused whole.
    """

    max_velocity: Positive
    max_acceleration: Positive
    max_jerk: Positive
    stop_acceleration: Positive
    stop_jerk: Positive
    margin: NotNegative
    max_tracking_error: Positive | None = None

    @model_validator(mode="after")
    def _stop_is_not_softer(self) -> Motion:
        for normal, stop in (("max_acceleration", "stop_acceleration"), ("max_jerk", "stop_jerk")):
            if getattr(self, stop) < getattr(self, normal):
                raise ValueError(f"{stop}: got {getattr(self, stop)}, expected at least {normal} {getattr(self, normal)}")
        return self


class Joint(Document):
    """One joint, in the order of the robot's state and action vectors; `ready` is its place in the ready pose, absent = unchanged."""

    name: NonEmpty
    kind: Literal["arm", "gripper"]
    lower: float
    upper: float
    ready: float | None = None
    motion: Motion | None = None

    @model_validator(mode="after")
    def _limits_are_not_crossed(self) -> Joint:
        if self.lower >= self.upper:
            raise ValueError(f"joint '{self.name}': got lower {self.lower} and upper {self.upper}, expected lower below upper")
        if self.ready is not None and not self.lower <= self.ready <= self.upper:
            raise ValueError(f"joint '{self.name}': got ready {self.ready}, expected {self.lower} to {self.upper}")
        return self


class JointTopic(Document):
    """A topic that carries joints: `joints` sit in the array `field` of message `type`, from slot `first` on, in this order."""

    topic: Topic
    type: MessageType
    field: NonEmpty
    first: Annotated[int, Field(ge=0)] = 0
    joints: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]


class Camera(Document):
    """One camera. `delay_s` is from light to stamp (calibrated); an `optional` camera that dies is masked, any other blocks."""

    name: NonEmpty
    topic: Topic
    type: Literal["image", "compressed"]
    rate_hz: Positive
    delay_s: NotNegative = 0.0
    optional: bool = False


class Affine(Document):
    """`out = scale * in + offset`."""

    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _can_be_undone(self) -> Affine:
        if self.scale == 0.0:
            raise ValueError("scale: got 0, expected a number that can be divided by")
        return self


class Gripper(Document):
    """One gripper: `state` maps the robot's readout to the model's unit, `action` the model's unit to the robot's command."""

    joint: NonEmpty
    closed: float
    open: float
    state: Affine = Affine()
    action: Affine = Affine()


class Dataset(Document):
    """How recordings and `stats.json` of this robot are laid out; vectors are concatenated in the order of the keys.

    `delta_mask` counts runs of joints: positive = deltas in delta checkpoints, negative = always absolute.
    """

    robot_types: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    state_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    action_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    image_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    delta_mask: Annotated[tuple[int, ...], Field(min_length=1)]


class RobotProfile(Document):
    """A robot type: everything about it that code must not contain. Vectors [dof] are in the order of `joints`, read-only."""

    name: NonEmpty
    vendor: NonEmpty
    control_rate_hz: Annotated[float, Field(ge=60, le=200)] = 100.0
    actuation_delay_s: Annotated[float, Field(ge=0, le=0.5)]
    max_state_age_s: Positive
    max_chunk_age_s: Positive = 1.0
    max_open_loop_s: Positive = 1.0
    ramp_s: Positive = 1.0
    fade_s: NotNegative = 0.2
    tracking_s: Positive = 0.5
    ready_speed: Annotated[float, Field(gt=0, le=1)] = 0.3
    motion: dict[Literal["arm", "gripper"], Motion]
    joints: Annotated[tuple[Joint, ...], Field(min_length=1)]
    states: Annotated[tuple[JointTopic, ...], Field(min_length=1)]
    commands: Annotated[tuple[JointTopic, ...], Field(min_length=1)]
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1)]
    grippers: tuple[Gripper, ...] = ()
    dataset: Dataset

    @model_validator(mode="after")
    def _parts_fit_together(self) -> RobotProfile:
        names = self.joint_names
        _once(names, "joints", "joint")
        _once((camera.name for camera in self.cameras), "cameras", "camera")
        _once((camera.topic for camera in self.cameras), "cameras", "topic")
        for joint in self.joints:
            if joint.motion is None and joint.kind not in self.motion:
                raise ValueError(f"motion: got none for kind '{joint.kind}', expected limits for joint '{joint.name}'")
        for key, topics in (("states", self.states), ("commands", self.commands)):
            _once((topic.topic for topic in topics), key, "topic")
            _partition([name for topic in topics for name in topic.joints], names, key)
        kinds = {joint.name: joint.kind for joint in self.joints}
        _partition([g.joint for g in self.grippers], tuple(n for n in names if kinds[n] == "gripper"), "grippers")
        if sum(abs(run) for run in self.dataset.delta_mask) != self.dof:
            raise ValueError(f"dataset.delta_mask: got {list(self.dataset.delta_mask)}, expected runs that add up to {self.dof} joints")
        if len(self.dataset.image_keys) != len(self.cameras):
            raise ValueError(
                f"dataset.image_keys: got {len(self.dataset.image_keys)} keys, expected {len(self.cameras)}, one for each camera"
            )
        if self.cameras[0].optional:
            name = self.cameras[0].name
            raise ValueError(f"cameras.0: got optional camera '{name}', expected a required one: its time is the observation's")
        return self

    @property
    def dof(self) -> int:
        return len(self.joints)

    @property
    def dt_ns(self) -> int:
        """Control period in whole nanoseconds."""
        return round(1e9 / self.control_rate_hz)

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def lower(self) -> FloatArray:
        return _vector(joint.lower for joint in self.joints)

    @cached_property
    def upper(self) -> FloatArray:
        return _vector(joint.upper for joint in self.joints)

    @cached_property
    def max_velocity(self) -> FloatArray:
        return _vector(motion.max_velocity for motion in self._motions)

    @cached_property
    def max_acceleration(self) -> FloatArray:
        return _vector(motion.max_acceleration for motion in self._motions)

    @cached_property
    def max_jerk(self) -> FloatArray:
        return _vector(motion.max_jerk for motion in self._motions)

    @cached_property
    def stop_acceleration(self) -> FloatArray:
        return _vector(motion.stop_acceleration for motion in self._motions)

    @cached_property
    def stop_jerk(self) -> FloatArray:
        return _vector(motion.stop_jerk for motion in self._motions)

    @cached_property
    def margin(self) -> FloatArray:
        return _vector(motion.margin for motion in self._motions)

    @cached_property
    def max_tracking_error(self) -> FloatArray:
        """Allowed distance between command and measurement [dof]; infinite where the profile names none."""
        return _vector(np.inf if motion.max_tracking_error is None else motion.max_tracking_error for motion in self._motions)

    @cached_property
    def is_gripper(self) -> BoolArray:
        return _flags(joint.kind == "gripper" for joint in self.joints)

    @cached_property
    def is_delta(self) -> BoolArray:
        """Which joints are deltas in a checkpoint of action mode delta [dof]."""
        return _flags(run > 0 for run in self.dataset.delta_mask for _ in range(abs(run)))

    def ready_from(self, positions: FloatArray) -> FloatArray:
        """Return the ready pose [dof]; joints without one (grippers: a parcel must not drop) stay where `positions` has them."""
        return _vector(float(now) if joint.ready is None else joint.ready for joint, now in zip(self.joints, positions, strict=True))

    @property
    def _motions(self) -> tuple[Motion, ...]:
        return tuple(joint.motion or self.motion[joint.kind] for joint in self.joints)


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.yaml"))


def load_profile(name_or_path: str | Path) -> RobotProfile:
    """Return a profile by its name, or from a YAML file. Raises ConfigurationError in one sentence."""
    text = str(name_or_path)
    if "/" in text or text.endswith((".yaml", ".yml")):
        return read_document(Path(text), RobotProfile)
    known = profile_names()
    if text not in known:
        raise ConfigurationError(f"unknown robot '{text}'{suggestion(text, known)} (known: {', '.join(known)}, or the path of a YAML file)")
    return read_document(PROFILE_FOLDER / f"{text}.yaml", RobotProfile)


def _once(names: Iterable[str], key: str, what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{key}: got {what} '{name}' twice, expected it once")
        seen.add(name)


def _partition(got: list[str], expected: tuple[str, ...], key: str) -> None:
    """Refuse unless `got` holds every expected joint exactly once."""
    _once(got, key, "joint")
    for name in got:
        if name not in expected:
            raise ValueError(f"{key}: got unknown joint '{name}'{suggestion(name, list(expected))}")
    for name in expected:
        if name not in got:
            raise ValueError(f"{key}: joint '{name}' is missing")


def _vector(values: Iterable[float]) -> FloatArray:
    array = np.array(list(values), dtype=np.float64)
    array.flags.writeable = False
    return array


def _flags(values: Iterable[bool]) -> BoolArray:
    array = np.array(list(values), dtype=np.bool_)
    array.flags.writeable = False
    return array
