"""Bags to datasets and back, by the functions and by the command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_files import apart
from dataset_rig import ARM_HZ, BEGIN_NS, CAMERAS, COMMANDS, IMAGE, PROFILE, S_NS, T, brightness, header, joints, state, text, write_bag

from internvla_a1_ros.bags.converting import convert
from internvla_a1_ros.bags.converting_back import convert_back
from internvla_a1_ros.bags.converting_episodes import Choices
from internvla_a1_ros.bags.converting_keys import columns_of
from internvla_a1_ros.bags.datasets import Dataset, DatasetWriter, Episode
from internvla_a1_ros.bags.reading import Bag
from internvla_a1_ros.bags.robot_stream import RobotStream, Told
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Frame, JointState
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.robots.profile import RobotProfile, load_profile

SORT = text("/policy/instruction", 0.0, "Sort the parcels.")
STATE_KEYS, ACTION_KEYS, IMAGE_KEYS = PROFILE.dataset.state_keys, PROFILE.dataset.action_keys, PROFILE.dataset.image_keys


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", 3.0, said=[SORT])


@pytest.fixture(scope="module")
def dataset(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("datasets") / "d"
    outcome = convert([bag], PROFILE, out, Choices(), codec="h264")
    assert (outcome.episodes, outcome.steps, outcome.notes) == (1, 89, [])
    return Dataset.open(out)


def whole(episode: Episode, keys: tuple[str, ...]) -> np.ndarray:
    table = episode.table(keys)
    return np.concatenate([table[key] for key in keys], axis=1)


def test_states_actions_and_pictures_of_one_instant(dataset: Dataset) -> None:
    (episode,) = dataset.episodes
    assert (dataset.robot_type, dataset.fps, episode.tasks) == ("ARX AC One", 30, ("Sort the parcels.",))
    assert dataset.camera_keys == IMAGE_KEYS
    t_s = np.arange(89) / 30
    np.testing.assert_allclose(whole(episode, STATE_KEYS), np.stack([joints(t) for t in t_s]), atol=1e-6)
    np.testing.assert_allclose(whole(episode, ACTION_KEYS), np.stack([joints(t + 1 / 30) for t in t_s]), atol=1e-6)
    for key in IMAGE_KEYS:
        for k, rgb in enumerate(episode.frames(key)):
            assert apart(rgb, np.full_like(rgb, brightness(k / 30))) < 3, (key, k)


def test_commands_as_recorded(bag: Path, tmp_path: Path) -> None:
    convert([bag], PROFILE, tmp_path / "d", Choices(actions="command"), codec="h264")
    (episode,) = Dataset.open(tmp_path / "d").episodes
    assert episode.length == 90
    t_s = np.floor(np.arange(90) / 30 * ARM_HZ + 1e-6) / ARM_HZ
    np.testing.assert_allclose(whole(episode, ACTION_KEYS), np.stack([joints(t) + 0.05 for t in t_s]), atol=1e-6)


def test_a_cameras_delay_is_taken_off(bag: Path, tmp_path: Path) -> None:
    """A picture stamped 0.1 s late shows what was 0.1 s, three steps, before."""
    table = PROFILE.model_dump()
    table["cameras"] = tuple(camera | {"delay_s": 0.1 if camera["name"] == "left" else 0.0} for camera in table["cameras"])
    convert([bag], RobotProfile.model_validate(table), tmp_path / "d", Choices(), codec="h264")
    (episode,) = Dataset.open(tmp_path / "d").episodes
    head, left = ([int(np.median(rgb)) for rgb in episode.frames(key)] for key in IMAGE_KEYS[:2])
    assert np.abs(np.array(left[: len(head) - 3]) - np.array([brightness((k + 3) / 30) for k in range(len(head) - 3)])).max() <= 3


def test_grippers_in_the_units_of_the_dataset(tmp_path: Path) -> None:
    """States and actions have their own: a gripper that is recorded in mm is commanded from 0 to 1."""
    table = PROFILE.model_dump()
    maps = {"state": {"scale": 81.0, "offset": 35.0}, "action": {"scale": -3.4, "offset": 0.0}}
    table["grippers"] = tuple(gripper | maps for gripper in table["grippers"])
    changed = RobotProfile.model_validate(table)
    convert([write_bag(tmp_path / "bag", 1.5, said=[SORT])], changed, tmp_path / "d", Choices(), codec="h264")
    (episode,) = Dataset.open(tmp_path / "d").episodes
    state, action = whole(episode, STATE_KEYS), whole(episode, ACTION_KEYS)
    np.testing.assert_allclose(state[0], np.where(PROFILE.is_gripper, 81 * joints(0) + 35, joints(0)), rtol=1e-6)
    np.testing.assert_allclose(action[0], np.where(PROFILE.is_gripper, joints(1 / 30) / -3.4, joints(1 / 30)), rtol=1e-5)


def test_results_and_states_of_the_cell_cut(tmp_path: Path) -> None:
    works = [state("/cell/state", 0.0, "working"), state("/cell/state", 3.5, "waiting")]
    said = [SORT, *works, text("/cell/result", 2.0, '{"outcome": "done"}')]
    path = write_bag(tmp_path / "bag", 5.0, said=said)
    outcome = convert([path], PROFILE, tmp_path / "d", Choices(), codec="h264")
    assert [e.length for e in Dataset.open(tmp_path / "d").episodes] == [60, 45] and outcome.notes == []
    convert([path], PROFILE, tmp_path / "e", Choices(), codec="h264", cut_by=["/cell/state"])
    assert [e.length for e in Dataset.open(tmp_path / "e").episodes] == [105]
    convert([path], PROFILE, tmp_path / "f", Choices(whole=True), codec="h264")
    assert [e.length for e in Dataset.open(tmp_path / "f").episodes] == [149]


def test_several_bags_one_dataset(bag: Path, tmp_path: Path) -> None:
    other = write_bag(tmp_path / "other", 2.0, said=[text("/instruction", 0.0, "Pick.")])
    shares: list[float] = []
    silent = write_bag(tmp_path / "silent", 1.2)
    outcome = convert([bag, silent, other], PROFILE, tmp_path / "d", Choices(fps=10), codec="h264", progress=shares.append)
    dataset = Dataset.open(tmp_path / "d")
    assert outcome.notes[-1] == f"{silent}: holds no episode"
    assert [(e.length, e.tasks[0]) for e in dataset.episodes] == [(29, "Sort the parcels."), (19, "Pick.")] and outcome.episodes == 2
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


def test_an_optional_camera_may_be_missing(tmp_path: Path) -> None:
    table = PROFILE.model_dump()
    table["cameras"] = tuple(camera | {"optional": camera["name"] == "right"} for camera in table["cameras"])
    path = write_bag(tmp_path / "bag", 1.5, cameras=CAMERAS[:2], said=[SORT])
    outcome = convert([path], RobotProfile.model_validate(table), tmp_path / "d", Choices(), codec="h264")
    assert outcome.notes == ["no pictures of optional camera 'right' in every bag: left out"]
    assert Dataset.open(tmp_path / "d").camera_keys == IMAGE_KEYS[:2]


def test_topics_under_other_names(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 1.5, cameras=["/head/jpeg", *CAMERAS[1:]], said=[SORT])
    assert run(path, "--to", "lerobot", tmp_path / "d", "--remap", f"{CAMERAS[0]}:=/head/jpeg", "--codec", "h264") == 0
    assert len(list(Dataset.open(tmp_path / "d").episodes[0].frames(IMAGE_KEYS[0]))) == 44


def test_slow_cameras_and_one_that_fell_silent(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 4.0, camera_hz=25.0, gap_s=(1.5, 2.0), said=[SORT])
    outcome = convert([path], PROFILE, tmp_path / "d", Choices(), codec="h264")
    assert outcome.notes == [f"{path}: gaps of more than 83 ms in pictures of 'head', cut there: 1"]
    assert [e.length for e in Dataset.open(tmp_path / "d").episodes] == [44, 58]


def test_a_picture_that_does_not_decode_is_replaced_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decode, calls = write_bag(tmp_path / "bag", 1.5, said=[SORT]), cv2.imdecode, []

    def fails_once(*arguments: Any) -> Any:
        calls.append(1)
        return None if len(calls) == 10 else decode(*arguments)

    monkeypatch.setattr("internvla_a1_ros.runtime.wire_pictures.cv2.imdecode", fails_once)
    outcome = convert([path], PROFILE, tmp_path / "d", Choices(), codec="h264")
    assert outcome.notes == [f"{path}: 1 pictures of 'head' do not decode, the one before stands in their place"]
    assert len(calls) == 3 * outcome.steps  # each picture that is needed is decoded once, no other


def test_messages_that_the_nodes_would_refuse_are_counted(tmp_path: Path) -> None:
    broken = T[IMAGE](header=header(BEGIN_NS + S_NS), format="jpeg", data=np.frombuffer(b"\xff\xd8 cut off", np.uint8))
    path = write_bag(tmp_path / "bag", 1.5, said=[SORT, (BEGIN_NS + S_NS, CAMERAS[1], IMAGE, broken)])
    outcome = convert([path], PROFILE, tmp_path / "d", Choices(), codec="h264")
    (note,) = outcome.notes
    assert note.startswith(f"bag '{path}': 1 messages on {CAMERAS[1]} were refused, the last because: camera 'left': got a truncated jpeg")


# What cannot be converted


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no camera": ({"cameras": CAMERAS[:2]}, {}, "no topic '/camera/camera_r/color/image_rect_raw/compressed', which robot"),
    "short": ({"seconds": 0.8}, {}, "got no episode of at least 1 s in 1 of them, expected one: .*less than 1 s, left out: 0.8 s"),
    "no instruction": ({"said": []}, {}, "pieces without an instruction \\(--task gives one\\), left out: 1"),
    "no commands": ({"commands": False}, {"choices": Choices(actions="command")}, "/bag': got no commands of every joint, expected some"),
    "topic": ({}, {"cut_by": ["/policy/instructions"]}, "no topic '/policy/instructions', did you mean '/policy/instruction'"),
    "type": ({}, {"cut_by": [CAMERAS[0]]}, "got type sensor_msgs/msg/CompressedImage, expected std_msgs/msg/String or"),
    "odd": ({"size": (65, 48)}, {}, "pictures of 65x48: got an odd side"),
    "empty": ({"seconds": 0.0}, {}, "bag '.*bag'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_a_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    written, asked, sentence = REFUSED[case]
    path = write_bag(tmp_path / "bag", **({"seconds": 1.5, "said": [SORT]} | written))
    choices = asked.pop("choices", Choices()) if "choices" in asked else Choices()
    with pytest.raises(ConfigurationError, match=sentence) as problem:
        convert([path], PROFILE, tmp_path / "d", choices, codec="h264", **asked)
    assert "\n" not in str(problem.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bag"]


def test_a_clock_that_goes_back(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 3.0, said=[SORT], clock_back_s=1.5)
    with pytest.raises(ConfigurationError, match="clock of the joint states in bag '.*' goes back by 1.5 s, expected a bag of one"):
        convert([path], PROFILE, tmp_path / "d", Choices(), codec="h264")


# And back


def test_an_episode_as_a_bag_reads_as_it_was_recorded(dataset: Dataset, tmp_path: Path) -> None:
    assert convert_back(dataset.folder, 0, PROFILE, tmp_path / "bag") == []
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["bag", "bag.mcap", "metadata.yaml"]
    with Bag(tmp_path / "bag") as bag:
        heard = [each.what for each in RobotStream(bag, PROFILE)]
        topics = bag.topics
    states = [each for each in heard if isinstance(each, JointState)]
    told = [each for each in heard if isinstance(each, Told) and np.isfinite(each.positions).all()]
    assert len(states) == 89 and all(topics[name].count == 89 for name in (*CAMERAS, *COMMANDS))
    assert topics["/policy/instruction"].count == 1
    np.testing.assert_allclose([each.positions for each in states], whole(dataset.episodes[0], STATE_KEYS), atol=1e-6)
    np.testing.assert_allclose(told[-1].positions, whole(dataset.episodes[0], ACTION_KEYS)[-1], atol=1e-6)
    frames = [each for each in heard if isinstance(each, Frame) and each.camera == "left"]
    assert apart(frames[40].rgb, np.full((48, 64, 3), brightness(40 / 30))) < 4
    again = convert([tmp_path / "bag"], PROFILE, tmp_path / "d", Choices(actions="command"), codec="h264")
    assert again.steps == 89
    (episode,) = Dataset.open(tmp_path / "d").episodes
    for keys in (STATE_KEYS, ACTION_KEYS):
        np.testing.assert_allclose(whole(episode, keys), whole(dataset.episodes[0], keys), atol=1e-6)


@pytest.mark.parametrize("name", ["arx_lift2", "jtc_dual_arm", "genie1_sim"])
def test_every_robot_comes_back(name: str, tmp_path: Path) -> None:
    """Its own messages, units and pictures, and every joint where it was."""
    profile = load_profile(name)
    columns, grippers = columns_of(profile), GripperMap(profile)
    middle = (profile.lower + profile.upper) / 2
    features, _ = columns.features(profile.joint_names)
    keys = tuple(columns.cameras.values())
    with DatasetWriter(tmp_path / "d", 30, columns.robot_type, features, keys, codec="h264") as writer:
        for k in range(3):
            asked = grippers.action_inverse(middle + 0.001 * k)
            writer.add(columns.step(grippers.state(middle), asked), {key: np.full((48, 64, 3), 90, np.uint8) for key in keys})
        writer.end_episode("Work.")
        for _ in range(3):
            writer.add(columns.step(grippers.state(middle), asked), {key: np.full((48, 64, 3), 90, np.uint8) for key in keys})
        writer.end_episode(["Take it.", "Take it.", "Give it."])
    convert_back(tmp_path / "d", 1, profile, tmp_path / "staged")
    with Bag(tmp_path / "staged") as bag:  # told when it changes
        assert bag.topics["/policy/instruction"].count == 2
    convert_back(tmp_path / "d", 0, profile, tmp_path / "bag")
    with Bag(tmp_path / "bag") as bag:
        stream = RobotStream(bag, profile)
        heard = [each.what for each in stream]
        assert not stream.refused, stream.reasons
    states, told = ([each for each in heard if isinstance(each, kind)] for kind in (JointState, Told))
    assert len(states) == 3 and sum(isinstance(each, Frame) for each in heard) == 9
    np.testing.assert_allclose(states[0].positions, middle, atol=1e-5)
    np.testing.assert_allclose(told[-1].positions, middle + 0.002, atol=1e-5)


def test_back_without_what_it_needs(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="got episode 1, it has 1, from 0"):
        convert_back(dataset.folder, 1, PROFILE, tmp_path / "bag")
    with pytest.raises(ConfigurationError, match="robot type: got 'ARX AC One', expected one of robot 'arx_lift2'"):
        convert_back(dataset.folder, 0, load_profile("arx_lift2"), tmp_path / "bag")
    broken = tmp_path / "broken"
    shutil.copytree(dataset.folder, broken)
    shutil.rmtree(broken / "videos" / IMAGE_KEYS[1])
    with pytest.raises(ConfigurationError, match="file-000.mp4: the video is missing"):
        convert_back(broken, 0, PROFILE, tmp_path / "bag")
    assert [each.name for each in tmp_path.iterdir()] == ["broken"]


# The command


def run(*words: object) -> int:
    try:
        main(["convert", *(str(word) for word in words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_there_and_back(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bag, "--to", "lerobot", tmp_path / "d", "--robot", "arx_ac_one", "--drop-static", "--codec", "h264", "--task", "Work.") == 0
    assert f"{tmp_path / 'd'}: 1 episodes, " in capsys.readouterr().out
    assert Dataset.open(tmp_path / "d").episodes[0].tasks == ("Work.",)
    assert run(tmp_path / "d", "--to", "bag", tmp_path / "back") == 0
    with Bag(tmp_path / "back") as back:
        assert back.start_ns != BEGIN_NS and set(CAMERAS) < set(back.topics)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bag", "--to", "rosbag", "d"], "--to: got 'rosbag', expected one of lerobot, bag, did you mean 'bag'"),
        (["bag", "--to", "lerobot"], "got only 'bag', expected what to convert and, last, what to make"),
        (["bag", "--to", "lerobot", "d", "--actions", "next_state"], "--actions: got 'next_state', expected one of next-state, command"),
        (["bag", "--to", "lerobot", "d", "--remap", "/a=/b"], "--remap: got '/a=/b', expected PROFILE_TOPIC:=BAG_TOPIC"),
        (["bag", "--to", "lerobot", "d", "--robot", "genie1"], "commanded of joint 'left_gripper_joint1'"),
        (["none", "--to", "lerobot", "d"], "bag 'none'"),
        (["a", "b", "--to", "bag", "d"], "--to bag: got 2 datasets, expected one"),
    ],
)
def test_a_mistake_is_a_sentence(words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2 and sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
