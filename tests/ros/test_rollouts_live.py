"""`internvla-a1 evaluate rollouts --live`: the demo's processes over DDS run a trial to its end, and none of them is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# One of the ten that conftest.py keeps for this run.
DOMAIN = 10 + (os.getpid() * 10) % 60 + 8


def test_a_trial_over_dds(tmp_path: Path) -> None:
    words = ["evaluate", "rollouts", "--live", "--n", "1", "--seed", "1", "--domain-id", str(DOMAIN), "--out", "tried"]
    command = [sys.executable, "-m", "internvla_a1_ros.cli.main", *words]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    told = json.loads((tmp_path / "tried/metrics.json").read_text())
    (trial,) = told["trials"]
    assert told["n"] == 1 and not told["partial"] and trial["chunks"] > 0 and trial["duration_s"] > 1
    assert trial["succeeded"] or trial["failure"]
    what = told["what"]
    assert what["compute_ms"] is None and what["videos"] == "none" and what["pace"] == 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"tried", "tried-logs"}
