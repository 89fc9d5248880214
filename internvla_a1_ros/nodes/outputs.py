"""How commands leave: one set-point message a tick, or short trajectories that end at rest, on a topic or through an action."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import FOLLOW_TRAJECTORY, Command, QoS
from internvla_a1_ros.runtime.wire_joints import CommandMessage

_S = 1_000_000_000
_UNANSWERED = 20  # trajectories
_SPACING_S = 0.02  # between the points of a way to rest: controllers interpolate
# Times [n] s from the last command on, positions and velocities [n, dof]; the last at rest.
WayToRest = Callable[[float], tuple[FloatArray, FloatArray, FloatArray]]


class Output(Protocol):
    """Where the commands of one topic go. `send` is called once a tick, from the command thread."""

    topic: str

    def send(self, positions: FloatArray, stamp: Any, way: WayToRest, urgent: bool) -> None:
        """Send the command of this tick; `urgent`: what is to be done has changed, nothing may wait for its turn."""
        ...


class SetPoints:
    """Vendor drivers: every tick's command as one message, made once and filled in place."""

    def __init__(self, command: Command, profile: RobotProfile, make: Entities) -> None:
        kind = message_class(command.type)
        self.topic = command.topic
        self._message = CommandMessage(command, profile, kind)
        self._publisher = make.publisher(kind, command.topic, quality(command.qos))

    def send(self, positions: FloatArray, stamp: Any, way: WayToRest, urgent: bool) -> None:
        self._publisher.publish(self._message.fill(positions, stamp))


class Trajectories:
    """joint_trajectory_controllers: every few ticks the way from this command to rest, on the controller's topic.

    Humble to Kilted forget the old trajectory when a new one comes, so each begins at the command; a last point that moves is
    refused, so each ends at rest. The stamp is zero, "now": the controller's clock need not be ours.
    """

    def __init__(self, command: Command, profile: RobotProfile, make: Entities) -> None:
        self.topic = command.topic
        self._message = TrajectoryMessage(command, profile)
        self._publisher = make.publisher(JointTrajectory, command.topic, quality(command.qos))

    def send(self, positions: FloatArray, stamp: Any, way: WayToRest, urgent: bool) -> None:
        trajectory = self._message.due(way, urgent)
        if trajectory is not None:
            self._publisher.publish(trajectory)


class FollowTrajectory:
    """The same through the controller's action, which watches tolerances and answers; each goal replaces the one before.

    A controller that does not answer is asked now and then: what waits for answers must not pile up.
    """

    def __init__(self, command: Command, profile: RobotProfile, make: Entities, say: Callable[[str], None]) -> None:
        self.topic = command.topic
        self._message, self._say = TrajectoryMessage(command, profile), say
        self._goal = message_class(FOLLOW_TRAJECTORY).Goal
        self._client = make.action_client(message_class(FOLLOW_TRAJECTORY), command.topic)
        # rclpy 9.1 keeps two futures of each goal for the executor and forgets one of them for ever. They are called all the same.
        self._client.add_future = lambda future: None
        self._unanswered = 0

    def send(self, positions: FloatArray, stamp: Any, way: WayToRest, urgent: bool) -> None:
        trajectory = self._message.due(way, urgent)
        if trajectory is None:
            return
        self._unanswered += 1
        if self._unanswered == _UNANSWERED:
            self._say(f"{self.topic}: the controller has not answered the last {_UNANSWERED} trajectories; is it there?")
        if urgent or self._unanswered < _UNANSWERED or self._unanswered % _UNANSWERED == 0:
            self._client.send_goal_async(self._goal(trajectory=trajectory)).add_done_callback(self._answered)

    def _answered(self, future: Any) -> None:
        self._unanswered = 0
        if not future.result().accepted:
            self._say(f"{self.topic}: the controller refused a trajectory; is it active, and does it know these joints?")


class TrajectoryMessage:
    """The way to rest as a JointTrajectory, every `every` ticks. Raises ConfigurationError where the joints' units are unknown."""

    def __init__(self, command: Command, profile: RobotProfile) -> None:
        self._slots = [profile.joint_names.index(name) for name in command.joints]
        self._scale, self._offset = (numbers[self._slots] for numbers in profile.commanded)
        self._names, self._lead_s, self._every = list(command.joints), command.lead_s, command.every
        self._ticks = 0

    def due(self, way: WayToRest, urgent: bool) -> JointTrajectory | None:
        """Return the trajectory to send now, if it is time for one."""
        turn = self._ticks % self._every == 0
        self._ticks = 1 if urgent else self._ticks + 1
        return self.of(*way(_SPACING_S)) if turn or urgent else None

    def of(self, times_s: FloatArray, positions: FloatArray, velocities: FloatArray) -> JointTrajectory:
        """Return the rows [n, dof] as points, the first `lead_s` from now, in the topic's units."""
        told, speeds = positions[:, self._slots] * self._scale + self._offset, velocities[:, self._slots] * self._scale
        message = JointTrajectory(joint_names=self._names)
        for time_s, place, speed in zip((times_s + self._lead_s).tolist(), told, speeds, strict=True):
            point = JointTrajectoryPoint()
            point.positions, point.velocities = array("d", place.tobytes()), array("d", speed.tobytes())
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(time_s * 1e9), _S)
            message.points.append(point)
        return message


def make_output(command: Command, profile: RobotProfile, make: Entities, say: Callable[[str], None]) -> Output:
    """Return the output that a command topic asks for; `say` is told what a controller refuses. Raises ConfigurationError."""
    if not command.is_trajectory:
        return SetPoints(command, profile, make)
    if command.type == FOLLOW_TRAJECTORY:
        return FollowTrajectory(command, profile, make, say)
    return Trajectories(command, profile, make)


def check_output(command: Command, profile: RobotProfile) -> None:
    """Raise ConfigurationError where commands could not be sent; makes nothing, for a dry run."""
    if command.is_trajectory:
        TrajectoryMessage(command, profile)
        message_class(command.type)
    else:
        CommandMessage(command, profile, message_class(command.type))


def quality(asked: QoS) -> QoSProfile:
    """Return a profile's quality of service as rclpy's."""
    reliability = ReliabilityPolicy.RELIABLE if asked.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    durability = DurabilityPolicy.TRANSIENT_LOCAL if asked.durability == "transient_local" else DurabilityPolicy.VOLATILE
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=asked.depth, reliability=reliability, durability=durability)
