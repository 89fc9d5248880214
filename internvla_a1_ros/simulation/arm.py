"""A 6-joint arm of ARX X5 proportions with a parallel gripper, as MJCF, and its wire units.

Joint origins and masses: real-stanford/arx5-sdk models/X5.urdf; limits, speeds and torques: its include/app/config.h l.97-117.
The gripper is the one of 2025: readout 0 closed, -3.4 open at 0.082 m.
"""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.config import Camera, Point

JOINTS = 6
LOWER_RAD = (-3.14, -0.05, -0.1, -1.6, -1.57, -2.0)
UPPER_RAD = (2.618, 3.50, 3.20, 1.55, 1.57, 2.0)
MAX_SPEED_RAD_S = (5.0, 5.0, 5.5, 5.5, 5.0, 5.0)
MAX_TORQUE_NM = (30.0, 40.0, 30.0, 15.0, 10.0, 10.0)
STIFFNESS_NM_RAD = (250.0, 300.0, 250.0, 80.0, 50.0, 30.0)
ARMATURE_KG_M2 = (0.03, 0.04, 0.03, 0.008, 0.008, 0.006)

OPENING_M = 0.082
OPEN_READOUT = -3.4
GRIPPER_SPEED_M_S = 0.3
GRIPPER_FORCE_N = 18.0
GRIPPER_STIFFNESS_N_M = 900.0
TCP_M = 0.150

_DARK, _LIGHT, _PAD = "0.16 0.17 0.19 1", "0.82 0.83 0.85 1", "0.09 0.09 0.10 1"


def opening_to_readout(opening_m: float) -> float:
    """Return the gripper's motor readout at an opening in metres."""
    return opening_m / OPENING_M * OPEN_READOUT


def readout_to_opening(readout: float) -> float:
    """Return the gripper's opening in metres at a motor readout."""
    return readout / OPEN_READOUT * OPENING_M


def look_at(camera: Camera) -> str:
    """Return the MJCF `pos` and `xyaxes` of a camera (which looks along its own -z)."""
    position, target, up = (np.array(v, dtype=float) for v in (camera.position_m, camera.target_m, camera.up))
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    axes = np.concatenate([right, np.cross(right, forward)])
    return f'pos="{_v(position)}" xyaxes="{_v(axes)}" fovy="{camera.fov_y_deg}"'


def arm_body(side: str, base: Point, camera: Camera, contacts: str) -> str:
    """Return the MJCF body of one arm standing at `base`, x forward; `contacts` are the geoms' collision bits."""

    def joint(k: int, axis: str) -> str:
        return (
            f'<joint name="{side}_joint{k + 1}" axis="{axis}" range="{LOWER_RAD[k]} {UPPER_RAD[k]}" '
            f'armature="{ARMATURE_KG_M2[k]}" damping="0.2"/>'
        )

    def capsule(start: str, end: str, radius: float, mass: float, rgba: str = _LIGHT) -> str:
        return f'<geom type="capsule" fromto="{start} {end}" size="{radius}" mass="{mass}" rgba="{rgba}" {contacts}/>'

    def box(pos: str, size: str, mass: float, rgba: str = _DARK, extra: str = "") -> str:
        return f'<geom type="box" pos="{pos}" size="{size}" mass="{mass}" rgba="{rgba}" {contacts} {extra}/>'

    def finger(name: str, sign: int) -> str:
        # The pad's inner face lies in the hand's middle plane when closed.
        pad = 'friction="1.5 0.02 0.001" condim="4" priority="1" solref="0.006 1"'
        return f"""
        <body name="{side}_{name}" pos="0.085 0 0" gravcomp="1">
          <joint name="{side}_{name}" type="slide" axis="0 {sign} 0" range="0 {OPENING_M / 2}" armature="0.15" damping="8"/>
          {box(f"0.02 {sign * 0.016:.3f} 0", "0.02 0.008 0.010", 0.03, _LIGHT)}
          {box(f"0.052 {sign * 0.005:.3f} 0", "0.026 0.005 0.011", 0.02, _PAD, pad)}
        </body>"""

    # At zero the upper arm points back and the forearm lies folded over it. Positive j3, j4 raise, hence their -y axes.
    return f"""
    <body name="{side}_base" pos="{_v(base)}" gravcomp="1">
      <geom type="cylinder" pos="0 0 {-base[2] / 2}" size="0.055 {base[2] / 2}" rgba="0.35 0.36 0.38 1" {contacts}/>
      <geom type="cylinder" pos="0 0 0.03" size="0.045 0.03" rgba="{_DARK}" {contacts}/>
      <body name="{side}_link1" pos="0 0 0.0603" gravcomp="1">
        {joint(0, "0 0 1")}
        {capsule("0.02 -0.03 0.0402", "0.02 0.03 0.0402", 0.03, 0.3, _DARK)}
        <body name="{side}_link2" pos="0.02 0 0.0402" gravcomp="1">
          {joint(1, "0 1 0")}
          {capsule("-0.03 0 0", "-0.264 0 0", 0.027, 1.165)}
          <body name="{side}_link3" pos="-0.264 0 0" gravcomp="1">
            {joint(2, "0 -1 0")}
            {capsule("0 -0.02 0", "0 0.02 0", 0.03, 0.1, _DARK)}
            {capsule("0.02 0 0.03", "0.225 0 0.056", 0.024, 0.446)}
            <body name="{side}_link4" pos="0.245 0 0.056" gravcomp="1">
              {joint(3, "0 -1 0")}
              {capsule("0 -0.015 0", "0 0.015 0", 0.026, 0.08, _DARK)}
              <body name="{side}_link5" pos="0.06575 0.001 0" gravcomp="1">
                {joint(4, "0 0 -1")}
                {capsule("-0.02 0 0", "0 0 0", 0.024, 0.4)}
                <body name="{side}_hand" pos="0.02845 0 0" gravcomp="1">
                  {joint(5, "1 0 0")}
                  {capsule("0.02 0 0", "0.04 0 0", 0.024, 0.25, _DARK)}
                  {box("0.075 0 0", "0.012 0.055 0.018", 0.15, _DARK)}
                  {box("0.030 0 0.040", "0.006 0.010 0.018", 0.02, _DARK)}
                  {box("0.030 0 0.070", "0.010 0.021 0.012", 0.05, _LIGHT)}
                  {finger("finger_l", 1)}
                  {finger("finger_r", -1)}
                  <site name="{side}_tcp" pos="{TCP_M - 0.02} 0 0" size="0.004" group="5"/>
                  <camera name="{side}" {look_at(camera)}/>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def arm_tendon(side: str) -> str:
    """Return the MJCF tendon whose length is the gripper's opening."""
    coefficients = "".join(f'<joint joint="{side}_{finger}" coef="1"/>' for finger in ("finger_l", "finger_r"))
    return f'<fixed name="{side}_opening">{coefficients}</fixed>'


def arm_equality(side: str) -> str:
    """Return the MJCF constraint that moves both fingers alike."""
    return f'<joint joint1="{side}_finger_l" joint2="{side}_finger_r" polycoef="0 1 0 0 0" solref="0.006 1"/>'


def arm_actuators(side: str) -> str:
    """Return the MJCF position servos of one arm, in the order of the wire: six joints, then the opening."""
    servos = "".join(
        f'<position name="{side}_joint{k + 1}" joint="{side}_joint{k + 1}" kp="{STIFFNESS_NM_RAD[k]}" dampratio="1" '
        f'ctrlrange="{LOWER_RAD[k]} {UPPER_RAD[k]}" forcerange="{-MAX_TORQUE_NM[k]} {MAX_TORQUE_NM[k]}"/>'
        for k in range(JOINTS)
    )
    gripper = (
        f'<position name="{side}_gripper" tendon="{side}_opening" kp="{GRIPPER_STIFFNESS_N_M}" kv="25" '
        f'ctrlrange="0 {OPENING_M}" forcerange="{-GRIPPER_FORCE_N} {GRIPPER_FORCE_N}"/>'
    )
    return servos + gripper


def to_servo(positions: FloatArray) -> FloatArray:
    """Return [14] robot units as [14] servo units (opening in metres instead of readout)."""
    servo = positions.copy()
    servo[[6, 13]] *= OPENING_M / OPEN_READOUT
    return servo


def to_robot(servo: FloatArray) -> FloatArray:
    """Return [14] servo units as [14] robot units; the inverse of `to_servo`."""
    positions = servo.copy()
    positions[[6, 13]] *= OPEN_READOUT / OPENING_M
    return positions


SPEED_LIMITS: FloatArray = np.array((*MAX_SPEED_RAD_S, GRIPPER_SPEED_M_S) * 2)
RANGE_LOW: FloatArray = np.array((*LOWER_RAD, 0.0) * 2)
RANGE_HIGH: FloatArray = np.array((*UPPER_RAD, OPENING_M) * 2)


def _v(values: object) -> str:
    return " ".join(f"{float(x):.6g}" for x in values)  # type: ignore[attr-defined]
