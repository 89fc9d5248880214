"""ROS tests: this machine only, a domain of their own, the harness importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def domain_id() -> int:
    """A domain for this run; tests use it and the nine after it, 10 to 69: below those of demo and benchmarks."""
    return 10 + (os.getpid() * 10) % 60
