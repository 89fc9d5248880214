"""What the demo shows and leaves behind: a live table, a summary, a strip of pictures."""

from __future__ import annotations

import json
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from internvla_a1_ros.cli.demo_trials import Trials
from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import Deployment, Options, find_checkpoint

_LINE_EVERY_S = 5.0
_AHEAD_S = 0.5
_HEIGHT = 240
# What the simulated cell says of itself and an operator wants to see.
_CELL = ("real_time_factor", "belt_speed_m_s", "spawned", "picked", "sorted", "missorted", "missed", "fallen")


class View:
    """Shows what the operator's ear heard; in a terminal as a live table, else as a line now and then."""

    def __init__(self, plan: Deployment, options: Options, trials: Trials | None) -> None:
        manifest = load_manifest(find_checkpoint(options.checkpoint))
        self._trials = trials
        note = "" if manifest.trained else " [bold yellow](UNTRAINED: shows the loop, cannot do the task)[/]"
        self._title = f"{plan.name} on {options.robot}, model {manifest.name}{note}"
        self._trained = manifest.trained
        self._model = manifest.name
        self._console = Console(stderr=False)
        self._live: Live | None = None
        self._next_line_s = 0.0

    def __enter__(self) -> View:
        if sys.stdout.isatty():
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """Print one sentence."""
        self._console.print(sentence, highlight=False)

    def update(self, heard: Operator, elapsed_s: float) -> None:
        """Show the present state."""
        if self._live is not None:
            self._live.update(self._table(heard, elapsed_s))
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + _LINE_EVERY_S
            rows = "; ".join(f"{name}: {text}" for name, text in self._rows(heard))
            self._console.print(f"{elapsed_s:5.0f} s  {rows}", highlight=False, markup=False)

    def _table(self, heard: Operator, elapsed_s: float) -> Table:
        table = Table(title=f"{self._title}   {elapsed_s:.0f} s   (Ctrl-C ends)", show_header=False)
        for name, text in self._rows(heard):
            table.add_row(name, text)
        return table

    def _rows(self, heard: Operator) -> list[tuple[str, str]]:
        state, cycle = heard.state, heard.cycle
        policy, loop = heard.diagnostics.get("policy: loop", {}), heard.diagnostics.get("command: loop", {})
        mode = state.get("mode", "?")
        armed = "armed" if state.get("armed") == "True" else "not armed"
        dry = "dry run" if state.get("dry_run") == "True" else "LIVE (simulated arms)"
        ages = ", ".join(f"{key[4:-3]} {number(cycle, key):.0f}" for key in cycle if key.startswith("age_"))
        refused = sum(int(v) for k, v in loop.items() if k.startswith("refused_"))
        rows = [
            ("state", f"{mode}, {armed}, {dry}" + (f": {state['reason']}" if state.get("reason") else "")),
            ("chunks", f"{number(policy, 'rate_hz'):.1f} a second of {number(policy, 'target_hz'):.0f}, refused {refused}"),
            ("latency", f"{number(policy, 'latency_ms_p50'):.0f} ms median, {number(policy, 'latency_ms_p99'):.0f} ms p99"),
            ("model", f"{number(cycle, 'engine_ms'):.0f} ms, overhead {number(cycle, 'overhead_ms'):.1f} ms"),
            ("frame ages", f"{ages} ms"),
            ("queue", f"{number(state, 'queue_s') * 30:.0f} actions ({number(state, 'queue_s'):.2f} s)"),
            ("limits hit", "limited {limited_ticks}, clamped {clamped_ticks} of {ticks} ticks".format_map(defaultdict(int, loop))),
            ("command", f"jitter p99 {number(loop, 'jitter_ms_p99'):.2f} ms, missed {loop.get('missed_ticks', '0')}"),
        ]
        if self._trials is not None:
            rows.insert(0, ("trials", self._trials.text))
        if heard.cell:
            rows.append(("cell", ", ".join(f"{key} {short(value)}" for key, value in json.loads(heard.cell).items() if key in _CELL)))
        return rows

    def summary(self, heard: Operator, wall_s: float, respawns: dict[str, int], problem: str | None) -> dict[str, Any]:
        """Return what happened as JSON."""
        return {
            "model": self._model,
            "trained": self._trained,
            "wall_s": round(wall_s, 2),
            "chunks": heard.cycles,
            "problem": problem,
            "respawns": respawns,
            "state": heard.state,
            "last_cycle": heard.cycle,
            "diagnostics": heard.diagnostics,
            "trials": None if self._trials is None else self._trials.rows,
            "cell": json.loads(heard.cell) if heard.cell else {},
        }


def number(values: dict[str, str], key: str) -> float:
    """Return a diagnostic value as a number, nan where it is not there (yet)."""
    try:
        return float(values[key])
    except (KeyError, ValueError):
        return float("nan")


def short(value: Any) -> str:
    """Return a number with two decimals, anything else as it is."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


class Strip:
    """Catches, now and then, what the model imagined and what then really came. Listens only while it catches:
    the imagined future is computed on request."""

    def __init__(self, heard: Operator, plan: Deployment) -> None:
        profile = load_profile(str(plan.process("policy").parameters["robot"]))
        head = profile.cameras[0]
        self._heard, self._camera_topic = heard, head.topic
        self._imagined_topic = f"policy/imagined/{head.name}/compressed"
        self._frames: deque[tuple[float, bytes]] = deque(maxlen=90)
        self._imagined: tuple[float, bytes] | None = None
        self._stop_listening: list[Any] = []
        self._rows: list[ByteArray] = []
        self._next_s = 2.0

    def update(self, elapsed_s: float, every_s: float) -> None:
        """Begin a catch when it is time, finish the one that is complete."""
        if not self._stop_listening:
            if elapsed_s >= self._next_s and len(self._rows) < 8:
                self._frames.clear()
                self._imagined = None
                self._stop_listening = [
                    self._heard.pictures(self._camera_topic, lambda m: self._frames.append((_seconds(m), bytes(m.data)))),
                    self._heard.pictures(self._imagined_topic, self._on_imagined),
                ]
            return
        if self._imagined is not None and self._frames and self._frames[-1][0] >= self._imagined[0] + _AHEAD_S:
            self._rows.append(self._row(self._imagined))
            self.close()
            self._next_s = elapsed_s + every_s

    def _on_imagined(self, message: Any) -> None:
        if self._imagined is None and self._frames and self._frames[0][0] <= _seconds(message) + 0.05:
            self._imagined = (_seconds(message), bytes(message.data))

    def _row(self, imagined: tuple[float, bytes]) -> ByteArray:
        stamp_s = imagined[0]
        now = min(self._frames, key=lambda frame: abs(frame[0] - stamp_s))
        later = min(self._frames, key=lambda frame: abs(frame[0] - stamp_s - _AHEAD_S))
        return np.hstack([_tile(now[1], "now"), _tile(imagined[1], "imagined +0.5 s"), _tile(later[1], "real +0.5 s")])

    def close(self) -> None:
        """Stop listening."""
        while self._stop_listening:
            self._stop_listening.pop()()

    def save(self, path: Path) -> bool:
        """Write the strip; return whether there was one."""
        return bool(self._rows) and bool(cv2.imwrite(str(path), np.vstack(self._rows)))


def _seconds(message: Any) -> float:
    return float(message.header.stamp.sec) + float(message.header.stamp.nanosec) * 1e-9


def _tile(data: bytes, text: str) -> ByteArray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    width = round(picture.shape[1] * _HEIGHT / picture.shape[0])
    tile = cv2.resize(picture, (width, _HEIGHT), interpolation=cv2.INTER_NEAREST)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # readable on any picture
        cv2.putText(tile, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
    return np.asarray(tile, dtype=np.uint8)
