"""Built engines on disk: found by a key of everything they depend on, written beside their place and moved there when they are whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from internvla_a1_ros.core.errors import ConfigurationError

FORMAT = 3  # to be raised when the model's or the exporter's code changes what is built (tests/contract/test_export_format.py)
CACHE_VARIABLE = "INTERNVLA_A1_CACHE"
ABOUT = "about.json"


def cache_folder() -> Path:
    """Where built engines lie: `$INTERNVLA_A1_CACHE`, else the user's cache folder."""
    if told := os.environ.get(CACHE_VARIABLE):
        return Path(told).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "internvla_a1_ros" / "engines"


@dataclass(frozen=True, slots=True)
class Key:
    """Everything a built engine depends on: checkpoint, engine, precision, sizes, libraries, machine."""

    parts: Mapping[str, str]

    @property
    def folder(self) -> Path:
        told = json.dumps({"format": str(FORMAT), **self.parts}, sort_keys=True)
        return cache_folder() / f"{self.parts['engine']}-{self.parts['precision']}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    @property
    def is_built(self) -> bool:
        """Whether it is there whole: what it was made of is written last, and every file has the size it had then."""
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            sizes = {name: (self.folder / name).stat().st_size for name in about["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(about["key"] == dict(self.parts) and sizes == about["files"])

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Give an empty folder to build in; when all went well it becomes `folder`, else nothing is left of it.

        What was there before stays until then. Raises ConfigurationError where the cache cannot be written.
        """
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f".{self.folder.name}.*"):
                if not Path("/proc", left.name.split(".")[2]).exists():  # its builder was killed
                    shutil.rmtree(left, ignore_errors=True)
            made = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.{os.getpid()}.", dir=parent))
        except OSError as error:
            raise ConfigurationError(
                f"engine cache '{parent}' cannot be written ({error.strerror}); set {CACHE_VARIABLE} to a folder that can"
            ) from None
        try:
            yield made
            files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
            (made / ABOUT).write_text(json.dumps({"key": dict(self.parts), "files": files}, indent=1) + "\n", encoding="utf-8")
            made.chmod(0o755)
            old = made.with_name(made.name + ".old")
            if self.folder.exists():
                self.folder.replace(old)
            made.replace(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise ConfigurationError(f"engine cache '{parent}': {error.strerror} while writing; is the disk full?") from None
        finally:
            shutil.rmtree(made, ignore_errors=True)


def stale(key: Key) -> list[Path]:
    """Built engines of the same engine, precision and checkpoint that something else has changed for since: never loaded."""
    found = []
    for path in cache_folder().glob(f"{key.parts['engine']}-{key.parts['precision']}-*/{ABOUT}"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError):
            continue
        if told.get("place") == key.parts.get("place") and path.parent != key.folder:
            found.append(path.parent)
    return sorted(found)
