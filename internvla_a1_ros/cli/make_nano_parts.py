"""Parts of a model that are taken over from one that was taught: what the first two stages of docs/nano.md leave."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.recipe import TOWER
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.runtime.deployment import find_checkpoint


def taken(option: str, name: str, part: str, sizes: Architecture) -> Mapping[str, Tensor]:
    """Return the weights of `part` (the beginning of their names) of the checkpoint `name`, a folder or a model that comes along.

    Raises ConfigurationError where its part, or the picture that it is shown, has other sizes, and CheckpointError where it does not load.
    """
    folder = find_checkpoint(name)
    model = load_model(folder)
    theirs, ours = _sizes(model.sizes, part), _sizes(sizes, part)
    different = [f"{key} {theirs[key]} (expected {ours[key]})" for key in ours if theirs[key] != ours[key]]
    if different:
        raise ConfigurationError(f"{option}: '{folder}' has {', '.join(different)}, so its weights do not fit")
    return {key: weight for key, weight in model.state_dict().items() if key.startswith(part)}


def _sizes(sizes: Architecture, part: str) -> dict[str, object]:
    if part == TOWER:
        return {"vision": sizes.vision, "picture": sizes.picture, "hidden": sizes.understanding.hidden}
    return {"cosmos": sizes.cosmos, "cosmos_picture": sizes.cosmos_picture}
