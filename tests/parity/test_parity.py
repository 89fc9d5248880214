"""Our model against the outputs of the released code. References that are nowhere to be found fail, they are not skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.evaluation.comparison import MAX_ERROR, Limits, Numbers, compare
from internvla_a1_ros.evaluation.parity import ModelParity
from internvla_a1_ros.evaluation.parity_transforms import transform_rows

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = (REPOSITORY.parent / "shared" / "reference", REPOSITORY / "tests" / "golden")

# What each stage must at least have been compared in; a folder that lost its tensors must not pass.
STAGES = {"processor", "prefix", "cosmos", "prefix + generation", "generation", "flow", "actions", "future", "losses"}


torch.set_num_threads(1)  # two threads on two busy cores wait for each other


def reference(name: str) -> Path:
    for place in PLACES:
        if (place / name / "io.safetensors").is_file():
            return place / name
    pytest.fail(f"reference '{name}' is in none of {', '.join(str(place) for place in PLACES)}")


def run(*words: str) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as exit_:
        main(["parity", *words])
    return int(exit_.value.code or 0)


def damaged(tmp_path: Path, change: str) -> Path:
    """A copy of the tiny reference with one output off by 1e-3 in one number."""
    folder = tmp_path / "damaged"
    shutil.copytree(reference("a1_3b_tiny"), folder, ignore=shutil.ignore_patterns("*.jit", "io.safetensors"))
    io = load_file(str(reference("a1_3b_tiny") / "io.safetensors"))
    io[change] = io[change].clone()
    io[change].view(-1)[3] += 1e-3
    save_file(io, str(folder / "io.safetensors"))
    return folder


@pytest.mark.parametrize("name", ["a1_3b_tiny", "a1_3b_tiny_missing_camera"])
def test_model_agrees_with_the_released_code(name: str) -> None:
    if name.endswith("missing_camera") and not (PLACES[0] / name).is_dir():
        pytest.skip("the reference with a missing camera is not in the committed copy")
    parity = ModelParity(reference(name), "reference", "float32", "cpu", Limits())
    rows = list(parity.rows())
    assert {row.stage for row in rows} == STAGES
    assert not parity.io.unasked("out.")
    assert [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok] == []


def test_the_2b_layout_agrees_with_the_released_code() -> None:
    """Its reference holds no processor output, latents, pictures or losses."""
    parity = ModelParity(reference("a1_2b_tiny"), "reference", "float32", "cpu", Limits())
    rows = list(parity.rows())
    assert {row.stage for row in rows} == STAGES - {"processor", "cosmos", "losses"}
    assert len(rows) == 17 and not parity.io.unasked("out.")
    assert [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok] == []


def test_transforms_agree_with_the_released_code() -> None:
    folder = reference("transforms")
    io = Numbers(folder)
    rows = list(transform_rows(folder, io, Limits()))
    assert not io.unasked()
    assert sum(row.stage == "resize" for row in rows) == 4
    assert [f"{row.stage} {row.name}: {row.error:.1e}" for row in rows if not row.ok] == []


def test_command_passes_on_good_numbers() -> None:
    assert run(str(reference("transforms"))) == 0


@pytest.mark.parametrize("name", ["out.prefix_value_2", "out.velocities", "out.predicted_future_images", "out.loss_action"])
def test_command_finds_one_wrong_number(tmp_path: Path, name: str) -> None:
    assert run(str(damaged(tmp_path, name))) == 1


def test_tolerance_decides(tmp_path: Path) -> None:
    folder = str(damaged(tmp_path, "out.actions"))
    assert run(folder) == 1
    assert run(folder, "--tolerance", "0.01") == 0
    assert run(folder, "--tolerance", "1e-9") == 1


@pytest.mark.parametrize("words", [["nowhere"], [".", "--engine", "refrence"], [".", "--precision", "int3"], [".", "--tolerance", "0"]])
def test_bad_input_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(reference("a1_3b_tiny")) if word == "." else word for word in words]
    assert run(*words) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    if "refrence" in words:
        assert "did you mean 'reference'?" in message


def test_comparison_can_fail() -> None:
    good = torch.linspace(1, 2, 10)
    assert compare("s", "n", good, good, Limits()).ok
    assert not compare("s", "n", good + 1e-4, good, Limits()).ok
    assert not compare("s", "n", good.where(good < 1.9, torch.nan), good, Limits()).ok
    assert not compare("s", "n", good[:5], good, Limits()).ok
    assert not compare("s", "n", good[:0], good[:0], Limits()).ok
    small = torch.tensor([1e-5, -1e-5])
    assert not compare("s", "n", -small, small, Limits()).ok, "the error is within, the direction is not"
    assert Limits.of(MAX_ERROR) == Limits()
