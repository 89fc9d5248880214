"""Datasets are written whole or not at all, in the layout and with the statistics of LeRobot 3.0."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_files import ARM, FEATURES, FPS, GRIPPER, HAND, HEAD, LENGTHS, SIZE, arm, picture, write_v3

from internvla_a1_ros.bags.datasets import Dataset, DatasetError, DatasetWriter, Feature
from internvla_a1_ros.bags.datasets.encoding import CODECS, choose_codec
from internvla_a1_ros.core.errors import ConfigurationError


def writer(folder: Path, cameras: tuple[str, ...] = (HEAD,), **options: Any) -> DatasetWriter:
    return DatasetWriter(folder, FPS, "arx_lift2", FEATURES, cameras, **options)


def add(to: DatasetWriter, k: int = 0, **changes: Any) -> None:
    to.add({ARM: arm(0, k), GRIPPER: [k]} | changes.get("numbers", {}), {HEAD: changes.get("rgb", picture(0, k))})


def test_the_files(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", names={ARM: [f"joint{i}" for i in range(1, 7)]})
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        *(f"videos/{key}/chunk-000/file-000.mp4" for key in (HEAD, HAND)),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"], info["splits"]) == ("v3.0", 30, sum(LENGTHS), {"train": "0:3"})
    assert info["features"][ARM] == {"dtype": "float32", "shape": [6], "names": [f"joint{i}" for i in range(1, 7)]}
    assert info["features"][HEAD]["shape"] == [*SIZE, 3] and info["features"][HEAD]["info"]["video.codec"] == choose_codec("")
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["task 0", "task 1"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_every_step_is_counted(tmp_path: Path) -> None:
    data = pq.read_table(write_v3(tmp_path / "d") / "data/chunk-000/file-000.parquet").to_pydict()
    assert data["index"] == list(range(sum(LENGTHS)))
    assert data["frame_index"] == [k for n in LENGTHS for k in range(n)]
    assert data["episode_index"] == [e for e, n in enumerate(LENGTHS) for _ in range(n)]
    assert data["task_index"] == [e % 2 for e, n in enumerate(LENGTHS) for _ in range(n)]
    np.testing.assert_allclose(data["timestamp"], np.concatenate([np.arange(n) / FPS for n in LENGTHS]), atol=1e-6)


def test_statistics_of_episodes_and_of_all(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d")
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    stats = json.loads((folder / "meta/stats.json").read_text())
    per_episode = [np.stack([arm(e, k) for k in range(n)]) for e, n in enumerate(LENGTHS)]
    for found, values in [*((row, v) for row, v in zip(rows, per_episode, strict=True)), (None, np.concatenate(per_episode))]:
        get = (lambda moment: stats[ARM][moment]) if found is None else (lambda moment, row=found: row[f"stats/{ARM}/{moment}"])
        for moment in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(get(moment), getattr(values, moment)(axis=0), rtol=1e-6, atol=1e-12)
        assert get("count") == [len(values)]
    seen = np.stack([picture(e, k) for e, n in enumerate(LENGTHS) for k in range(0, n, 10)]) / 255
    assert stats[HEAD]["count"] == [len(seen)]
    np.testing.assert_allclose(np.array(stats[HEAD]["mean"]), seen.mean(axis=(0, 1, 2)).reshape(3, 1, 1), rtol=1e-6)
    np.testing.assert_allclose(np.array(stats[HEAD]["std"]), seen.std(axis=(0, 1, 2)).reshape(3, 1, 1), rtol=1e-6)


@pytest.mark.parametrize("codec", [name for name, (library, _) in CODECS.items() if library in av.codecs_available])
def test_codecs(codec: str, tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", lengths=(9, 4), codec=codec)
    with av.open(str(folder / f"videos/{HEAD}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == codec and stream.pix_fmt == "yuv420p" and stream.frames == 13
        keys = [k for k, frame in enumerate(container.decode(stream)) if frame.key_frame]
    assert {0, 9} <= set(keys) and max(np.diff(keys)) <= 2  # each episode's first, and every second


def test_full_files_are_followed_by_the_next(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", lengths=(2,) * 3, data_file_mb=0, video_file_mb=0)
    assert len(list(folder.glob("data/chunk-000/*.parquet"))) == 3
    assert [e.clips[HEAD].path.name for e in Dataset.open(folder).episodes] == ["file-000.mp4", "file-001.mp4", "file-002.mp4"]


def test_more_episodes_than_are_held_at_once(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", FPS, "arx_lift2", {GRIPPER: FEATURES[GRIPPER]}) as to:
        for e in range(203):
            to.add({GRIPPER: [e]}, {})
            to.end_episode("t")
    dataset = Dataset.open(tmp_path / "d")
    assert [float(episode.table([GRIPPER])[GRIPPER][0, 0]) for episode in dataset.episodes] == list(range(203))


def test_an_episode_can_be_discarded(tmp_path: Path) -> None:
    with writer(tmp_path / "d") as to:
        for kept in (True, False, True):
            for k in range(3):
                add(to, k + 3 * kept)
            if kept:
                to.end_episode("t")
            else:
                to.discard_episode()
        assert (to.episodes, to.steps, to.length) == (2, 6, 0)
    dataset = Dataset.open(tmp_path / "d")
    assert [len(list(episode.frames(HEAD))) for episode in dataset.episodes] == [3, 3]
    assert dataset.episodes[1].table([GRIPPER])[GRIPPER][:, 0].tolist() == [3, 4, 5]


# Whole or not at all


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("when", ["in an episode", "after one"])
def test_an_interruption_leaves_nothing(problem: type[BaseException], when: str, tmp_path: Path) -> None:
    with pytest.raises(problem), writer(tmp_path / "d") as to:
        add(to)
        if when == "after one":
            to.end_episode("t")
        raise problem
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["picture", "clip", "join", "end"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"picture": "ClipEncoder.add", "clip": "ClipEncoder.close", "join": "Joiner.append", "end": "Joiner.close"}[where]
    monkeypatch.setattr(f"internvla_a1_ros.bags.datasets.encoding.{target}", full)
    with pytest.raises(DatasetError, match=r"/d': cannot be written: the disk is full$"), writer(tmp_path / "d") as to:
        add(to)
        to.end_episode("t")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write_v3(tmp_path / "d", lengths=(1,))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match="/d': exists already, expected a new folder"):
        writer(tmp_path / "d")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert len(Dataset.open(write_v3(tmp_path / "empty", lengths=(1,))).episodes) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written: Not a directory"):
        writer(tmp_path / "file" / "d")


CASES: dict[str, tuple[Any, str]] = {
    "no episode": (lambda to: None, "got no episode, expected at least one"),
    "tasks": (lambda to: (add(to), to.end_episode(["a", "b"])), "got 2 tasks in an episode of 1 steps, expected one a step"),
    "no steps": (lambda to: to.end_episode("t"), "episode 0 has no steps, expected at least one"),
    "open episode": (lambda to: (add(to), to.end_episode("t"), add(to)), "got 1 steps after the last episode, expected it to be ended"),
    "width": (lambda to: add(to, numbers={ARM: [1.0]}), f"'{ARM}': got \\[1.0\\], expected 6 finite numbers"),
    "nan": (lambda to: add(to, numbers={GRIPPER: np.nan}), f"'{GRIPPER}': got \\[nan\\], expected 1 finite numbers"),
    "key": (lambda to: add(to, numbers={"x": 1}), f"got numbers of {ARM}, {GRIPPER}, x, expected {ARM}, {GRIPPER}"),
    "camera": (lambda to: to.add({ARM: arm(0, 0), GRIPPER: 0}, {}), "got pictures of , expected images.rgb.head"),
    "odd": (lambda to: add(to, rgb=np.zeros((47, 64, 3), np.uint8)), "pictures of 64x47: got an odd side, expected even ones"),
    "size": (lambda to: (add(to), add(to, rgb=np.zeros((64, 64, 3), np.uint8))), "got one of 64x64, expected 64x48 as the first was"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=CASES[case][1]), writer(tmp_path / "d") as to:
        CASES[case][0](to)
    assert list(tmp_path.iterdir()) == []


def test_only_vectors_of_numbers_are_features(tmp_path: Path) -> None:
    for wrong in (Feature("float32", (2, 3)), Feature("video", (48, 64, 3))):
        with pytest.raises(DatasetError, match="'x': got Feature.*, expected a vector of numbers"):
            DatasetWriter(tmp_path / "d", FPS, "arx_lift2", {"x": wrong})
    assert list(tmp_path.iterdir()) == []


def test_codecs_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="codec: got 'h265', expected one of av1, h264, did you mean 'h264'"):
        choose_codec("h265")
    monkeypatch.setattr(av, "codecs_available", {"libx264"})
    assert choose_codec("") == "h264"
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.raises(ConfigurationError, match="this PyAV encodes none of libsvtav1, libx264"):
        choose_codec("")


def test_clips_of_unequal_length_join_without_a_gap(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", lengths=(1, 2, 3), codec="h264")
    with av.open(str(folder / f"videos/{HEAD}/chunk-000/file-000.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(6) / FPS, atol=1e-4)
