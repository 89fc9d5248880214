"""An episode of a LeRobot dataset as an open loop reads it: pictures and joints of one step belong together as they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np

from internvla_a1_ros.bags.datasets import Dataset, Episode
from internvla_a1_ros.core.errors import ConfigurationError, RobotMismatch
from internvla_a1_ros.core.types import FloatArray, Frame, JointState, Observation
from internvla_a1_ros.evaluation.open_loop_sources import Commanded, Due, Event, Knows, Notes, Rhythm
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.policy.manifest import Manifest
from internvla_a1_ros.policy.statistics import WHOLE_ACTION, WHOLE_STATE, aliases
from internvla_a1_ros.robots.parts import Dataset as Layout
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Affine


class EpisodeRecording:
    """One episode, its time beginning at 0. `texts` are the dataset's tasks; `instruction` stands in for what the episode says at each
    step, which where it is empty is the manifest's first.

    Its actions are labels: the one of step k is for the time (k + action offset) / fps.
    """

    has_commands = True
    start_ns = 0

    def __init__(
        self, episode: Episode, texts: Mapping[int, str], name: str, profile: RobotProfile, manifest: Manifest, instruction: str = ""
    ) -> None:
        self._episode, self.name, self.notes = episode, name, Notes()
        self._profile, self._manifest = profile, manifest
        self._texts, self._instruction = texts, instruction
        self._layout = _layout(profile, manifest)
        self._step_ns = 1e9 / episode.info.fps
        self.seconds = episode.length / episode.info.fps

    @property
    def place(self) -> str:
        return self._episode.name

    def events(self, rhythm: Rhythm, knows: Knows) -> Generator[Event, None, None]:
        states, actions = self._numbers()
        said = (self._instruction,) * len(states) if self._instruction else self._episode.told(self._texts)
        due, history, fps = self._due_every(rhythm), self._manifest.history, self._episode.info.fps
        back, ahead = round(history.interval_s * fps), round(history.ahead_s * fps)
        shown = sorted({step for i in range(0, len(states), due) for step in (max(0, i - back), i, i + ahead) if step < len(states)})
        pictures = {camera: self._episode.frames(key, shown) for camera, key in self._cameras().items()}
        seen: deque[tuple[int, tuple[Frame, ...]]] = deque()
        waiting = deque(shown)
        offset, every_joint = self._manifest.actions.offset, tuple(range(self._profile.dof))
        for step, positions in enumerate(states):
            stamp_ns, done_s = self._stamp_ns(step), step / self._episode.info.fps
            yield Event(done_s, JointState(stamp_ns, positions))
            yield Event(done_s, Commanded(self._stamp_ns(step + offset), every_joint, actions[step]))
            if waiting and waiting[0] == step:
                frames = tuple(Frame(camera, stamp_ns, stamp_ns, next(each)) for camera, each in pictures.items())
                seen.append((waiting.popleft(), frames))
                yield from (Event(done_s, frame) for frame in frames)
            while seen and seen[0][0] < step - back:
                seen.popleft()
            if step % due == 0:
                past = next(frames for at, frames in seen if at == max(0, step - back))
                observation = Observation(stamp_ns, seen[-1][1], past, JointState(stamp_ns, positions), 0)
                yield Event(done_s, Due(observation, self.notes.told(said[step] or self._manifest.instructions[0])))

    def _stamp_ns(self, step: int) -> int:
        return round(step * self._step_ns)

    def _due_every(self, rhythm: Rhythm) -> int:
        """Steps between observations: the stride, or what the live loop makes of its rate on pictures of this one."""
        if rhythm.as_online:
            return max(1, math.ceil(0.9 * self._episode.info.fps / self._manifest.target_rate_hz - 1e-6))
        return max(1, round(rhythm.stride_ns / self._step_ns))

    def _cameras(self) -> Mapping[str, str]:
        names = (camera.name for camera in self._profile.cameras)
        return dict(zip(names, self._layout.image_keys, strict=True))

    def _numbers(self) -> tuple[FloatArray, FloatArray]:
        """Return states and actions [steps, dof] in robot units."""
        features, layout = self._episode.info.features, self._layout
        whole = WHOLE_STATE in features and not set(layout.state_keys) <= set(features)
        state_keys, action_keys = ((WHOLE_STATE,), (WHOLE_ACTION,)) if whole else (layout.state_keys, layout.action_keys)
        table = self._episode.table((*state_keys, *action_keys))
        states, actions = (np.concatenate([table[key] for key in keys], axis=1).astype(np.float64) for keys in (state_keys, action_keys))
        for what, numbers in (("states", states), ("actions", actions)):
            if numbers.shape[1] != self._profile.dof:
                raise RobotMismatch(
                    f"{self._episode.name}: got {what} of width {numbers.shape[1]}, expected {self._profile.dof}, the joints of robot "
                    f"'{self._profile.name}'"
                )
        return _positions(states, self._profile), GripperMap(self._profile).action(actions)


def _layout(profile: RobotProfile, manifest: Manifest) -> Layout:
    """How recordings of the checkpoint's robot type are laid out; that the profile has one was checked with the checkpoint."""
    return next(each for each in profile.datasets if set(aliases(manifest.robot_type)) & set(each.robot_types))


def _positions(states: FloatArray, profile: RobotProfile) -> FloatArray:
    """Return recorded states [steps, dof] as the robot measures them; only grippers differ."""
    positions = states.copy()
    for gripper in profile.grippers:
        joint = profile.joint_names.index(gripper.joint)
        assert isinstance(gripper.state, Affine)
        back = gripper.state.inverse
        positions[:, joint] = back.scale * states[:, joint] + back.offset
    return positions


def episodes(folder: Path, name: str, profile: RobotProfile, manifest: Manifest, instruction: str = "") -> list[EpisodeRecording]:
    """Return every episode of a dataset that is called `name`. Raises ConfigurationError where it is of another robot, or holds none."""
    dataset = Dataset.open(folder)
    accepted = {name for each in profile.datasets for own in each.robot_types for name in aliases(own)}
    if dataset.robot_type and dataset.robot_type not in accepted:
        raise RobotMismatch(
            f"dataset '{folder}': got robot type '{dataset.robot_type}', robot '{profile.name}' accepts {', '.join(sorted(accepted))}"
        )
    if not dataset.episodes:
        raise ConfigurationError(f"dataset '{folder}': got no episodes, expected at least one")
    dataset.need(_layout(profile, manifest).image_keys)
    return [
        EpisodeRecording(episode, dataset.tasks, f"{name}/episode {episode.index}", profile, manifest, instruction)
        for episode in dataset.episodes
    ]
