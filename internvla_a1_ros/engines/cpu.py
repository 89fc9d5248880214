"""What this machine's CPU can do in 8 bits, asked when an engine is built, never assumed."""

from __future__ import annotations

from pathlib import Path

# Instructions that add products of 8-bit numbers into 32 bits without passing through 16, where two large products overflow.
_EXACT = ("avx512_vnni", "avx_vnni", "asimddp")


def adds_exactly() -> bool:
    """Whether 8-bit products are added up exactly."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in told.split() for flag in _EXACT)


def weight_bits() -> int:
    """Bits of an 8-bit product's weights: 7 where a sum of two products has 16 bits only."""
    return 8 if adds_exactly() else 7
