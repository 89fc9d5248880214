"""What `internvla-a1 evaluate rollouts --live` does: the demo's processes over DDS, the simulated cell running trials in real time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from internvla_a1_ros.cli.evaluate_rollouts import kept, place_of, succeeded
from internvla_a1_ros.cli.progress import Progress
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.rollout_rig import Order
from internvla_a1_ros.evaluation.rollout_trials import seeds
from internvla_a1_ros.evaluation.rollouts import Rollouts, Series, model_of
from internvla_a1_ros.runtime.applications import express_sorting
from internvla_a1_ros.runtime.deployment import Options
from internvla_a1_ros.runtime.supervisor import Supervisor
from internvla_a1_ros.simulation.trial import RANGES

START_TIMEOUT_S, STEP_TIMEOUT_S = 120.0, 60.0
_REPORT_S = 1.2  # diagnostics come once a second
_SETTLE_S = 5.0  # arms that were just put elsewhere count as moving


def run_live(order: Order, series: Series, out: Path | None, force: bool, domain_id: int, pace: float, command: str) -> bool:
    """Run `series.n` trials, `pace` simulated seconds a second; return whether all were run.

    Raises ConfigurationError; trials that were done before are kept, and the processes' logs beside the result's place.
    """
    assert order.checkpoint is not None
    model = model_of(order.checkpoint)
    place = place_of(order, series, f"{model['model']}-live", out, force)
    options = Options(
        robot=order.robot,
        checkpoint=str(order.checkpoint),
        engine=order.engine,
        preset=order.preset or "",
        guidance=order.guidance or "",
        dry_run=False,
        sim=True,
        simulated_time=pace != 1.0,
        domain_id=domain_id,
        distribution=os.environ.get("ROS_DISTRO", ""),
        simulation={"task": order.task, "seed": series.seed, "variation": order.variation, "real_time_factor": pace},
    )
    plan = express_sorting(options)
    os.environ.update(plan.environment)  # before ROS is imported: the operator lives in the same domain
    supervisor = Supervisor(plan, logs=place.with_name(f"{place.name}-logs"))
    told = {**model, "command": command, "pace": pace, "compute_ms": None, "videos": "none"}
    return kept(order, series, place, force, told, lambda rollouts: _run(rollouts, supervisor, domain_id, pace))


def _run(rollouts: Rollouts, supervisor: Supervisor, domain_id: int, pace: float) -> None:
    from internvla_a1_ros.nodes.operator import Operator

    operator = Operator(domain_id)
    live = _Live(operator, supervisor)
    try:
        supervisor.start()
        with Progress(kept=True) as progress:
            work = progress.work("starting", rollouts.series.n)
            live.await_("the first chunk and the command process", START_TIMEOUT_S, lambda: operator.cycles > 2 and live.mode == "hold")
            for seed in seeds(rollouts.series.seed, rollouts.series.n):
                rollouts.rows.append(live.trial(seed, RANGES[rollouts.order.task].time_limit_s / pace))
                work.advance(what=succeeded(rollouts))
    finally:
        supervisor.stop()
        operator.close()


class _Live:
    """The operator's part of a trial: arms, waits for what came of it, disarms."""

    def __init__(self, operator: Any, supervisor: Supervisor) -> None:
        self._operator, self._supervisor = operator, supervisor

    @property
    def mode(self) -> str:
        return str(self._operator.state.get("mode", "silent"))

    @property
    def told(self) -> dict[str, Any]:
        """The trial at hand as the cell tells it; empty before it told any."""
        told: dict[str, Any] = (json.loads(self._operator.cell).get("trial") if self._operator.cell else None) or {}
        return told

    def trial(self, seed: int, limit_s: float) -> dict[str, Any]:
        """Run one trial, which lasts at most `limit_s` of the wall's time, and return its row."""
        self.await_(f"trial {seed} to be laid out", STEP_TIMEOUT_S, lambda: self._laid_out(seed))
        if self.mode == "fault":
            self._ask("command/reset")
        cycles, counts = self._operator.cycles, self._counts()
        self._ask("command/arm", _SETTLE_S)
        self.await_(f"the end of trial {seed}", STEP_TIMEOUT_S + 2 * limit_s, lambda: self.told.get("outcome") is not None)
        told = self.told
        if self.mode != "fault":
            self._ask("command/disarm")
        time.sleep(_REPORT_S)  # the last counts are on their way
        conditions = {key: value for key, value in told["conditions"].items() if key not in ("task", "seed")}
        counted: dict[str, Any] = {"chunks": self._operator.cycles - cycles, "late_ms": None, "limited": None, "video": None}
        counted |= {what: _more(counts[what], now) for what, now in self._counts().items()}
        return {"seed": seed, "latency_ms": 0.0, "conditions": conditions, **told["outcome"], **counted}

    def _counts(self) -> dict[str, dict[str, int]]:
        """What the command process counted since its start: holds, faults and refused chunks by their code."""
        told = self._operator.diagnostics.get("command: loop", {})
        kinds = {"holds": "hold_", "faults": "fault_", "refused": "refused_"}
        return {what: {key[len(kind) :]: int(n) for key, n in told.items() if key.startswith(kind)} for what, kind in kinds.items()}

    def _laid_out(self, seed: int) -> bool:
        told = self.told
        return bool(told) and told["conditions"]["seed"] == seed and told["outcome"] is None

    def _ask(self, service: str, patience_s: float = 0.0) -> None:
        deadline_s = time.monotonic() + patience_s
        while True:
            accepted, message = self._operator.call(service, timeout_s=20.0)
            if accepted:
                return
            if time.monotonic() >= deadline_s:
                raise ConfigurationError(f"{service}: refused: {message}")
            time.sleep(0.1)

    def await_(self, what: str, timeout_s: float, holds: Callable[[], bool]) -> None:
        """Wait until `holds`. Raises ConfigurationError where it does not in time, or a process ends."""
        deadline_s = time.monotonic() + timeout_s
        problem = self._supervisor.run(lambda: not holds() and time.monotonic() < deadline_s, period_s=0.05)
        if problem is not None:
            raise ConfigurationError(f"live: {problem}")
        if not holds():
            raise ConfigurationError(f"live: waited {timeout_s:g} s in vain for {what}; the command process is in mode {self.mode}")


def _more(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {code: n - before.get(code, 0) for code, n in now.items() if n > before.get(code, 0)}
