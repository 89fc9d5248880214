"""The simulated cell: two arms, a belt, parcels and three cameras behind a handful of verbs. No ROS in here."""

from __future__ import annotations

import copy

from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.simulation.render import Painter

import mujoco  # isort: skip  (after render, which chooses the OpenGL library)
import numpy as np

from internvla_a1_ros.simulation import scene
from internvla_a1_ros.simulation.arms import FINGERS
from internvla_a1_ros.simulation.config import CAMERAS, SIDES, CellConfig, Parcels
from internvla_a1_ros.simulation.parcels import Counts, Parcel, Stock

# Of the default cell: two X5 with a gripper each.
DOF = 14
# Set-points are moved on, and parcels looked after, at these numbers of physics steps.
_STEPS_PER_SETPOINT = 4
_STEPS_PER_LOOK = 16


class Cell:
    """A MuJoCo cell in robot units: [dof] = left joints rad, left gripper readout, right alike; [14] with the arms of the default.

    Rendering belongs to the thread that renders first. Deterministic: the same seed and the same commands give the same
    states and pictures.
    """

    def __init__(self, config: CellConfig | None = None, seed: int = 0) -> None:
        self.config = config or CellConfig()
        self.arms = scene.KINDS[self.config.arms]
        self._low, self._high, self._speeds = self.arms.range_low, self.arms.range_high, self.arms.speed_limits
        self._starts = (self.config.start_rad, self.config.right_start_rad or self.config.start_rad)
        if any(len(start) != self.arms.joints for start in self._starts):
            raise ValueError(f"start_rad: got {[len(start) for start in self._starts]} joints, expected {self.arms.joints} an arm")
        self.model = scene.build_model(self.config)
        self.pristine = copy.copy(self.model)  # looks are varied, and put right again, from this
        self.data = mujoco.MjData(self.model)
        m = self.model
        joints = [[f"{side}_joint{k + 1}" for k in range(self.arms.joints)] for side in SIDES]
        self._qpos = np.array([[m.jnt_qposadr[m.joint(name).id] for name in names] for names in joints])
        self._dofs = np.array([[m.jnt_dofadr[m.joint(name).id] for name in names] for names in joints])
        fingers = [[m.joint(f"{side}_{finger}").id for finger in FINGERS] for side in SIDES]
        self._finger_qpos, self._finger_dofs = m.jnt_qposadr[fingers], m.jnt_dofadr[fingers]
        self._belt = m.geom("belt").id
        self._stripes = [m.geom(f"stripe{k}").id for k in range(scene.STRIPES)]
        self._cameras = {name: m.camera(name).id for name in CAMERAS}
        self._painters: dict[tuple[int, int], Painter] = {}
        self._stock = Stock(m, self.data, self.config)
        self._belt_speed_m_s = self.config.belt.speed_m_s
        self._travel_m = 0.0
        self._steps = 0
        self.reset(seed)

    def reset(self, seed: int, parcels: Parcels | None = None) -> None:
        """Start anew: arms in their start pose with open grippers, parcels laid along the belt, counts at zero.

        `parcels` says what comes until the next reset, the cell's own otherwise; the number of its slots is the cell's.
        """
        mujoco.mj_resetData(self.model, self.data)
        self._steps, self._travel_m, self._travel_seen_m = 0, 0.0, 0.0
        opening_m = self.arms.gripper.opening_m
        start = self.arms.vector(*self._starts, opening_m)
        for k in range(len(SIDES)):
            self.data.qpos[self._qpos[k]] = self._starts[k]
            self.data.qpos[self._finger_qpos[k]] = opening_m / 2
        self._command, self._setpoint = start.copy(), start.copy()
        self.data.ctrl[:] = start
        self._stock.reset(np.random.default_rng(seed), parcels or self.config.parcels)
        self.belt_speed_m_s = self._belt_speed_m_s
        mujoco.mj_forward(self.model, self.data)

    @property
    def time_s(self) -> float:
        """Simulated time since the last reset."""
        return self._steps * self.config.timestep_s

    @property
    def belt_speed_m_s(self) -> float:
        """Speed of the belt's surface towards the robot's right; settable at any time."""
        return self._belt_speed_m_s

    @belt_speed_m_s.setter
    def belt_speed_m_s(self, speed: float) -> None:
        limit = self.config.belt.max_speed_m_s
        if not 0.0 <= speed <= limit:
            raise ValueError(f"belt speed: got {speed} m/s, expected 0 to {limit}")
        self._belt_speed_m_s = float(speed)
        self.model.geom_surfacevel[self._belt, 1] = -speed

    def command(self, positions: FloatArray) -> None:
        """Set the goal of all joints [dof] in robot units; kept until the next. Raises ValueError where not finite or not as many.

        As on the vendor's driver there is no other check: beyond a joint's range it is driven against its stop.
        """
        goal = np.asarray(positions, dtype=np.float64)
        if goal.shape != self._command.shape or not np.isfinite(goal).all():
            raise ValueError(f"command: got {goal.tolist()}, expected {self.arms.dof} finite numbers")
        self._command = np.clip(self.arms.to_servo(goal), self._low, self._high)

    def goal(self) -> FloatArray:
        """Return the goal of all joints [dof] in robot units: the last command, clipped to the joints' ranges."""
        return self.arms.to_robot(self._command)

    def joint_state(self) -> tuple[FloatArray, FloatArray]:
        """Return measured positions and velocities, each [dof], in robot units."""
        q, v = np.empty((2, len(SIDES), self.arms.joints + 1))
        q[:, :-1], v[:, :-1] = self.data.qpos[self._qpos], self.data.qvel[self._dofs]
        q[:, -1], v[:, -1] = self.data.qpos[self._finger_qpos].sum(axis=1), self.data.qvel[self._finger_dofs].sum(axis=1)
        return self.arms.to_robot(q.reshape(-1)), self.arms.speeds_to_robot(v.reshape(-1))

    def tool_pose(self, side: str) -> FloatArray:
        """Return [6]: x y z in metres, roll pitch yaw in radians, of the point between the fingers, from the arm's base."""
        site, base = self.model.site(f"{side}_tcp").id, self.model.body(f"{side}_base").id
        offset = self.data.site_xpos[site] - self.data.xpos[base]
        r = self.data.site_xmat[site].reshape(3, 3)
        return np.array([*offset, np.arctan2(r[2, 1], r[2, 2]), -np.arcsin(np.clip(r[2, 0], -1, 1)), np.arctan2(r[1, 0], r[0, 0])])

    def step(self, duration_s: float) -> None:
        """Advance by the whole number of physics steps nearest to `duration_s`."""
        self.advance(round(duration_s / self.config.timestep_s))

    def advance(self, n_steps: int) -> None:
        """Advance by `n_steps` physics steps; the belt carries, servos follow at most as fast as the arm can."""
        while n_steps > 0:
            n = min(n_steps, _STEPS_PER_SETPOINT - self._steps % _STEPS_PER_SETPOINT)
            reach = self._speeds * (n * self.config.timestep_s)
            self._setpoint += np.clip(self._command - self._setpoint, -reach, reach)
            self.data.ctrl[:] = self._setpoint
            mujoco.mj_step(self.model, self.data, n)
            self._steps += n
            self._travel_m += self._belt_speed_m_s * n * self.config.timestep_s
            if self._steps % _STEPS_PER_LOOK == 0:
                self._stock.advance(self._travel_m - self._travel_seen_m, self.time_s)
                self._travel_seen_m = self._travel_m
            n_steps -= n

    def parcels(self) -> list[Parcel]:
        """Return the ground truth of every parcel in the cell."""
        return self._stock.present()

    @property
    def counts(self) -> Counts:
        """What became of the parcels since the last reset."""
        return self._stock.counts

    def render(self, camera: str, width: int, height: int) -> ByteArray:
        """Return a picture [height, width, 3] from camera 'head', 'left' or 'right'. Raises ValueError for another name or size."""
        if camera not in self._cameras:
            raise ValueError(f"camera: got '{camera}', expected one of {', '.join(self._cameras)}")
        most = self.config.max_picture
        if not (16 <= width <= most[0] and 16 <= height <= most[1]):
            raise ValueError(f"picture size: got {width}x{height}, expected 16x16 to {most[0]}x{most[1]}")
        painter = self._painters.get((width, height))
        if painter is None:
            painter = self._painters[width, height] = Painter(self.model, width, height)
        for texture in self._stock.changed:
            for each in self._painters.values():
                each.upload_texture(texture)
        self._stock.changed.clear()
        self._place_stripes()
        return painter.paint(self.data, self._cameras[camera])

    def _place_stripes(self) -> None:
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves geoms where the step began
        mujoco.mj_camlight(self.model, self.data)
        length = self.config.belt.length_m - 2 * scene.STRIPE_HALF_M
        for k, geom in enumerate(self._stripes):
            along = (self._travel_m + k * length / scene.STRIPES) % length
            self.data.geom_xpos[geom, 1] = length / 2 - along

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for painter in self._painters.values():
            painter.close()
        self._painters.clear()
