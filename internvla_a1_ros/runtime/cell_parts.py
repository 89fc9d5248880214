"""What a cell is wired to: robots and where their topics lie, the head camera, belt, PLC, and what makes work begin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.wires import NonEmpty, NotNegative, Positive, Topic

Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
Namespace = Annotated[str, Field(pattern=r"^([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?$")]
Prefix = Annotated[str, Field(pattern=r"^((/[A-Za-z_]\w*)+)?$")]


def below(namespace: str, name: str) -> str:
    """Return a topic's full name: a relative one lies below `namespace`, an absolute one stays."""
    return name if name.startswith("/") else "/" + "/".join(part for part in (namespace, name) if part)


class CellRobot(Document):
    """One robot: its own name, its profile, and where its topics lie.

    What is ours (instruction, command/state, policy/chunk) lies below `namespace`. A profile's topics are mostly absolute and do
    not move with a namespace: `prefix` is put before all of those, `remap` moves single ones. Whoever starts this robot's policy
    and command process remaps their topics to `topic(name)`.
    """

    instance: NonEmpty
    profile: NonEmpty
    namespace: Namespace = ""
    prefix: Prefix = ""
    remap: dict[Topic, Topic] = {}
    checkpoint: str = ""

    def topic(self, name: str) -> str:
        """Return the full name under which this robot has what its profile, or we, call `name`."""
        if name in self.remap:
            return below(self.namespace, self.remap[name])
        return self.prefix + name if name.startswith("/") else below(self.namespace, name)


class HeadCamera(Document):
    """Whose picture is read: a robot of this cell and a camera of its profile; at most `look_hz` pictures a second, while it works."""

    robot: NonEmpty
    camera: NonEmpty
    look_hz: Annotated[float, Field(gt=0, le=60)] = 10.0


class BoolWire(Document):
    """A topic that carries true or false."""

    topic: Topic
    type: Literal["std_msgs/msg/Bool"] = "std_msgs/msg/Bool"


class TextWire(Document):
    """A topic that carries text."""

    topic: Topic
    type: Literal["std_msgs/msg/String"] = "std_msgs/msg/String"


class SpeedWire(Document):
    """A topic that carries metres per second."""

    topic: Topic
    type: Literal["std_msgs/msg/Float64", "std_msgs/msg/Float32"] = "std_msgs/msg/Float64"


class ArrivalWire(Document):
    """A topic that says that a parcel is there: a Bool that becomes true, or a String for each, whose text is passed on."""

    topic: Topic
    type: Literal["std_msgs/msg/Bool", "std_msgs/msg/String"] = "std_msgs/msg/Bool"


class RouteWire(Document):
    """A topic that says where a parcel goes: the route's name, or its `lane` as a number."""

    topic: Topic
    type: Literal["std_msgs/msg/String", "std_msgs/msg/Int32"] = "std_msgs/msg/String"


class Heartbeat(Document):
    """A topic whose silence for `timeout_s` stops the cell. `must_change`: a bridge that repeats the last value for ever is silence too."""

    topic: Topic
    type: Literal["std_msgs/msg/Bool", "std_msgs/msg/Int32", "std_msgs/msg/Empty"] = "std_msgs/msg/Bool"
    timeout_s: Positive = 1.0
    must_change: bool = False

    @model_validator(mode="after")
    def _something_can_change(self) -> Heartbeat:
        if self.must_change and self.type == "std_msgs/msg/Empty":
            raise ValueError("must_change: got true for std_msgs/msg/Empty, expected a Bool or Int32, which can change")
        return self


class Belt(Document):
    """The belt: `run` and `speed` are published, `status` (measured speed) is read where there is one.

    Where it does not do within `answer_s` what it was told, the cell halts.
    """

    run: BoolWire
    speed: SpeedWire
    status: SpeedWire | None = None
    speed_m_s: NotNegative
    max_speed_m_s: Positive
    answer_s: Positive = 2.0

    @model_validator(mode="after")
    def _within_its_limit(self) -> Belt:
        if self.speed_m_s > self.max_speed_m_s:
            raise ValueError(f"speed_m_s: got {self.speed_m_s}, expected at most max_speed_m_s {self.max_speed_m_s}")
        return self


class Plc(Document):
    """What is exchanged with the PLC. Read: arrival, heartbeat, acknowledge (becomes true). Published: result (JSON), route, help."""

    heartbeat: Heartbeat
    arrival: ArrivalWire | None = None
    acknowledge: BoolWire | None = None
    result: TextWire | None = None
    route: RouteWire | None = None
    help: BoolWire | None = None


class Arrival(Document):
    """When work begins: the PLC says so, a code is read, a region becomes occupied, or at once after the last.

    What arrives while the cell is busy is kept for `keep_s` (one, the newest), else it is counted as missed.
    """

    by: Literal["plc", "label", "region", "at_once"]
    region: Name | None = None
    keep_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _region_where_needed(self) -> Arrival:
        if (self.by == "region") != (self.region is not None):
            raise ValueError(f"arrival: got by '{self.by}' and region {self.region!r}, expected a region exactly with by 'region'")
        return self
