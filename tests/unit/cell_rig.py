"""A cell's world on a fake clock: robots that are armed and obey, a PLC that beats, a head camera that sees what the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internvla_a1_ros.core.types import Verdict
from internvla_a1_ros.robots.document import parse_document
from internvla_a1_ros.runtime.cell import CellSpec, load_cell
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellInbox, CellOutbox, CellRequest, Fact, RobotFact
from internvla_a1_ros.runtime.cell_loop import CellLoop
from internvla_a1_ros.runtime.label_votes import LabelReading, PictureFacts

MS = 1_000_000
STEP = 50 * MS
ROBOT = "arx_ac_one"
HOLD = "Hold still."


def reading(text: str, problem: str = "") -> LabelReading:
    return LabelReading(text, "data_matrix", (0.4, 0.5), "left", 60.0, 0.8, 1.5, problem)


class World:
    """Steps the loop every 50 ms. What is public may be changed by a test; what came out is kept."""

    def __init__(self, spec: CellSpec) -> None:
        self.spec = spec
        self.loop = CellLoop(spec)
        self.inbox = CellInbox()
        self.now_ns = 1_000_000 * MS
        self.modes = {robot.instance: "run" for robot in spec.robots}
        self.armed = True
        self.deaf: set[str] = set()
        self.silent: set[str] = set()
        self.plc_beats = True
        self.sees: tuple[LabelReading, ...] | None = ()
        self.occupied: dict[str, float] = dict.fromkeys(spec.regions, 0.0)
        self.signals: dict[str, bool] = {}
        self.openings: dict[tuple[str, str], float] = {}
        self.belt_m_s: float | None = None
        self.each: Callable[[], None] = lambda: None
        self.told: list[tuple[str, str]] = []
        self.paused: list[str] = []
        self.belts: list[BeltOrder] = []
        self.routes: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.out = CellOutbox()

    def step(self) -> CellOutbox:
        """Let 50 ms pass."""
        self.now_ns += STEP
        self.each()
        inbox, now = self.inbox, self.now_ns
        for instance, mode in self.modes.items():
            if instance not in self.silent:
                inbox.robots[instance] = RobotFact(mode, self.armed and mode not in ("inactive", "stop", "fault"), now)
        if self.plc_beats:
            inbox.plc_ns = now
        if self.sees is not None:
            inbox.pictures.append(PictureFacts(now, self.sees, dict(self.occupied)))
        inbox.signals.update({name: Fact(float(value), now) for name, value in self.signals.items()})
        inbox.openings.update({name: Fact(value, now) for name, value in self.openings.items()})
        if self.belt_m_s is not None:
            inbox.belt_m_s = Fact(self.belt_m_s, now)
        self.out = out = self.loop.step(inbox, now)
        inbox.clock_jump = False
        self._keep(out)
        return out

    def _keep(self, out: CellOutbox) -> None:
        for instance, text in out.instructions:
            self.told.append((instance, text))
            if instance not in self.deaf:
                self.inbox.followed[instance] = text
        self.paused += out.pause
        if not self.belts or out.belt != self.belts[-1]:
            self.belts.append(out.belt)
        self.routes += [out.route.name] if out.route is not None else []
        self.results += [out.result] if out.result is not None else []
        self.said += [event.text for event in out.events]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 1e9 / STEP)):
            self.step()

    def until(self, done: Callable[[], bool], seconds: float = 60.0) -> None:
        for _ in range(round(seconds * 1e9 / STEP)):
            if done():
                return
            self.step()
        raise AssertionError(f"waited {seconds} s in vain: {self.loop.state} {self.steps()} {self.said[-3:]}")

    def ask(self, request: CellRequest) -> Verdict:
        ticket = self.inbox.ask(request)
        self.step()
        assert ticket.verdict is not None
        return ticket.verdict

    def steps(self) -> dict[str, str]:
        task = self.loop.task
        return {run.step.id: run.state.value for run in task.runs} if task is not None else {}

    def last(self, instance: str) -> str:
        """What a robot was told last."""
        return next(text for robot, text in reversed(self.told) if robot == instance)


def world(**changes: object) -> World:
    """Express sorting with keys changed, started; both grippers are open."""
    content = load_cell("express_sorting").model_dump(exclude_none=True) | changes
    made = World(parse_document(content, CellSpec, "cell"))
    made.openings = {(ROBOT, "left_gripper"): 1.0, (ROBOT, "right_gripper"): 1.0}
    made.step()
    assert made.ask(CellRequest.START)
    return made


def one_step(**changes: object) -> World:
    """A cell with one step, which a signal ends."""
    step = {"id": "do", "robots": [ROBOT], "instruction": "Do it.", "success": {"signal": "done"}, "timeout_s": 3.0, **changes}
    return world(steps=[step], signals={"done": {"topic": "cell/done"}}, routes=[], default_route=None)


def arrive(made: World, text: str = "") -> None:
    """Let the PLC announce a parcel."""
    made.inbox.arrivals.append(text)
    made.step()
