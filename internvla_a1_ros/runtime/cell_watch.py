"""What outside a cell keeps it from working: PLC silent, a robot not ready, the belt not doing what it was told. Pure."""

from __future__ import annotations

from internvla_a1_ros.core.types import ACCEPTED, Mode, Verdict, refused
from internvla_a1_ros.runtime.cell import COMMAND_STATE, CellSpec
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellInbox, RobotFact

_READY = (Mode.HOLD, Mode.RAMP_IN, Mode.RUN)
# A belt slower than this stands, and one told to run at less is not asked whether it does.
STANDS_M_S = 0.005


def trouble(spec: CellSpec, inbox: CellInbox, belt: BeltOrder, belt_since_ns: int, now_ns: int) -> Verdict:
    """Return the first thing that is wrong outside, as a refusing verdict; unknown is wrong."""
    if inbox.clock_jump:
        return refused("clock_jump", "the clock jumped: what was seen before is dropped")
    for verdict in (_plc(spec, inbox, now_ns), *_robots(spec, inbox, now_ns), _belt(spec, inbox, belt, belt_since_ns, now_ns)):
        if not verdict:
            return verdict
    return ACCEPTED


def _plc(spec: CellSpec, inbox: CellInbox, now_ns: int) -> Verdict:
    if spec.plc is None:
        return ACCEPTED
    beat = spec.plc.heartbeat
    if inbox.plc_ns is None:
        return refused("plc_silent", f"PLC silent: nothing on {beat.topic} yet, expected a heartbeat every {beat.timeout_s:g} s")
    age_s = (now_ns - inbox.plc_ns) * 1e-9
    if age_s > beat.timeout_s:
        return refused("plc_silent", f"PLC silent: nothing on {beat.topic} for {age_s:.1f} s, allowed {beat.timeout_s:g} s")
    return ACCEPTED


def _robots(spec: CellSpec, inbox: CellInbox, now_ns: int) -> list[Verdict]:
    return [_robot(spec, inbox, robot.instance, robot.topic(COMMAND_STATE), now_ns) for robot in spec.robots]


def _robot(spec: CellSpec, inbox: CellInbox, instance: str, topic: str, now_ns: int) -> Verdict:
    fact = inbox.robots.get(instance)
    if fact is None:
        return refused("robot_silent", f"robot '{instance}': nothing on {topic} yet, expected the state of its command process")
    age_s = (now_ns - fact.seen_ns) * 1e-9
    if age_s > spec.robot_timeout_s:
        return refused("robot_silent", f"robot '{instance}': nothing on {topic} for {age_s:.1f} s, allowed {spec.robot_timeout_s:g} s")
    if fact.mode in (Mode.STOP.value, Mode.FAULT.value):
        return refused(f"robot_{fact.mode}", f"robot '{instance}' is in {fact.mode}: reset and arm it")
    if fact.mode == Mode.PAUSE.value:
        return refused("robot_pause", f"robot '{instance}' is paused: resume it")
    if not follows_plans(fact):
        return refused("robot_not_armed", f"robot '{instance}' is in {fact.mode} and {'' if fact.armed else 'not '}armed: arm it")
    return ACCEPTED


def _belt(spec: CellSpec, inbox: CellInbox, belt: BeltOrder, belt_since_ns: int, now_ns: int) -> Verdict:
    if spec.belt is None or spec.belt.status is None:
        return ACCEPTED
    told_s, topic = (now_ns - belt_since_ns) * 1e-9, spec.belt.status.topic
    if inbox.belt_m_s is None or (now_ns - inbox.belt_m_s.seen_ns) * 1e-9 > spec.belt.answer_s:
        return refused("belt_silent", f"belt: nothing on {topic} for {spec.belt.answer_s:g} s")
    moves = abs(inbox.belt_m_s.value) > STANDS_M_S
    shall = belt.run and belt.speed_m_s > STANDS_M_S
    if moves != shall and told_s > spec.belt.answer_s:
        told = f"to run at {belt.speed_m_s:g} m/s" if shall else "to stop"
        return refused("belt_disobeys", f"belt: {inbox.belt_m_s.value:g} m/s on {topic} {told_s:.1f} s after it was told {told}")
    return ACCEPTED


def follows_plans(fact: RobotFact) -> bool:
    """Whether a robot follows plans, or will with the next one."""
    return fact.armed and fact.mode in [mode.value for mode in _READY]
