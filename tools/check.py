"""`make test`: every check runs, whatever the one before said. Tests that keep real time over ROS 2 come last, one after the other and with
the machine to themselves; the others before them, a file to each core at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CHECKS = {
    "ruff": ["ruff", "check", "--quiet", "."],
    "mypy": ["mypy", "--no-error-summary"],
    "import contract": ["lint-imports", "--no-logo"],
}
IN_REAL_TIME = "tests/ros"
MOST_AT_ONCE = 4  # each draws models and loads torch: about 1.7 GB


def main(arguments: list[str]) -> int:
    """Return 0 when every check passed; `arguments` go to pytest, once for all where there are any."""
    failed = [name for name, words in CHECKS.items() if not passes(name, [str(BIN / words[0]), *words[1:]])]
    if failed:
        print(f"FAILED before the tests: {', '.join(failed)}", flush=True)
    at_once = ["-n", str(min(MOST_AT_ONCE, len(os.sched_getaffinity(0)))), "--dist", "loadfile"]
    runs = [arguments] if arguments else [["tests", "--ignore", IN_REAL_TIME, *at_once], [IN_REAL_TIME]]
    codes = [subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False).returncode for words in runs]
    if len(codes) > 1:
        print(f"tests beside each other: {told(codes[0])}; tests in real time: {told(codes[1])}", flush=True)
    return next((code for code in codes if code), int(bool(failed)))


def told(code: int) -> str:
    return "passed" if code == 0 else f"FAILED ({code})"


def passes(name: str, command: list[str]) -> bool:
    """Run one check, show what it says only when it fails, and tell whether it passed."""
    began_s = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False)
    if result.returncode:
        print(result.stdout + result.stderr)
    print(f"{name}: {'failed' if result.returncode else 'passed'} in {time.monotonic() - began_s:.1f} s", flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
