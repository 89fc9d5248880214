"""The simulated cell's PLC: a photo-eye at the belt, a heartbeat, and a drive that does what it is told; topics as in docs/cell.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from std_msgs.msg import Bool, Float64

from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.entities import Entities

if TYPE_CHECKING:  # not here: who imports MuJoCo first chooses how it renders, and that is `simulation/render.py`
    from internvla_a1_ros.simulation.parcels import Parcel

RATE_HZ = 10.0
# Where the photo-eye sees a parcel, along the belt: just before the middle, in sight of the head camera.
EYE_FROM_M, EYE_TO_M = 0.03, 0.13


class SimPlc:
    """Owns the PLC's end of the wires. `belt_speed_m_s`: what the belt was told last, None before it was told anything."""

    def __init__(self, entities: Entities) -> None:
        self._run, self._speed_m_s = False, 0.0
        self.belt_speed_m_s: float | None = None
        self._heartbeat = entities.publisher(Bool, "plc/heartbeat", qos.COMMAND)
        self._parcel = entities.publisher(Bool, "plc/parcel", qos.COMMAND)
        entities.polled(Bool, "belt/run", self._on_run, qos.SENSOR)
        entities.polled(Float64, "belt/speed", self._on_speed, qos.SENSOR)

    def _on_run(self, message: Bool, _: int) -> None:
        self._run = bool(message.data)
        self.belt_speed_m_s = self._speed_m_s if self._run else 0.0

    def _on_speed(self, message: Float64, _: int) -> None:
        self._speed_m_s = max(0.0, float(message.data))
        self.belt_speed_m_s = self._speed_m_s if self._run else 0.0

    def publish(self, parcels: Iterable[Parcel]) -> None:
        """Say that the PLC lives, and whether something stands before the photo-eye."""
        seen = any(parcel.place == "belt" and EYE_FROM_M < parcel.position_m[1] < EYE_TO_M for parcel in parcels)
        self._heartbeat.publish(Bool(data=True))
        self._parcel.publish(Bool(data=seen))
