"""Steps that are done once: stamps, a lock, and a line that shows progress. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from machine import SetupError

_HEARTBEAT_S = 20.0


@dataclass(frozen=True)
class Step:
    """One part of set-up. It runs again when `key`, made from everything it depends on, changes."""

    name: str
    title: str
    key: str
    run: Callable[[Progress], None]


def key_of(*parts: str, files: Iterable[Path] = ()) -> str:
    """Return a digest of words and of files, their names included; a missing file counts as empty."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    for file in sorted(files):
        digest.update(str(file).encode() + b"\0" + (file.read_bytes() if file.is_file() else b"") + b"\0")
    return digest.hexdigest()


class Stamps:
    """Which steps are done, one small file each. A step that was begun and not finished is known too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def done(self, step: Step) -> bool:
        """Tell whether this step ended well with this very key."""
        return self._read(step.name) == {"key": step.key, "state": "done"}

    def cut_off(self, name: str) -> bool:
        """Tell whether the step was begun and has not ended well since."""
        return self._read(name).get("state") == "begun"

    def begin(self, step: Step) -> None:
        """Note that the step is under way; nothing it has made can be relied on until `finish`."""
        self._write(step, "begun")

    def finish(self, step: Step) -> None:
        """Note that the step ended well."""
        self._write(step, "done")

    def _read(self, name: str) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            read = json.loads((self._folder / f"{name}.json").read_text())
            if isinstance(read, dict):
                return read
        return {}

    def _write(self, step: Step, state: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{step.name}.partial"
        partial.write_text(json.dumps({"key": step.key, "state": state}))
        partial.replace(self._folder / f"{step.name}.json")


def _end_with_parent() -> None:
    """Were set-up killed, a pip that goes on beside the next set-up would spoil what that one installs."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Progress:
    """Shows which step runs, what it does and since when: one moving line in a terminal, a line now and then elsewhere."""

    def __init__(self, label: str, log: Path, out: TextIO = sys.stdout) -> None:
        self._label = label
        self._log = log
        self._out = out
        self._began_s = time.monotonic()
        self._said_s = self._began_s
        self._moving = out.isatty()

    def start(self) -> None:
        """Say that the step begins."""
        self._print(f"{self._label} ...", keep=not self._moving)

    def note(self, text: str) -> None:
        """Show what the step is doing now."""
        now_s = time.monotonic()
        if self._moving or now_s - self._said_s >= _HEARTBEAT_S:
            self._said_s = now_s
            self._print(f"{self._label} {now_s - self._began_s:4.0f} s  {text[:60]}", keep=not self._moving)

    def finish(self) -> None:
        """Say how long the step took."""
        self._print(f"{self._label} done in {time.monotonic() - self._began_s:.1f} s", keep=True)

    def _print(self, text: str, keep: bool) -> None:
        before = "\r\033[K" if self._moving else ""
        self._out.write(f"{before}{text}{chr(10) if keep else ''}")
        self._out.flush()

    def command(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], failure: str) -> None:
        """Run a command, its output into the log and its last line shown. Raises SetupError with `failure` and the last lines."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        tail: list[str] = []
        with self._log.open("a") as log:
            log.write(f"\n$ {' '.join(words)}\n")
            process = subprocess.Popen(
                words, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", preexec_fn=_end_with_parent,
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    tail = [*tail[-24:], line.rstrip()]
                    if line.strip() and not line.startswith("WARNING"):
                        self.note(line.strip())
                code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code:
            raise SetupError(f"{failure} (exit code {code}); its last lines, the rest is in {self._log}:\n  " + "\n  ".join(tail))


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file; a second set-up waits for the first. The kernel lets go of it however the first one ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is under way in this folder; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_steps(steps: Sequence[Step], stamps: Stamps, log: Path, out: TextIO = sys.stdout) -> int:
    """Run what is not done yet, in order; return how many steps ran."""
    todo = [step for step in steps if not stamps.done(step)]
    for step in todo:
        progress = Progress(f"[{steps.index(step) + 1}/{len(steps)}] {step.title}", log, out)
        progress.start()
        stamps.begin(step)
        step.run(progress)
        stamps.finish(step)
        progress.finish()
    return len(todo)
