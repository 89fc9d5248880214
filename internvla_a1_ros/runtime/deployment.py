"""What an application consists of: which processes, with which parameters, in which environment.

`launch/*.launch.py` and `internvla-a1 up` both start what is described here, so that they cannot differ.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.robots.profile import load_profile

Value = str | bool | int | float | list[str]

# Away from domain 0, where robots live by default.
SIMULATION_DOMAIN_ID = 77


@dataclass(frozen=True, slots=True)
class Process:
    """One node in a process of its own. `respawn` only where the robot stays safe without it."""

    name: str
    executable: str
    module: str
    parameters: Mapping[str, Value]
    lifecycle: bool = True
    respawn: bool = False
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """Processes in the order of their start; when `essential` ends, everything ends."""

    name: str
    processes: tuple[Process, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    essential: str = "command"

    def process(self, name: str) -> Process:
        """Return one process by name."""
        return next(process for process in self.processes if process.name == name)


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may choose. `sim` brings the simulated cell, a domain of its own and this machine only; with
    `simulated_time` everything follows the cell's clock instead of the wall's. Empty `preset` and
    `guidance` are the model's own."""

    robot: str = "arx_ac_one"
    checkpoint: str = "nano"
    engine: str = "torch"
    preset: str = ""
    guidance: str = ""
    instruction: str = ""
    dry_run: bool = True
    sim: bool = False
    simulated_time: bool = False
    domain_id: int | None = None
    distribution: str = ""
    simulation: Mapping[str, Value] = field(default_factory=dict)


def express_sorting(options: Options) -> Deployment:
    """Return policy, command and, with `sim`, the cell. Raises ConfigurationError for an unknown robot or checkpoint."""
    profile = load_profile(options.robot)
    checkpoint = find_checkpoint(options.checkpoint)
    common: dict[str, Value] = {"robot": options.robot, "instance": profile.name}
    cell_parameters = dict(options.simulation)
    if options.simulated_time:
        common["use_sim_time"] = True
        cell_parameters["time_source"] = "simulated"
    model = {"checkpoint": str(checkpoint), "engine": options.engine, "preset": options.preset, "guidance": options.guidance}
    policy = {**common, **model, "instruction": options.instruction}
    command = {**common, "dry_run": options.dry_run}
    processes = [
        Process("command", "command_node", "internvla_a1_ros.nodes.command_node", command),
        Process("policy", "policy_node", "internvla_a1_ros.nodes.policy_node", policy, respawn=True, nice=5),
    ]
    if options.sim:
        cell = Process("sim", "sim_node", "internvla_a1_ros.nodes.sim_node", cell_parameters, lifecycle=False, nice=10)
        processes.insert(0, cell)
    return Deployment("express_sorting", tuple(processes), environment(options))


def environment(options: Options) -> dict[str, str]:
    """Return the variables every process gets: in simulation a domain of its own and this machine only."""
    if options.domain_id is not None and not 0 <= options.domain_id <= 101:
        raise ConfigurationError(f"domain id: got {options.domain_id}, expected 0 to 101")
    # The command process solves a 50x50 system ten times a second: one thread is faster than waking a pool.
    variables: dict[str, str] = {"OPENBLAS_NUM_THREADS": "1"}
    if options.sim:
        variables["ROS_DOMAIN_ID"] = str(SIMULATION_DOMAIN_ID)
        if options.distribution == "humble":
            variables["ROS_LOCALHOST_ONLY"] = "1"
        else:
            variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if options.domain_id is not None:
        variables["ROS_DOMAIN_ID"] = str(options.domain_id)
    return variables


DEPLOYMENTS: dict[str, Callable[[Options], Deployment]] = {"express_sorting": express_sorting}


def deployment(name: str, options: Options) -> Deployment:
    """Return a deployment by name. Raises ConfigurationError naming the known ones."""
    if name not in DEPLOYMENTS:
        raise ConfigurationError(f"unknown cell '{name}'{suggestion(name, list(DEPLOYMENTS))} (known: {', '.join(DEPLOYMENTS)})")
    return DEPLOYMENTS[name](options)


def models_folder() -> Path:
    """Return where the models of this installation lie: in the checkout, else in the package's share folder."""
    checkout = Path(__file__).resolve().parents[2] / "models"
    if checkout.is_dir():
        return checkout
    return _share() / "models"


def _share() -> Path:
    """Return `share/internvla_a1_ros` of the prefix this package is installed in (site-packages lie below it)."""
    for parent in Path(__file__).resolve().parents:
        share = parent / "share" / "internvla_a1_ros"
        if share.is_dir():
            return share
    return Path(sysconfig.get_paths()["data"]) / "share" / "internvla_a1_ros"


def find_checkpoint(name_or_path: str) -> Path:
    """Return the folder of a model that comes with the package, or of the path given. Raises ConfigurationError."""
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return path.resolve()
    shipped = models_folder() / name_or_path
    if "/" not in name_or_path and shipped.is_dir():
        return shipped
    known = sorted(p.name for p in models_folder().glob("*") if (p / "config.json").is_file())
    near = suggestion(name_or_path, known)
    raise ConfigurationError(f"checkpoint '{name_or_path}': no such folder{near} (models that come along: {', '.join(known) or 'none'})")
