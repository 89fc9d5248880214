"""`bench model`: what is measured, what is told, and what is said where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY, write_tiny

from internvla_a1_ros.cli.bench_model import floors_s, presets
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.engines.weights import DrawnSource
from internvla_a1_ros.evaluation.as_released import AsReleased
from internvla_a1_ros.evaluation.drawn import write_drawn
from internvla_a1_ros.evaluation.engine_bench import Contestant, Runner, Task, memory_rate, sgemm_rates
from internvla_a1_ros.model.checkpoint import WEIGHTS, load_model
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.runtime.deployment import find_checkpoint

FLOW = {"exact": ("euler", 10, "uniform"), "fast": ("ab2", 3, "uniform")}


def test_a_contestant_is_an_engine_a_precision_and_a_preset() -> None:
    for text in ("torch", "torch:bfloat16", "reference@fast", "torch:float16@fast"):
        assert str(Contestant.parse(text)) == text
    for text, said in (("torhc", "did you mean"), ("torch:int3", "int3")):
        with pytest.raises(ConfigurationError, match=said):
            Contestant.parse(text)


def test_engines_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny(tmp_path / "tiny")
    manifest = yaml.safe_load((find_checkpoint("nano") / "manifest.yaml").read_text(encoding="utf-8"))
    manifest["presets"] = {"exact": {"steps": 10}, "fast": {"method": "ab2", "steps": 3}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "model", "--size", str(folder), "--engines", "reference,torch,torch@fast", "--chunks", "3"])
    assert not exit_.value.code
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["floor_s"] > 0 and list(told["engines"]) == ["reference", "torch", "torch@fast"]
    for name, figures in told["engines"].items():
        assert figures["median_s"] > 0 and figures["load_to_first_s"] > 0 and 0.05 < figures["peak_gib"] < 2, name
    assert told["engines"]["torch"]["cosine"] > 0.999999
    assert told["engines"]["torch@fast"]["cosine"] < told["engines"]["torch"]["cosine"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engines", "torch@quick"], "preset 'quick'"),
        (["--engines", "torch", "--device", "cuda"], "--device cpu"),
        (["--engines", "torch", "--size", "7b"], "7b"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "model", "--chunks", "2", *words])
    assert exit_.value.code and said in capsys.readouterr().err


def test_an_engine_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny(tmp_path / "tiny")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-4] + b"\xff\xff\xff\x7f")  # the last number is not one
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "model", "--size", str(folder), "--engines", "torch", "--chunks", "2"])
    assert exit_.value.code and "engine 'torch'" in (said := capsys.readouterr().err) and "not finite" in said


def test_the_yardstick_gives_the_reference_s_answer_with_all_of_the_work(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    released = Runner(Contestant("reference", "float32", "exact"), Task(folder, 1, "cpu", 0, FLOW))
    assert isinstance(released.engine, AsReleased) and released.past_latents is None
    plain = ReferenceEngine.load(folder, torch.float32, "cpu", None)
    given = released.given
    latents = plain.encode(given.pictures).chunk(2)
    cache = plain.generate(plain.prefix(given.pixels, given.ids, given.mask), *latents, given.views)
    expected = plain.flow(cache, given.state, given.noise, make_plan(*FLOW["exact"]))
    torch.testing.assert_close(torch.tensor(released.chunk()["actions"]), expected.flatten(), atol=1e-5, rtol=0)


def test_the_floor_falls_with_the_rates_and_grows_with_the_evaluations() -> None:
    once, hidden = floors_s(TINY, 1e9, 1e15, ("euler", 5, "uniform"))
    assert once == pytest.approx(hidden, rel=1e-3), "reading costs nothing"
    assert floors_s(TINY, 2e9, 1e15, ("euler", 5, "uniform")) == pytest.approx((once / 2, hidden / 2), rel=1e-3)
    assert floors_s(TINY, 1e9, 1e15, ("euler", 10, "uniform")) > (once, hidden)
    slow_memory, hidden = floors_s(TINY, 1e9, 1e9, ("euler", 5, "uniform"))
    assert once < slow_memory and hidden < slow_memory, "one after the other takes longer than at once"
    assert all(rate > 1e9 for rate in (*sgemm_rates(1, side=128), memory_rate(1, mebibytes=8)))


def test_presets_come_from_the_checkpoint_or_else_the_shipped_model(tmp_path: Path) -> None:
    assert presets(write_tiny(tmp_path / "tiny"), ["exact"]) == {"exact": ("euler", 10, "uniform")}


def test_a_drawn_checkpoint_is_one_and_is_drawn_once(tmp_path: Path) -> None:
    shares: list[float] = []
    source = DrawnSource(TINY, 3)
    write_drawn(tmp_path, source, shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    model = load_model(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, source.load(name)), name
    write_drawn(tmp_path, source, shares.append)
    before = len(shares)
    write_drawn(tmp_path, DrawnSource(TINY, 4), shares.append)
    assert len(shares) == 2 * before

    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(KeyboardInterrupt):
        write_drawn(tmp_path, DrawnSource(TINY, 5), interrupt)
    assert not list(tmp_path.glob(f"{WEIGHTS}*"))
