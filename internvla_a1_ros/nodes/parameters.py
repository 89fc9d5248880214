"""Parameters declared once, as a table: name, default, description, bounds, whether they may change while running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row. `low` and `high` bound numbers; a read-only parameter is fixed once the node runs."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    read_only: bool = True

    def descriptor(self) -> ParameterDescriptor:
        """Return the row as ROS wants it."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.read_only)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
        return descriptor


def declare(node: Node, table: tuple[Parameter, ...]) -> None:
    """Declare every row on `node`; rclpy refuses values of another type or out of bounds."""
    for row in table:
        node.declare_parameter(row.name, row.default, row.descriptor())


def value(node: Node, name: str) -> Any:
    """Return the present value of a parameter."""
    return node.get_parameter(name).value
