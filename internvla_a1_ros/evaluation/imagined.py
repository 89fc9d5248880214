"""Does the model see what will come? The imagined frame half a second ahead against the true one, and against a copy of the present.

Errors are mean squares over moments of unseen episodes: in the autoencoder's latents, and in pixels (0 to 1) at the size it works in.
What the autoencoder itself loses (`reconstructed`) no imagination can win back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.bags.datasets import DatasetError
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.learning.material import VIEWS, Material, open_material
from internvla_a1_ros.learning.mixture import Draw, Source
from internvla_a1_ros.learning.samples import Batch, Decoded, Samples
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.pictures import cosmos_input
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer

BATCH = 8
# Of each: the error of the imagined, then that of what it is compared with.
ERRORS = ("latents_imagined", "latents_copied", "imagined", "copied", "reconstructed", "decoded_imagined", "decoded_copied")
RATIOS = {
    "latents": ("latents_imagined", "latents_copied"),
    "pixels": ("imagined", "copied"),
    "decoded": ("decoded_imagined", "decoded_copied"),
}
_DRAWS, _LEVEL = 2000, 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """`errors` [n, V, 7] by `ERRORS`, nan for a missing view; `episodes` [n]: whose moment each is."""

    views: tuple[str, ...]
    errors: FloatArray
    episodes: np.ndarray[Any, np.dtype[np.int64]]
    left_out: tuple[str, ...]


def measure(
    dataset: Path,
    checkpoint: Path,
    every: int,
    most: int,
    told: Callable[[int, int], None] = lambda _done, _of: None,
    led: str = "",
) -> Measured:
    """Measure at every `every`-th frame whose future lies in its episode, at most `most` of them, spread evenly over all.

    `led`: a key that is not 0 where somebody else has the arms; moments before whose future that begins are left out.
    Raises ConfigurationError where the dataset does not fit the model, or no episode is long enough.
    """
    manifest, model = load_manifest(checkpoint), load_model(checkpoint).eval()
    statistics = StatisticsFile(checkpoint / "stats.json")
    source = Source(path=str(dataset), actions=False, led=led)
    material = open_material(source, statistics, manifest.actions, model.sizes)
    away = round(manifest.history.ahead_s * material.dataset.fps)
    moments = _moments(material, away, every, most)
    shown = Decoded(material, model.sizes)
    past_s, ahead_s = manifest.history.interval_s, manifest.history.ahead_s
    samples = Samples(model, PrefixTokenizer.load(checkpoint, model.sizes), [material], [shown], past_s, ahead_s)
    errors: list[FloatArray] = []
    episodes: list[int] = []
    broken: dict[int, str] = {}
    for done, some in enumerate(_batches(moments)):
        made = []
        for number, step, frame in some:
            try:
                made.append((number, samples.sample(Draw(0, frame)), shown.at(number, (step, step + away))))
            except DatasetError as problem:
                broken.setdefault(number, str(problem))
        if made:
            numbers, rows, pictures = zip(*made, strict=True)
            errors.append(_errors(model, samples.stacked(rows, model.sizes.grid), torch.stack(pictures)))
            episodes += numbers
        told(min(len(moments), (done + 1) * BATCH), len(moments))
    if not errors:
        raise ConfigurationError(f"dataset '{material.dataset.folder}': no moment can be decoded, the first: {next(iter(broken.values()))}")
    left_out = (*material.left_out, *broken.values())
    return Measured(VIEWS[: model.sizes.views], np.concatenate(errors), np.array(episodes), left_out)


def _moments(material: Material, away: int, every: int, most: int) -> list[tuple[int, int, int]]:
    """Which frames: place of the episode, step, place among all frames."""
    found = []
    for n, (episode, told) in enumerate(zip(material.episodes, material.told, strict=True)):
        for k, step in enumerate(material.steps(n)):
            if step % every == 0 and step + away < min(episode.length, told.own_until[step]):
                found.append((n, int(step), int(material.starts[n]) + k))
    if not found:
        longest, folder = max(episode.length for episode in material.episodes), material.dataset.folder
        expected = f"more than {away} in which nobody else has the arms, for a future"
        raise ConfigurationError(f"dataset '{folder}': the longest episode has {longest} frames, expected {expected}")
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]
    return found


def _batches(moments: Sequence[tuple[int, int, int]]) -> Iterator[Sequence[tuple[int, int, int]]]:
    for first in range(0, len(moments), BATCH):
        yield moments[first : first + BATCH]


@torch.inference_mode()
def imagined_latents(model: InternVLAA1, batch: Batch) -> Tensor:
    """Return the latents [B, V, z, lh, lw] of the imagined future, as they are when the policy runs."""
    inputs, views = batch.inputs, batch.inputs.view_mask.shape[1]
    positions = model.prefix_positions(inputs.attention_mask, views, inputs.grid)
    embedded = model.embed_prefix(inputs.pixel_values, inputs.input_ids, inputs.grid)
    prefix = model.prefix(embedded, inputs.attention_mask, positions)
    cache = model.generate(prefix, model.embed_generation(inputs.latents[:, :, :-1]), inputs.view_mask)
    return model.predict_latents(model.generation_hidden(cache), views, model.sizes.generation_grid)


@torch.inference_mode()
def _errors(model: InternVLAA1, batch: Batch, pictures: Tensor) -> FloatArray:
    """Return [B, V, 7] of pictures [B, 2 (now, future), V, 3, h, w] in [0, 1]."""
    imagined = imagined_latents(model, batch)
    now, future = batch.inputs.latents[:, :, 1], batch.inputs.latents[:, :, 2]
    true_now, true_future = (_at_cosmos(model, pictures[:, i]) for i in range(2))
    seen_imagined, seen_now, seen_future = (_decoded(model, latents) for latents in (imagined, now, future))
    pairs = (
        (imagined, future),
        (now, future),
        (seen_imagined, true_future),
        (true_now, true_future),
        (seen_future, true_future),
        (seen_imagined, seen_future),
        (seen_now, seen_future),
    )
    errors = torch.stack([((a.float() - b.float()) ** 2).flatten(2).mean(2) for a, b in pairs], 2)
    errors[~batch.inputs.view_mask] = torch.nan
    table: FloatArray = errors.double().numpy()
    return table


def _at_cosmos(model: InternVLAA1, pictures: Tensor) -> Tensor:
    """Pictures [B, V, 3, h, w] at the autoencoder's size, still in [0, 1]."""
    return (cosmos_input(pictures.flatten(0, 1), model.sizes) / 2 + 0.5).unflatten(0, pictures.shape[:2])


def _decoded(model: InternVLAA1, latents: Tensor) -> Tensor:
    """Latents [B, V, z, lh, lw] -> pictures [B, V, 3, ch, cw] in [0, 1]."""
    return (model.decode(latents.flatten(0, 1)) / 2 + 0.5).clamp(0, 1).unflatten(0, latents.shape[:2])


def summarise(measured: Measured, seed: int = 0) -> dict[str, Any]:
    """Return the errors of all views together and of each, and their ratios with intervals over episodes (a bootstrap)."""
    views = {"all": slice(None), **{name: slice(i, i + 1) for i, name in enumerate(measured.views)}}
    seen = {name: np.nanmean(measured.errors[:, view], 1) for name, view in views.items() if np.isfinite(measured.errors[:, view]).any()}
    by_view = {name: _summed(errors, measured.episodes, seed) for name, errors in seen.items()}
    episodes = len(np.unique(measured.episodes))
    return {"n": len(measured.errors), "episodes": episodes, "left_out": list(measured.left_out), "views": by_view}


def _summed(errors: FloatArray, episodes: Any, seed: int) -> dict[str, Any]:
    means = dict(zip(ERRORS, errors.mean(0).tolist(), strict=True))
    sums = np.stack([errors[episodes == n].sum(0) for n in np.unique(episodes)])
    drawn = np.random.default_rng(seed).integers(0, len(sums), (_DRAWS, len(sums)))
    totals = sums[drawn].sum(1)
    ratios = {}
    for name, (ours, theirs) in RATIOS.items():
        i, j = ERRORS.index(ours), ERRORS.index(theirs)
        # Where nothing changes at all a copy is right, and no ratio says anything.
        ratio = means[ours] / means[theirs] if means[theirs] > 0 else None
        known = totals[:, j] > 0
        ends = np.quantile(totals[known, i] / totals[known, j], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist() if known.any() else None
        ratios[name] = {"ratio": ratio, "interval": ends}
    return {"errors": means, "ratios": ratios}
