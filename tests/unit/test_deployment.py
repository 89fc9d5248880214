"""What is started, with which parameters, in which environment; and how what is unknown is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.profile import PROFILE_FOLDER
from internvla_a1_ros.runtime.deployment import SIMULATION_DOMAIN_ID, Options, deployment, environment, find_checkpoint, models_folder


def names(options: Options) -> list[str]:
    return [process.name for process in deployment("express_sorting", options).processes]


def test_a_robot_gets_policy_and_command_and_the_simulation_its_cell_first() -> None:
    assert names(Options()) == ["command", "policy"]
    assert names(Options(sim=True)) == ["sim", "command", "policy"]


def test_only_the_policy_is_started_again() -> None:
    made = deployment("express_sorting", Options(sim=True))
    assert {process.name for process in made.processes if process.respawn} == {"policy"}
    assert made.essential == "command"


def test_the_command_process_keeps_its_priority_and_the_others_lower_theirs() -> None:
    made = deployment("express_sorting", Options(sim=True))
    assert {process.name: process.nice for process in made.processes} == {"sim": 10, "command": 0, "policy": 5}


def test_parameters_say_what_was_chosen() -> None:
    made = deployment(
        "express_sorting", Options(instruction="sort it", preset="fast", guidance="soft", dry_run=False, sim=True, simulation={"seed": 7})
    )
    assert made.process("command").parameters == {"robot": "arx_ac_one", "instance": "arx_ac_one", "dry_run": False}
    policy = made.process("policy").parameters
    assert policy["instruction"] == "sort it" and policy["engine"] == "torch"
    assert policy["preset"] == "fast" and policy["guidance"] == "soft"
    assert policy["checkpoint"] == str(models_folder() / "nano") and "dry_run" not in policy
    assert made.process("sim").parameters == {"seed": 7} and not made.process("sim").lifecycle
    assert made.process("policy").parameters["instance"] == made.process("command").parameters["instance"]


def test_a_dry_run_is_what_one_gets_without_asking() -> None:
    assert deployment("express_sorting", Options()).process("command").parameters["dry_run"] is True


def test_simulated_time_is_the_cells_and_everyone_follows_it() -> None:
    made = deployment("express_sorting", Options(sim=True, simulated_time=True, simulation={"width": 160}))
    assert made.process("sim").parameters == {"width": 160, "time_source": "simulated"}
    assert all(made.process(name).parameters["use_sim_time"] is True for name in ("command", "policy"))


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
        deployment("express_sorting", Options(domain_id=domain_id))


# What is unknown


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        ("express_sortin", Options(), "unknown cell 'express_sortin', did you mean 'express_sorting'? (known: express_sorting)"),
        ("bakery", Options(), "unknown cell 'bakery' (known: express_sorting)"),
        ("express_sorting", Options(robot="arx_ac_on"), "unknown robot 'arx_ac_on', did you mean 'arx_ac_one'? (known: "),
        (
            "express_sorting",
            Options(checkpoint="nanno"),
            "checkpoint 'nanno': no such folder, did you mean 'nano'? (models that come along: ",
        ),
        ("express_sorting", Options(checkpoint="/nowhere/a1"), "checkpoint '/nowhere/a1': no such folder (models that come along: "),
        ("express_sorting", Options(robot="/nowhere/robot.yaml"), "/nowhere/robot.yaml: cannot be read: No such file or directory"),
    ],
)
def test_unknown_names_are_said_with_the_nearest_known_one(cell: str, options: Options, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        deployment(cell, options)
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_a_checkpoint_is_a_folder_or_a_model_that_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint("nano") == models_folder() / "nano"
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
    made = deployment("express_sorting", Options(robot=robot))
    assert made.process("command").parameters["instance"] == "arx_ac_one"
    assert made.process("command").parameters["robot"] == made.process("policy").parameters["robot"]
