"""`internvla-a1 build`: what it keeps, what it refuses, and that its verdict can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import TINY, write_tiny

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.engines import building
from internvla_a1_ros.engines.artefact import cache_folder
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.engines.weights import DrawnSource
from internvla_a1_ros.evaluation.verification import SEEDS, Gates, Measured, measure, verify
from internvla_a1_ros.runtime.deployment import find_checkpoint


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str) -> int:
    try:
        main(["build", *words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def kept() -> list[Path]:
    return sorted(cache_folder().glob("*")) if cache_folder().is_dir() else []


def test_the_shipped_model_is_built_verified_measured_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nano", "--threads", "1") == 0
    said = capsys.readouterr().out
    assert all(stage in said for stage in ("Cosmos", "vision", "prefix KV", "generation KV", "velocity", "chunk", "rad"))
    figures = json.loads(said.splitlines()[-1])
    assert set(figures["ms"]) == {"reference", "engine"} and figures["ms"]["engine"]["flow"] > 0
    (folder,) = kept()
    written = (folder / "flow.onnx").stat().st_mtime_ns
    assert run("nano") == 0
    assert "nothing has changed" in capsys.readouterr().out
    assert (folder / "flow.onnx").stat().st_mtime_ns == written


def test_a_missed_threshold_keeps_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny(tmp_path / "model")
    assert run(str(model), "--threads", "1") == 0
    (folder,) = kept()
    before = (folder / "flow.onnx").stat().st_mtime_ns
    manifest = (find_checkpoint("nano") / "manifest.yaml").read_text()
    (model / "manifest.yaml").write_text(manifest + "tolerances: {float32_cosine: 1.0}\n")
    (model / "stats.json").write_text((find_checkpoint("nano") / "stats.json").read_text())
    capsys.readouterr()
    assert run(str(model), "--threads", "1", "--force") == 1
    assert "not kept" in capsys.readouterr().out
    assert kept() == [folder] and (folder / "flow.onnx").stat().st_mtime_ns == before


@pytest.mark.parametrize("at", ["exporting prefix", "comparing"])
def test_an_interruption_leaves_nothing(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny(tmp_path / "model")
    order = building.Order.of_checkpoint("onnx", "float32", model)

    def say(text: str) -> None:
        if text.startswith(at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(order, say, lambda folder: say("comparing the engine"))
    assert kept() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a checkpoint or --size"),
        (["nano", "--size", "3b"], "a checkpoint or --size"),
        (["nano", "--engine", "onx"], "did you mean 'onnx'"),
        (["nano", "--precision", "int4"], "did you mean 'int8'"),
        (["nano", "--engine", "torch"], "needs no building"),
        (["--size", "4b"], "expected one of 3b"),
        (["nano", "--compile-only"], "expected tensorrt"),
        (["nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_tensorrt_without_a_gpu_says_so_before_it_builds(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this machine")
    assert run("nano", "--engine", "tensorrt", "--precision", "float16") == 2
    assert "NVIDIA GPU" in capsys.readouterr().err
    assert kept() == []


class Wrapped:
    """An engine whose answers are spoilt in one way."""

    def __init__(self, engine: ReferenceEngine, fault: str) -> None:
        self.engine, self.fault, self.sizes, self.name, self.calls = engine, fault, engine.sizes, "wrapped", 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def flow(self, cache: object, state: torch.Tensor, noise: torch.Tensor, plan: object) -> torch.Tensor:
        actions = self.engine.flow(cache, state, noise, plan)  # type: ignore[arg-type]
        self.calls += 1
        if self.fault == "scale":
            return actions * 1.2
        if self.fault == "direction":
            return actions.flip(0)
        if self.fault == "not a number":
            return actions * torch.nan
        if self.fault == "blind":
            return Wrapped.seen.setdefault("first", actions)
        if self.fault == "forgetful":
            return actions + 1e-6 * len(Wrapped.made)
        return actions

    made: list[object] = []
    seen: dict[str, torch.Tensor] = {}


@pytest.fixture(scope="module")
def reference() -> tuple[ReferenceEngine, list[Measured]]:
    engine = ReferenceEngine(DrawnSource(TINY, 0).whole(torch.float32))
    return engine, [measure(engine, seed, 2)[0] for seed in SEEDS]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("none", ""),
        ("scale", "chunk: cosine"),
        ("direction", "chunk: cosine"),
        ("not a number", "chunk: cosine"),
        ("blind", "does not see its inputs"),
        ("forgetful", "loaded anew"),
        ("joints", "rad off"),
    ],
)
def test_the_verdict_can_fail(fault: str, message: str, reference: tuple[ReferenceEngine, list[Measured]]) -> None:
    engine, expected = reference
    Wrapped.made, Wrapped.seen = [], {}

    def load() -> Wrapped:
        Wrapped.made.append(None)
        return Wrapped(engine, fault)

    gates = Gates({"chunk": 0.999} if fault in ("none", "scale", "direction", "not a number") else {}, joint_rad=1e-3)
    spoilt = [{**each, "chunk": each["chunk"] + (0.01 if fault == "joints" else 0.0)} for each in expected]
    outcome = verify(spoilt, load, 2, gates, lambda off: off if fault == "joints" else off * 0)  # type: ignore[arg-type, return-value]
    assert bool(outcome.troubles) == (fault != "none")
    assert fault == "none" or message in outcome.troubles[0]
