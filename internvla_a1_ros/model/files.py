"""The JSON files of a checkpoint folder. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.layout import layout_called


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError naming the file where it is missing or is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: '{path}' is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"checkpoint: '{path}' cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint: '{path}': got {type(value).__name__}, expected an object")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a checkpoint. Raises CheckpointError where there is none or it is of an unknown layout."""
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint: '{folder}' is not a folder")
    config = read_json(folder / "config.json")
    try:
        layout_called(config.get("type"))
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from None
    return config
