"""The doctor: everything that was seen, judged before anything moves. docs/doctor.md says what each line means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from internvla_a1_ros.commissioning.doctor_cell import Wire, check_wires
from internvla_a1_ros.commissioning.doctor_facts import Facts
from internvla_a1_ros.commissioning.doctor_findings import Finding, ordered
from internvla_a1_ros.commissioning.doctor_joints import check_joints, check_model
from internvla_a1_ros.commissioning.doctor_machine import check_machine
from internvla_a1_ros.commissioning.doctor_pictures import check_pictures
from internvla_a1_ros.commissioning.doctor_topics import check_topics
from internvla_a1_ros.model.files import read_config
from internvla_a1_ros.policy.manifest import Manifest, load_manifest
from internvla_a1_ros.policy.statistics import Statistics, StatisticsFile
from internvla_a1_ros.robots.profile import RobotProfile


@dataclass(frozen=True, slots=True)
class Model:
    """What a checkpoint says without being loaded; `side`: pixels a side of the picture it looks at, 0 where it does not say."""

    manifest: Manifest
    statistics: Statistics
    side: int


def read_model(checkpoint: Path) -> Model:
    """Read manifest, statistics and picture size of a checkpoint folder. Raises ConfigurationError."""
    manifest = load_manifest(checkpoint)
    statistics = StatisticsFile(checkpoint / "stats.json").of(manifest.robot_type)
    # 2B configs say the 3B's 224 where they look at 448: too small a bound, never too large a one.
    side = read_config(checkpoint).get("image_resolution", [0])
    return Model(manifest, statistics, max(side) if isinstance(side, list) and side else 0)


def examine(facts: Facts, profile: RobotProfile, model: Model, wires: Iterable[Wire] = ()) -> list[Finding]:
    """Return every finding on `facts`, the worst first; `wires` are those of the robot's cell."""
    return ordered(
        [
            *check_topics(profile, facts),
            *check_pictures(profile, facts, model.side),
            *check_joints(profile, facts),
            *check_model(profile, facts, model.manifest, model.statistics),
            *check_machine(profile, facts),
            *check_wires(wires, facts),
        ]
    )
