"""What a long command says where there is no terminal, and that it says nothing where it is short."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from internvla_a1_ros.cli import progress
from internvla_a1_ros.cli.progress import Progress, working


def said(terminal: bool = False) -> tuple[Progress, io.StringIO]:
    written = io.StringIO()
    return Progress(Console(file=written, force_terminal=terminal, width=100)), written


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown, written = said()
    with shown:
        work = shown.work("pictures of [data]", 200, 100)
        for clock[0] in (4.0, 8.0, 12.0, 16.0, 24.0):
            work.advance(10)
        work.at(150, what="done")
    assert written.getvalue().splitlines() == [
        "pictures of [data]: 130 of 200, about 0:00:28 left",
        "pictures of [data]: 150 of 200, about 0:00:24 left",
    ]


def test_shares_and_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SAY_EVERY_S", -1.0)
    shown, written = said()
    with shown:
        shown.work("reading", 1.0).at(0.25)
        unknown = shown.work("looking")
        unknown.advance()
        unknown.at(2, 4)
    lines = [re.sub(r"about .* left", "", line) for line in written.getvalue().splitlines()]
    assert lines == ["reading: 25%, ", "looking", "looking: 2 of 4, "]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SAY_EVERY_S", -1.0)
    shown, written = said(terminal=True)
    with shown:
        work = shown.work("steps", 8)
        work.at(3, what="loss 0.5")
        shown.bars.refresh()
        shown.say("left out: an episode")
        work.end()
    assert "loss 0.5" in written.getvalue() and "3/8" in written.getvalue() and "left out: an episode" in written.getvalue()
    assert "of 8" not in written.getvalue()


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with working("episodes", 3) as work:
        for _ in range(3):
            work.advance()
    assert capsys.readouterr() == ("", "")
