"""Parts of a model that are taken over from one that was taught: what the first two stages of docs/nano.md leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.autoencoder import COSMOS
from internvla_a1_ros.learning.recipe import TOWER
from internvla_a1_ros.model.checkpoint import load_architecture, load_model
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.runtime.deployment import find_checkpoint

PARTS = {"autoencoder": COSMOS, "vision": TOWER}  # by option; how the names of their weights begin


def taken(part: str, name: str, sizes: Architecture) -> Mapping[str, Tensor]:
    """Return the weights of one of `PARTS` of the checkpoint `name`, a folder or a model that comes along.

    Raises ConfigurationError where its part, or the picture that it is shown, has other sizes, and CheckpointError where it does not load.
    """
    folder = find_checkpoint(name)
    theirs, ours = _sizes(load_architecture(folder), part), _sizes(sizes, part)
    different = [f"{key} {theirs[key]} (expected {ours[key]})" for key in ours if theirs[key] != ours[key]]
    if different:
        raise ConfigurationError(f"--{part}: '{folder}' has {', '.join(different)}, so its weights do not fit")
    return {key: weight for key, weight in load_model(folder).state_dict().items() if key.startswith(PARTS[part])}


def _sizes(sizes: Architecture, part: str) -> dict[str, object]:
    if part == "vision":
        return {"picture": sizes.picture, "understanding hidden": sizes.understanding.hidden, **asdict(sizes.vision)}
    return {"picture": sizes.cosmos_picture, **asdict(sizes.cosmos)}
