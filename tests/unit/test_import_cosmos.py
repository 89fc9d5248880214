"""TorchScript halves, made here as NVIDIA nests them, become safetensors that the checkpoint reader takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, write_tiny
from torch import Tensor, nn

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.cosmos import CosmosDecoder, CosmosEncoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


class Encoder(nn.Module):
    """`encoder.*` and `quant_conv.*`; returns latents and what a distribution would, as NVIDIA's does."""

    def __init__(self, ours: CosmosEncoder) -> None:
        super().__init__()
        self.quant_conv = ours.quant_conv
        self.encoder = ours
        del ours.quant_conv
        self.encoder.quant_conv = nn.Identity()
        self.encoder.patcher = nn.Module()
        self.encoder.patcher.register_buffer("wavelets", torch.ones(2))

    def forward(self, pictures: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.quant_conv(self.encoder(pictures)), (torch.zeros(1), torch.zeros(1))


class Decoder(nn.Module):
    def __init__(self, ours: CosmosDecoder) -> None:
        super().__init__()
        self.post_quant_conv = ours.post_quant_conv
        self.decoder = ours
        del ours.post_quant_conv
        self.decoder.post_quant_conv = nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out


class WrongDecoder(Decoder):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents) * 1.01


def write_scripts(folder: Path, decoder: type[Decoder] = Decoder, seed: int = 7) -> tuple[str, str]:
    model = tiny_model(seed=seed)
    latents = model.sizes.cosmos.latent_channels
    torch.jit.trace(Encoder(model.cosmos.encoder).eval(), torch.rand(1, 3, 64, 64), strict=False).save(str(folder / "encoder.jit"))
    torch.jit.trace(decoder(model.cosmos.decoder).eval(), torch.rand(1, latents, 8, 8)).save(str(folder / "decoder.jit"))
    return str(folder / "encoder.jit"), str(folder / "decoder.jit")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["import-cosmos", *words])
    return int(exit_.value.code or 0)


def test_the_weights_arrive_in_a_checkpoint(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "checkpoint")
    weights = load_file(str(folder / "model.safetensors"))
    save_file({name: tensor for name, tensor in weights.items() if "cosmos._" not in name}, str(folder / "model.safetensors"))
    assert run(*write_scripts(tmp_path), "-o", str(folder / "cosmos.safetensors")) == 0
    loaded, drawn = load_model(folder).cosmos, tiny_model(seed=7).cosmos
    for (name, got), (_, want) in zip(loaded.named_parameters(), drawn.named_parameters(), strict=True):
        assert torch.equal(got, want), name


@pytest.mark.parametrize("fault", ["swapped", "missing", "not_torchscript", "disagreeing", "unwritable"])
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, decoder = write_scripts(tmp_path, WrongDecoder if fault == "disagreeing" else Decoder)
    output = tmp_path / "out.safetensors"
    if fault == "swapped":
        encoder, decoder = decoder, encoder
    elif fault == "missing":
        encoder = str(tmp_path / "nowhere.jit")
    elif fault == "not_torchscript":
        Path(decoder).write_bytes(b"import os")
    elif fault == "unwritable":
        output = tmp_path / "no" / "such" / "folder.safetensors"
    assert run(encoder, decoder, "-o", str(output)) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    assert not output.exists()
