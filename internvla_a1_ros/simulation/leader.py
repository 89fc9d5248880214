"""The policy that leads in demonstrations: one model in one process, a policy of its own for each trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.policy import Policy, load_policy
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.simulation.demonstration import RATE_HZ
from internvla_a1_ros.simulation.leading import Habits, Lead, Leading, Stretch

# What the answers of a checkpoint depend on.
_FILES = ("model.safetensors", "config.json", "manifest.yaml", "stats.json")


class Leader:
    """Loads the model, with one thread. Raises ConfigurationError where it does not fit the robot."""

    def __init__(self, leading: Leading, profile: RobotProfile) -> None:
        self._folder, self._profile = Path(leading.policy), profile
        manifest = load_manifest(self._folder)
        period, back = round(RATE_HZ / manifest.target_rate_hz), round(manifest.history.interval_s * RATE_HZ)
        self._habits = Habits(f"checkpoint '{manifest.name}'", period, back)
        self._engine = make_engine("torch", self._folder, threads=1)
        self._policy(0)  # whether it fits

    def lead(self, seed: int, stretch: Stretch, look: Callable[[str], ByteArray]) -> Lead:
        """Return the lead of one trial; the noise depends on its seed alone."""
        return Lead(self._policy(seed), self._habits, self._profile, stretch, look)

    def _policy(self, seed: int) -> Policy:
        return load_policy(self._folder, self._profile, self._profile.name, engine=self._engine, seed=seed)


def checksum(folder: Path) -> str:
    """Of a checkpoint's files."""
    digest = hashlib.sha256()
    for path in (folder / name for name in _FILES):
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
