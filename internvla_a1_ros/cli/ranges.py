"""Options of the form LO:HI."""

from __future__ import annotations

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.simulation.config import Belt, Range

BELT_HELP = "LO:HI in m/s in place of the task's range; 0:0 stands still"


def low_high(option: str, text: str, expected: str) -> Range:
    """Return two numbers. Raises ConfigurationError with what was `expected` in words."""
    try:
        low, high = (float(word) for word in text.split(":"))
    except ValueError:
        raise ConfigurationError(f"{option}: got '{text}', expected {expected}") from None
    return low, high


def belt_m_s(text: str) -> Range | None:
    """Return the speeds that `--belt` asks for, None where it asks for none. Raises ConfigurationError for what the belt cannot run at."""
    if not text:
        return None
    low, high = low_high("--belt", text, "two speeds in m/s such as 0.05:0.15")
    try:
        return Belt().speeds(low, high)
    except ConfigurationError as problem:
        raise ConfigurationError(f"--belt: {problem}") from None
