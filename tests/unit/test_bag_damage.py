"""Damaged bags give what they hold, say what is lost, and never make up anything."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bag_rig
import pytest
import zstandard
from bag_rig import IMAGE, STATUS, bag_files, scene, told, write, write_ours
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from internvla_a1_ros.bags import places
from internvla_a1_ros.bags.reading import Bag
from internvla_a1_ros.bags.types import BagTypes
from internvla_a1_ros.core.errors import ConfigurationError

SENT = scene(3.0, 20_000)
SET = set(SENT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bags")


@pytest.fixture(scope="module")
def none(folder: Path) -> Path:
    return bag_files(write_ours(folder / "none", SENT))[0]


@pytest.fixture(scope="module")
def zstd(folder: Path) -> Path:
    return bag_files(write_ours(folder / "zstd", SENT, compression="zstd"))[0]


@pytest.fixture(scope="module")
def lz4(folder: Path) -> Path:
    path = folder / "lz4.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, 100_000, compression=CompressionType.LZ4)
        writer.start("ros2", "test")
        channels: dict[str, int] = {}
        for topic, kind, at_ns, data in SENT:
            if topic not in channels:
                schema = writer.register_schema(kind, "ros2msg", bag_rig.definition(kind).encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], at_ns, data, at_ns)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def sqlite(folder: Path) -> Path:
    return bag_files(write(folder / "sqlite", StoragePlugin.SQLITE3, SENT))[0]


@pytest.fixture(params=["none", "zstd", "lz4", "sqlite"])
def sound(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def damaged(sound: Path, tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / f"damaged{sound.suffix}"
    path.write_bytes(content)
    return path


def check(path: Path, *, checked: bool = True) -> tuple[int, list[str]]:
    """Read all there is; what comes was written, once and in order. Return how much that is, and what is said."""
    try:
        found, losses = told(path)
    except ConfigurationError as problem:
        assert "\n" not in str(problem)
        return 0, [str(problem)]
    if checked:
        assert set(found) <= SET and len(set(found)) == len(found)
    times = [sent[2] for sent in found]
    assert times == sorted(times)
    assert all("\n" not in loss for loss in losses)
    return len(found), losses


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.999])
def test_a_truncated_file_gives_nearly_all_before_its_end(sound: Path, share: float, tmp_path: Path) -> None:
    content = sound.read_bytes()
    n, losses = check(damaged(sound, tmp_path, content[: int(share * len(content))]))
    assert losses
    if sound.suffix == ".mcap":
        assert n > (share - 0.09) * len(SENT), losses  # zstd packs blocks of 128 kB: a part of one cannot be unpacked
    elif share > 0.3:
        assert n > 0.5 * share * len(SENT), (n, losses)


def test_a_killed_recorder_leaves_sentences(zstd: Path, tmp_path: Path) -> None:
    (first, _), (second, end), *_ = bag_rig.chunk_places(zstd)
    content = zstd.read_bytes()
    _, losses = check(damaged(zstd, tmp_path, content[:second]))
    assert losses == ["damaged.mcap: it was not ended and has no index: it is read through once for what it holds"]
    n, losses = check(damaged(zstd, tmp_path, content[: second + (end - second) // 2]))
    assert n > 70 and "ends 0.7" in losses[1] and "of a chunk that is not whole: 3" in losses[1] and "s of it are lost" in losses[1]
    n, losses = check(damaged(zstd, tmp_path, content[: first + 20]))
    assert n == 0 and "cannot be read: damaged.mcap: no topic can be read in it" in losses[0]


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_a_damaged_chunk_costs_only_itself(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    sound: Path = request.getfixturevalue(name)
    places = list(bag_rig.chunk_places(sound))
    content = bytearray(sound.read_bytes())
    start, end = places[2]
    content[start + 1000] ^= 0xFF
    n, losses = check(damaged(sound, tmp_path, bytes(content)))
    assert len(SENT) * (1 - 1.6 / len(places)) < n < len(SENT)
    (loss,) = losses
    assert "damaged.mcap: a chunk of" in loss and "1.02 s after its start and 0.50 s long, is lost: its checksum is wrong" in loss


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_a_damaged_chunk_without_an_index(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The length of a record is wrong: the next chunk is looked for."""
    sound: Path = request.getfixturevalue(name)
    places = list(bag_rig.chunk_places(sound))
    content = bytearray(sound.read_bytes()[: places[-1][1]])
    content[places[2][0] + 1 : places[2][0] + 9] = b"\xff" * 8
    n, losses = check(damaged(sound, tmp_path, bytes(content)))
    assert n > len(SENT) * (1 - 1.6 / len(places))
    assert len(losses) == 2 and "cannot be read, 1.01 s" in losses[1] and "what they held is lost" in losses[1]


def test_a_damaged_index_is_not_believed(none: Path, tmp_path: Path) -> None:
    content = bytearray(none.read_bytes())
    content[-200] ^= 0xFF
    n, losses = check(damaged(none, tmp_path, bytes(content)))
    assert n == len(SENT) and losses == ["damaged.mcap: its index is damaged: it is read through once for what it holds"]


def test_damaged_pages_of_sqlite_cost_only_what_they_held(sqlite: Path, tmp_path: Path) -> None:
    content = bytearray(sqlite.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    for at in range(len(content) // page // 3, len(content) // page // 3 + 8):
        content[at * page : (at + 1) * page] = b"\x55" * page
    n, losses = check(damaged(sqlite, tmp_path, bytes(content)), checked=False)
    assert n > 0.8 * len(SENT)
    assert "damaged.db3: is damaged (database disk image is malformed): it is read row by row" in losses[0]
    assert all(" messages between 0." in loss and loss.endswith(" s cannot be read") for loss in losses[1:])


def test_rows_that_hold_something_else_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", StoragePlugin.SQLITE3, SENT)
    with sqlite3.connect(bag_files(path)[0]) as base:
        base.execute("UPDATE messages SET data = 7 WHERE id = 3")
    assert check(path) == (len(SENT) - 1, [])
    with sqlite3.connect(bag_files(path)[0]) as base:
        base.execute("UPDATE messages SET timestamp = 'later' WHERE id = 5")
        base.execute("DROP INDEX timestamp_idx")
    assert check(path) == (len(SENT) - 2, [])


def test_a_truncated_sqlite_says_from_when_on_it_is_lost(sqlite: Path, tmp_path: Path) -> None:
    content = sqlite.read_bytes()
    found, losses = told(damaged(sqlite, tmp_path, content[: len(content) // 2]))
    assert losses[0].startswith("damaged.db3: is damaged (ends after 940.0 kB of 1.9 MB)")
    last_s = (found[-1][2] - found[0][2]) * 1e-9
    assert losses[-1] == f"damaged.db3: nothing after {last_s:.2f} s can be read"


def test_a_packed_file_that_ends_early(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "bag", StoragePlugin.MCAP, SENT, CompressionMode.FILE)
    (file,) = bag_files(path)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    n, losses = check(path)
    assert n > 0.4 * len(SENT) and losses


def test_no_room_to_unpack_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def read_to_iter(self, source: object, read_size: int) -> Iterator[bytes]:
            yield b"the beginning"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(tmp_path / "bag", StoragePlugin.MCAP, SENT, CompressionMode.FILE)
    monkeypatch.setattr(places, "zstandard", SimpleNamespace(ZstdDecompressor=Full, ZstdError=zstandard.ZstdError))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(ConfigurationError, match=r"no room to unpack it into '.*temporary' \(No space left on device\): set TMPDIR"):
        told(path)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_folder_with_one_file_of_no_use(none: Path, tmp_path: Path) -> None:
    path = write_ours(tmp_path / "bag", SENT, split_bytes=500_000)
    bag_files(path)[1].write_bytes(b"")
    n, losses = check(path)
    assert n > 0.5 * len(SENT) and losses == ["bag_1.mcap: it is empty: what it held is lost"]
    with Bag(path) as bag:
        assert sum(topic.count for topic in bag.topics.values()) == n


@pytest.mark.parametrize("text", ["", "[", "rosbag2_bagfile_information: {version: 5}", "a: 1", "\xff"])
def test_a_damaged_metadata_is_said_and_done_without(text: str, tmp_path: Path) -> None:
    path = write_ours(tmp_path / "bag", SENT)
    (path / "metadata.yaml").write_bytes(text.encode("latin1"))
    n, losses = check(path)
    assert n == len(SENT) and len(losses) == 1 and losses[0].endswith("the files in the folder are taken as they are")


def test_what_waits_in_a_write_ahead_log_is_read(tmp_path: Path) -> None:
    path = bag_files(write(tmp_path / "bag", StoragePlugin.SQLITE3, SENT))[0]
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA wal_autocheckpoint=0")
    base.execute("INSERT INTO messages(topic_id, timestamp, data) SELECT topic_id, timestamp + 7, data FROM messages WHERE id = 1")
    base.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for each in path.parent.iterdir():  # as a kill leaves it: the log is not yet in the file
        (killed / each.name).write_bytes(each.read_bytes())
    base.close()
    found, losses = told(killed)
    assert len(found) == len(SENT) + 1 and losses == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_makes_up_a_message(none: Path, zstd: Path, lz4: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes overwritten, cut out or cut off anywhere: what comes is what was written, or nothing but a sentence."""
    sound = data.draw(st.sampled_from([none, zstd, lz4]))
    content = bytearray(sound.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.sampled_from([1, 9, 1000, 100_000]))
    how = data.draw(st.sampled_from(["zero", "noise", "cut out", "cut off"]))
    if how == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif how == "noise":
        content[at : at + length] = bytes(byte ^ 0xA5 for byte in content[at : at + length])
    elif how == "cut out":
        del content[at : at + length]
    else:
        del content[at:]
    n, losses = check(damaged(sound, tmp_path, bytes(content)))
    assert n == len(SENT) or losses


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_sqlite_never_ends_in_a_traceback(sqlite: Path, tmp_path: Path, data: st.DataObject) -> None:
    """It has no checksums: a message may come damaged, and then its type refuses it or not."""
    content = bytearray(sqlite.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 8192))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at : at + 100] = data.draw(st.binary(min_size=1, max_size=100))
    check(damaged(sqlite, tmp_path, bytes(content)), checked=False)


def test_what_sqlite_quotes_stays_on_one_line(sqlite: Path, tmp_path: Path) -> None:
    path = damaged(sqlite, tmp_path, sqlite.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE topics SET name = CAST(? AS TEXT)", (b"\xff: one\n  two\n" + b"x" * 500,))
    with pytest.raises(ConfigurationError, match=r"its topics cannot be read \(.* \.\.\.\)$") as caught:
        told(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([IMAGE, STATUS, bag_rig.STRING, bag_rig.TF, bag_rig.RAW]), st.binary(max_size=200), st.integers(0, 300))
def test_bytes_that_are_no_message_are_a_value_error(kind: str, body: bytes, cut: int) -> None:
    good = {IMAGE: bag_rig.image(1, b"x" * 40), STATUS: bag_rig.status(1, 0.5)}.get(kind, b"")
    for data in (body, b"\0\1\0\0" + body, good[:cut], good[:cut] + body):
        with contextlib.suppress(ValueError):
            TYPES.read(data, kind)


TYPES = BagTypes({})
