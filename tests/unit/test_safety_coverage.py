"""Every branch of the safety room is taken by its own tests, the property tests left aside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("machine", "checks", "limiter", "command_loop", "estop_presses", "stillness", "followed_instruction")
TESTS = tuple(f"test_{part}.py" for part in PARTS)


def test_full_branch_coverage_of_safety(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(str(HERE / name) for name in TESTS)]
    command += ["--cov=internvla_a1_ros.safety", "--cov=internvla_a1_ros.runtime.command_loop", "--cov-branch"]
    command += ["--cov-report=term-missing:skip-covered", "--cov-fail-under=100"]
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage")}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Required test coverage of 100% reached" in done.stdout
