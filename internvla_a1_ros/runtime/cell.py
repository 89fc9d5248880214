"""What a cell is: robots, topics, belt, PLC, labels, instructions per step. Values live in `launch/cells/*.yaml`, no code does."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.robots.document import Document, read_document
from internvla_a1_ros.robots.profile import RobotProfile, load_profile
from internvla_a1_ros.robots.wires import Camera, NonEmpty, Positive
from internvla_a1_ros.runtime.cell_parts import Arrival, Belt, BoolWire, CellRobot, HeadCamera, Name, Plc, below
from internvla_a1_ros.runtime.cell_steps import Check, Grip, Labels, Order, Region, Route, Step

# Ours, below each robot's namespace: what the cell says and hears.
INSTRUCTION, FOLLOWED, COMMAND_STATE, PAUSE = "instruction", "policy/instruction", "command/state", "command/pause"


class CellSpec(Document):
    """One cell. `heard_s`: how long a policy may take to repeat an instruction; `robot_timeout_s`: how long a robot may be silent."""

    name: Name
    title: NonEmpty
    robots: Annotated[tuple[CellRobot, ...], Field(min_length=1)]
    head_camera: HeadCamera | None = None
    arrival: Arrival
    belt: Belt | None = None
    plc: Plc | None = None
    labels: Labels | None = None
    regions: dict[Name, Region] = {}
    signals: dict[Name, BoolWire] = {}
    grip: Grip = Grip()
    order: Order | None = None
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    routes: tuple[Route, ...] = ()
    default_route: Route | None = None
    hold_instruction: NonEmpty = "Hold still."
    robot_timeout_s: Positive = 1.0
    heard_s: Positive = 2.0

    @model_validator(mode="after")
    def _parts_fit_together(self) -> CellSpec:
        self._robots_are_apart()
        if self.head_camera is not None:
            _ = self.camera
        elif self.labels is not None or self.regions:
            raise ValueError("head_camera: got none, expected the robot and camera whose picture labels and regions are read from")
        self._arrival_can_come()
        self._steps_are_reachable()
        self._order_adds_up()
        self._routes_are_whole()
        return self

    # What the parts mean together

    @cached_property
    def profiles(self) -> dict[str, RobotProfile]:
        """Each robot's profile by its instance. Raises ConfigurationError."""
        return {robot.instance: load_profile(robot.profile) for robot in self.robots}

    def robot(self, instance: str) -> CellRobot:
        """Return a robot by its own name."""
        return next(robot for robot in self.robots if robot.instance == instance)

    def step(self, name: str) -> Step:
        """Return a step by its id."""
        return next(step for step in self.steps if step.id == name)

    @cached_property
    def camera(self) -> Camera:
        """The camera that is read; its topic is `robot(...).topic(camera.topic)`. Raises ValueError where the cell has none such."""
        assert self.head_camera is not None
        self._known_robot(self.head_camera.robot, "head_camera.robot")
        cameras = {camera.name: camera for camera in self.profiles[self.head_camera.robot].cameras}
        _known(self.head_camera.camera, cameras, "head_camera.camera", "camera")
        return cameras[self.head_camera.camera]

    def after(self, step: Step) -> tuple[str, ...]:
        """Return the ids of the steps that must be done before `step` begins."""
        if step.after is not None:
            return step.after
        index = self.steps.index(step)
        return (self.steps[index - 1].id,) if index else ()

    def route_of(self, label: str) -> Route | None:
        """Return the first route that takes `label`, else the default one, None where there are no routes."""
        return next((route for route in self.routes if route.takes(label)), self.default_route)

    def gripper_robot(self, step: Step, check: Check) -> str:
        """Return whose gripper `check` of `step` looks at."""
        return check.robot if check.robot is not None else step.robots[0]

    # What is refused

    def _robots_are_apart(self) -> None:
        _once((robot.instance for robot in self.robots), "robots: got instance")
        _once((robot.namespace for robot in self.robots), "robots: got namespace")
        for index, robot in enumerate(self.robots):
            names = [topic for _, topic in _profile_topics(self.profiles[robot.instance])]
            for moved in robot.remap:
                _known(moved, [*names, INSTRUCTION, FOLLOWED, COMMAND_STATE], f"robots.{index}.remap", "topic")
        owners: dict[str, str] = {}
        for topic, owner in self._claims():
            if topic in owners:
                raise ValueError(_collision(topic, owners[topic], owner))
            owners[topic] = owner

    def _claims(self) -> Iterator[tuple[str, str]]:
        """Every topic of the cell and who has it."""
        for robot in self.robots:
            for kind, topic in _profile_topics(self.profiles[robot.instance]):
                yield robot.topic(topic), f"robot '{robot.instance}' ({kind})"
            for topic in (INSTRUCTION, FOLLOWED, COMMAND_STATE):
                yield robot.topic(topic), f"robot '{robot.instance}'"
        for key, part in (("belt", self.belt), ("plc", self.plc), ("signals", self.signals)):
            wires = part if isinstance(part, dict) else dict(part or {})
            for name, wire in wires.items():
                if hasattr(wire, "topic"):
                    yield below("", wire.topic), f"{key}.{name}"

    def _known_robot(self, instance: str, where: str) -> None:
        _known(instance, [robot.instance for robot in self.robots], where, "robot")

    def _arrival_can_come(self) -> None:
        if self.arrival.by == "plc" and (self.plc is None or self.plc.arrival is None):
            raise ValueError("arrival: got by 'plc', expected plc.arrival to name the topic")
        if self.arrival.by == "label" and self.labels is None:
            raise ValueError("arrival: got by 'label', expected labels to say which")
        if self.arrival.region is not None:
            _known(self.arrival.region, self.regions, "arrival.region", "region")

    def _steps_are_reachable(self) -> None:
        _once((step.id for step in self.steps), "steps: got id")
        before: list[str] = []
        decided: set[str] = set()  # steps that begin only after a label was decided
        for index, step in enumerate(self.steps):
            where = f"step '{step.id}'"
            for other in step.after or ():
                if other not in before:
                    near = suggestion(other, before) or ": it would never begin"
                    raise ValueError(f"{where}: after: got '{other}', expected steps before it{near}")
            for instance in step.robots:
                self._known_robot(instance, f"steps.{index}.robots")
            for key, check in step.checks:
                self._check_is_known(step, check, f"{where}: {key}")
            if step.belt_m_s is not None and (self.belt is None or step.belt_m_s > self.belt.max_speed_m_s):
                limit = "a belt" if self.belt is None else f"at most {self.belt.max_speed_m_s}"
                raise ValueError(f"{where}: belt_m_s: got {step.belt_m_s}, expected {limit}")
            known = any(other in decided for other in self.after(step))
            if step.when is not None and not known:
                raise ValueError(f"{where}: when: got '{step.when}', expected a step before it whose success is 'label: decided'")
            if step.fields and self.default_route is None:
                raise ValueError(f"{where}: instruction: got {{route}}, expected routes and a default_route")
            if known or step.success.label == "decided":
                decided.add(step.id)
            before.append(step.id)

    def _check_is_known(self, step: Step, check: Check, where: str) -> None:
        if check.label is not None and self.labels is None:
            raise ValueError(f"{where}: got label, expected labels to say which")
        if check.signal is not None:
            _known(check.signal, self.signals, where, "signal")
        if check.region is not None:
            _known(check.region, self.regions, where, "region")
        if check.gripper is None:
            return
        if check.robot is None and len(step.robots) != 1:
            raise ValueError(f"{where}: got gripper '{check.gripper}' and {len(step.robots)} robots, expected robot to say whose it is")
        instance = self.gripper_robot(step, check)
        self._known_robot(instance, where)
        _known(check.gripper, [gripper.joint for gripper in self.profiles[instance].grippers], where, "gripper")

    def _order_adds_up(self) -> None:
        placed = Counter(step.piece for step in self.steps if step.piece is not None)
        wanted = Counter(self.order.pieces if self.order is not None else {})
        for piece in {**wanted, **placed}:
            if placed[piece] != wanted[piece]:
                raise ValueError(f"order: got {placed[piece]} steps with piece '{piece}', expected {wanted[piece]}")

    def _routes_are_whole(self) -> None:
        numbered = self.plc is not None and self.plc.route is not None and self.plc.route.type == "std_msgs/msg/Int32"
        _once((route.name for route in self.routes), "routes: got name")
        if self.routes and self.default_route is None:
            raise ValueError("default_route: got none, expected where labels go that no route takes")
        if self.routes and self.labels is None:
            raise ValueError("routes: got some, expected labels to say which codes are read")
        for route in self.routes:
            if (route.prefix is None) == (route.pattern is None):
                raise ValueError(f"route '{route.name}': got prefix {route.prefix!r} and pattern {route.pattern!r}, expected one of them")
        for route in (*self.routes, *([self.default_route] if self.default_route else [])):
            if numbered and route.lane is None:
                raise ValueError(f"route '{route.name}': got no lane, expected a number: plc.route is std_msgs/msg/Int32")


def _profile_topics(profile: RobotProfile) -> Iterator[tuple[str, str]]:
    yield from (("state", wire.topic) for wire in profile.states)
    yield from (("command", wire.topic) for wire in profile.commands)
    yield from (("camera", camera.topic) for camera in profile.cameras)


def _collision(topic: str, first: str, second: str) -> str:
    hint = ""
    if first.startswith("robot") and second.startswith("robot"):
        hint = "; a profile's absolute topics do not move with a namespace: give one robot a prefix or remap the topic"
    return f"{first} and {second} collide on topic {topic}, expected a topic of its own for each{hint}"


def _once(names: Iterable[str], what: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} '{name}' {count} times, expected it once")


def _known(name: str, known: Iterable[str], where: str, what: str) -> None:
    names = list(known)
    if name not in names:
        near = suggestion(name, names) or f" (known: {', '.join(names) or 'none'})"
        raise ValueError(f"{where}: unknown {what} '{name}'{near}")


def cells_folder() -> Path:
    """Return where the cells of this installation lie: in the checkout, else in the package's share folder."""
    checkout = Path(__file__).resolve().parents[2] / "launch" / "cells"
    if checkout.is_dir():
        return checkout
    shares = [parent / "share" / "internvla_a1_ros" for parent in Path(__file__).resolve().parents]
    shares.append(Path(sysconfig.get_paths()["data"]) / "share" / "internvla_a1_ros")
    return next((share for share in shares if share.is_dir()), shares[-1]) / "launch" / "cells"


def cell_names() -> list[str]:
    """Return the names of the cells that come with the package."""
    return sorted(path.stem for path in cells_folder().glob("*.yaml"))


def load_cell(name_or_path: str | Path) -> CellSpec:
    """Return a cell by its name, or from a YAML file. Raises ConfigurationError in one sentence."""
    text = str(name_or_path)
    if "/" in text or text.endswith((".yaml", ".yml")):
        return read_document(Path(text).expanduser(), CellSpec)
    known = cell_names()
    if text not in known:
        names = ", ".join(known) or "none"
        raise ConfigurationError(f"unknown cell '{text}'{suggestion(text, known)} (known: {names}, or the path of a YAML file)")
    return read_document(cells_folder() / f"{text}.yaml", CellSpec)
