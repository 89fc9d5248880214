"""A cell's loop: parcel present, instruct, check, count. `step(inbox, now_ns) -> outbox`; no ROS, no clock.

It moves no arm. What it has on the robots is an instruction's text, and the wish that they pause: whenever the cell leaves `waiting` and
`working` for another state, the belt stops, every robot is told to hold and asked to pause. It never asks a robot to go on: a person does.
"""

from __future__ import annotations

from collections import Counter

from internvla_a1_ros.core.types import Verdict, refused
from internvla_a1_ros.runtime.cell import CellSpec
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellInbox, CellOutbox, CellRequest
from internvla_a1_ros.runtime.cell_machine import CellEvent, CellState, StepEvent, StepState, cell_transition
from internvla_a1_ros.runtime.cell_senses import Senses
from internvla_a1_ros.runtime.cell_task import StepRun, Task
from internvla_a1_ros.runtime.cell_watch import follows_plans, trouble
from internvla_a1_ros.runtime.label_votes import LabelDecision, Lying
from internvla_a1_ros.runtime.tickets import Event

# A policy that was started anew follows its own first instruction: it is told again.
_TELL_AGAIN_NS = _ASK_AGAIN_NS = 500_000_000
# No news while the cell holds: that the robots pause is its own wish, and a jump of the clock can stop nothing any more.
_NO_NEWS = ("robot_pause", "clock_jump")


class CellLoop:
    """Runs one cell. `state`, `reason` (why it holds), `counts` and `task` are there to be read after each step."""

    def __init__(self, spec: CellSpec) -> None:
        self.spec = spec
        self.state = CellState.STOPPED
        self.reason = "not started"
        self.counts: Counter[str] = Counter()
        self.task: Task | None = None
        self._senses = Senses(spec)
        self._told: dict[str, tuple[str, int]] = {}
        self._belt, self._belt_since_ns = BeltOrder(), 0
        self._next: tuple[str, int] | None = None
        self._since_ns = 0
        self._last_label = ""
        self._was_empty = True
        self._said = ""
        # Who owes a pause: since when, and when it was asked last.
        self._owed: dict[str, tuple[int, int]] = {}

    def step(self, inbox: CellInbox, now_ns: int) -> CellOutbox:
        """Take what arrived and return what to do."""
        out, before = CellOutbox(), self.state
        wrong = trouble(self.spec, inbox, self._belt, self._belt_since_ns, now_ns)
        if inbox.clock_jump:
            inbox.forget()
            self._senses.forget()
        self._senses.take(inbox, now_ns)
        self._note_arrivals(inbox, now_ns)
        while inbox.requests:
            ticket = inbox.requests.popleft()
            ticket.verdict = self._request(ticket.request, wrong, now_ns, out)
        self._mind(wrong, out)
        if self.state is CellState.WAITING and self._has_work(now_ns):
            self.state, _ = cell_transition(self.state, CellEvent.TASK)
        if self.state is CellState.WORKING:
            self._work(inbox, now_ns, out)
        out.pause = self._to_pause(before.active, inbox, now_ns)
        self._order_belt(now_ns)
        self._instruct(inbox, now_ns, out)
        out.state, out.reason, out.belt = self.state, self.reason, self._belt
        out.help = self.state in (CellState.HELP, CellState.HALTED)
        return out

    def _to_pause(self, was_active: bool, inbox: CellInbox, now_ns: int) -> list[str]:
        """Return who is to be asked to pause: all when the cell stops, again and again who has not been seen at rest since."""
        if self.state.active:
            self._owed.clear()
        elif was_active:
            self._owed = {robot.instance: (now_ns, now_ns) for robot in self.spec.robots}
            return list(self._owed)
        asked = []
        for robot, (since_ns, asked_ns) in list(self._owed.items()):
            fact = inbox.robots.get(robot)
            if fact is not None and fact.seen_ns > since_ns and not follows_plans(fact):
                del self._owed[robot]  # from here on a person may let it go on
            elif now_ns - asked_ns >= _ASK_AGAIN_NS:
                self._owed[robot] = (since_ns, now_ns)
                asked.append(robot)
        return asked

    # Requests, and what stops the cell

    def _request(self, request: CellRequest, wrong: Verdict, now_ns: int, out: CellOutbox) -> Verdict:
        if request is CellRequest.RESET_COUNTS:
            self.counts.clear()
            return Verdict(True, reason="counts are at zero")
        event = CellEvent[request.name]
        after, verdict = cell_transition(self.state, event)
        if verdict and event is CellEvent.GIVE_UP and self.task is None:
            verdict = refused("give_up_refused", "nothing is being worked on")
        if verdict and after.active and not self.state.active and not wrong:
            verdict = wrong
        if not verdict:
            out.events.append(Event("warn", verdict.code, f"{request.value} refused: {verdict.reason}"))
            return Verdict(False, verdict.code, f"{request.value}: {verdict.reason}")
        if event is CellEvent.GIVE_UP:
            self._end_task("given_up", now_ns, out, reason="given up by an operator")
        if after.active and not self.state.active:
            self._told.clear()  # whatever was said to the robots meanwhile, they are told anew
            self._since_ns = now_ns
            if self.task is not None:
                self.task.again()
        self.state = after
        self.reason = "" if after.active else self.reason if after is not CellState.STOPPED else event.value
        out.events.append(Event("info", event.name.lower(), f"{self.spec.name}: {event.value}"))
        return Verdict(True, reason=f"{self.spec.name}: {event.value}")

    def _mind(self, wrong: Verdict, out: CellOutbox) -> None:
        """Halt where something outside is wrong. Holding already, say what else is wrong, once per change."""
        if not wrong and self.state.active:
            self.counts[f"halt_{wrong.code}"] += 1
            self._hold(CellEvent.TROUBLE, wrong, out)
        elif not wrong and self.state is not CellState.STOPPED and wrong.code not in (self._said, *_NO_NEWS):
            self._said = wrong.code
            out.events.append(Event("warn", wrong.code, wrong.reason))

    def _hold(self, event: CellEvent, why: Verdict, out: CellOutbox) -> None:
        self.state, _ = cell_transition(self.state, event)
        self.reason, self._said = why.reason, why.code
        out.events.append(Event("error", why.code, why.reason))

    # When work begins

    def _note_arrivals(self, inbox: CellInbox, now_ns: int) -> None:
        while inbox.arrivals:
            text = inbox.arrivals.popleft()
            if self.spec.arrival.by != "plc" or self.state is CellState.STOPPED:
                continue
            self.counts["arrived"] += 1
            self._miss_next()
            self._next = (text, now_ns)

    def _miss_next(self) -> None:
        if self._next is not None:
            self.counts["missed"] += 1
            self._next = None

    def _has_work(self, now_ns: int) -> bool:
        """Return whether there is a parcel or order in hand: one from before a halt, or the next."""
        if self.task is None and (text := self._arrival(now_ns)) is not None:
            self.task = Task(text, now_ns, [StepRun(step) for step in self.spec.steps])
            self.counts["begun"] += 1
        return self.task is not None

    def _arrival(self, now_ns: int) -> str | None:
        """Return what the next parcel or order is announced as, None while there is none."""
        arrival = self.spec.arrival
        if arrival.by == "plc":
            if self._next is None or now_ns - self._next[1] > arrival.keep_s * 1e9:
                self._miss_next()
                return None
            text, self._next = self._next[0], None
            return text
        if arrival.by == "label":
            new = next((text for text in self._senses.labels(self._since_ns) if text != self._last_label), None)
            self._last_label = new or self._last_label
            return new
        if arrival.region is not None:
            occupied = self._senses.region(arrival.region, self._since_ns)
            comes = occupied == "occupied" and self._was_empty
            self._was_empty = self._was_empty if occupied is None else occupied == "empty"
            return "" if comes else None
        return ""

    # The work in hand

    def _work(self, inbox: CellInbox, now_ns: int, out: CellOutbox) -> None:
        task = self.task
        assert task is not None
        for run in task.runs:
            if run.state is StepState.PENDING:
                self._give(task, run, now_ns)
            if run.state is StepState.INSTRUCTING and self._has_begun(run, inbox):
                run.happens(StepEvent.BEGUN)
            if run.state in (StepState.WORKING, StepState.CHECKING):
                self._check(task, run, now_ns, out)
            if run.state.active:
                self._look_for_failure(run, inbox, now_ns, out)
            if self.state is not CellState.WORKING:
                return
        if task.over:
            incomplete = any(run.gave_up for run in task.runs)
            self._end_task("incomplete" if incomplete else "done", now_ns, out)
            self.state, _ = cell_transition(self.state, CellEvent.FINISHED)

    def _give(self, task: Task, run: StepRun, now_ns: int) -> None:
        """Begin a step whose turn it is; leave it out where the label lies otherwise; wait while one of its robots is at another."""
        step = run.step
        if not all(task.run(other).state.over for other in self.spec.after(step)):
            return
        if step.when is not None and step.when != f"label_{task.lying.value}":
            run.happens(StepEvent.SKIP)
            return
        busy = {robot for other in task.active() for robot in other.step.robots}
        if not busy & set(step.robots):
            run.begin(now_ns)

    def _has_begun(self, run: StepRun, inbox: CellInbox) -> bool:
        if run.step.begun is not None:
            return self._senses.holds(run.step.begun, run)
        return all(inbox.followed.get(robot) == self._text(run) for robot in run.step.robots)

    def _check(self, task: Task, run: StepRun, now_ns: int, out: CellOutbox) -> None:
        check = run.step.success
        if not self._senses.holds(check, run):
            run.happens(StepEvent.LOST)
            run.right_ns = None
            return
        run.right_ns = now_ns if run.right_ns is None else run.right_ns
        run.happens(StepEvent.SEEN)
        if now_ns - run.right_ns < check.for_s * 1e9:
            return
        if check.label is not None and not self._take_label(task, self._senses.label(run.told_ns), run, now_ns, out):
            return
        run.happens(StepEvent.CONFIRMED)

    def _take_label(self, task: Task, decision: LabelDecision, run: StepRun, now_ns: int, out: CellOutbox) -> bool:
        """Take over what a label says; return whether it belongs to the parcel in hand."""
        if run.step.success.label == "decided":
            task.lying = decision.lying
            self.counts[f"label_{decision.lying.value}"] += 1
        if decision.reading is None:
            return True
        text = decision.reading.text
        if task.label is not None and task.label.text != text:
            self._fail(run, f"got label '{text}', expected '{task.label.text}' as read before: two parcels?", now_ns, out)
            return False
        if task.label is None:
            task.label, self._last_label = decision.reading, text
            self._take_route(task, out)
        return True

    def _take_route(self, task: Task, out: CellOutbox) -> None:
        task.route = out.route = self.spec.route_of(task.label.text if task.label is not None else "")
        if task.route is not None:
            self.counts[f"route_{task.route.name}"] += 1

    def _look_for_failure(self, run: StepRun, inbox: CellInbox, now_ns: int, out: CellOutbox) -> None:
        step, elapsed_s = run.step, (now_ns - run.told_ns) * 1e-9
        wrong = step.failure is not None and self._senses.holds(step.failure, run)
        run.wrong_ns = None if not wrong else now_ns if run.wrong_ns is None else run.wrong_ns
        if step.failure is not None and run.wrong_ns is not None and now_ns - run.wrong_ns >= step.failure.for_s * 1e9:
            self._fail(run, f"{step.failure}", now_ns, out)
        elif run.state is StepState.INSTRUCTING and elapsed_s > self.spec.heard_s:
            self._fail(run, self._why_not_begun(run, inbox), now_ns, out)
        elif step.success.label == "decided" and self._senses.label(run.told_ns).lying is Lying.UNREADABLE:
            self.counts["unreadable"] += 1
            self._fail(run, self._senses.label(run.told_ns).reason, now_ns, out)
        elif elapsed_s > step.timeout_s:
            self._fail(run, f"not done within {step.timeout_s:g} s: {self._senses.why_not(run)}", now_ns, out)

    def _why_not_begun(self, run: StepRun, inbox: CellInbox) -> str:
        if run.step.begun is not None:
            return f"not begun within {self.spec.heard_s:g} s, expected {run.step.begun}"
        deaf = next(robot for robot in run.step.robots if inbox.followed.get(robot) != self._text(run))
        return f"the policy of '{deaf}' has not taken the instruction within {self.spec.heard_s:g} s"

    def _fail(self, run: StepRun, why: str, now_ns: int, out: CellOutbox) -> None:
        step = run.step
        self.counts[f"failed_{step.id}"] += 1
        told = f"step '{step.id}': {why}"
        if step.on_failure == "retry" or run.tries <= step.retries:
            run.happens(StepEvent.RETRY)
            run.begin(now_ns)
            for robot in step.robots:
                self._told.pop(robot, None)  # each try is said
            self.counts["retries"] += 1
            out.events.append(Event("warn", "retry", f"{told}; trying again"))
        elif step.on_failure == "skip":
            run.happens(StepEvent.SKIP)
            run.gave_up = True
            self.counts["skipped"] += 1
            out.events.append(Event("warn", "skipped", f"{told}; going on without it"))
        elif step.on_failure == "next":
            out.events.append(Event("warn", "given_up", f"{told}; going on with the next"))
            self._end_task("given_up", now_ns, out, reason=told)
            self.state, _ = cell_transition(self.state, CellEvent.FINISHED)
        else:
            run.happens(StepEvent.FAIL)
            self.counts["helps"] += 1
            self._hold(CellEvent.FAILED, refused("help", told), out)

    def _end_task(self, outcome: str, now_ns: int, out: CellOutbox, reason: str = "") -> None:
        task = self.task
        assert task is not None
        if task.route is None and outcome != "given_up":
            self._take_route(task, out)  # without a label: the default route
        self.counts[outcome] += 1
        out.result = {"cell": self.spec.name, **task.result(outcome, now_ns, reason)}
        self.task, self._since_ns = None, now_ns

    # What the belt and the robots are told

    def _order_belt(self, now_ns: int) -> None:
        order = BeltOrder()
        if self.spec.belt is not None and self.state.active:
            speeds = [run.step.belt_m_s for run in self.task.active()] if self.task is not None else []
            speed = min((speed for speed in speeds if speed is not None), default=self.spec.belt.speed_m_s)
            order = BeltOrder(speed > 0, speed)
        if order != self._belt:
            self._belt, self._belt_since_ns = order, now_ns

    def _text(self, run: StepRun) -> str:
        route = self.task.route if self.task is not None else None
        route = route or self.spec.default_route
        return run.step.instruction.format(route=route.name if route is not None else "")

    def _instruct(self, inbox: CellInbox, now_ns: int, out: CellOutbox) -> None:
        """Tell each robot what it shall do now, where that differs from what it was told last, or from what its policy follows."""
        wanted = {robot.instance: self.spec.hold_instruction for robot in self.spec.robots}
        if self.state is CellState.WORKING and self.task is not None:
            wanted |= {robot: self._text(run) for run in self.task.active() for robot in run.step.robots}
        for robot, text in wanted.items():
            told, since_ns = self._told.get(robot, ("", 0))
            if not told and self.state is CellState.STOPPED:
                continue
            followed = inbox.followed.get(robot, text)
            deaf = followed != text and now_ns - since_ns >= _TELL_AGAIN_NS and self.state is not CellState.STOPPED
            if told != text or deaf:
                self._told[robot] = (text, now_ns)
                out.instructions.append((robot, text))
