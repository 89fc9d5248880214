"""A chart on two logarithmic axes, drawn with PIL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLOURS = ("#1f4e9c", "#c0392b", "#1e8449", "#b9770e", "#6c3483", "#117a8b")
_SIZE, _LEFT, _RIGHT, _TOP, _BOTTOM = (960, 620), 96, 190, 56, 64
_INK, _GRID, _FAINT = "#222222", "#d9d9d9", "#f0f0f0"
_DASH = 6.0

Line = Sequence[tuple[float, float]]


def log_log(path: Path, title: str, x_label: str, y_label: str, lines: Mapping[str, Line], dashed: Mapping[str, Line]) -> None:
    """Write a chart of `lines` (name to points, both coordinates above 0); `dashed` ones take the colour of their name's line.

    Raises ValueError where there is no point.
    """
    points = [point for line in (*lines.values(), *dashed.values()) for point in line if point[0] > 0 and point[1] > 0]
    if not points:
        raise ValueError("chart: got no point above 0")
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = (10.0 ** round_to(math.log10(y(v for _, v in points))) for y, round_to in ((min, math.floor), (max, math.ceil)))
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(15), ImageFont.load_default(18)

    def across(x: float) -> float:
        share = math.log(x / low_x) / math.log(high_x / low_x) if high_x > low_x else 0.5
        return _LEFT + share * (_SIZE[0] - _LEFT - _RIGHT)

    def down(y: float) -> float:
        share = math.log(y / low_y) / math.log(high_y / low_y) if high_y > low_y else 0.5
        return _SIZE[1] - _BOTTOM - share * (_SIZE[1] - _TOP - _BOTTOM)

    for exponent in range(round(math.log10(low_y)), round(math.log10(high_y)) + 1):
        for digit in range(1, 10):
            y = digit * 10.0**exponent
            if low_y <= y <= high_y:
                draw.line((_LEFT, down(y), _SIZE[0] - _RIGHT, down(y)), fill=_GRID if digit == 1 else _FAINT)
        draw.text((_LEFT - 10, down(10.0**exponent)), f"1e{exponent}", fill=_INK, font=small, anchor="rm")
    for x in sorted({x for x, _ in points}):
        draw.line((across(x), _TOP, across(x), _SIZE[1] - _BOTTOM), fill=_FAINT)
        if x <= 6 or x in (8, 10, 14, 20):
            draw.text((across(x), _SIZE[1] - _BOTTOM + 16), f"{x:g}", fill=_INK, font=small, anchor="mm")
    draw.rectangle((_LEFT, _TOP, _SIZE[0] - _RIGHT, _SIZE[1] - _BOTTOM), outline=_INK)
    draw.text((_LEFT, _TOP / 2), title, fill=_INK, font=large, anchor="lm")
    draw.text((_LEFT, _SIZE[1] - 22), x_label, fill=_INK, font=small, anchor="lm")
    draw.text((_LEFT + 8, _TOP + 12), y_label, fill=_INK, font=small, anchor="lm")
    for i, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        for path_points, whole in ((line, True), (dashed.get(name, ()), False)):
            places = [(across(x), down(y)) for x, y in path_points if x > 0 and y > 0]
            for begin, end in zip(places[:-1], places[1:], strict=True):
                _stroke(draw, begin, end, colour, whole)
            for x, y in places if whole else []:
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        y = _TOP + 16 + 24 * i
        draw.line((_SIZE[0] - _RIGHT + 16, y, _SIZE[0] - _RIGHT + 44, y), fill=colour, width=3)
        draw.text((_SIZE[0] - _RIGHT + 52, y), name, fill=_INK, font=small, anchor="lm")
    image.save(path)


def _stroke(draw: ImageDraw.ImageDraw, begin: tuple[float, float], end: tuple[float, float], colour: str, whole: bool) -> None:
    if whole:
        draw.line((*begin, *end), fill=colour, width=3)
        return
    length = math.dist(begin, end)
    pieces = max(1, round(length / _DASH))
    for k in range(0, pieces, 2):
        a, b = k / pieces, min(1.0, (k + 1) / pieces)
        ends = [begin[i] + share * (end[i] - begin[i]) for share in (a, b) for i in (0, 1)]
        draw.line(ends, fill=colour, width=2)
