"""What a robot consists of: joints and how they may move, grippers, the layout of its recordings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.wires import Affine, NonEmpty, NotNegative, Positive, Required


class Motion(Document):
    """Limits of motion of one kind of joint, in the joint's unit (radians, or the gripper's readout) and seconds.

    The stop pair is used by e-stop and fault only; it is never below the normal pair. `max_tracking_error` is the distance
    between command and measurement that counts as failed when it lasts; absent where the joint may be blocked on purpose
    (a gripper around a parcel). `max_step` is the distance at which it has failed at once, below what the robot itself refuses.
    `margin` is how far beyond a position limit a plan may ask before it is refused whole.
    """

    max_velocity: Positive
    max_acceleration: Positive
    max_jerk: Positive
    stop_acceleration: Positive
    stop_jerk: Positive
    margin: NotNegative
    max_tracking_error: Positive | None = None
    max_step: Positive | None = None

    @model_validator(mode="after")
    def _stop_is_not_softer(self) -> Motion:
        for normal, stop in (("max_acceleration", "stop_acceleration"), ("max_jerk", "stop_jerk")):
            if getattr(self, stop) < getattr(self, normal):
                raise ValueError(f"{stop}: got {getattr(self, stop)}, expected at least {normal} {getattr(self, normal)}")
        return self


class Joint(Document):
    """One joint, in the order of the robot's state and action vectors; `ready` and `home` are its places in those poses, if it has any.

    All positions here are the joint's own. `measured` makes them of what the state topic says (a sign, a zero offset, another unit),
    `commanded` makes of them what the command topic is told; absent it is `measured` backwards.
    """

    name: NonEmpty
    kind: Literal["arm", "gripper"]
    lower: float
    upper: float
    ready: float | None = None
    home: float | None = None
    measured: Affine = Affine()
    commanded: Affine | Required | None = None
    motion: Motion | None = None

    @model_validator(mode="after")
    def _limits_are_not_crossed(self) -> Joint:
        if self.lower >= self.upper:
            raise ValueError(f"joint '{self.name}': got lower {self.lower} and upper {self.upper}, expected lower below upper")
        for pose, place in (("ready", self.ready), ("home", self.home)):
            if place is not None and not self.lower <= place <= self.upper:
                raise ValueError(f"joint '{self.name}': got {pose} {place}, expected {self.lower} to {self.upper}")
        return self


class Gripper(Document):
    """One gripper: `state` maps the joint's position to the model's unit, `action` the model's unit to a position to command.

    `closed` and `open` are positions. `zero_state`: the model never saw the gripper and reads 0. `binarize`: the model's answer above
    it commands `above` (a position), any other the other end. `find_out` says how to settle what is `required`.
    """

    joint: NonEmpty
    closed: float
    open: float
    state: Affine | Required = Affine()
    action: Affine | Required = Affine()
    zero_state: bool = False
    binarize: float | None = None
    above: Literal["open", "closed"] = "open"
    find_out: str = ""


class Dataset(Document):
    """How recordings and `stats.json` of this robot are laid out; vectors are concatenated in the order of the keys.

    `delta_mask` counts runs of joints: positive = deltas in delta checkpoints, negative = always absolute.
    """

    robot_types: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    state_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    action_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    image_keys: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    delta_mask: Annotated[tuple[int, ...], Field(min_length=1)]
