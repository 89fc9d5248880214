"""The JSON files of a checkpoint folder. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError

LAYOUT = "qwena1"
LAYOUTS = {"qwena1": "3B", "interna1": "2B"}


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
    """Read `config.json` of a 3B-layout checkpoint. Raises CheckpointError where there is none or it is of another layout."""
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint: '{folder}' is not a folder")
    config = read_json(folder / "config.json")
    kind = config.get("type")
    if kind != LAYOUT:
        known = f"the {LAYOUTS[kind]} layout, which is not supported yet" if kind in LAYOUTS else "an unknown layout"
        raise CheckpointError(f"checkpoint '{folder}': got type {kind!r} ({known}), expected '{LAYOUT}' (the 3B layout)")
    return config
