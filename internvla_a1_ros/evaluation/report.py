"""A report as one HTML file that needs nothing else: text, tables, figures (plotly, inlined once) and pictures, in sections.

It takes what it is given; what is in it is decided elsewhere. Figures are plain plotly traces and layouts.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from internvla_a1_ros.evaluation.report_style import SCRIPT, STYLE


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Cards:
    """Numbers that are read first: label, value, what it means."""

    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first column is what the row is of. `words`: the others are sentences, no numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot: plotly's traces and what differs from the common layout. Raises ValueError for a number that is not finite."""

    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height_px: int = 320

    @property
    def json(self) -> str:
        told = {"data": list(self.traces), "layout": {**self.layout, "title": {"text": self.title}}}
        return json.dumps(told, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")


@dataclass(frozen=True, slots=True)
class Figures:
    """Plots beside each other where there is room; `wide`: below each other."""

    figures: Sequence[Figure]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rows of pictures side by side (jpeg bytes), each with a label, and a caption for the row."""

    rows: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]


@dataclass(frozen=True, slots=True)
class Films:
    """Videos that lie beside the page: a caption each, and the file relative to the page. Nothing is loaded until somebody plays one."""

    films: Sequence[tuple[str, str]]


Part = Text | Cards | Table | Figures | Pictures | Films


@dataclass(frozen=True, slots=True)
class Section:
    """One heading and what is below it; `folded`: closed until somebody opens it."""

    title: str
    parts: Sequence[Part]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report; `warnings` stand above everything."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()


def render(page: Page) -> str:
    """Return the page as HTML, plotly's script included where there is a figure. Raises ValueError for numbers that are not finite."""
    body = [f"<header><h1>{_text(page.title)}</h1><p>{_text(page.subtitle)}</p></header>"]
    body += [f'<p class="warning" role="alert">{_text(each)}</p>' for each in page.warnings]
    body += [_section(each) for each in page.sections]
    script = f"<script>{_plotly()}</script><script>{SCRIPT}</script>" if any(_has_figures(each) for each in page.sections) else ""
    head = (
        '<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{_text(page.title)}</title><style>{STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n' + "\n".join(body) + f"\n</main>{script}</body></html>\n"


def _has_figures(section: Section) -> bool:
    return any(isinstance(part, Figures) and part.figures for part in section.parts)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _text(text: str) -> str:
    return html.escape(text)


def _section(section: Section) -> str:
    note = f'<p class="note">{_text(section.note)}</p>' if section.note else ""
    inside = note + "\n".join(_part(part) for part in section.parts)
    if section.folded:
        return f"<section><details><summary><h2>{_text(section.title)}</h2></summary>{inside}</details></section>"
    return f"<section><h2>{_text(section.title)}</h2>{inside}</section>"


def _part(part: Part) -> str:
    if isinstance(part, Text):
        return f"<p>{_text(part.text)}</p>"
    if isinstance(part, Cards):
        cards = (f"<li><span>{_text(a)}</span><strong>{_text(b)}</strong><small>{_text(c)}</small></li>" for a, b, c in part.cards)
        return f'<ul class="cards">{"".join(cards)}</ul>'
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Figures):
        kind = "figures wide" if part.wide else "figures"
        return f'<div class="{kind}">{"".join(_figure(each) for each in part.figures)}</div>'
    if isinstance(part, Films):
        return f'<div class="films">{"".join(_film(caption, file) for caption, file in part.films)}</div>'
    rows = []
    for caption, pictures in part.rows:
        shown = "".join(
            f'<figure><img alt="{_text(label)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}"/>'
            f"<figcaption>{_text(label)}</figcaption></figure>"
            for label, data in pictures
        )
        rows.append(f'<div class="pictures"><p class="note">{_text(caption)}</p><div>{shown}</div></div>')
    return f'<div class="gallery">{"".join(rows)}</div>'


def _film(caption: str, file: str) -> str:
    place = _text(quote(file))
    return (
        f'<figure><video controls muted playsinline preload="none" src="{place}"></video>'
        f'<figcaption><a href="{place}">{_text(caption)}</a></figcaption></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(each)}</th>" for each in table.headings)
    head = f"<thead><tr>{head}</tr></thead>" if any(table.headings) else ""
    rows = ("".join(f"<{'td' if i else 'th'}>{_text(cell)}</{'td' if i else 'th'}>" for i, cell in enumerate(row)) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    kind = ' class="words"' if table.words else ""
    return f'<div class="scroll"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


def _figure(figure: Figure) -> str:
    return (
        f'<div class="figure" style="height:{figure.height_px}px"><script type="application/json">{figure.json}</script>'
        '<div class="plot"></div></div>'
    )
