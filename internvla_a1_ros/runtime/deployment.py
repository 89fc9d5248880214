"""What an application consists of: which processes, with which parameters, in which environment.

`launch/*.launch.py` and `internvla-a1 up` both start what `applications.py` describes in these terms, so that they cannot differ.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from internvla_a1_ros.core.errors import ConfigurationError, suggestion

Value = str | bool | int | float | list[str]

# Away from domain 0, where robots live by default.
MODELS_VARIABLE = "INTERNVLA_A1_MODELS"  # a folder of models that are known by name, before those that come along
SIMULATION_DOMAIN_ID = 77


@dataclass(frozen=True, slots=True)
class Process:
    """One node in a process of its own. `respawn` only where the robot stays safe without it; with the end of one that `completes`
    the whole has done its work.

    `name` tells it from the others, `node` is what it is called in the graph, below `namespace`; `remap` moves its topics.
    """

    name: str
    executable: str
    module: str
    parameters: Mapping[str, Value]
    lifecycle: bool = True
    respawn: bool = False
    completes: bool = False
    nice: int = 0
    node: str = ""
    namespace: str = ""
    remap: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Processes in the order of their start; when one ends that is not to be respawned, everything ends."""

    name: str
    processes: tuple[Process, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def process(self, name: str) -> Process:
        """Return one process by name."""
        return next(process for process in self.processes if process.name == name)


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may choose.

    `sim` brings the simulated cell or robot, a domain of its own and this machine only; with `simulated_time` everything follows the
    cell's clock instead of the wall's. Empty `robot` and `cell` are the application's own (`cell` "none": no cell), empty `preset`
    and `guidance` the model's. `namespace`: below which everything of ours lies; `calibration`: folder of the robots' calibrations,
    empty for none. `bag` and `rate`: what is played, and how fast. `record`: write everything needed for a replay below
    `recordings`, `record_gb` at most.
    """

    robot: str = ""
    cell: str = ""
    namespace: str = ""
    calibration: str = ""
    autostart: bool = True
    checkpoint: str = "nano"
    engine: str = "torch"
    preset: str = ""
    guidance: str = ""
    instruction: str = ""
    dry_run: bool = True
    sim: bool = False
    simulated_time: bool = False
    domain_id: int | None = None
    bag: str = ""
    rate: float = 1.0
    record: bool = False
    recordings: str = "~/internvla_a1_recordings"
    record_gb: float = 20.0
    distribution: str = ""
    simulation: Mapping[str, Value] = field(default_factory=dict)


def environment(options: Options) -> dict[str, str]:
    """Return the variables every process gets: in simulation a domain of its own and this machine only."""
    if options.domain_id is not None and not 0 <= options.domain_id <= 101:
        raise ConfigurationError(f"domain id: got {options.domain_id}, expected 0 to 101")
    # The command process solves a 50x50 system ten times a second: one thread is faster than waking a pool.
    variables: dict[str, str] = {"OPENBLAS_NUM_THREADS": "1"}
    if options.sim:
        variables["ROS_DOMAIN_ID"] = str(SIMULATION_DOMAIN_ID)
        variables |= this_machine_only(options.distribution)
    if options.domain_id is not None:
        variables["ROS_DOMAIN_ID"] = str(options.domain_id)
    return variables


def this_machine_only(distribution: str) -> dict[str, str]:
    """Return the variable that keeps ROS on this machine."""
    return {"ROS_LOCALHOST_ONLY": "1"} if distribution == "humble" else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


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
    """Return the folder of a path, or of a model by its name: in the folder that MODELS_VARIABLE names, or one that comes along.

    Raises ConfigurationError.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return path.resolve()
    own = os.environ.get(MODELS_VARIABLE)
    places = [Path(own).expanduser(), models_folder()] if own else [models_folder()]
    for place in places:
        if name_or_path and "/" not in name_or_path and (place / name_or_path).is_dir():
            return place / name_or_path
    known = sorted({p.name for place in places for p in place.glob("*") if (p / "config.json").is_file()})
    near = suggestion(name_or_path, known)
    raise ConfigurationError(f"checkpoint '{name_or_path}': no such folder{near} (models known by name: {', '.join(known) or 'none'})")
