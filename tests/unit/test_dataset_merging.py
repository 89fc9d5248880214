"""Datasets written side by side become one, without encoding again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_files import ARM, FPS, GRIPPER, HAND, HEAD, apart, arm, picture, write_v2, write_v3

from internvla_a1_ros.bags.datasets import Dataset, DatasetError, DatasetWriter, Episode, Feature, merge
from internvla_a1_ros.bags.datasets.encoding import CODECS
from internvla_a1_ros.bags.datasets.episodes import read_statistics
from internvla_a1_ros.core.types import ByteArray


@pytest.mark.parametrize("codec", [name for name, (library, _) in CODECS.items() if library in av.codecs_available])
def test_all_episodes_in_order(codec: str, tmp_path: Path) -> None:
    one, two = write_v3(tmp_path / "1", (5, 3), codec=codec), write_v3(tmp_path / "2", (1, 8, 2), codec=codec)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    merge([one, two], tmp_path / "all")
    assert all(path.read_bytes() == data for path, data in before.items())
    merged = Dataset.open(tmp_path / "all")
    expected = [(0, 5), (1, 3), (0, 1), (1, 8), (2, 2)]
    assert [(e.length, e.tasks[0]) for e in merged.episodes] == [(n, f"task {e % 2}") for e, n in expected]
    for episode, (was, n) in zip(merged.episodes, expected, strict=True):
        table = episode.table([ARM, "index", "episode_index"])
        assert table[ARM].tolist() == [arm(was, k).tolist() for k in range(n)]
        assert set(table["episode_index"][:, 0]) == {episode.index}
        for key in (HEAD, HAND):
            shown = list(episode.frames(key))
            assert len(shown) == n and all(apart(rgb, picture(was, k, key)) < 3 for k, rgb in enumerate(shown))
    assert json.loads((tmp_path / "all/meta/info.json").read_text())["features"][HEAD]["info"]["video.codec"] == codec


def test_statistics_are_those_of_one_dataset(tmp_path: Path) -> None:
    merge([write_v3(tmp_path / "1", (5, 3))], tmp_path / "all")
    one, all_ = (json.loads((tmp_path / name / "meta/stats.json").read_text()) for name in ("1", "all"))
    assert all_[ARM] == one[ARM] and all_[HEAD]["count"] == one[HEAD]["count"]
    assert all_[HEAD]["mean"][0][0][0] == pytest.approx(one[HEAD]["mean"][0][0][0], abs=0.01)  # of decoded pictures


def test_pictures_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of the first episode, which say their size: the statistics of the others are told where they come from."""
    ones = [write_v3(tmp_path / name, lengths) for name, lengths in (("1", (5, 13)), ("2", (12, 3)))]
    decoded: list[int] = []
    frames = Episode.frames

    def counted(episode: Episode, key: str, indices: Sequence[int] | None = None) -> Iterator[ByteArray]:
        decoded.append(episode.length)
        return frames(episode, key, indices)

    monkeypatch.setattr(Episode, "frames", counted)
    merge(ones, tmp_path / "all")
    assert set(decoded) == {5}
    before = [read_statistics(Dataset.open(one).info, HEAD)[k] for one in ones for k in (0, 1)]
    after = read_statistics(Dataset.open(tmp_path / "all").info, HEAD)
    for k in (1, 2, 3):
        assert {name: np.ravel(values).tolist() for name, values in after[k].items()} == {
            name: pytest.approx(np.ravel(values).tolist()) for name, values in before[k].items()
        }
    means = [float(np.ravel(after[k]["mean"])[0]) for k in range(4)]
    whole = json.loads((tmp_path / "all/meta/stats.json").read_text())[HEAD]
    assert whole["count"] == [1 + 2 + 2 + 1] and whole["mean"][0][0][0] == pytest.approx(np.average(means, weights=(1, 2, 2, 1)))


def test_old_datasets_can_be_taken_into_new_ones(tmp_path: Path) -> None:
    merge([write_v2(tmp_path / "old", (4, 2))], tmp_path / "new")
    merged = Dataset.open(tmp_path / "new")
    assert merged.info.version == "v3.0"
    assert all(apart(rgb, picture(1, k)) < 3 for k, rgb in enumerate(merged.episodes[1].frames(HEAD)))


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    one = write_v3(tmp_path / "1", (3,), codec="h264")
    with DatasetWriter(tmp_path / "2", FPS, "ARX AC One", {GRIPPER: Dataset.open(one).features[GRIPPER]}) as writer:
        writer.add({GRIPPER: 0}, {})
        writer.end_episode("t")
    with pytest.raises(DatasetError, match="/2': robot_type differ from those of '.*/1', expected the same to merge"):
        merge([one, tmp_path / "2"], tmp_path / "all")
    other = write_v3(tmp_path / "3", (3,), codec="h264")
    path = other / f"videos/{HAND}/chunk-000/file-000.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "30"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 48, 64
        for k in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0, k), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(DatasetError, match="file-000.mp4: is coded otherwise than the videos before it"):
        merge([one, other], tmp_path / "all")
    path.unlink()
    with pytest.raises(DatasetError, match="file-000.mp4: the video is missing"):
        merge([one, other], tmp_path / "all")
    for name in ("1", "2", "3"):
        shutil.rmtree(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_is_not_put_into_another(tmp_path: Path) -> None:
    source = Dataset.open(write_v3(tmp_path / "1", (3,), codec="h264"))
    numbers = {key: source.features[key] for key in (ARM, GRIPPER)}
    with (
        pytest.raises(DatasetError, match="got another episode after 1 steps"),
        DatasetWriter(tmp_path / "d", FPS, "arx_lift2", numbers, (HEAD,)) as writer,
    ):
        writer.add({ARM: arm(0, 0), GRIPPER: 0}, {HEAD: picture(0, 0)})
        writer.append(source.episodes[0], "t")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def write_told(folder: Path, *episodes: list[str]) -> Path:
    """A dataset that says at every step what is to be done."""
    with DatasetWriter(folder, FPS, "arx_lift2", {GRIPPER: Feature("float32", (1,))}, names={GRIPPER: ["gripper"]}) as writer:
        for told in episodes:
            for k in range(len(told)):
                writer.add({GRIPPER: k}, {})
            writer.end_episode(told)
    return folder


def test_tasks_that_change_from_step_to_step_are_kept(tmp_path: Path) -> None:
    episodes = [["a", "a", "b"], ["c"], ["b", "a", "b"]]
    merge([write_told(tmp_path / "1", *episodes[:1]), write_told(tmp_path / "2", *episodes[1:])], tmp_path / "all")
    merged = Dataset.open(tmp_path / "all")
    assert [episode.tasks for episode in merged.episodes] == [("a", "b"), ("c",), ("b", "a")]
    assert merged.tasks == {0: "a", 1: "b", 2: "c"}
    for episode, expected in zip(merged.episodes, episodes, strict=True):
        assert [merged.tasks[int(k)] for k in episode.table(["task_index"])["task_index"][:, 0]] == expected
    assert json.loads((tmp_path / "all/meta/info.json").read_text())["features"][GRIPPER]["names"] == ["gripper"]


def test_a_step_whose_task_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = write_told(tmp_path / "1", ["a", "b"])
    path = folder / "meta/tasks.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    with pytest.raises(DatasetError, match="episode 0 of '.*/1': got task_index 1, expected one of 0 to 0"):
        merge([folder], tmp_path / "all")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_pictures_that_are_no_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"episode 0 of '.*/1': '{HEAD}': got pictures that are stored one by one, expected a video"):
        merge([write_v2(tmp_path / "1", (2,), images="bytes")], tmp_path / "all")
