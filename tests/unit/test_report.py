"""The report: well formed, nothing from elsewhere, nothing that is not finite, bounded in size."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from open_loop_rig import PROFILE, Known, swing, write_bag

from internvla_a1_ros.evaluation.open_loop_run import Evaluation, Order, open_recordings
from internvla_a1_ros.evaluation.report import Cards, Figure, Figures, Films, Page, Pictures, Section, Table, Text, render
from internvla_a1_ros.evaluation.report_figures import joint, numbers, over_horizon, thinned, timeline
from internvla_a1_ros.runtime.deployment import find_checkpoint

VOID = {"meta", "img", "br", "link", "input"}


class WellFormed(HTMLParser):
    """Notes tags that are not closed in order, and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        self.seen: Counter[str] = Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("data:")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def figures_of(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(each, parse_constant=lambda name: pytest.fail(f"{name} in a figure")) for each in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    bags = [write_bag(folder / name, seconds, swing) for name, seconds in (("one", 4.0), ("<two>", 2.5))]
    known = Known(motion=swing, off=np.linspace(0.0, 0.05, 14))
    order = Order(find_checkpoint("nano"), PROFILE, stride=10, seeds=2, pictures=2, instruction='</script><b>"&')
    evaluation = Evaluation(order, known, known.chunk)
    (folder / "out").mkdir()
    evaluation.run(open_recordings(bags, order, evaluation.manifest), folder / "out", lambda name, done_s: None)
    return (folder / "out" / "report.html").read_text()


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(page: str) -> None:
    read = WellFormed(page)
    assert (read.open, read.wrong, read.fetched) == ([], [], [])
    assert read.seen["img"] == 2 * 3 * 3 and read.seen["b"] == 0 and read.seen["table"] >= 5
    assert page.count("plotly.js v") == 1  # once, however many figures
    assert 'name="viewport"' in page and "prefers-color-scheme:dark" in page


def test_every_figure_has_curves_of_finite_numbers(page: str) -> None:
    figures = figures_of(page)
    titles = [each["layout"]["title"]["text"] for each in figures]
    assert titles[:5] == ["arms", "left arm", "right arm", "left gripper", "right gripper"]
    assert titles.count("right_joint6") == 2 and "chunks of <two>, by error of arms" in titles
    for figure in figures:
        assert figure["data"], figure["layout"]["title"]
        for trace in figure["data"]:
            assert len(trace["x"]) == len(trace["y"]) > 0
            assert any(value is not None for value in trace["y"])


def test_the_curves_are_the_robot_and_the_chunks_over_it(page: str) -> None:
    """Joint 14 is off by 0.05 of what it did, joint 1 by nothing."""
    by_title = {each["layout"]["title"]["text"]: each for each in reversed(figures_of(page))}
    for name, off in (("left_joint1", 0.0), ("right_gripper", 0.05)):
        robot, chunks = by_title[name]["data"]
        known = [(x, y) for x, y in zip(chunks["x"], chunks["y"], strict=True) if x is not None and x <= robot["x"][-1]]
        true = np.interp([x for x, _ in known], robot["x"], robot["y"])
        assert np.array([y for _, y in known]) - true == pytest.approx(np.full(len(known), off), abs=4e-3)
    assert by_title["right gripper"]["data"][2]["y"] == pytest.approx([0.05 * 1.5] * 50, rel=1e-3)  # mean of both seeds


def test_a_page_takes_what_it_is_given() -> None:
    figure = Figure("a </script> b", [{"x": [1], "y": [2]}])
    pictures = Pictures([("row", [("now", b"jpeg")])])
    parts = [Text("<p>"), Cards([("a", "1", "")]), Table(["", "x"], [["row", "1"]]), Figures([figure]), pictures]
    whole = render(Page("t", "s", [Section("one", parts, "note"), Section("two", [Text("x")], folded=True)], ["careful"]))
    read = WellFormed(whole)
    assert (read.open, read.wrong, read.fetched) == ([], [], []) and read.seen["details"] == 1
    assert figures_of(whole)[0]["layout"]["title"]["text"] == "a </script> b"
    shown = WellFormed(render(Page("t", "s", [Section("one", [Films([("a < b", "videos/7 0ms.mp4")])])])))
    assert (shown.open, shown.wrong, shown.fetched) == ([], [], ["videos/7%200ms.mp4"] * 2) and shown.seen["video"] == 1
    plain = render(Page("t", "s", [Section("one", [Text("x")])]))
    assert len(plain) < 10_000  # no figure, no plotly


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(Page("t", "s", [Section("x", [Figures([Figure("f", [{"x": [value], "y": [0]}])])])]))


def test_curves_are_thinned_out_and_keep_their_ends() -> None:
    times = np.arange(1_000_000) * 0.01
    x, y = thinned(times, np.sin(times))
    assert len(x) == len(y) == 1500 and x[0] is not None and x[0] < 10 and x[-1] is not None and x[-1] > 9990
    assert thinned([1, 2, 3], [1.0, np.nan, 3.0]) == ([1.0, 3.0], [1.0, 3.0])
    assert numbers([1 / 3, None, np.nan]) == [0.33333, None, None]


def test_long_runs_stay_small() -> None:
    n = 100_000
    times, values = np.arange(n) / 30, np.random.default_rng(0).standard_normal(n)
    assert len(joint("j", (times, values), [(times[:50], values[:50])] * 60, "rad").json) < 150_000


def test_figures_of_little() -> None:
    assert timeline("t", [0.0], [1.0], [0.1], ["x"], "rad").height_px > 100
    made = over_horizon("t", [0.1, 0.2], {"model": [0.1, None]}, (np.array([np.nan, 0.1]), np.array([0.2, 0.3])), "rad")
    assert json.loads(made.json)["data"][0]["y"] == [None, 0.1]
