"""Parcels: how they come onto the belt, where they are, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.arms import FINGERS
from internvla_a1_ros.simulation.config import FOOD, SIDES, CellConfig, Parcels
from internvla_a1_ros.simulation.labels import label_picture, parcel_code

PICKED_ABOVE_M = 0.08
SETTLED_S = 1.0
_FACES = ("up", "side", "down")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Ground truth of one parcel: centre, orientation (quaternion w x y z), full lengths along its own axes; its label is on +z.

    `held_by` names the hands of which both fingers press on it.
    """

    slot: int
    code: str
    destination: str
    face: str
    size_m: FloatArray
    position_m: FloatArray
    quaternion: FloatArray
    velocity_m_s: FloatArray
    place: str
    kind: str
    held_by: frozenset[str] = frozenset()

    @property
    def rotation(self) -> FloatArray:
        """[3, 3], parcel to world."""
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, self.quaternion)
        return matrix.reshape(3, 3)

    @property
    def half_height_m(self) -> float:
        """Half the vertical extent as it lies."""
        return float(np.abs(self.rotation[2]) @ self.size_m / 2)


@dataclass(slots=True)
class Counts:
    """What became of the parcels since the last reset."""

    spawned: int = 0
    picked: int = 0
    sorted: int = 0
    missorted: int = 0
    missed: int = 0
    fallen: int = 0


@dataclass(slots=True)
class _Slot:
    body: int
    geom: int
    label: int
    texture: int
    qpos: int
    dof: int
    live: bool = False
    picked: bool = False
    code: str = ""
    destination: str = ""
    face: str = ""
    kind: str = ""
    settled_since_s: float | None = None
    settled_place: str = ""


@dataclass(slots=True)
class Stock:
    """All parcels of a cell. Owns their part of the model and of the state; `changed` names textures to upload."""

    model: mujoco.MjModel
    data: mujoco.MjData
    config: CellConfig
    counts: Counts = field(default_factory=Counts)
    changed: set[int] = field(default_factory=set)
    _slots: list[_Slot] = field(default_factory=list)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _travel_to_next_m: float = 0.0
    _fingers: dict[str, frozenset[int]] = field(default_factory=dict)
    _scratch: mujoco.MjData | None = None
    _spec: Parcels = field(default_factory=Parcels)

    def __post_init__(self) -> None:
        m = self.model
        for k in range(self.config.parcels.slots):
            body = m.body(f"parcel{k}").id
            joint = m.joint(f"parcel{k}").id
            geom, label, texture = m.geom(f"parcel{k}").id, m.geom(f"label{k}").id, m.texture(f"label{k}").id
            self._slots.append(_Slot(body, geom, label, texture, int(m.jnt_qposadr[joint]), int(m.jnt_dofadr[joint])))
        self._fingers = {side: frozenset(m.body(f"{side}_{finger}").id for finger in FINGERS) for side in SIDES}
        self._scratch = mujoco.MjData(m)

    def reset(self, rng: np.random.Generator, spec: Parcels) -> None:
        """Park all parcels, then lay some along the belt from its end to its start; `spec` says which come from now on."""
        self._rng, self._spec = rng, spec
        self.counts = Counts()
        for slot in self._slots:
            self._park(slot)
        belt = self.config.belt
        y = float(rng.uniform(*spec.first_y_m))
        while y < belt.length_m / 2 - 0.08 and any(not slot.live for slot in self._slots):
            self._spawn(y)
            y += self._spacing()
        self._travel_to_next_m = max(0.0, y - belt.length_m / 2 + 0.08)

    def advance(self, travel_m: float, now_s: float) -> None:
        """Let a parcel enter when the belt has moved far enough, note what was picked, take away what is done."""
        self._travel_to_next_m -= travel_m
        for k, slot in enumerate(self._slots):
            if slot.live:
                self._follow(k, slot, now_s)
        if self._travel_to_next_m <= 0 and any(not slot.live for slot in self._slots):
            self._spawn(self.config.belt.length_m / 2 - 0.08)
            self._travel_to_next_m = self._spacing()

    def present(self) -> list[Parcel]:
        """Return the parcels in the cell, in the order of their slots."""
        return [self._parcel(k, slot) for k, slot in enumerate(self._slots) if slot.live]

    def _parcel(self, k: int, slot: _Slot) -> Parcel:
        q, v = self.data.qpos[slot.qpos : slot.qpos + 7], self.data.qvel[slot.dof : slot.dof + 3]
        size = 2 * self.model.geom_size[slot.geom]
        place, hands = self._place(slot), self._hands(slot)
        return Parcel(k, slot.code, slot.destination, slot.face, size, q[:3].copy(), q[3:].copy(), v.copy(), place, slot.kind, hands)

    def _spacing(self) -> float:
        return float(self._rng.uniform(*self._spec.spacing_m))

    def _park(self, slot: _Slot) -> None:
        slot.live = False
        self.model.body_gravcomp[slot.body] = 1.0
        self.data.qpos[slot.qpos : slot.qpos + 7] = (-3.0, float(slot.body), -2.0, 1.0, 0.0, 0.0, 0.0)
        self.data.qvel[slot.dof : slot.dof + 6] = 0.0

    def _spawn(self, y: float) -> None:
        k = next(k for k, slot in enumerate(self._slots) if not slot.live)
        slot, rng, spec = self._slots[k], self._rng, self._spec
        slot.kind = spec.kinds[0] if len(spec.kinds) == 1 else str(rng.choice(spec.kinds))
        box = FOOD.get(slot.kind, spec)
        half = np.array([rng.uniform(*box.length_m), rng.uniform(*box.width_m), rng.uniform(*box.height_m)]) / 2
        slot.face = str(rng.choice(_FACES, p=np.array(spec.faces) / sum(spec.faces)))
        slot.destination = str(rng.choice(spec.destinations))
        slot.code = parcel_code(slot.destination, int(rng.integers(10_000_000)))
        self._shape(slot, half, float(rng.uniform(*spec.mass_kg)))
        roll = {"up": 0.0, "side": np.pi / 2 * (1 if rng.random() < 0.5 else -1), "down": np.pi}[slot.face]
        yaw = float(rng.uniform(*spec.yaw_rad))
        height = half[1] if slot.face == "side" else half[2]
        belt = self.config.belt
        x = belt.centre_x_m + float(rng.uniform(-spec.sideways_m, spec.sideways_m))
        self.data.qpos[slot.qpos : slot.qpos + 3] = (x, y, belt.top_m + height + 0.002)
        self.data.qpos[slot.qpos + 3 : slot.qpos + 7] = _yaw_after_roll(yaw, roll)
        self.data.qvel[slot.dof : slot.dof + 6] = 0.0
        self.model.body_gravcomp[slot.body] = 0.0
        slot.live, slot.picked, slot.settled_since_s = True, False, None
        self.counts.spawned += 1

    def _shape(self, slot: _Slot, half: FloatArray, mass: float) -> None:
        m = self.model
        m.geom_size[slot.geom] = half
        m.geom_rbound[slot.geom] = np.linalg.norm(half)
        m.geom_aabb[slot.geom, 3:] = half
        for node in range(m.body_bvhadr[slot.body], m.body_bvhadr[slot.body] + m.body_bvhnum[slot.body]):
            m.bvh_aabb[node, 3:] = half
        m.body_mass[slot.body] = mass
        m.body_inertia[slot.body] = mass / 3 * (np.sum(half**2) - half**2)
        piece = FOOD.get(slot.kind)
        label = min(half[0], half[1]) * 0.92
        # A piece has none: it is hidden inside.
        m.geom_size[slot.label] = (label, label, 0.0005)
        m.geom_pos[slot.label] = (0.0, 0.0, half[2] if piece is None else 0.0)
        tone, colour = self._rng.uniform(0.75, 1.15), _COLOURS[int(self._rng.integers(len(_COLOURS)))]
        m.geom_rgba[slot.geom, :3] = np.clip(tone * np.array(colour if piece is None else piece.colour), 0, 1)
        first = int(m.tex_adr[slot.texture])
        picture = label_picture(slot.code).reshape(-1)
        m.tex_data[first : first + picture.size] = picture
        self.changed.add(slot.texture)
        mujoco.mj_setConst(m, self._scratch)  # weights of constraints follow from masses

    def _follow(self, k: int, slot: _Slot, now_s: float) -> None:
        place = self._place(slot)
        if place == "held" and not slot.picked and self._clear_of_belt(self._parcel(k, slot)):
            slot.picked = True
            self.counts.picked += 1
        if self.data.qpos[slot.qpos + 2] < -0.1:
            beyond_end = self.data.qpos[slot.qpos + 1] < -self.config.belt.length_m / 2 + 0.1
            self._leave(slot, "missed" if beyond_end else "fallen")
            return
        if place in ("belt", "held", "air"):
            slot.settled_since_s = None
            return
        if slot.settled_since_s is None or slot.settled_place != place:
            slot.settled_since_s, slot.settled_place = now_s, place
        if now_s - slot.settled_since_s >= SETTLED_S:
            bin_name = place.removeprefix("bin ")
            self._leave(slot, "fallen" if place == "table" else "sorted" if bin_name == slot.destination else "missorted")

    def _leave(self, slot: _Slot, why: str) -> None:
        setattr(self.counts, why, getattr(self.counts, why) + 1)
        self._park(slot)

    def _clear_of_belt(self, parcel: Parcel) -> bool:
        return bool(parcel.position_m[2] - parcel.half_height_m > self.config.belt.top_m + PICKED_ABOVE_M)

    def _place(self, slot: _Slot) -> str:
        x, y, z = self.data.qpos[slot.qpos : slot.qpos + 3]
        if self._hands(slot):
            return "held"
        for name, box in self.config.bins.items():
            inside = abs(x - box.centre_m[0]) < box.size_m[0] / 2 and abs(y - box.centre_m[1]) < box.size_m[1] / 2
            if inside and z < box.wall_m:
                return f"bin {name}"
        belt = self.config.belt
        reach = float(np.linalg.norm(self.model.geom_size[slot.geom]))
        if abs(x - belt.centre_x_m) < belt.width_m / 2 + 0.02 and z < belt.top_m + reach:
            return "belt"
        return "table" if z < reach + 0.01 else "air"

    def _hands(self, slot: _Slot) -> frozenset[str]:
        """Return the hands of which both fingers press on the parcel."""
        contacts = self.data.contact
        pairs = contacts.geom[(contacts.geom == slot.geom).any(axis=1)] if self.data.ncon else np.empty((0, 2), int)
        pressing = {int(self.model.geom_bodyid[g]) for g in pairs.reshape(-1)}
        return frozenset(side for side, fingers in self._fingers.items() if fingers <= pressing)


_COLOURS = ((0.72, 0.55, 0.36), (0.62, 0.46, 0.30), (0.80, 0.66, 0.48), (0.85, 0.83, 0.78), (0.35, 0.48, 0.62), (0.55, 0.60, 0.42))


def _yaw_after_roll(yaw: float, roll: float) -> FloatArray:
    turned: FloatArray = np.empty(4)
    mujoco.mju_mulQuat(turned, [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)], [np.cos(roll / 2), np.sin(roll / 2), 0, 0])
    return turned
