"""What a cell looks at and what it does: regions, labels, grippers, checks, steps, routes, the order."""

from __future__ import annotations

import re
import string
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import suggestion
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.wires import NonEmpty, NotNegative, Positive
from internvla_a1_ros.runtime.cell_parts import Name

Fraction = Annotated[float, Field(ge=0, le=1)]
Grey = Annotated[int, Field(ge=0, le=255)]
Rectangle = tuple[Fraction, Fraction, Fraction, Fraction]
Symbology = Literal["qr_code", "code_128", "data_matrix"]

# What an instruction may name in braces.
INSTRUCTION_FIELDS = ("route",)


class Region(Document):
    """A part of the head camera's picture: left, top, right, bottom as fractions.

    Its pixels are as bright as `background` (lowest, highest of 0 to 255) while it is empty; it counts as occupied where more than
    `share` of them are not.
    """

    at: Rectangle
    background: tuple[Grey, Grey]
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _is_a_region(self) -> Region:
        _has_area(self.at, "at")
        if self.background[0] >= self.background[1]:
            raise ValueError(f"background: got {list(self.background)}, expected the darker value first")
        return self


class Labels(Document):
    """Which codes are read, in which part of the picture, and what makes a reading good.

    `agree` pictures must say the same. A label counts as lying down when `window_s` has passed, at least `agree` pictures came and fewer
    than one in three showed a code. The last three say what a code that cannot be read lacks: contrast (Michelson), sharpness, size.
    """

    symbologies: Annotated[tuple[Symbology, ...], Field(min_length=1)] = ("qr_code", "code_128", "data_matrix")
    region: Rectangle = (0.0, 0.0, 1.0, 1.0)
    agree: Annotated[int, Field(ge=1, le=20)] = 2
    window_s: Positive = 1.5
    min_contrast: Fraction = 0.3
    max_edge_px: Positive = 3.0
    min_size_px: Positive = 24.0

    @model_validator(mode="after")
    def _is_a_region(self) -> Labels:
        _has_area(self.region, "region")
        return self


def _has_area(at: Rectangle, key: str) -> None:
    left, top, right, bottom = at
    if left >= right or top >= bottom:
        raise ValueError(f"{key}: got {list(at)}, expected left below right and top below bottom")


class Grip(Document):
    """What a gripper's opening means, 0 closed to 1 open: in between it holds something."""

    closed_below: Fraction = 0.05
    open_above: Fraction = 0.9

    @model_validator(mode="after")
    def _room_between(self) -> Grip:
        if self.closed_below >= self.open_above:
            raise ValueError(f"closed_below: got {self.closed_below}, expected below open_above {self.open_above}")
        return self


_STATES: dict[str, tuple[bool | str, ...]] = {
    "label": ("read", "decided"),
    "signal": (True, False),
    "region": ("occupied", "empty"),
    "gripper": ("holding", "open", "closed"),
}


class Check(Document):
    """How something is known: exactly one of label, signal, region, gripper, and the state it must be in, for `for_s` without a break.

    `label: read` is a label that is read; `label: decided` one that is read (up) or found absent (down). A gripper is named by its joint;
    it is that of the step's robot, unless `robot` says whose.
    """

    label: Literal["read", "decided"] | None = None
    signal: Name | None = None
    region: Name | None = None
    gripper: NonEmpty | None = None
    robot: NonEmpty | None = None
    state: bool | Literal["occupied", "empty", "holding", "open", "closed"] | None = None
    for_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _one_thing(self) -> Check:
        given = [kind for kind in _STATES if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'nothing to look at'}, expected one of {', '.join(_STATES)}")
        if self.kind == "label" and self.state is not None:
            raise ValueError(f"state: got {self.state!r}, expected none with a label")
        if self.state is not None and self.state not in _STATES[self.kind]:
            raise ValueError(f"state: got {self.state!r}, expected one of {', '.join(map(str, _STATES[self.kind]))} with a {self.kind}")
        if self.robot is not None and self.kind != "gripper":
            raise ValueError(f"robot: got '{self.robot}', expected it only with a gripper")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in _STATES if getattr(self, kind) is not None)

    @property
    def wanted(self) -> bool | str:
        """The state it must be in."""
        return _STATES[self.kind][0] if self.state is None else self.state

    def __str__(self) -> str:
        if self.kind == "label":
            return f"label {self.label}"
        return f"{self.kind} '{getattr(self, self.kind)}' {str(self.wanted).lower()}"


class Step(Document):
    """One thing to be done: who is told what, how it is known to have begun, succeeded or failed, and what follows a failure.

    It begins once the steps in `after` (by default the one before) are done. `when` leaves it out unless the label lies so. Without
    `begun` it has begun when the policies repeat the instruction. After `retries` more tries `on_failure` says what follows: `retry`
    without end, `skip` this step, go on with the `next` parcel or order, `ask_help`.
    """

    id: Name
    robots: tuple[NonEmpty, ...] = ()
    instruction: str = ""
    after: tuple[Name, ...] | None = None
    when: Literal["label_up", "label_down"] | None = None
    piece: Name | None = None
    belt_m_s: NotNegative | None = None
    begun: Check | None = None
    success: Check
    failure: Check | None = None
    timeout_s: Positive
    retries: Annotated[int, Field(ge=0)] = 0
    on_failure: Literal["retry", "skip", "next", "ask_help"] = "ask_help"

    @model_validator(mode="after")
    def _is_whole(self) -> Step:
        if bool(self.robots) != bool(self.instruction.strip()):
            raise ValueError(
                f"step '{self.id}': got robots {list(self.robots)} and instruction '{self.instruction}', expected both or neither"
            )
        if len(set(self.robots)) < len(self.robots):
            raise ValueError(f"step '{self.id}': got robots {list(self.robots)}, expected each once")
        if self.on_failure == "retry" and self.retries:
            raise ValueError(f"step '{self.id}': got retries {self.retries} with on_failure 'retry', which has no limit: leave retries out")
        for field in self.fields:
            if field not in INSTRUCTION_FIELDS:
                near = suggestion(field, list(INSTRUCTION_FIELDS)) or f", known: {', '.join(INSTRUCTION_FIELDS)}"
                raise ValueError(f"step '{self.id}': instruction: unknown {{{field}}}{near}")
        return self

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """What stands in braces in the instruction. Raises ValueError where a brace is left open."""
        try:
            return tuple(field for _, field, _, _ in string.Formatter().parse(self.instruction) if field is not None)
        except ValueError as problem:
            raise ValueError(f"step '{self.id}': instruction: {problem}") from None

    @property
    def checks(self) -> tuple[tuple[str, Check], ...]:
        """The checks it has, by key."""
        found = (("begun", self.begun), ("success", self.success), ("failure", self.failure))
        return tuple((key, check) for key, check in found if check is not None)


class Route(Document):
    """Where labels go that begin with `prefix`, or match `pattern` from their first character on; `lane` is its number for a PLC."""

    name: NonEmpty
    prefix: NonEmpty | None = None
    pattern: NonEmpty | None = None
    lane: int | None = None

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Route:
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as problem:
                raise ValueError(f"route '{self.name}': pattern '{self.pattern}': {problem}") from None
        return self

    def takes(self, label: str) -> bool:
        """Whether `label` goes here."""
        if self.prefix is not None:
            return label.startswith(self.prefix)
        return self.pattern is not None and re.match(self.pattern, label) is not None


class Order(Document):
    """What is put together: how many of each piece. The steps that name a `piece` must add up to it."""

    name: NonEmpty
    pieces: Annotated[dict[Name, Annotated[int, Field(ge=1)]], Field(min_length=1)]
