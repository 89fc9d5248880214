"""Reading a checkpoint folder: sizes from what is there, every fault named in one sentence."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, VARIANTS, tiny_model, write_tiny

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model import names
from internvla_a1_ros.model.checkpoint import load_architecture, load_model
from internvla_a1_ros.model.layout import QWENA1
from internvla_a1_ros.model.sizes import ProcessorSizes, StackSizes, TokenIds

Change = Callable[[dict[str, torch.Tensor]], None]
K_NORM = "model.qwen3_vl_with_expert.gen_expert.layers.1.self_attn.k_norm.weight"
OUT = "model.action_out_proj.bias"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("pristine"))


def altered(pristine: Path, folder: Path, change: Change) -> Path:
    """Copy the folder with its weights changed."""
    for path in pristine.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(str(pristine / "model.safetensors"))
    change(weights)
    save_file(weights, str(folder / "model.safetensors"))
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    folder = write_tiny(tmp_path, VARIANTS[name])
    assert load_architecture(folder) == VARIANTS[name]
    model = load_model(folder)
    original = dict(tiny_model(VARIANTS[name]).named_parameters())
    assert all(torch.equal(parameter, original[key]) for key, parameter in model.named_parameters())


def test_sizes_come_from_shapes_where_nothing_tells_them(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    (folder / "architecture.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    told_by_nothing = replace(
        TINY,
        tokens=TokenIds(vision_start=151652, image=151655, vision_end=151653, pad=151643),
        processor=ProcessorSizes(65_536, 16_777_216, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        grid=(40, 28),  # 48x32 times 6.53, each side up to a multiple of 16: 320x224
        cosmos_picture=(256, 256),
    )
    assert load_architecture(folder) == told_by_nothing
    load_model(folder)


def test_the_variants_name_is_not_believed(pristine: Path, tmp_path: Path) -> None:
    folder = altered(pristine, tmp_path, lambda weights: None)
    edit(folder / "config.json", lambda config: config.update(qwen3_vl_variant="qwen3_vl_28l", action_expert_variant="qwen3_28l"))
    assert load_architecture(folder).understanding == StackSizes(hidden=40, mlp=56, layers=2, heads=4, kv_heads=2, head_dim=16)


@pytest.mark.parametrize(
    ("picture", "grid"),
    [((224, 224), (16, 16)), ((129, 224), (14, 22)), ((480, 640), (30, 40)), ((5000, 5000), (256, 256)), ((250, 290), (16, 18))],
)
def test_the_released_processors_grid(picture: tuple[int, int], grid: tuple[int, int]) -> None:
    assert ProcessorSizes(65_536, 16_777_216, (0.5,) * 3, (0.5,) * 3).grid(picture, 16, 2) == grid


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(K_NORM), ["missing weight", K_NORM]),
        (lambda w: w.pop("model.state_proj.weight"), ["missing weight", "model.state_proj.weight"]),
        (lambda w: [w.pop(n) for n in list(w) if "gen_expert.layers" in n], ["missing weight", "gen_expert.layers.0"]),
        (lambda w: w.update({"model.extra.weight": torch.zeros(2)}), ["unknown weight", "model.extra.weight"]),
        (lambda w: w.update({"optimizer.step": torch.zeros(1)}), ["unknown weight", "optimizer.step"]),
        (lambda w: w.update({K_NORM: torch.ones(17)}), [K_NORM, "[17]", "[16]"]),
        (lambda w: w.update({OUT: torch.zeros(20, 1)}), [OUT, "[20, 1]", "[20]"]),
        (lambda w: w.update({OUT: torch.full((20,), torch.nan)}), [OUT, "not finite"]),
        (lambda w: w.update({OUT: torch.full((20,), torch.inf)}), [OUT, "not finite"]),
        (lambda w: w.update({OUT: torch.zeros(20, dtype=torch.int8)}), [OUT, "int8", "floating point"]),
        (lambda w: [w.pop(n) for n in list(w) if "cosmos._" in n], ["no Cosmos weights"]),
    ],
)
def test_a_faulty_weight_is_named(pristine: Path, tmp_path: Path, change: Change, words: list[str]) -> None:
    message = refusal(altered(pristine, tmp_path, change))
    assert all(word in message for word in words), message


def test_without_architecture_the_odd_layer_is_the_one_named(tmp_path: Path) -> None:
    gate = "model.qwen3_vl_with_expert.act_expert.layers.0.mlp.gate_proj.weight"
    pristine = write_tiny(tmp_path / "a", replace(TINY, **{e: replace(getattr(TINY, e), layers=3) for e in EXPERTS}))
    (tmp_path / "b").mkdir()
    folder = altered(pristine, tmp_path / "b", lambda weights: weights.update({gate: torch.zeros(41, 24)}))
    (folder / "architecture.json").unlink()
    assert gate in refusal(folder)


EXPERTS = ("understanding", "generation", "action")


def test_names_that_are_present_and_not_used(pristine: Path, tmp_path: Path) -> None:
    """Deepstack mergers and constants are passed over; the token table is tied, under either name."""
    table = f"{names.FILE_PREFIX}{QWENA1.tied_table}"
    embedding = "model.qwen3_vl_with_expert.und_expert.model.language_model.embed_tokens.weight"

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["model.qwen3_vl_with_expert.und_expert.model.visual.deepstack_merger_list.0.norm.weight"] = torch.zeros(3)
        weights["model.cosmos._enc_model.encoder.patcher.wavelets"] = torch.zeros(2)
        weights[embedding] = weights[table] + 1

    assert table in load_file(str(pristine / "model.safetensors"))
    model = load_model(altered(pristine, tmp_path, change))
    assert torch.equal(model.understanding.text.embed_tokens.weight, load_file(str(tmp_path / "model.safetensors"))[embedding])


def test_cosmos_weights_may_lie_beside_the_policys(pristine: Path, tmp_path: Path) -> None:
    def move(weights: dict[str, torch.Tensor]) -> None:
        moved = {name: weights.pop(name) for name in list(weights) if "cosmos._" in name}
        save_file(moved, str(tmp_path / "cosmos.safetensors"))

    model = load_model(altered(pristine, tmp_path, move))
    assert torch.equal(model.cosmos.encoder.conv_in.weight, load_model(pristine).cosmos.encoder.conv_in.weight)


def test_without_cosmos_the_import_is_suggested(pristine: Path, tmp_path: Path) -> None:
    folder = altered(pristine, tmp_path, lambda w: [w.pop(n) for n in list(w) if "cosmos._" in n] and None)
    (folder / "encoder.jit").write_bytes(b"not opened")
    assert "internvla-a1 import-cosmos" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1000])
def test_a_truncated_file_is_refused(pristine: Path, tmp_path: Path, keep: int) -> None:
    folder = altered(pristine, tmp_path, lambda weights: None)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])
    assert "model.safetensors" in refusal(folder)


def test_nothing_is_unpickled(pristine: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    folder = altered(pristine, tmp_path, lambda weights: None)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    assert "cannot be read as safetensors" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", lambda t: t.update(type="interna1"), ["unknown weight", "cosmos_in_proj", "the 2B layout"]),
        ("config.json", lambda t: t.update(type="pi0"), ["'pi0'", "unknown layout", "'qwena1' (the 3B layout)", "'interna1'"]),
        ("config.json", lambda t: t.update(type="qwena2"), ["did you mean 'qwena1'"]),
        ("config.json", lambda t: t.pop("type"), ["None"]),
        ("config.json", lambda t: t.update(max_action_dim=24), ["action_in_proj.weight"]),
        ("config.json", lambda t: t["output_features"]["action"].update(shape=[99]), ["99", "1 to 20"]),
        ("architecture.json", lambda t: t["vision"].update(num_heads=7), ["7 heads", "vision.num_heads"]),
        ("architecture.json", lambda t: t["vision"].update(num_heads="four"), ["architecture.json"]),
        ("architecture.json", lambda t: t["experts"].update(num_hidden_layers=3), ["(2, 2, 16), (3, 2, 16)", "expected the same"]),
        ("architecture.json", lambda t: t["image"].update(grid=[5, 4]), ["5x4", "multiples of 2"]),
        ("architecture.json", lambda t: t["image"].update(grid="wide"), ["image.grid", "'wide'"]),
        ("architecture.json", lambda t: t["cosmos"].update(picture_size=100), ["100x100", "multiples of 16"]),
        ("architecture.json", lambda t: t["cosmos"].update(channels=33), ["33"]),
        ("architecture.json", lambda t: t.update(understanding=3), ["understanding"]),
    ],
)
def test_a_size_that_cannot_be_is_named(
    pristine: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    folder = altered(pristine, tmp_path, lambda weights: None)
    edit(folder / file, change)
    message = refusal(folder)
    assert all(word in message for word in words), message


def test_missing_files_are_named(pristine: Path, tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert "config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_bytes((pristine / "config.json").read_bytes())
    assert "model.safetensors" in refusal(tmp_path)


def test_bfloat16_keeps_norms_and_the_last_projection_wide(pristine: Path) -> None:
    model = load_model(pristine, torch.bfloat16)
    precision = {name: parameter.dtype for name, parameter in model.named_parameters()}
    wide = {name for name, dtype in precision.items() if dtype == torch.float32}
    assert {"action_out_proj.weight", "action.norm.weight", "cosmos.encoder.norm_out.bias", "cosmos_out_layer_norm.weight"} <= wide
    assert {"understanding.vision.blocks.0.norm1.weight", "generation.layers.1.self_attn.q_norm.weight"} <= wide
    assert precision["action.layers.0.self_attn.q_proj.weight"] == precision["state_proj.weight"] == torch.bfloat16


LOADER = """
import sys
from pathlib import Path
from internvla_a1_ros.model.checkpoint import empty_model, load_architecture, load_model

def anonymous_mb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) / 1024

empty_model(load_architecture(Path(sys.argv[1])))  # torch imports 70 MB of its own for the first empty model
before = anonymous_mb()
model = load_model(Path(sys.argv[1]))
print(anonymous_mb() - before, sum(p.numel() * 4 for p in model.parameters()) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_not_copied(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path, replace(TINY, vocabulary=400_000))  # a token table of 61 MB
    out = subprocess.run([sys.executable, "-c", LOADER, str(folder)], capture_output=True, text=True, check=True).stdout.split()
    taken_mb, weights_mb = float(out[0]), float(out[1])
    assert weights_mb > 60
    assert taken_mb < 0.5 * weights_mb, f"{taken_mb:.0f} MB of memory for {weights_mb:.0f} MB of weights"
