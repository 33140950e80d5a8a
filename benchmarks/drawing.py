"""Pictures for the documentation: ratios and curves, as SVG that follows the reader's mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

# One colour each, in all pictures; those that no picture has together may share one.
SERIES = {"dlopen": 0, "libc": 1, "dlopen-rs": 2, "relink": 3, "shiv": 2, "PyInstaller": 3}
COLOURS = ("#1f6fb2", "#8a8a8a", "#d9822b", "#3f9c5a")
DARK = ("#5aa9e6", "#a9a9a9", "#f0a04b", "#6cc487")
LINE, LEFT, WIDTH = 20, 250, 820


@dataclass(frozen=True)
class Value:
    """A place in a picture, with the interval around it."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A line of a picture of ratios: by series, and what it has to be at most."""

    name: str
    values: Mapping[str, Value]
    at_most: float | None = None


def style() -> str:
    """Colours by class: those of paper, and of a screen at night."""

    def rules(ground: str, ink: str, faint: str, colours: Sequence[str]) -> str:
        series = "".join(
            f".s{i}{{fill:{colour};stroke:{colour}}}" for i, colour in enumerate(colours)
        )
        return (
            f".ground{{fill:{ground}}}text{{fill:{ink}}}.axis{{stroke:{ink}}}"
            f".grid{{stroke:{faint}}}{series}"
        )

    return (
        "<style>text{font:12px sans-serif}.title{font-weight:bold}.line{fill:none;stroke-width:2}"
        f"{rules('#fff', '#222', '#ddd', COLOURS)}"
        f"@media(prefers-color-scheme:dark){{{rules('#181a1f', '#ddd', '#3a3d44', DARK)}}}</style>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """A line of words."""
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def framed(title: str, height: float, parts: Sequence[str]) -> str:
    """The whole file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}">',
            style(),
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" class="ground"/>',
            text(12, 22, title, kind="title"),
            *parts,
            "</svg>",
            "",
        ]
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between these, the fewer the farther these are apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[float, ...] = (1, 2, 5) if len(decades) <= 4 else (1,)
    if high < 6 * low:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    return [n * 10.0**e for e in decades for n in steps if low <= n * 10.0**e <= high]


def legend(names: Sequence[str], y: float) -> list[str]:
    """A mark and a name for each series."""
    parts = []
    for i, name in enumerate(names):
        x = LEFT + 130 * i
        parts += [
            f'<rect x="{x}" y="{y - 9}" width="12" height="9" class="s{SERIES[name]}"/>',
            text(x + 17, y, name),
        ]
    return parts


def bars(title: str, reference: str, rows: Sequence[Bar]) -> str:
    """Ratios to the reference, which is the line at 1; a small mark is what is asked for."""
    there = {name for row in rows for name in row.values}
    names = [name for name in SERIES if name in there]
    ends = [end for row in rows for value in row.values.values() for end in (value.low, value.high)]
    low = 0.9 * min([*ends, *(row.at_most for row in rows if row.at_most), 0.8])
    high = 1.1 * max([*ends, 1.25])
    right = WIDTH - 30

    def across(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return LEFT + share * (right - LEFT)

    top, parts = 62, legend(names, 44)
    height = top + LINE * len(rows)
    for tick in ticks(low, high):
        parts += [
            line(across(tick), top, across(tick), height, "axis" if tick == 1 else "grid"),
            text(across(tick), height + 15, f"{tick:g}", "middle"),
        ]
    for index, row in enumerate(rows):
        y = top + LINE * index + LINE / 2
        parts.append(text(LEFT - 10, y + 4, row.name, "end"))
        if row.at_most:
            at = across(row.at_most)
            parts.append(line(at, y - 8, at, y + 8, "axis"))
        for name, value in row.values.items():
            kind = f"s{SERIES[name]}"
            parts += [
                line(across(value.low), y, across(value.high), y, kind),
                f'<circle cx="{across(value.middle):.1f}" cy="{y}" r="4.5" class="{kind}"/>',
            ]
    words = f"time in parts of {reference}'s, with 95 % intervals; a short line: at most"
    parts.append(text(LEFT, height + 34, words))
    return framed(title, height + 46, parts)


def curves(title: str, across_name: str, up_name: str,
           series: Mapping[str, Mapping[float, Value]]) -> str:  # fmt: skip
    """Both axes with equal steps for equal ratios."""
    points = [(x, value) for column in series.values() for x, value in column.items()]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low = 0.8 * min(value.low for _, value in points)
    y_high = 1.25 * max(value.high for _, value in points)
    left, right, top, bottom = 90, WIDTH - 30, 62, 340

    def across(x: float) -> float:
        if x_high == x_low:
            return (left + right) / 2
        return left + math.log(x / x_low) / math.log(x_high / x_low) * (right - left)

    def up(y: float) -> float:
        return bottom - math.log(y / y_low) / math.log(y_high / y_low) * (bottom - top)

    parts = legend(list(series), 44)
    for tick in ticks(y_low, y_high):
        parts += [
            line(left, up(tick), right, up(tick), "grid"),
            text(left - 8, up(tick) + 4, f"{tick:g}", "end"),
        ]
    for x in sorted({x for x, _ in points}):
        parts += [
            line(across(x), bottom, across(x), bottom + 5, "axis"),
            text(across(x), bottom + 19, f"{x:g}", "middle"),
        ]
    parts.append(line(left, bottom, right, bottom, "axis"))
    for name, column in series.items():
        kind = f"s{SERIES[name]}"
        path = " ".join(f"{across(x):.1f},{up(v.middle):.1f}" for x, v in sorted(column.items()))
        # The class's fill would close the curve.
        parts.append(f'<polyline points="{path}" class="{kind} line" style="fill:none"/>')
        for x, value in column.items():
            cx, cy = across(x), up(value.middle)
            parts += [
                line(cx, up(value.low), cx, up(value.high), kind),
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5" class="{kind}"/>',
            ]
    parts.append(text((left + right) / 2, bottom + 38, across_name, "middle"))
    parts.append(text(12, 56, up_name))
    return framed(title, bottom + 50, parts)
