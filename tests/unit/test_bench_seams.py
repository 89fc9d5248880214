"""`internvla-a1 bench seams` on the small model: in simulated time, the same every time, and guidance that shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.evaluation.continuing import _figures

MS = 1_000_000


def bench(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    torch.set_num_threads(1)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "seams", "--seconds", "3", "--cycles", "2", *words])
    assert ended.value.code == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


def test_guidance_brings_chunks_together(capsys: pytest.CaptureFixture[str]) -> None:
    told = bench(capsys, "--delays", "150", "--ways", "none,fade,hard,soft,soft_alone")
    rows = {row["way"]: row for row in told["results"]}  # type: ignore[attr-defined]
    assert bench(capsys, "--delays", "150", "--ways", "soft")["results"] == [rows["soft"]]
    assert all(row["apart"][0] <= row["apart"][1] for row in rows.values())
    assert rows["fade"]["step"][0] < 0.6 * rows["none"]["step"][0], "the fade shows"
    assert rows["soft_alone"]["step"][0] < 0.6 * rows["none"]["step"][0], "and so does guidance without one"
    assert rows["hard"]["apart"][0] < 0.2 * rows["fade"]["apart"][0], "what is pinned is where the plan is"
    assert rows["none"]["guided"] == rows["fade"]["guided"] == 0 and rows["hard"]["guided"] > 8
    cost = told["cost"]
    assert isinstance(cost, dict) and set(cost) == {"hard", "soft"} and all(figures["cycle_ms"] > 0 for figures in cost.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ways", "fad"], "--ways: got 'fad', expected one of none, fade"),
        (["--delays", "5 ms"], "--delays: got '5 ms', expected milliseconds"),
        (["--delays", "-5"], "--delays: got -5 ms, expected 0 or more"),
    ],
)
def test_mistakes_are_said_in_a_sentence(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "seams", *words])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(f"error: {told}")


def test_figures_by_hand() -> None:
    """One joint at rest that jumps by 0.1 rad at tick 20 and stays; the seam at tick 40 sees nothing of it."""
    played = np.zeros((60, 1))
    played[20:] = 0.1
    found = _figures(played, [(20, 0.1), (40, 0.0), (55, 0.3)], 10 * MS, 2)
    assert found.apart_rad.tolist() == [0.1, 0.0], "the last one is not whole"
    assert found.step_rad == pytest.approx([0.1, 0.0]) and found.jerk_rad_s3 == pytest.approx([0.2 / 1e-6, 0.0])
    assert found.reach_rad == pytest.approx(0.1) and found.guided == 2
    with pytest.raises(ValueError, match="no whole one"):
        _figures(played, [(55, 0.3)], 10 * MS, 0)
