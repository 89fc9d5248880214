"""The 2B layout on folders nobody has seen: sizes, grids, chunks, steps and missing views are drawn up here.

Their numbers come from `plain_2b`, which shares no code with the model and agrees with the released code's own reference.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_2b import Plain
from plain_spec import Spec
from safetensors.torch import load_file, save_file

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.evaluation.comparison import MAX_ERROR, Limits
from internvla_a1_ros.evaluation.parity import ModelParity
from internvla_a1_ros.model.checkpoint import load_architecture

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "a1_2b_tiny"
STEPS = (1, 4, 7)

torch.set_num_threads(1)  # two threads on two busy cores wait for each other

SPECS = {
    "tiny": Spec(),
    "one_head_group": Spec(hidden=40, heads=5, kv_heads=1, layers=3, mlp=24),
    "every_head_its_own": Spec(hidden=32, heads=4, kv_heads=4),
    "smaller_pictures_than_the_table": Spec(table=6, picture=(56, 56)),
    "larger_pictures_than_the_table": Spec(table=4, picture=(84, 84)),
    "wide_pictures": Spec(picture=(28, 112)),
    "patch_of_8": Spec(patch=8, table=8, picture=(64, 64)),
    "long_text_long_chunk": Spec(text=19, chunk=31, steps=10),
    "one_action_one_step": Spec(chunk=1, steps=1),
    "two_views": Spec(views=2),
    "one_token_a_frame": Spec(stride=4),
    "wide_frames": Spec(cosmos_picture=(32, 64)),
    "deeper_cosmos": Spec(cosmos=(32, (2, 1, 1), 2, 6), cosmos_patch=2, halvings=2),
    "rotary_bases_differ": Spec(thetas=(1_000_000.0, 500.0)),
    "more_vision": Spec(vision=(30, 50, 5, 3)),
}


def write_folder(folder: Path, spec: Spec, missing: tuple[int, ...] = (), words: int = 4, seed: int = 0) -> Path:
    """A reference folder in the released form. Missing views still hold pictures, which must not be seen."""
    draw, plain = torch.Generator().manual_seed(seed + 1), Plain(spec, seed=seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=draw)

    view_mask = torch.ones(1, spec.views, dtype=torch.bool)
    view_mask[0, list(missing)] = False
    io = {
        "in.views_uint8": torch.randint(256, (1, spec.views, 3, 3, *spec.picture), dtype=torch.uint8, generator=draw),
        "in.input_ids": torch.randint(spec.vocabulary, (1, spec.text), generator=draw),
        "in.attention_mask": (torch.arange(spec.text) < words).long()[None],
        "in.image_mask": view_mask,
        "in.state": normal(spec.width),
        "in.noise": normal(spec.chunk, spec.width),
        "in.train_actions": normal(spec.chunk, spec.width),
        "in.train_noise": normal(spec.chunk, spec.width),
        "in.train_time": torch.tensor([0.37]),
    }
    save_file(io | plain.outputs(io, STEPS), str(folder / "io.safetensors"))
    weights = {f"model.{name}": tensor for name, tensor in plain.weights.items()}
    weights["model.internvl_with_expert.und_expert.lm_head.weight"] = torch.zeros(spec.vocabulary, spec.hidden)
    weights |= {f"model.imagenet_{name}": torch.ones(1, 3, 1, 1) for name in ("mean", "std")}  # in the file and not read
    save_file(weights, str(folder / "model.safetensors"))
    for name, table in spec.tables().items():
        (folder / name).write_text(json.dumps(table))
    return folder


def faults(folder: Path) -> list[str]:
    parity = ModelParity(folder, "reference", "float32", "cpu", Limits())
    rows = list(parity.rows())
    assert not parity.io.unasked("out.")
    assert len(rows) >= 20
    return [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok]


def test_the_second_statement_agrees_with_the_released_code() -> None:
    io = load_file(str(GOLDEN / "io.safetensors"))
    weights = {name.removeprefix("model."): tensor for name, tensor in load_file(str(GOLDEN / "model.safetensors")).items()}
    plain = Plain(Spec.of(GOLDEN, io), dict(weights))
    made = plain.outputs(io, (1, 2, 4, 5, 20))
    assert plain.weights.keys() == weights.keys(), "nothing had to be drawn"
    names = [name for name in io if name.startswith("out.")]
    assert len(names) == 17
    for name in names:
        valid = ~made[name].isnan()
        assert valid.float().mean() > 0.5
        assert (made[name].double() - io[name].double())[valid].abs().max() <= MAX_ERROR, name


@pytest.mark.parametrize("name", SPECS)
def test_unseen_sizes(tmp_path: Path, name: str) -> None:
    assert faults(write_folder(tmp_path, SPECS[name])) == []


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_any_view_may_be_missing(tmp_path: Path, missing: tuple[int, ...]) -> None:
    """What comes after a missing view moves up, and the generation tokens of missing views take no position either."""
    assert faults(write_folder(tmp_path, Spec(chunk=9), missing, seed=2)) == []


@pytest.mark.parametrize("words", [0, 1, 7])
def test_any_length_of_text(tmp_path: Path, words: int) -> None:
    assert faults(write_folder(tmp_path, Spec(), (0,), words)) == []


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["tiny", "larger_pictures_than_the_table", "every_head_its_own", "rotary_bases_differ"])
def test_other_engines_at_unseen_sizes(tmp_path: Path, name: str, engine: str) -> None:
    """What lies inside the five calls is the eager model's to show."""
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    rows = list(ModelParity(write_folder(tmp_path, SPECS[name], (1,)), engine, "float32", "cpu", Limits()).rows())
    assert {row.stage for row in rows} >= {"prefix", "cosmos", "prefix + generation", "actions", "future"}
    assert [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok] == []


def test_shapes_are_enough_for_the_released_head_and_heads(tmp_path: Path) -> None:
    """Without architecture.json: heads of 64 numbers, 16 heads in the tower, and all else from the weights and pictures."""
    spec = Spec(hidden=128, heads=2, kv_heads=1, layers=1, mlp=16, vision=(32, 16, 16, 1), cosmos=(32, (1, 1), 1, 4))
    folder = write_folder(tmp_path, spec)
    told = load_architecture(folder)
    (folder / "architecture.json").unlink()
    read = load_architecture(folder)
    assert read == replace(told, robot_width=spec.robot)
    assert faults(folder) == []


def test_the_command_finds_a_wrong_number(tmp_path: Path) -> None:
    def run() -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["parity", str(tmp_path)])
        return int(exit_.value.code or 0)

    write_folder(tmp_path, SPECS["tiny"])
    assert run() == 0
    io = load_file(str(tmp_path / "io.safetensors"))
    io["out.actions"][0, -1, -1] += 1e-3
    save_file(io, str(tmp_path / "io.safetensors"))
    assert run() == 1
