"""Before anything moves: do checkpoint, statistics, manifest and robot profile speak of the same robot?"""

from __future__ import annotations

from pathlib import Path

from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import CheckpointError, RobotMismatch, suggestion
from internvla_a1_ros.policy.manifest import Manifest
from internvla_a1_ros.policy.statistics import Statistics, aliases, layout_of
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Affine

# Statistics of a gripper may lie outside the profile's readings by this share of their range before it is another gripper.
GRIPPER_SLACK = 0.25


def check_weights(manifest: Manifest, checkpoint: Path) -> None:
    """Raise CheckpointError where the manifest says of which weights it is, and the folder has others."""
    path = checkpoint / "model.safetensors"
    if manifest.sha256 and path.is_file() and (got := sha256_of(path)) != manifest.sha256:
        raise CheckpointError(f"{path}: got weights of sha256 {got}, its manifest.yaml expects {manifest.sha256}")


def check_robot_type(manifest: Manifest, profile: RobotProfile) -> None:
    """Raise RobotMismatch where the manifest's robot type is none of the profile's, or lays its vectors out differently."""
    accepted = tuple(name for dataset in profile.datasets for name in dataset.robot_types)
    dataset = next((each for each in profile.datasets if set(aliases(manifest.robot_type)) & set(each.robot_types)), None)
    if dataset is None:
        near = suggestion(manifest.robot_type, list(accepted))
        raise RobotMismatch(
            f"checkpoint '{manifest.name}' is for robot type '{manifest.robot_type}', "
            f"robot '{profile.name}' accepts {', '.join(accepted)}{near}"
        )
    layout = layout_of(manifest.robot_type)
    for what, got, expected in (
        ("state_keys", dataset.state_keys, layout.state_keys),
        ("action_keys", dataset.action_keys, layout.action_keys),
        ("delta_mask", dataset.delta_mask, layout.delta_runs),
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
    profile.require_known()
    for gripper in profile.grippers:
        i = profile.joint_names.index(gripper.joint)
        ends = sorted((gripper.closed, gripper.open))
        slack = GRIPPER_SLACK * (ends[1] - ends[0])
        reach = ends[0] - slack, ends[1] + slack
        maps = {"states": (statistics.state, gripper.state), "actions": (statistics.action, gripper.action)}
        for what, (moments, unit) in maps.items():
            assert isinstance(unit, Affine)
            back = unit if what == "states" else unit.inverse
            allowed = [back.scale * end + back.offset for end in reach]
            if (what == "states" and gripper.zero_state) or (what == "actions" and gripper.binarize is not None):
                continue  # the model's numbers are of another robot's gripper
            low, high = float(moments.minimum[i]), float(moments.maximum[i])
            if low < min(allowed) or high > max(allowed):
                raise RobotMismatch(
                    f"statistics of {what}: '{gripper.joint}' was recorded from {low:.2f} to {high:.2f}, robot '{profile.name}' reads "
                    f"{gripper.closed:g} closed and {gripper.open:g} open: another generation of gripper, or a gripper map is missing"
                )
