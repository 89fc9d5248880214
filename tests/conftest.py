"""Every test run: a ROS domain of its own on this machine only, no process left behind, and a table of what did not run here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

MARK = "INTERNVLA_A1_TEST_RUN"

# Before any test imports rclpy. Children inherit it, so that whatever a test leaves behind can be told from anyone else's process.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":  # which does not know the range
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
os.environ[MARK] = str(os.getpid())


def pytest_configure(config: pytest.Config) -> None:
    """Tests of the loop run on a model that is drawn, not on the one we ship: it stays calm, and it does not change when that is taught."""
    from internvla_a1_ros.cli.make_nano import make_nano
    from internvla_a1_ros.runtime.deployment import MODELS_VARIABLE

    folder = tempfile.mkdtemp(prefix="internvla_a1_models_")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        make_nano(Path(folder) / "nano", 0)
    shutil.copyfile(Path(__file__).with_name("drawn_manifest.yaml"), Path(folder) / "nano" / "manifest.yaml")
    os.environ[MODELS_VARIABLE] = folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that cannot run here, or take long, are skipped with a reason; the table at the end names them."""
    gpu = Path("/dev/nvidia0").exists()
    for item in items:
        if not gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))
        if not config.getoption("--long") and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: run with --long"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what did not run, by reason: a skip is not a pass."""
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section("not run here")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5d}  {reason}")


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C is heard, however the run was begun, by every test and its children; verbs that take the signals keep them to themselves."""
    former = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, former)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the run where a process that a test started outlives it, and end that process: those of this run only, by their mark."""
    yield
    left = [process for process in psutil.process_iter() if _ours(process)]
    told = [f"{process.pid} {' '.join(process.cmdline())[:120]}" for process in left]
    for process in left:
        process.kill()
    assert not told, f"processes left behind: {told}"


def _ours(process: psutil.Process) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE or "resource_tracker" in " ".join(process.cmdline()):
            return False
        return process.environ().get(MARK) == str(os.getpid())
    except psutil.Error:
        return False
