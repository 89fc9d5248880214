"""What one robot type is: joints and limits, topics, cameras, grippers, the layout of its data. Values live in YAML."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.document import Document, overlaid, parse_document, read_mapping
from internvla_a1_ros.robots.parts import Dataset, Gripper, Joint, Motion
from internvla_a1_ros.robots.wires import Affine, Camera, Command, JointTopic, NonEmpty, NotNegative, Positive

BoolArray = npt.NDArray[np.bool_]

PROFILE_FOLDER = Path(__file__).parent


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
    commands: Annotated[tuple[Command, ...], Field(min_length=1)]
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1)]
    grippers: tuple[Gripper, ...] = ()
    dataset: Dataset
    other_datasets: tuple[Dataset, ...] = ()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> RobotProfile:
        names = self.joint_names
        _once(names, "joints", "joint")
        _once((camera.name for camera in self.cameras), "cameras", "camera")
        _once((camera.topic for camera in self.cameras), "cameras", "topic")
        for joint in self.joints:
            if joint.motion is None and joint.kind not in self.motion:
                raise ValueError(f"motion: got none for kind '{joint.kind}', expected limits for joint '{joint.name}'")
        _once((topic.topic for topic in self.states), "states", "topic")
        _partition([name for topic in self.states for name in topic.joints], names, "states")
        _once((command.topic for command in self.commands), "commands", "topic")
        _partition([name for command in self.commands for name in command.joints], names, "commands")
        for command in self.commands:
            if command.is_trajectory and command.lead_s < command.every / self.control_rate_hz:
                raise ValueError(
                    f"commands: {command.topic}: got lead_s {command.lead_s}, expected at least {command.every / self.control_rate_hz:g}, "
                    f"the time until the next trajectory"
                )
        kinds = {joint.name: joint.kind for joint in self.joints}
        _partition([g.joint for g in self.grippers], tuple(n for n in names if kinds[n] == "gripper"), "grippers")
        for i, dataset in enumerate(self.datasets):
            place = f"other_datasets.{i - 1}" if i else "dataset"
            if sum(abs(run) for run in dataset.delta_mask) != self.dof:
                raise ValueError(f"{place}.delta_mask: got {list(dataset.delta_mask)}, expected runs that add up to {self.dof} joints")
            if len(dataset.image_keys) != len(self.cameras):
                raise ValueError(
                    f"{place}.image_keys: got {len(dataset.image_keys)} keys, expected {len(self.cameras)}, one for each camera"
                )
        if self.cameras[0].optional:
            name = self.cameras[0].name
            raise ValueError(f"cameras.0: got optional camera '{name}', expected a required one: its time is the observation's")
        return self

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Every layout this robot was recorded in, the usual one first."""
        return (self.dataset, *self.other_datasets)

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
    def max_step(self) -> FloatArray:
        """Distance between command and measurement at which the robot would refuse [dof]; infinite where the profile names none."""
        return _vector(np.inf if motion.max_step is None else motion.max_step for motion in self._motions)

    @cached_property
    def measured(self) -> tuple[FloatArray, FloatArray]:
        """Scales and offsets [dof] from what the state topics say to positions."""
        maps = [joint.measured for joint in self.joints]
        return _vector(m.scale for m in maps), _vector(m.offset for m in maps)

    @cached_property
    def commanded(self) -> tuple[FloatArray, FloatArray]:
        """Scales and offsets [dof] from positions to what the command topics are told; ConfigurationError where one is required."""
        self.require_known()
        maps = [joint.commanded if isinstance(joint.commanded, Affine) else joint.measured.inverse for joint in self.joints]
        return _vector(m.scale for m in maps), _vector(m.offset for m in maps)

    @classmethod
    def editor_schema(cls) -> dict[str, Any]:
        """Return the JSON schema with which editors check and complete profiles; one that rests on a `base` may leave keys out."""
        schema = cls.model_json_schema()
        schema["properties"]["base"] = {"type": "string", "description": "a profile of which this one says only what differs"}
        schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["base"]}]
        return schema

    def require_known(self) -> None:
        """Raise ConfigurationError where the profile leaves something `required` that only this robot's owner can know."""
        unknown = [f"commanded of joint '{joint.name}'" for joint in self.joints if joint.commanded == "required"]
        for gripper in self.grippers:
            unknown += [f"{part} of gripper '{gripper.joint}'" for part in ("state", "action") if getattr(gripper, part) == "required"]
        if unknown:
            advice = next((g.find_out for g in self.grippers if g.find_out), "measure it on the robot")
            raise ConfigurationError(f"robot '{self.name}': {', '.join(unknown)} is required and has no default: {advice}")

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
    """Return a profile by its name, or from a YAML file, which may say only what differs from another (`base`).

    Raises ConfigurationError in one sentence.
    """
    path = _profile_path(str(name_or_path))
    return parse_document(_with_base(read_mapping(path), path, ()), RobotProfile, str(path))


def load_usable_profile(name_or_path: str | Path) -> RobotProfile:
    """Return a profile that leaves nothing `required`: what a robot is driven with. Raises ConfigurationError in one sentence."""
    profile = load_profile(name_or_path)
    profile.require_known()
    return profile


def _profile_path(text: str) -> Path:
    if "/" in text or text.endswith((".yaml", ".yml")):
        return Path(text)
    known = profile_names()
    if text not in known:
        raise ConfigurationError(f"unknown robot '{text}'{suggestion(text, known)} (known: {', '.join(known)}, or the path of a YAML file)")
    return PROFILE_FOLDER / f"{text}.yaml"


def _with_base(content: dict[str, Any], path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Return `content` laid over the profile it names as its `base`, which may have one too. A relative path starts at the file."""
    if "base" not in content:
        return content
    base = content["base"]
    if not isinstance(base, str):
        raise ConfigurationError(f"{path}: base: got {base!r}, expected the name of a profile or the path of a YAML file")
    found = _profile_path(base)
    found = found if found.is_absolute() else path.parent / found
    if found in (path, *below):
        raise ConfigurationError(f"{path}: base: got '{base}', which rests on this file itself")
    own = {key: value for key, value in content.items() if key != "base"}
    merged: dict[str, Any] = overlaid(_with_base(read_mapping(found), found, (path, *below)), own)
    return merged


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
