"""`make test`: every check runs, whatever the one before said; pytest is last, so that its summary is the last line."""

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


def main(arguments: list[str]) -> int:
    """Return 0 when every check passed; `arguments` go to pytest."""
    failed = [name for name, words in CHECKS.items() if not passes(name, [str(BIN / words[0]), *words[1:]])]
    if failed:
        print(f"FAILED before the tests: {', '.join(failed)}", flush=True)
    tests = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False)
    return tests.returncode or int(bool(failed))


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
