"""The supervisor with tiny children: started, watched, started again, and none left behind whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from internvla_a1_ros.runtime import supervisor as supervisor_module
from internvla_a1_ros.runtime.deployment import Deployment, Process
from internvla_a1_ros.runtime.supervisor import MISCONFIGURED, Supervisor, command_line

CHILD = '''
"""Writes its pid and what it was given into the folder CHILD_FOLDER, then does what its first argument says."""
import json, os, signal, sys, time
from pathlib import Path

what = sys.argv[1]
if what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == "orderly":
    def end(*_):
        (Path(os.environ["CHILD_FOLDER"]) / "ended").open("a").write(what + " ")
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
told = {"pid": os.getpid(), "arguments": sys.argv, "nice": os.nice(0), "environment": dict(os.environ)}
place = Path(os.environ["CHILD_FOLDER"]) / f"{os.getpid()}.tmp"
place.write_text(json.dumps(told))
place.rename(place.with_suffix(".json"))
if what.startswith("exit"):
    print("INFO fine so far", flush=True)
    print("error: " + "the cup is empty", flush=True)
    print("bye", flush=True)
    sys.exit(int(what.removeprefix("exit")))
while True:
    time.sleep(0.05)
'''


class Cage:
    """Where the children live, and the supervisors that were made in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Supervisor] = []
        (folder / "tiny_child.py").write_text(CHILD)

    def supervisor(self, *what: str, respawn: bool = False, nice: int = 0, logs: bool = False, **environment: str) -> Supervisor:
        processes = tuple(Process(f"{k}_{each}", "child", "tiny_child", {}, respawn=respawn, nice=nice) for k, each in enumerate(what))
        variables = {"PYTHONPATH": str(self.folder), "CHILD_FOLDER": str(self.folder), **environment}
        extra = {process.name: (each,) for process, each in zip(processes, what, strict=True)}
        made = Supervisor(Deployment("cage", processes, variables), self.folder / "logs" if logs else None, extra)
        self.made.append(made)
        return made

    def told(self, count: int) -> list[dict[str, object]]:
        """Return what `count` children said, in the order of their pids, once all have."""
        until(lambda: len(list(self.folder.glob("*.json"))) >= count)
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def cage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cage]:
    monkeypatch.setattr(supervisor_module, "_GRACE_S", 1.0)
    cage = Cage(tmp_path)
    yield cage
    for made in cage.made:
        made.stop()


def test_every_process_is_started_in_its_environment_and_ended(cage: Cage) -> None:
    made = cage.supervisor("wait", "wait", ROS_DOMAIN_ID="42")
    made.start()
    told = cage.told(2)
    assert all(each["environment"]["ROS_DOMAIN_ID"] == "42" for each in told)  # type: ignore[index]
    assert made.check() is None
    pids = [child.pid for child in made.children.values()]
    assert sorted(pids) == sorted(each["pid"] for each in told)  # type: ignore[type-var]
    made.stop()
    assert not any(running(pid) for pid in pids)
    assert [child.returncode for child in made.children.values()] == [-signal.SIGTERM] * 2


def test_orderly_children_end_in_their_own_way(cage: Cage) -> None:
    made = cage.supervisor("orderly", "orderly")
    made.start()
    cage.told(2)
    made.stop()
    assert (cage.folder / "ended").read_text() == "orderly orderly "
    assert [child.returncode for child in made.children.values()] == [0, 0]


def test_one_that_ignores_sigterm_is_killed_after_the_grace(cage: Cage) -> None:
    made = cage.supervisor("wait", "stubborn", "wait")
    made.start()
    cage.told(3)
    began = time.monotonic()
    made.stop()
    assert 0.9 < time.monotonic() - began < 5.0
    assert [child.returncode for child in made.children.values()] == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM]


def test_one_that_stands_still_is_ended_too(cage: Cage) -> None:
    made = cage.supervisor("wait")
    made.start()
    cage.told(1)
    (child,) = made.children.values()
    os.kill(child.pid, signal.SIGSTOP)
    made.stop()
    assert not running(child.pid)


def test_a_killed_process_that_may_is_started_again(cage: Cage) -> None:
    made = cage.supervisor("wait", respawn=True, nice=3)
    made.start()
    (first,) = cage.told(1)
    assert first["nice"] == os.nice(0) + 3
    child = made.children["0_wait"]
    child.kill()
    child.wait()
    assert made.check() is None
    assert made.respawns == {"0_wait": 1} and made.children["0_wait"].pid != child.pid
    cage.told(2)
    assert made.check() is None and made.respawns == {"0_wait": 1}


def test_one_that_may_not_ends_the_deployment_with_its_code(cage: Cage) -> None:
    made = cage.supervisor("wait", "wait")
    made.start()
    made.children["1_wait"].kill()
    made.children["1_wait"].wait()
    assert made.check() == "1_wait ended with code -9"


def test_one_that_is_misconfigured_is_not_started_again_and_its_last_error_is_said(cage: Cage) -> None:
    made = cage.supervisor(f"exit{MISCONFIGURED}", respawn=True, logs=True)
    made.start()
    (child,) = made.children.values()
    child.wait()
    assert made.check() == "0_exit2 ended with code 2: error: the cup is empty"
    assert made.respawns == {}


def test_one_that_ends_again_and_again_is_given_up(cage: Cage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_RESPAWNS", 2)
    made = cage.supervisor("exit7", respawn=True)
    made.start()
    assert made.run(lambda: True, period_s=0.02) == "0_exit7 ended with code 7"
    assert made.respawns == {"0_exit7": 2}


def test_run_ends_when_it_is_told_to(cage: Cage) -> None:
    made = cage.supervisor("wait")
    made.start()
    answers = iter([True, True, False])
    assert made.run(lambda: next(answers), period_s=0.01) is None


def test_stop_is_harmless_twice_and_after_the_end(cage: Cage) -> None:
    made = cage.supervisor("exit0")
    made.start()
    made.children["0_exit0"].wait()
    made.stop()
    made.stop()


def test_ctrl_c_reaches_the_supervisor_alone(cage: Cage) -> None:
    made = cage.supervisor("wait")
    made.start()
    cage.told(1)
    (child,) = made.children.values()
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_children_end_with_a_supervisor_that_is_killed(cage: Cage) -> None:
    script = f"""
import time
from pathlib import Path
from internvla_a1_ros.runtime.deployment import Deployment, Process
from internvla_a1_ros.runtime.supervisor import Supervisor
two = tuple(Process(name, "child", "tiny_child", {{}}, nice=nice) for name, nice in (("a", 0), ("b", 5)))
folder = {str(cage.folder)!r}
made = Supervisor(Deployment("cage", two, {{"PYTHONPATH": folder, "CHILD_FOLDER": folder}}), None, {{"a": ("wait",), "b": ("orderly",)}})
made.start()
time.sleep(60)
"""
    outer = subprocess.Popen([sys.executable, "-c", script])
    pids = [int(str(each["pid"])) for each in cage.told(2)]
    outer.kill()
    outer.wait()
    until(lambda: not any(running(pid) for pid in pids))
    assert (cage.folder / "ended").read_text() == "orderly "  # by SIGTERM: the arms come to rest


# The command line


PARAMETERS = {
    "dry_run": True,
    "seed": 7,
    "speed": 0.25,
    "instruction": "Pick up the \"bread\": it's 5 o'clock, isn't it? # no comment \\ {a: b}",
    "unicode": "把包裹放进箱子 – ça va 📦",
    "number_like": "0123",
    "empty": "",
    "topics": ["/left", "/right, or not"],
}


def test_parameters_travel_as_yaml() -> None:
    line = command_line(Process("policy", "policy_node", "a.module", PARAMETERS, lifecycle=False), ("extra",))
    assert line[:5] == [sys.executable, "-m", "a.module", "extra", "--ros-args"]
    assert line[5::2] == ["-p"] * len(PARAMETERS)
    pairs = [each.split(":=", 1) for each in line[6::2]]
    assert {name: yaml.safe_load(text) for name, text in pairs} == PARAMETERS


def test_a_lifecycle_node_starts_itself_and_a_nice_one_steps_back() -> None:
    line = command_line(Process("policy", "policy_node", "a.module", {}, nice=5))
    assert line[:3] == ["nice", "-n", "5"] and line[-2:] == ["-p", "autostart:=true"]


def test_ros_reads_the_parameters_as_they_were_meant(tmp_path: Path) -> None:
    """Through rcl's own parser, in a process of its own: types and texts arrive unchanged."""
    module = tmp_path / "reads_parameters.py"
    module.write_text(
        "import json, sys, rclpy\nfrom rclpy.node import Node\nrclpy.init(args=sys.argv)\n"
        "node = Node('reader', allow_undeclared_parameters=True, automatically_declare_parameters_from_overrides=True,\n"
        "            enable_rosout=False, start_parameter_services=False)\n"
        "got = {name: each.value for name, each in node.get_parameters_by_prefix('').items()}\n"
        "print('GOT ' + json.dumps({k: list(v) if isinstance(v, (list, tuple)) else v for k, v in got.items()}), flush=True)\n"
        "import os; os._exit(0)\n"
    )
    line = command_line(Process("reader", "reader", "reads_parameters", PARAMETERS, lifecycle=False))
    # In front of what is there: beside a sourced distribution rclpy itself comes from PYTHONPATH.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))}
    said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert "GOT " in said.stdout, said.stderr
    got = json.loads(said.stdout.split("GOT ", 1)[1].splitlines()[0])
    assert {name: got[name] for name in PARAMETERS} == PARAMETERS
