"""Every engine that runs on a CPU against the outputs of the released code; inside the five calls only the eager model can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_parity import reference

from internvla_a1_ros.evaluation.comparison import Limits
from internvla_a1_ros.evaluation.parity import ModelParity

STAGES = {"processor", "prefix", "cosmos", "prefix + generation", "generation", "actions", "future"}


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["a1_3b_tiny", "a1_2b_tiny"])
def test_an_engine_agrees_with_the_released_code(name: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path))
    rows = list(ModelParity(reference(name), engine, "float32", "cpu", Limits()).rows())
    assert {row.stage for row in rows} >= (STAGES if name == "a1_3b_tiny" else {"prefix", "prefix + generation", "actions"})
    assert [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok] == []
