"""Which file it is."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path, missing: str = "") -> str:
    """Return the checksum of a file, `missing` where there is none."""
    if not path.is_file():
        return missing
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            found.update(block)
    return found.hexdigest()
