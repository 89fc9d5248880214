"""Before anything moves: do checkpoint, statistics, manifest and robot profile speak of the same robot?"""

from __future__ import annotations

from internvla_a1_ros.core.errors import RobotMismatch, suggestion
from internvla_a1_ros.policy.manifest import Manifest
from internvla_a1_ros.policy.statistics import Statistics, aliases, layout_of
from internvla_a1_ros.robots.profile import RobotProfile

# Statistics of a gripper may lie outside the profile's readings by this share of their range before it is another gripper.
GRIPPER_SLACK = 0.25


def check_robot_type(manifest: Manifest, profile: RobotProfile) -> None:
    """Raise RobotMismatch where the manifest's robot type is none of the profile's, or lays its vectors out differently."""
    accepted = profile.dataset.robot_types
    if not set(aliases(manifest.robot_type)) & set(accepted):
        near = suggestion(manifest.robot_type, list(accepted))
        raise RobotMismatch(
            f"checkpoint '{manifest.name}' is for robot type '{manifest.robot_type}', "
            f"robot '{profile.name}' accepts {', '.join(accepted)}{near}"
        )
    layout = layout_of(manifest.robot_type)
    for what, got, expected in (
        ("state_keys", profile.dataset.state_keys, layout.state_keys),
        ("action_keys", profile.dataset.action_keys, layout.action_keys),
        ("delta_mask", profile.dataset.delta_mask, layout.delta_runs),
    ):
        if tuple(got) != tuple(expected):
            raise RobotMismatch(
                f"robot '{profile.name}': dataset.{what}: got {list(got)}, checkpoint '{manifest.name}' has {list(expected)}"
            )


def check_statistics(statistics: Statistics, action_width: int, profile: RobotProfile) -> None:
    """Raise RobotMismatch where a width differs or a gripper's statistics cannot be of the profile's gripper."""
    for what, width in (("states", statistics.state.width), ("actions", statistics.action.width), ("checkpoint's actions", action_width)):
        if width != profile.dof:
            raise RobotMismatch(f"{what}: got a width of {width}, expected {profile.dof}, the joints of robot '{profile.name}'")
    for gripper in profile.grippers:
        i = profile.joint_names.index(gripper.joint)
        ends = sorted((gripper.closed, gripper.open))
        slack = GRIPPER_SLACK * (ends[1] - ends[0])
        state = [gripper.state.scale * end + gripper.state.offset for end in (ends[0] - slack, ends[1] + slack)]
        action = [(end - gripper.action.offset) / gripper.action.scale for end in (ends[0] - slack, ends[1] + slack)]
        for what, moments, allowed in (("states", statistics.state, state), ("actions", statistics.action, action)):
            low, high = float(moments.minimum[i]), float(moments.maximum[i])
            if low < min(allowed) or high > max(allowed):
                raise RobotMismatch(
                    f"statistics of {what}: '{gripper.joint}' was recorded from {low:.2f} to {high:.2f}, robot '{profile.name}' reads "
                    f"{gripper.closed:g} closed and {gripper.open:g} open: another generation of gripper, or a gripper map is missing"
                )
