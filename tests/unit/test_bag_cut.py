"""`bag cut` and `bag info`: pieces with what held before them, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import bag_rig
import pytest
from bag_rig import ARM, CAMERA, MS, START_NS, STATUS, STRING, WORDS, bag_files, read, scene, word, write, write_ours
from rosbags.rosbag2 import StoragePlugin

from internvla_a1_ros.bags.cutting import cut
from internvla_a1_ros.bags.reading import Bag
from internvla_a1_ros.bags.sink import Sink
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError

TF = ("/tf_static", bag_rig.TF, START_NS + 5, b"\0\1\0\0\0\0\0\0")
EVENT = ("/e_stop", STRING, START_NS + 1500 * MS, word("stop"))
SENT = sorted([*scene(), TF, EVENT], key=lambda each: each[2])


def run(*words: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bag", *map(str, words)])
    assert end.value.code in (0, None), end.value.code


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole", StoragePlugin.SQLITE3, SENT)


def test_a_piece_begins_with_what_held(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The latched instruction and /tf_static come first; the rest is what lies in the piece."""
    run("cut", whole, tmp_path / "piece", "--from", "0.5", "--to", "1.0")
    said = capsys.readouterr().out
    inside = [sent for sent in SENT if START_NS + 500 * MS <= sent[2] < START_NS + 1000 * MS]
    at_ns = START_NS + 500 * MS
    assert read(tmp_path / "piece") == [(WORDS, STRING, at_ns, SENT[0][3]), ("/tf_static", bag_rig.TF, at_ns, TF[3]), *inside]
    assert said.startswith(f"{tmp_path / 'piece'}: 64 messages, ") and f"carried over: {WORDS}, /tf_static" in said
    assert [each.name for each in bag_files(tmp_path / "piece")] == ["piece_0.mcap"]
    with Bag(tmp_path / "piece") as bag:
        assert bag.notes["cut_from"]["bag"] == "whole" and bag.definition(STATUS) == bag_rig.definition(STATUS)
        assert [r.message.data for r in bag.records([WORDS])] == ["pick it up"]


def test_topics_by_name_and_by_pattern(whole: Path, tmp_path: Path) -> None:
    run("cut", whole, tmp_path / "piece", "--topics", "/camera/*", "--topics", ARM)
    assert read(tmp_path / "piece") == [sent for sent in SENT if sent[0] in (ARM, CAMERA)]


def test_around_an_event(whole: Path, tmp_path: Path) -> None:
    only = ["--topics", ARM, "--topics", "/e_stop"]
    run("cut", whole, tmp_path / "piece", "--around", "/e_stop", "--before", "0.1", "--after", "0.2", *only)
    found = read(tmp_path / "piece")
    assert [sent for sent in found if sent[0] == "/e_stop"] == [EVENT] and len(found) == 31
    assert (found[0][2], found[-1][2]) == (START_NS + 1400 * MS + 1, START_NS + 1690 * MS + 1)


def test_notes_and_splits_are_carried_through(tmp_path: Path) -> None:
    with bag_rig.BagWriter(tmp_path / "whole", split_bytes=50_000) as writer:
        writer.write_metadata("versions", {"commit": "abc"})
        for topic, kind, at_ns, data in SENT:
            writer.write(topic, kind, bag_rig.definition(kind), data, at_ns, at_ns)
    with Bag(tmp_path / "whole") as bag:
        done = cut(bag, tmp_path / "piece", bag.start_ns, bag.end_ns + 1)
    assert done.messages == len(SENT) and read(tmp_path / "piece") == SENT
    with Bag(tmp_path / "piece") as bag:
        assert bag.notes["versions"] == {"commit": "abc"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--topics", "/arm_slave_l_statu"], f"no topic '/arm_slave_l_statu', did you mean '{ARM}'?"),
        (["--topics", "/camera/depth*"], "no topic '/camera/depth*'"),
        (["--from", "1.5", "--to", "1.0"], "got a piece from 1.5 s to 1 s, it lasts 1.99 s"),
        (["--from", "20"], "got a piece from 20 s to 1.99"),
        (["--from", "1.6", "--topics", "/e_stop"], "no message on /e_stop from 1.60 s to 1.99 s"),
        (["--around", "/e_stop", "--event", "2"], "topic '/e_stop': got message number 2, it has 1"),
        (["--around", "/e_stop", "--to", "2"], "got --around and --from or --to, expected one of them"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    words: list[str], sentence: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bag", "cut", str(whole), str(tmp_path / "piece"), *words])
    said = capsys.readouterr()
    assert end.value.code == 2 and sentence in said.err and said.err.count("\n") == 1 and said.out == ""
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]


def test_what_is_there_already_is_kept(whole: Path) -> None:
    with Bag(whole) as bag, pytest.raises(ConfigurationError, match="is there already, expected a new folder"):
        cut(bag, whole, bag.start_ns, bag.end_ns)
    assert read(whole) == SENT


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_nothing(
    problem: BaseException, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Sink._put

    def put(self: Sink, data: bytes) -> None:
        if self.n_bytes > 50_000:
            raise problem
        sound(self, data)

    monkeypatch.setattr(Sink, "_put", put)
    with Bag(whole) as bag, pytest.raises((ConfigurationError, KeyboardInterrupt)) as end:
        cut(bag, tmp_path / "piece", bag.start_ns, bag.end_ns)
    if isinstance(problem, OSError):
        assert "cannot be written: recording stopped: no space left on device" in str(end.value)
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]


def test_info_as_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = write_ours(tmp_path / "bag", SENT)
    run("info", path)
    text = capsys.readouterr().out
    assert f"{path}: 1.99 s from 2026-09-21 14:13:20 UTC, 253 messages, " in text and "in bag_0.mcap" in text
    assert "100.0" in text and "10 ms" in text and "25.0" in text and "40 ms" in text
    file = bag_files(path)[0]
    file.write_bytes(file.read_bytes()[:100_000])
    run("info", path, path, "--json")
    first, second = json.loads(capsys.readouterr().out)
    assert first == second and len(first["losses"]) == 2 and first["start_ns"] == START_NS
    arm = next(row for row in first["topics"] if row["topic"] == ARM)
    assert 80 < arm["count"] < 120 and arm["rate_hz"] == 100.0 and arm["gap_s"] == 0.01 and arm["bytes"] == arm["count"] * 236
    run("info", path, "--quick", "--json")
    (quick,) = json.loads(capsys.readouterr().out)
    row = next(row for row in quick["topics"] if row["topic"] == ARM)
    assert row["gap_s"] is None and row["count"] == arm["count"]
    run("info", path)
    assert "lost: bag_0.mcap: it was not ended and has no index" in " ".join(capsys.readouterr().out.split())
