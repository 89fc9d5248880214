"""The cell as one MJCF document, put together from small functions, and compiled."""

from __future__ import annotations

import mujoco

from internvla_a1_ros.simulation import arms
from internvla_a1_ros.simulation.arm import X5
from internvla_a1_ros.simulation.arm_g1 import G1
from internvla_a1_ros.simulation.config import SIDES, Bin, CellConfig
from internvla_a1_ros.simulation.labels import LABEL_PX
from internvla_a1_ros.simulation.shapes import look_at

KINDS = {"x5": X5, "g1": G1}

STRIPES = 9
# Things that only distract the eye, parked out of sight (see variation.py).
CLUTTER = 4
STRIPE_HALF_M = 0.006
# Collision bits: arms meet the world, the parcels and the other arm, never themselves.
_WORLD = 'contype="1" conaffinity="7"'
_ARMS = {"left": 'contype="2" conaffinity="5"', "right": 'contype="4" conaffinity="3"'}
_SEEN_ONLY = 'contype="0" conaffinity="0"'
_BIN_COLOURS = {"left": "0.16 0.34 0.56 1", "right": "0.62 0.36 0.12 1"}


def build_model(config: CellConfig) -> mujoco.MjModel:
    """Return the compiled model of the cell. Raises ValueError with MuJoCo's message where it does not compile."""
    return mujoco.MjModel.from_xml_string(scene_xml(config))


def scene_xml(config: CellConfig) -> str:
    """Return the cell as MJCF text."""
    slots = range(config.parcels.slots)
    return f"""
<mujoco model="express_sorting">
  <compiler autolimits="true" angle="radian"/>
  <option timestep="{config.timestep_s!r}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic extent="1" center="0.3 0 0.2"/>
  <visual>
    <global offwidth="320" offheight="240"/>
    <map znear="0.01" zfar="6"/>
    <quality shadowsize="0" offsamples="0" numslices="14" numstacks="6" numquads="1"/>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.28 0.28 0.28" specular="0 0 0"/>
  </visual>
  <asset>
    {"".join(_label_asset(slot) for slot in slots)}
  </asset>
  <worldbody>
    <light name="sun" type="directional" pos="0 0 3" dir="0.25 0.2 -1" diffuse="0.5 0.5 0.48" specular="0 0 0" castshadow="false"/>
    {_room()}
    {_belt(config)}
    {"".join(_bin(name, box) for name, box in config.bins.items())}
    {"".join(_arm(config, side) for side in SIDES)}
    {"".join(_parcel(slot) for slot in slots)}
    {"".join(_clutter(k) for k in range(CLUTTER))}
    <camera name="head" {look_at(config.cameras["head"])}/>
  </worldbody>
  <tendon>{"".join(arms.tendon(side) for side in SIDES)}</tendon>
  <equality>{"".join(arms.equality(side) for side in SIDES)}</equality>
  <actuator>{"".join(KINDS[config.arms].actuators(side) for side in SIDES)}</actuator>
</mujoco>"""


def _room() -> str:
    return f"""
    <geom name="table" type="box" pos="0.25 0 -0.03" size="0.6 0.8 0.03" rgba="0.62 0.58 0.52 1" friction="0.8 0.01 0.001" {_WORLD}/>
    <geom name="floor" type="box" pos="0.5 0 -0.8" size="3 3 0.02" rgba="0.30 0.31 0.32 1" {_SEEN_ONLY}/>
    <geom name="wall" type="box" pos="1.6 0 0.4" size="0.02 3 1.2" rgba="0.52 0.54 0.56 1" {_SEEN_ONLY}/>"""


def _belt(config: CellConfig) -> str:
    belt = config.belt
    half = (belt.width_m / 2, belt.length_m / 2, belt.top_m / 2 - 0.001)
    rails = "".join(
        f'<geom type="box" pos="{belt.centre_x_m + sign * (half[0] + 0.012):.4f} 0 {belt.top_m / 2 - 0.004:.4f}" '
        f'size="0.011 {half[1]} {belt.top_m / 2 - 0.004:.4f}" rgba="0.66 0.67 0.69 1" {_WORLD}/>'
        for sign in (-1, 1)
    )
    # Stripes are only seen: the cell moves them along so that the belt looks as fast as it is.
    stripes = "".join(
        f'<geom name="stripe{k}" type="box" pos="{belt.centre_x_m} 0 {belt.top_m}" '
        f'size="{half[0]} {STRIPE_HALF_M} 0.0004" rgba="0.30 0.31 0.32 1" {_SEEN_ONLY}/>'
        for k in range(STRIPES)
    )
    return f"""
    <geom name="belt" type="box" pos="{belt.centre_x_m} 0 {belt.top_m - half[2]:.4f}" size="{half[0]} {half[1]} {half[2]}"
          rgba="0.13 0.14 0.15 1" friction="0.9 0.01 0.001" surfacevel="0 -0.001 0 0 0 0" {_WORLD}/>
    {rails}{stripes}"""


def _bin(name: str, box: Bin) -> str:
    x, y, half_x, half_y, wall = *box.centre_m, box.size_m[0] / 2, box.size_m[1] / 2, box.wall_m / 2
    plates = [(x, y, 0.003, half_x, half_y, 0.003)]
    plates += [(x + sign * half_x, y, wall, 0.004, half_y, wall) for sign in (-1, 1)]
    plates += [(x, y + sign * half_y, wall, half_x, 0.004, wall) for sign in (-1, 1)]
    colour = _BIN_COLOURS.get(name, "0.4 0.4 0.4 1")
    return "".join(
        f'<geom type="box" pos="{px:.4f} {py:.4f} {pz:.4f}" size="{sx:.4f} {sy:.4f} {sz:.4f}" rgba="{colour}" {_WORLD}/>'
        for px, py, pz, sx, sy, sz in plates
    )


def _arm(config: CellConfig, side: str) -> str:
    y = config.arm_spacing_m / 2 * (1 if side == "left" else -1)
    return KINDS[config.arms].body(side, (config.base_forward_m, y, config.base_height_m), config.cameras[side], _ARMS[side])


def _clutter(k: int) -> str:
    return f'<geom name="clutter{k}" type="box" pos="-3 {-1 - k} -2" quat="0 1 0 0" size="0.03 0.03 0.03" rgba="0 0 0 0" {_SEEN_ONLY}/>'


def _label_asset(slot: int) -> str:
    return f"""<texture name="label{slot}" type="2d" builtin="flat" rgb1="1 1 1" width="{LABEL_PX}" height="{LABEL_PX}"/>
    <material name="label{slot}" texture="label{slot}" specular="0" shininess="0"/>"""


def _parcel(slot: int) -> str:
    # Sizes, masses and codes are written anew each time a parcel enters the belt (see parcels.py).
    return f"""
    <body name="parcel{slot}" pos="-3 {slot} -2" gravcomp="1">
      <freejoint name="parcel{slot}"/>
      <geom name="parcel{slot}" type="box" size="0.05 0.03 0.03" mass="0.15" condim="4" friction="0.9 0.01 0.001" {_WORLD}/>
      <geom name="label{slot}" type="box" pos="0 0 0.03" size="0.025 0.025 0.0005" mass="0" material="label{slot}" {_SEEN_ONLY}/>
    </body>"""
