"""Built engines in their cache: what makes one stale, and that nothing half-written stays."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY, write_tiny

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines import building, cpu
from internvla_a1_ros.engines.artefact import Key, cache_folder, stale
from internvla_a1_ros.engines.building import Order
from internvla_a1_ros.engines.weights import DrawnSource

PARTS = {"engine": "onnx", "precision": "int8", "place": "here", "weights": "1"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path / "cache"))


def put(key: Key, text: str = "good") -> None:
    with key.building() as folder:
        (folder / "a.onnx").write_text(text)


def names() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


def test_what_is_built_is_found_and_replaced_whole() -> None:
    key = Key(PARTS)
    assert not key.is_built
    put(key)
    assert key.is_built
    put(key, "better")
    assert (key.folder / "a.onnx").read_text() == "better"
    assert names() == [key.folder.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigurationError, MemoryError])
def test_an_interruption_leaves_nothing_and_the_previous_engine_stays(error: type[BaseException]) -> None:
    key = Key(PARTS)
    put(key)
    with pytest.raises(error), key.building() as folder:
        (folder / "a.onnx").write_text("half")
        raise error("cut off")
    assert key.is_built and (key.folder / "a.onnx").read_text() == "good"
    assert names() == [key.folder.name]


def test_a_full_disk_is_one_sentence() -> None:
    key = Key(PARTS)
    with pytest.raises(ConfigurationError, match="No space left"), key.building():
        raise OSError(28, "No space left on device")
    assert names() == []


def test_what_a_killed_build_left_is_swept_up() -> None:
    key = Key(PARTS)
    gone = cache_folder() / f".{key.folder.name}.{2**22 + 1}.x"  # no process has such a number
    alive = cache_folder() / f".{key.folder.name}.{os.getppid()}.x"
    for folder in (gone, alive):
        folder.mkdir(parents=True)
    put(key)
    assert not gone.exists() and alive.exists()


@pytest.mark.parametrize("part", PARTS)
def test_any_other_part_is_another_engine(part: str) -> None:
    key, other = Key(PARTS), Key({**PARTS, part: "2"})
    put(key)
    assert not other.is_built
    assert stale(other) == ([key.folder] if part == "weights" else [])


def test_a_file_of_another_size_or_a_missing_note_is_not_built() -> None:
    key = Key(PARTS)
    put(key)
    (key.folder / "a.onnx").write_text("goo")
    assert not key.is_built
    put(key)
    about = json.loads((key.folder / "about.json").read_text())
    (key.folder / "about.json").write_text(json.dumps({**about, "key": {}}))
    assert not key.is_built
    (key.folder / "about.json").write_text("[1]")
    assert not key.is_built


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigurationError, match="cannot be written.*INTERNVLA_A1_CACHE"):
        put(Key(PARTS))


def test_everything_an_engine_depends_on_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny(tmp_path / "model")

    def key(precision: str = "int8", **sizes: int) -> Path:
        return Order.of_checkpoint("onnx", precision, folder, replace(TINY, **sizes)).key.folder

    first = key()
    assert first == key()
    seen = {first, key("float32"), key(chunk=9)}
    os.utime(folder / "model.safetensors", ns=(1, 1))
    seen.add(key())
    monkeypatch.setattr(building, "weight_bits", lambda: 15 - cpu.weight_bits())
    seen.add(key())
    monkeypatch.setattr(building, "version", lambda package: "0.0")
    seen.add(key())
    seen.add(Order("onnx", "int8", DrawnSource(TINY, 0), "drawn").key.folder)
    assert len(seen) == 7


@pytest.mark.parametrize(
    ("flags", "bits"), [("fpu avx2 fma", 7), ("fpu avx2 avx_vnni", 8), ("avx512f avx512_vnni", 8), ("fp asimd asimddp", 8)]
)
def test_weights_are_narrower_where_the_cpu_adds_in_16_bits(flags: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags : {flags}\n")
    assert cpu.weight_bits() == bits
