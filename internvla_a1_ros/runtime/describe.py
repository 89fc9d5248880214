"""The executable `describe_deployment`: an application's processes as JSON, for launch files.

`ros2 launch` runs in the system's Python, which need not have what this package imports (pydantic 2, say); this executable runs in
the Python that colcon built with. So a launch file asks here instead of importing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.runtime.applications import application
from internvla_a1_ros.runtime.deployment import Options
from internvla_a1_ros.runtime.supervisor import MISCONFIGURED


def describe(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return a deployment as plain data. Raises ConfigurationError."""
    found = application(name, Options(**options))
    return {
        "name": found.name,
        "environment": dict(found.environment),
        "processes": [{**asdict(p), "parameters": dict(p.parameters), "remap": dict(p.remap)} for p in found.processes],
    }


def main() -> None:
    """Print what `describe_deployment NAME OPTIONS_AS_JSON` asks for; a mistake of the user is one sentence."""
    try:
        print(json.dumps(describe(sys.argv[1], json.loads(sys.argv[2]))))
    except ConfigurationError as problem:
        print(problem, file=sys.stderr)
        sys.exit(MISCONFIGURED)


if __name__ == "__main__":
    main()
