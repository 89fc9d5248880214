"""`internvla-a1 import-cosmos`: the only place that opens TorchScript, which contains code. It copies the weights out, once."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError
from torch import Tensor, nn

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.checkpoint import COSMOS_WEIGHTS, checked
from internvla_a1_ros.model.cosmos import Cosmos
from internvla_a1_ros.model.layout import COSMOS_UNUSED
from internvla_a1_ros.model.names import FILE_PREFIX, ours
from internvla_a1_ros.model.shapes import ShapeReader
from internvla_a1_ros.model.writing import save_tensors

SIDE = 64  # pixels of the random picture that both implementations must agree on
LARGEST_ERROR = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}  # of the copy in float32 against the script in its own


def import_cosmos(
    encoder: Annotated[Path, typer.Argument(metavar="ENCODER.jit", help="NVIDIA's encoder.jit; it is run, so trust where it comes from")],
    decoder: Annotated[Path, typer.Argument(metavar="DECODER.jit", help="NVIDIA's decoder.jit, likewise")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the file to write, into the checkpoint's folder")] = Path(COSMOS_WEIGHTS),
) -> None:
    """Turn NVIDIA's encoder.jit and decoder.jit into a safetensors file, once.

    Nothing is written unless our encoder and decoder, given the copied weights, agree with the scripts on a random picture.
    """
    scripts = {"cosmos._enc_model.": open_script(encoder), "cosmos._dec_model.": open_script(decoder)}
    weights = {
        f"{FILE_PREFIX}{half}{name}": tensor.detach().contiguous()
        for half, script in scripts.items()
        for name, tensor in script.state_dict().items()
        if not (ours(f"{FILE_PREFIX}{half}{name}") or "").startswith(COSMOS_UNUSED)
    }
    cosmos = build(weights, f"'{encoder}' and '{decoder}'")
    error, precision = largest_difference(cosmos, *scripts.values())
    if not error <= LARGEST_ERROR[precision]:
        raise CheckpointError(f"'{encoder}' and '{decoder}': our encoder and decoder differ from them by {error:.2e}; nothing was written")
    try:
        save_tensors(output, weights)
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(f"'{output}' cannot be written: {problem}") from None
    size = sum(tensor.numel() for tensor in weights.values()) / 1e6
    typer.echo(f"wrote {output}: {len(weights)} weights, {size:.1f} M parameters; agrees with the scripts to {error:.1e} ({precision})")


def open_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript archive. Raises CheckpointError where it is none."""
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"'{path}' is no TorchScript archive")
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise CheckpointError(f"'{path}' cannot be read as TorchScript: {str(error).splitlines()[0]}") from None


def build(weights: dict[str, Tensor], where: str) -> Cosmos:
    """Give the weights to our modules, in float32. Raises CheckpointError where names, shapes or numbers do not fit."""
    named = {name.removeprefix("cosmos."): tensor for saved, tensor in weights.items() if (name := ours(saved))}
    try:
        sizes = ShapeReader({f"cosmos.{name}": tuple(tensor.shape) for name, tensor in named.items()}).cosmos({})
        cosmos = Cosmos(sizes).eval()
        cosmos.load_state_dict({name: checked(where, f"cosmos.{name}", tensor).float() for name, tensor in named.items()})
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where} are not the halves of a Cosmos autoencoder of images: {' '.join(str(error).split())}") from None
    return cosmos


@torch.inference_mode()
def largest_difference(cosmos: Cosmos, encoder: nn.Module, decoder: nn.Module) -> tuple[float, torch.dtype]:
    """Compare both halves on a random picture; each script runs in its own precision, which is returned too."""
    precision = next(encoder.parameters()).dtype
    picture = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = encoder(picture.to(precision))
    latents = (made[0] if isinstance(made, (tuple, list)) else made).float()
    back = decoder(latents.to(precision)).float()
    encoded, decoded = cosmos.encoder(picture), cosmos.decoder(latents)
    return max(float((encoded - latents).abs().max()), float((decoded - back).abs().max())), precision
