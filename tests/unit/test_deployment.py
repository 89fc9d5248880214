"""What is started, with which parameters, in which environment; and how what is unknown is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.profile import PROFILE_FOLDER
from internvla_a1_ros.runtime.applications import APPLICATIONS, application
from internvla_a1_ros.runtime.deployment import MODELS_VARIABLE, SIMULATION_DOMAIN_ID, Options, environment, find_checkpoint, models_folder


def names(options: Options) -> list[str]:
    return [process.name for process in application("express_sorting", options).processes]


def test_a_robot_gets_policy_and_command_and_the_simulation_its_cell_first() -> None:
    assert names(Options()) == ["command", "policy", "cell"]
    assert names(Options(cell="none")) == ["command", "policy"]
    assert names(Options(sim=True)) == ["sim", "command", "policy"]


def test_only_the_policy_is_started_again() -> None:
    for name in APPLICATIONS:
        made = application(name, Options(sim=name != "replay", bag="day1"))
        assert {process.name.rpartition(".")[2] for process in made.processes if process.respawn} <= {"policy"}


def test_the_command_process_keeps_its_priority_and_the_others_lower_theirs() -> None:
    made = application("express_sorting", Options(sim=True))
    assert {process.name: process.nice for process in made.processes} == {"sim": 10, "command": 0, "policy": 5}


def test_parameters_say_what_was_chosen() -> None:
    made = application(
        "express_sorting", Options(instruction="sort it", preset="fast", guidance="soft", dry_run=False, sim=True, simulation={"seed": 7})
    )
    assert made.process("command").parameters == {"robot": "arx_ac_one", "instance": "arx_ac_one", "dry_run": False}
    policy = made.process("policy").parameters
    assert policy["instruction"] == "sort it" and policy["engine"] == "torch"
    assert policy["preset"] == "fast" and policy["guidance"] == "soft"
    assert policy["checkpoint"] == str(find_checkpoint("nano")) and "dry_run" not in policy
    assert made.process("sim").parameters == {"robot": "arx_ac_one", "seed": 7} and not made.process("sim").lifecycle
    assert made.process("policy").parameters["instance"] == made.process("command").parameters["instance"]


def test_a_dry_run_is_what_one_gets_without_asking() -> None:
    assert application("express_sorting", Options()).process("command").parameters["dry_run"] is True


def test_simulated_time_is_the_cells_and_everyone_follows_it() -> None:
    made = application("express_sorting", Options(sim=True, simulated_time=True, simulation={"width": 160}))
    assert made.process("sim").parameters == {"robot": "arx_ac_one", "width": 160, "time_source": "simulated"}
    assert all(made.process(name).parameters["use_sim_time"] is True for name in ("command", "policy"))


# Several robots, other robots


def test_two_robots_lie_apart_and_one_button_stops_both() -> None:
    made = application("ingredient_picking", Options(dry_run=False))
    assert [process.name for process in made.processes] == [
        *("left_station.command", "left_station.policy", "right_station.command", "right_station.policy", "cell")
    ]
    left, right = made.process("left_station.command"), made.process("right_station.command")
    assert (left.namespace, left.node, left.parameters["instance"]) == ("left_station", "command", "left_station")
    assert left.parameters["estop_topic"] == right.parameters["estop_topic"] == "/e_stop"
    assert left.remap["/arm_master_l_status"] == "/left_station/arm_master_l_status"
    assert not set(left.remap.values()) & set(right.remap.values())
    assert made.process("cell").parameters == {"cell": "ingredient_picking"}


@pytest.mark.parametrize("robot", ["arx_lift2", "jtc_dual_arm"])
def test_a_robot_the_cell_has_no_arms_for_is_simulated_on_its_own_topics(robot: str) -> None:
    made = application("express_sorting", Options(robot=robot, cell="none", sim=True))
    assert made.process("sim").executable == "robot_sim_node" and made.process("sim").parameters == {"robot": robot}
    with pytest.raises(ConfigurationError, match="is simulated without the cell, which alone keeps simulated time"):
        application("express_sorting", Options(robot=robot, cell="none", sim=True, simulated_time=True))


@pytest.mark.parametrize("name", ["sim_cell", "express_sorting"])
def test_genie1_stands_in_the_cell_with_its_own_arms(name: str) -> None:
    made = application(name, Options(robot="genie1_sim", sim=True, simulated_time=True))
    assert made.process("sim").executable == "sim_node"
    assert made.process("sim").parameters == {"robot": "genie1_sim", "time_source": "simulated"}


def test_a_robot_that_rests_on_one_in_the_cell_stays_there_unless_it_has_a_name_of_its_own(tmp_path: Path) -> None:
    same, own = tmp_path / "same.yaml", tmp_path / "own.yaml"
    same.write_text("base: genie1_sim\ncontrol_rate_hz: 100\n", encoding="utf-8")
    own.write_text("base: genie1_sim\nname: ours\n", encoding="utf-8")
    for path, executable in ((same, "sim_node"), (own, "robot_sim_node")):
        sim = application("sim_cell", Options(robot=str(path))).process("sim")
        assert (sim.executable, sim.parameters["robot"]) == (executable, str(path))


def test_what_runs_where() -> None:
    assert [process.name for process in application("policy_only", Options()).processes] == ["policy"]
    assert [process.name for process in application("command_only", Options()).processes] == ["command"]
    assert [process.name for process in application("sim_cell", Options()).processes] == ["sim"]
    played = application("replay", Options(bag="day1", rate=2.0))
    assert all(process.parameters.get("use_sim_time", process.name == "player") for process in played.processes)
    assert played.process("command").parameters["dry_run"] is True and played.process("player").completes
    assert played.process("player").parameters == {"bag": str(Path("day1").resolve()), "robot": "arx_ac_one", "rate": 2.0}


def test_a_recording_begins_first_and_knows_what_is_said_where() -> None:
    made = application("ingredient_picking", Options(record=True, recordings="/data", record_gb=2.0))
    recorder, *others = made.processes
    assert recorder.name == "recorder" and recorder.respawn and not recorder.lifecycle
    assert recorder.parameters["folder"] == "/data" and recorder.parameters["max_gb"] == 2.0
    assert "/left_station/arm_slave_l_status" in recorder.parameters["topics"]
    assert recorder.parameters["commands"][0] == "/left_station/arm_master_l_status"
    assert {"/left_station/policy/chunk", "/right_station/command/", "/cell/", "/e_stop"} <= set(recorder.parameters["prefixes"])
    assert not any("imagined" in prefix for prefix in recorder.parameters["prefixes"])
    told = json.loads(recorder.parameters["processes"])
    assert set(told) == {process.name for process in others} and told["left_station.policy"]["namespace"] == "left_station"
    for process in others:
        assert process.parameters.get("record", False) is (process.node in ("policy", "command"))
    assert application("express_sorting", Options()).processes[0].name != "recorder"


def test_a_namespace_takes_ours_along_and_nodes_may_wait() -> None:
    made = application("express_sorting", Options(cell="none", namespace="/station", autostart=False))
    assert {process.namespace for process in made.processes} == {"station"}
    assert all(process.parameters["autostart"] is False for process in made.processes)


# Environment


def ros(options: Options) -> dict[str, str]:
    """Return what the environment says to ROS."""
    return {name: value for name, value in environment(options).items() if name.startswith("ROS_")}


def test_simulation_has_a_domain_of_its_own_on_this_machine_only() -> None:
    assert SIMULATION_DOMAIN_ID != 0
    assert ros(Options(sim=True)) == {"ROS_DOMAIN_ID": str(SIMULATION_DOMAIN_ID), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_humble_keeps_to_this_machine_by_its_own_variable() -> None:
    assert ros(Options(sim=True, distribution="humble")) == {"ROS_DOMAIN_ID": str(SIMULATION_DOMAIN_ID), "ROS_LOCALHOST_ONLY": "1"}


@pytest.mark.parametrize("distribution", ["jazzy", "kilted", "rolling", ""])
def test_later_distributions_restrict_discovery(distribution: str) -> None:
    assert environment(Options(sim=True, distribution=distribution))["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_a_real_robot_is_left_in_the_environment_of_its_operator() -> None:
    assert ros(Options()) == {}
    assert ros(Options(domain_id=3)) == {"ROS_DOMAIN_ID": "3"}


@pytest.mark.parametrize("domain_id", [0, 5, 101])
def test_a_domain_asked_for_wins_and_simulation_stays_on_this_machine(domain_id: int) -> None:
    variables = ros(Options(sim=True, domain_id=domain_id))
    assert variables == {"ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@pytest.mark.parametrize("domain_id", [-1, 102, 233])
def test_a_domain_without_ports_is_refused(domain_id: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^domain id: got {domain_id}, expected 0 to 101$"):
        application("express_sorting", Options(domain_id=domain_id))


# What is unknown


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        ("express_sortin", Options(), "unknown application 'express_sortin', did you mean 'express_sorting'? (known: express_sorting,"),
        ("bakery", Options(), "unknown application 'bakery' (known: express_sorting,"),
        ("express_sorting", Options(cell="express_sort"), "unknown cell 'express_sort', did you mean 'express_sorting'? (known: "),
        ("express_sorting", Options(robot="genie1_sim"), "robot 'genie1_sim': cell 'express_sorting' is wired for arx_ac_one; "),
        ("express_sorting", Options(cell="none", robot="genie1"), "robot 'genie1': commanded of joint 'left_gripper_joint1', "),
        ("ingredient_picking", Options(robot="arx_ac_one"), "ingredient_picking: got robot 'arx_ac_one', expected none: cell "),
        ("ingredient_picking", Options(cell="none"), "cell: got 'none', expected a cell: it names the robots"),
        ("replay", Options(dry_run=False), "replay: got dry_run false, expected true: what a bag shows is not what a robot sees"),
        ("replay", Options(bag="day1", sim=True), "replay: got sim true, expected false: the bag is the robot"),
        ("replay", Options(), "replay: got no bag, expected the folder or file that is to be played"),
        ("express_sorting", Options(record=True, record_gb=0.01), "record_gb: got 0.01, expected at least 0.1"),
        ("express_sorting", Options(cell="none", robot="arx_ac_on"), "unknown robot 'arx_ac_on', did you mean 'arx_ac_one'? (known: "),
        (
            "express_sorting",
            Options(checkpoint="nanno"),
            "checkpoint 'nanno': no such folder, did you mean 'nano'? (models known by name: ",
        ),
        ("express_sorting", Options(checkpoint="/nowhere/a1"), "checkpoint '/nowhere/a1': no such folder (models known by name: "),
        ("policy_only", Options(robot="/nowhere/robot.yaml"), "/nowhere/robot.yaml: cannot be read: No such file or directory"),
    ],
)
def test_unknown_names_are_said_with_the_nearest_known_one(cell: str, options: Options, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        application(cell, options)
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_a_checkpoint_is_a_folder_or_a_model_that_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint("nano") == Path(os.environ[MODELS_VARIABLE]) / "nano"  # tests/conftest.py
    monkeypatch.delenv(MODELS_VARIABLE)
    assert find_checkpoint("nano") == models_folder() / "nano"
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    (tmp_path / "sorter").mkdir()
    assert find_checkpoint("sorter") == tmp_path / "sorter" and find_checkpoint("nano") == models_folder() / "nano"
    with pytest.raises(ConfigurationError, match="checkpoint '': no such folder"):
        find_checkpoint("")
    assert find_checkpoint(str(tmp_path)) == tmp_path.resolve()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert find_checkpoint("~/mine") == (tmp_path / "mine").resolve()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("mine").is_absolute()  # the processes may run elsewhere


@pytest.mark.parametrize("robot", ["relative.yaml", "./relative.yaml"])
def test_a_profile_is_found_from_wherever_its_processes_run(robot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "relative.yaml").write_text((PROFILE_FOLDER / "arx_ac_one.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    made = application("express_sorting", Options(robot=robot, cell="none"))
    assert made.process("command").parameters["instance"] == "arx_ac_one"
    assert made.process("command").parameters["robot"] == made.process("policy").parameters["robot"]
