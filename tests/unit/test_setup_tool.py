"""The set-up program's own logic: stamps, interruptions, what it says. Its real runs are in docs/setup.md."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "setup"))

import environment  # noqa: E402
import machine  # noqa: E402
import steps  # noqa: E402
from machine import SetupError  # noqa: E402

EXPORT = 'INTERFACE_INCLUDE_DIRECTORIES "{}/include/python3.12;{}/site-packages/numpy/_core/include"'


def counting(ran: list[str], name: str, key: str = "1") -> steps.Step:
    return steps.Step(name, name, key, lambda progress: ran.append(name))


def failing(ran: list[str], name: str) -> steps.Step:
    def run(progress: steps.Progress) -> None:
        ran.append(name)
        raise SetupError("no network")

    return steps.Step(name, name, "1", run)


def test_nothing_runs_twice(tmp_path: Path) -> None:
    ran: list[str] = []
    todo = [counting(ran, "a"), counting(ran, "b")]
    stamps = steps.Stamps(tmp_path)
    assert steps.run_steps(todo, stamps, tmp_path / "log", io.StringIO()) == 2
    assert steps.run_steps(todo, stamps, tmp_path / "log", io.StringIO()) == 0
    assert ran == ["a", "b"]


def test_a_changed_key_runs_that_step_again(tmp_path: Path) -> None:
    ran: list[str] = []
    stamps = steps.Stamps(tmp_path)
    steps.run_steps([counting(ran, "a"), counting(ran, "b")], stamps, tmp_path / "log", io.StringIO())
    steps.run_steps([counting(ran, "a"), counting(ran, "b", "2")], stamps, tmp_path / "log", io.StringIO())
    assert ran == ["a", "b", "b"]


def test_a_failure_is_gone_on_from(tmp_path: Path) -> None:
    ran: list[str] = []
    stamps = steps.Stamps(tmp_path)
    with pytest.raises(SetupError):
        steps.run_steps([counting(ran, "a"), failing(ran, "b"), counting(ran, "c")], stamps, tmp_path / "log", io.StringIO())
    assert [stamps.cut_off(name) for name in "abc"] == [False, True, False]
    steps.run_steps([counting(ran, "a"), counting(ran, "b"), counting(ran, "c")], stamps, tmp_path / "log", io.StringIO())
    assert ran == ["a", "b", "b", "c"]


def test_a_spoilt_stamp_counts_as_not_done(tmp_path: Path) -> None:
    ran: list[str] = []
    (tmp_path / "a.json").write_text('{"key": ')
    assert steps.run_steps([counting(ran, "a")], steps.Stamps(tmp_path), tmp_path / "log", io.StringIO()) == 1


def test_the_key_follows_words_names_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("numpy==1")
    keys = [steps.key_of("3.11", files=[file]), steps.key_of("3.12", files=[file]), steps.key_of("3.11", files=[tmp_path / "missing"])]
    file.write_text("numpy==2")
    keys.append(steps.key_of("3.11", files=[file]))
    assert len(set(keys)) == 4
    assert steps.key_of("ab", "c") != steps.key_of("a", "bc")


def test_progress_says_step_and_time_line_by_line_without_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = steps.Progress("[1/2] torch", tmp_path / "log", out)
    progress.start()
    progress.note("Downloading")
    progress.finish()
    assert out.getvalue().splitlines() == ["[1/2] torch ...", "[1/2] torch done in 0.0 s"]


def test_a_failing_command_tells_its_last_lines_and_where_the_rest_is(tmp_path: Path) -> None:
    progress = steps.Progress("[1/1] x", tmp_path / "log", io.StringIO())
    with pytest.raises(SetupError, match=r"(?s)pip failed \(exit code 3\).+log:\n  no such package"):
        progress.command([sys.executable, "-c", "print('no such package'); raise SystemExit(3)"], tmp_path, os.environ, "pip failed")
    assert "no such package" in (tmp_path / "log").read_text()


def _hold(path: Path, seconds: float) -> None:
    with steps.locked(path, print):
        time.sleep(seconds)


def test_a_second_set_up_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, 1.0))
    first.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    said: list[str] = []
    with steps.locked(path, said.append):
        assert said
        assert not first.is_alive() or first.join(0.5) is None
    first.join()


def test_include_paths_are_corrected_once(tmp_path: Path) -> None:
    file = tmp_path / "share" / "std_msgs" / "cmake" / "export_std_msgs__rosidl_generator_pyExport.cmake"
    file.parent.mkdir(parents=True)
    file.write_text(EXPORT.format("/opt/python/cp312-cp312", "/opt/python/cp312-cp312/lib/python3.12"))
    assert environment.correct_include_paths(tmp_path, Path("/usr/include/python3.12"), Path("/venv/site-packages")) == 1
    assert file.read_text() == EXPORT.format("/usr", "/venv")
    assert environment.correct_include_paths(tmp_path, Path("/usr/include/python3.12"), Path("/venv/site-packages")) == 0


def test_installs_that_were_cut_off_are_forgotten(tmp_path: Path) -> None:
    """Whole packages stay; a record without INSTALLER and the folder pip was moving away go."""
    for name in ("numpy-2.0.dist-info", "torch-2.0.dist-info", "~orch-1.0.dist-info"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").touch()
    (tmp_path / "numpy-2.0.dist-info" / "INSTALLER").write_text("pip")
    assert environment.forget_cut_off_installs(tmp_path)[0] == "torch-2.0"
    assert [path.name for path in tmp_path.iterdir()] == ["numpy-2.0.dist-info"]


def test_children_do_not_inherit_another_environment() -> None:
    shell = {"PATH": "/bin", "LD_LIBRARY_PATH": "/other/lib", "PYTHONPATH": "/other", "PIP_FIND_LINKS": "/wheels"}
    shell["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    wheels = environment.for_children(shell, Path("/repo/.venv"), "")
    assert wheels["PATH"].startswith("/repo/.venv/bin")
    assert wheels["AMENT_PREFIX_PATH"] == "/repo/.venv"
    assert not {"_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH", "PYTHONPATH"} & set(wheels)
    assert wheels["PIP_FIND_LINKS"] == "/wheels"
    beside = environment.for_children({**shell, "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}, Path("/repo/.venv"), "jazzy")
    assert beside["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"
    assert beside["PYTHONPATH"] == "/other"


def test_the_pth_line_adds_the_prefix_once() -> None:
    for before, after in (("", sys.prefix), ("/opt/ros/x", f"/opt/ros/x:{sys.prefix}"), (f"{sys.prefix}:/y", f"{sys.prefix}:/y")):
        variables = {"AMENT_PREFIX_PATH": before}
        code = environment.PTH_LINE.replace("os.environ", "variables").replace("import os, sys; ", "")
        exec(code, {"os": os, "sys": sys, "variables": variables})
        assert variables["AMENT_PREFIX_PATH"] == after
    assert environment.PTH < "ros_wheels_bootstrapper.pth"


def test_scripts_of_another_python_are_named(tmp_path: Path) -> None:
    (tmp_path / "policy_node").write_text("#!/repo/.venv/bin/python\nimport x\n")
    (tmp_path / "command_node").write_text("#!/usr/bin/python3\nimport x\n")
    assert environment.wrong_shebangs(tmp_path, Path("/repo/.venv/bin/python")) == ["command_node"]


@pytest.mark.parametrize(("version", "fits"), [((3, 9, 18), False), ((3, 10, 4), True), ((3, 12, 3), True), ((3, 13, 0), False)])
def test_python_versions(version: tuple[int, int, int], fits: bool) -> None:
    if fits:
        machine.check_python(version)
    else:
        with pytest.raises(SetupError, match=rf"this is Python {version[0]}\.{version[1]}, and Python 3\.10, 3\.11 or 3\.12 is needed"):
            machine.check_python(version)


def test_a_distribution_counts_only_with_rclpy(tmp_path: Path) -> None:
    variables = {"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": f"{tmp_path / 'overlay'}:{tmp_path / 'humble'}"}
    assert machine.ros_distribution(variables) == ""
    index = tmp_path / "humble" / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "rclpy").touch()
    assert machine.ros_distribution(variables) == "humble"
    assert machine.ros_distribution({"AMENT_PREFIX_PATH": str(tmp_path / "humble")}) == ""
    assert machine.sourced_package("rclpy", variables)
    assert not machine.sourced_package("arx5_arm_msg", variables)


def test_what_debian_must_provide_fits_in_one_line() -> None:
    everything = machine.missing_packages(lambda path: False, has_venv=False, has_compiler=False, python="python3", renders=False)
    line = "sudo apt-get install -y python3-venv g++ python3-dev libegl1 libgl1-mesa-dri"
    assert machine.apt_line(everything) == line
    assert [one.needed for one in everything] == [True, True, True, False]
    assert machine.missing_packages(lambda path: True, has_venv=True, has_compiler=True, python="python3", renders=True) == []


def test_without_ros_nothing_needs_sourcing(tmp_path: Path) -> None:
    assert all(line.startswith("#") for line in environment.shell_file(tmp_path, "").splitlines())
    assert f". '{tmp_path}/ros2_ws/install/setup.sh'" in environment.shell_file(tmp_path, "jazzy")
