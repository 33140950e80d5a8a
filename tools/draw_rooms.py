"""docs/rooms.svg: the rooms of the core and who uses whom, drawn from the cimports as they are.

A room uses those below it. Order and words are those of docs/how-it-works.md.
"""

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dlopen"
DRAWING = ROOT / "docs" / "rooms.svg"

LINE, TOP, NAMES, SENTENCES = 26, 84, 20, 120
CIMPORT = re.compile(r"^\s*from dlopen\.core\.(\w+)\.\w+ cimport\b", re.MULTILINE)
ENTRIES = ("libdlopen.pyx", "the exported names, one line each")


def rooms() -> list[tuple[str, str]]:
    """Each room with what is in it, the highest first."""
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    found = re.findall(r"^([a-z]+)  +(\S.*)$", text, flags=re.MULTILINE)
    return [(name, words) for name, words in found if (PACKAGE / "core" / name).is_dir()]


def used(room: str) -> set[str]:
    """The other rooms whose files those of `room` cimport from."""
    files = sorted((PACKAGE / "core" / room).glob("*.pxd"))
    if room == ENTRIES[0]:
        files = [PACKAGE / room]
    return {name for path in files for name in CIMPORT.findall(path.read_text())} - {room}


def label(x: float, y: float, words: str, **attributes: str) -> str:
    """A line of words, with further attributes of SVG."""
    more = "".join(
        f' {name.replace("_", "-")}="{value}"' for name, value in sorted(attributes.items())
    )
    return f'<text x="{x}" y="{y}"{more}>{escape(words)}</text>'


def draw() -> str:
    """The picture: a line for each room, and a column with a dot where it is used."""
    lines = [ENTRIES, *rooms()]
    columns = {name: index for index, (name, _) in enumerate(lines)}
    left = 2 * SENTENCES + 450
    width, height = left + LINE * len(lines) + 40, TOP + LINE * len(lines) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        "<style>text { font-family: sans-serif; font-size: 13px; fill: #222 }</style>",
        "<title>The rooms of the core: each uses only those below it</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, (name, words) in enumerate(lines):
        y = TOP + LINE * index
        x = left + LINE * index
        shade = "#eef3f8" if index % 2 == 0 else "#fff"
        parts += [
            f'<rect x="8" y="{y}" width="{width - 16}" height="{LINE}" fill="{shade}"/>',
            label(NAMES, y + 18, name, font_weight="bold"),
            label(SENTENCES + 10, y + 18, words),
            # Its own column begins here: what is to the left of it would be an arrow upward.
            f'<rect x="{x + 4}" y="{y + 4}" width="18" height="18" rx="3" fill="#c9d6e4"/>',
            label(0, 0, name, transform=f"translate({x + 17} {TOP - 6}) rotate(-60)"),
        ]
        for other in sorted(used(name), key=columns.__getitem__):
            middle = left + LINE * columns[other] + LINE // 2
            parts.append(f'<circle cx="{middle}" cy="{y + LINE // 2}" r="5" fill="#20639b"/>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    DRAWING.write_text(draw())


if __name__ == "__main__":
    main()
