"""What goes into and comes out of the command loop, one tick at a time.

Threads: callbacks of any thread fill the inbox (each method is one atomic append or assignment under the interpreter's lock);
only the thread that runs the loop drains it and reads the outbox, which is reused every tick.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum

from internvla_a1_ros.core.types import ActionChunk, FloatArray, JointState, Mode, Verdict
from internvla_a1_ros.runtime.tickets import Event, Ticket


class Request(str, Enum):
    """What an operator (a service, the lifecycle) may ask of the command process."""

    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    ARM = "arm"
    DISARM = "disarm"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    READY = "ready"


@dataclass(slots=True, eq=False)
class CommandInbox:
    """What arrived since the last tick, and the levels that hold until they are changed. All times are monotonic.

    `chunks` holds a refusing Verdict in place of a chunk that could not even be converted. `foreign_publisher` says who else
    can command the arms, or that two send plans, None = nobody. Chunks stamped before `instruction_epoch_ns` are refused.
    """

    chunks: deque[ActionChunk | Verdict] = field(default_factory=lambda: deque(maxlen=8))
    requests: deque[Ticket[Request]] = field(default_factory=deque)
    joints: tuple[JointState, int] | None = None
    heartbeat_ns: int | None = None
    speed_scale: float = 1.0
    foreign_publisher: str | None = None
    instruction_epoch_ns: int = 0
    clock_jump: bool = False
    estop_level: bool = False
    estop_edge: bool = False

    def ask(self, request: Request) -> Ticket[Request]:
        """Hand in a request; its verdict is in the ticket after the next tick."""
        ticket = Ticket(request)
        self.requests.append(ticket)
        return ticket

    def see_joints(self, state: JointState, received_ns: int) -> None:
        """Take a measurement and when it was received."""
        self.joints = (state, received_ns)

    def estop(self, pressed: bool) -> None:
        """Take the e-stop's level; a press shorter than a tick is not lost."""
        self.estop_level = pressed
        if pressed:
            self.estop_edge = True


@dataclass(slots=True)
class Counters:
    """What happened since the start; `missed_ticks` is the node's to add to."""

    ticks: int = 0
    missed_ticks: int = 0
    sent: int = 0
    chunks_accepted: int = 0
    chunks_refused: Counter[str] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    clamped_ticks: int = 0
    limited_ticks: int = 0
    limiter_errors: int = 0


@dataclass(slots=True, eq=False)
class CommandOutbox:
    """What to do in this tick.

    `positions` [dof] (the loop's own array: copy to keep) is to be published exactly when `send`; `would_send` says the same in
    a dry run, where `send` is never true. `at_rest` says that nothing is moving any more on our behalf. `sampled_ns` is the
    plan's time used in this tick (0 = none). `chunks` are those taken in this tick, `chunk_verdicts` what was said to each; what is
    in `events` is said once.
    """

    positions: FloatArray
    mode: Mode = Mode.INACTIVE
    armed: bool = False
    send: bool = False
    would_send: bool = False
    at_rest: bool = True
    limited: bool = False
    sampled_ns: int = 0
    reason: str = ""
    events: list[Event] = field(default_factory=list)
    answers: list[Ticket[Request]] = field(default_factory=list)
    chunks: list[ActionChunk | Verdict] = field(default_factory=list)
    chunk_verdicts: list[Verdict] = field(default_factory=list)
