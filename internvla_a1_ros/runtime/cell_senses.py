"""What a cell's checks look at: the newest picture, what labels its pictures agree on, signals, grippers. Unknown is no."""

from __future__ import annotations

from internvla_a1_ros.runtime.cell import CellSpec
from internvla_a1_ros.runtime.cell_io import CellInbox
from internvla_a1_ros.runtime.cell_steps import Check
from internvla_a1_ros.runtime.cell_task import StepRun
from internvla_a1_ros.runtime.label_votes import LabelDecision, LabelVotes, Lying, PictureFacts

# How old may be what holds "without a break": joint states come many times a second, pictures as often as they are looked at. A signal is a
# level, which a PLC need not repeat; that it is silent is watched elsewhere.
_FRESH_GRIPPER_NS = 500_000_000
_LOOKS = 5


class Senses:
    """Takes over the inbox once a step and answers questions about what was seen since a moment."""

    def __init__(self, spec: CellSpec) -> None:
        self._spec = spec
        self._picture: PictureFacts | None = None
        self._inbox = CellInbox()
        self._now_ns = 0
        look_hz = spec.head_camera.look_hz if spec.head_camera is not None else 1.0
        fresh_s = max(1.0, _LOOKS / look_hz)
        self._fresh_picture_ns = round(fresh_s * 1e9)
        self._votes = LabelVotes(spec.labels, fresh_s) if spec.labels is not None else None

    def take(self, inbox: CellInbox, now_ns: int) -> None:
        """Take what arrived; answers hold for `now_ns`."""
        self._inbox, self._now_ns = inbox, now_ns
        while inbox.pictures:
            self._picture = inbox.pictures.popleft()
            if self._votes is not None:
                self._votes.add(self._picture)

    def forget(self) -> None:
        """Drop everything seen: its times mean nothing any more."""
        self._picture = None
        if self._votes is not None:
            self._votes.clear()

    def label(self, since_ns: int) -> LabelDecision:
        """Return what the pictures since `since_ns` say of a label."""
        return LabelDecision(Lying.UNKNOWN) if self._votes is None else self._votes.decide(since_ns, self._now_ns)

    def labels(self, since_ns: int) -> list[str]:
        """Return the texts that enough pictures since `since_ns` agree on."""
        return [] if self._votes is None else self._votes.agreed(since_ns)

    def region(self, name: str, since_ns: int) -> str | None:
        """Return 'occupied' or 'empty', None where no picture was taken since `since_ns`, or none of late."""
        if self._picture is None or self._picture.stamp_ns < max(since_ns, self._now_ns - self._fresh_picture_ns):
            return None
        return "occupied" if self._picture.occupied[name] > self._spec.regions[name].share else "empty"

    def holds(self, check: Check, run: StepRun) -> bool:
        """Return whether `check` holds, by what was seen since the run's present try began."""
        if check.label is not None:
            lying = self.label(run.told_ns).lying
            return lying is Lying.UP or (check.label == "decided" and lying is Lying.DOWN)
        if check.signal is not None:
            fact = self._inbox.signals.get(check.signal)
            return fact is not None and fact.seen_ns >= run.told_ns and bool(fact.value) == check.wanted
        if check.region is not None:
            return self.region(check.region, run.told_ns) == check.wanted
        return self._gripper(check, run) == check.wanted

    def _gripper(self, check: Check, run: StepRun) -> str | None:
        assert check.gripper is not None
        fact = self._inbox.openings.get((self._spec.gripper_robot(run.step, check), check.gripper))
        if fact is None or fact.seen_ns < max(run.told_ns, self._now_ns - _FRESH_GRIPPER_NS):
            return None
        grip = self._spec.grip
        if fact.value < grip.closed_below:
            return "closed"
        return "open" if fact.value > grip.open_above else "holding"

    def why_not(self, run: StepRun) -> str:
        """Return why the run has not succeeded, as far as it is known."""
        check = run.step.success
        if check.label is not None:
            return self.label(run.told_ns).reason
        if check.gripper is not None:
            return f"gripper '{check.gripper}' is {self._gripper(check, run) or 'not heard'}, expected {check.wanted}"
        if check.region is not None:
            return f"region '{check.region}' is {self.region(check.region, run.told_ns) or 'not seen'}, expected {check.wanted}"
        fact = self._inbox.signals.get(check.signal or "")
        heard = "nothing" if fact is None or fact.seen_ns < run.told_ns else str(bool(fact.value)).lower()
        return f"signal '{check.signal}': got {heard} since the step began, expected {str(check.wanted).lower()}"
