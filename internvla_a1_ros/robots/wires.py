"""What goes over a robot's wires: topics, their quality of service, and the units in which numbers travel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from internvla_a1_ros.robots.document import Document

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NonEmpty = Annotated[str, Field(min_length=1)]
Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*$")]
MessageType = Annotated[str, Field(pattern=r"^\w+/msg/\w+$")]
CommandType = Annotated[str, Field(pattern=r"^\w+/(msg|action)/\w+$")]
# Stands where public sources contradict each other: the robot cannot be used before its owner has found out.
Required = Literal["required"]

TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
FOLLOW_TRAJECTORY = "control_msgs/action/FollowJointTrajectory"
_OTHER_DOOR = {"joint_trajectory": "follow_joint_trajectory", "follow_joint_trajectory": "joint_trajectory"}


class QoS(Document):
    """Quality of service of a topic we publish on. What we subscribe to is taken best effort, which matches every publisher."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: Annotated[int, Field(ge=1, le=1000)] = 10


class Affine(Document):
    """`out = scale * in + offset`."""

    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _can_be_undone(self) -> Affine:
        if self.scale == 0.0:
            raise ValueError("scale: got 0, expected a number that can be divided by")
        return self

    @property
    def inverse(self) -> Affine:
        """The map back."""
        return Affine(scale=1.0 / self.scale, offset=-self.offset / self.scale)


class JointTopic(Document):
    """A topic that carries joints: `joints` sit in `field` of message `type`, in this order.

    `field` is an array of numbers, or `array.member` where the array's elements are messages. Where the message carries names the
    joints are found by them, unless `names` says that they mean nothing; elsewhere they stand from slot `first` on.
    """

    topic: Topic
    type: MessageType
    field: Annotated[str, Field(pattern=r"^\w+(\.\w+)?$")]
    first: Annotated[int, Field(ge=0)] = 0
    joints: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    names: Literal["match", "ignore"] = "match"


class Command(Document):
    """A topic, or an action, that moves joints: `joints` in this order.

    Set-points (any message with an array `field`, from slot `first` on) are sent every tick. A JointTrajectory, or the action
    FollowJointTrajectory, is sent every `every` ticks: it reaches the command `lead_s` from now and then brakes to rest, so that the
    arm stops by itself when nothing follows. `lead_s` is at least the time until the next one.
    """

    topic: Topic
    type: CommandType
    field: Annotated[str, Field(pattern=r"^\w+$")] = "points"
    first: Annotated[int, Field(ge=0)] = 0
    joints: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    qos: QoS = QoS()
    every: Annotated[int, Field(ge=1, le=20)] = 1
    lead_s: Annotated[float, Field(gt=0, le=0.5)] = 0.02

    @model_validator(mode="after")
    def _back_end_is_known(self) -> Command:
        if "/action/" in self.type and self.type != FOLLOW_TRAJECTORY:
            raise ValueError(f"{self.topic}: got action '{self.type}', expected {FOLLOW_TRAJECTORY} or a message")
        if not self.is_trajectory and self.every != 1:
            raise ValueError(f"{self.topic}: every: got {self.every}, expected 1: set-points are sent each tick")
        return self

    @property
    def is_trajectory(self) -> bool:
        """Whether it takes trajectories rather than set-points."""
        return self.type in (TRAJECTORY, FOLLOW_TRAJECTORY)

    @property
    def doors(self) -> tuple[tuple[str, bool], ...]:
        """By what names the joints are told to move, and whether it is an action: this one first.

        A joint_trajectory_controller obeys its topic and its action, whichever we use.
        """
        controller, _, last = self.topic.rpartition("/")
        other = _OTHER_DOOR.get(last) if self.is_trajectory else None
        own = (self.topic, self.type == FOLLOW_TRAJECTORY)
        return (own, (f"{controller}/{other}", not own[1])) if other else (own,)


class Camera(Document):
    """One camera. `delay_s` is from light to stamp (calibrated); an `optional` camera that dies is masked, any other blocks.

    `encodings` and `size` [width, height] are what the robot is known to send, for whoever checks; every encoding we can read is read.
    """

    name: NonEmpty
    topic: Topic
    type: Literal["image", "compressed"]
    rate_hz: Positive
    delay_s: NotNegative = 0.0
    optional: bool = False
    encodings: tuple[NonEmpty, ...] = ()
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
