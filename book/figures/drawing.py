"""What all drawings of the book share: the colours in light and dark, and the pieces that they are made of.

A drawing is a list of pieces, which are strings of SVG. Widths are those of a phone, so that every
drawing is as legible there as on a desktop. Words stand in ``words_en.json``, published numbers come
from ``reference_results.json``; neither is typed into the code of a drawing.
"""

import json
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
WIDTH = 400
WORDS = json.loads((FOLDER / "words_en.json").read_text(encoding="utf-8"))
LABELS = WORDS["labels"]
REFERENCE = json.loads((ROOT / "reference_results.json").read_text(encoding="utf-8"))

# A drawing carries its own ground: it is legible wherever a notebook is opened. On the book's pages,
# where the reader chooses light or dark, `color-scheme` of the page decides.
STYLE = """
  .drawing { --ground: #ffffff; --edge: #e2e5e9; --ink: #1f2937; --muted: #5b6472; --line: #98a1ad;
    --panel: #f5f6f8; --part: #e6eff9; --part-edge: #2563a8; --lit: #ffedd5; --lit-edge: #c2570c;
    --lit-ink: #8a3a06; }
  @media (prefers-color-scheme: dark) {
    .drawing { --ground: #171b21; --edge: #2d343d; --ink: #e6e8eb; --muted: #a6aeb9; --line: #6f7a87;
      --panel: #20262e; --part: #1c3048; --part-edge: #6fa8e0; --lit: #4b2c0f; --lit-edge: #f2a256;
      --lit-ink: #ffc78f; }
  }
  .drawing text { font: 14px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
    fill: var(--ink); }
  .drawing .small { font-size: 12.5px; }
  .drawing .lit .small.middle { font-weight: 500; letter-spacing: -0.1px; }
  .drawing .strong { font-weight: 600; }
  .drawing .muted { fill: var(--muted); }
  .drawing .code { font: 12.5px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
  .drawing .halo { paint-order: stroke; stroke: var(--panel); stroke-width: 7px; stroke-linejoin: round; }
  .drawing .middle { text-anchor: middle; }
  .drawing .end { text-anchor: end; }
  .drawing .ground { fill: var(--ground); stroke: var(--edge); }
  .drawing .panel { fill: var(--panel); stroke: var(--edge); }
  .drawing .box { fill: var(--part); stroke: var(--part-edge); stroke-width: 1.5; }
  .drawing .plain { fill: var(--ground); stroke: var(--line); stroke-width: 1.5; }
  .drawing .line { fill: none; stroke: var(--line); stroke-width: 1.5; }
  .drawing .thin { stroke-width: 1; }
  .drawing .dashed { stroke-dasharray: 4 4; }
  .drawing .tip { fill: var(--line); }
  .drawing .mark { fill: var(--part-edge); }
  .drawing .dim .box, .drawing .box.dim { fill: var(--panel); stroke: var(--line); stroke-width: 1; }
  .drawing .dim text { fill: var(--muted); }
  .drawing .dim .mark { fill: var(--line); }
  .drawing .lit .box, .drawing .box.lit { fill: var(--lit); stroke: var(--lit-edge); stroke-width: 2.5; }
  .drawing .lit text, .drawing text.lit { fill: var(--lit-ink); font-weight: 600; }
  .drawing .lit.line, .drawing .lit .line { stroke: var(--lit-edge); stroke-width: 2.5; }
  .drawing .lit.tip, .drawing .lit .tip, .drawing .lit .mark, .drawing .mark.lit { fill: var(--lit-edge); }
"""


def rect(x, y, width, height, kind, radius=7):
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'


def text(x, y, words, kind=""):
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def path(steps, kind="line"):
    return f'<path class="{kind}" d="{steps}"/>'


def tip(x, y, kind="tip", direction="down"):
    """The head of an arrow, its point at (x, y)."""
    back = {"down": (-5, -8, 5, -8), "up": (-5, 8, 5, 8), "left": (8, -5, 8, 5), "right": (-8, -5, -8, 5)}
    a, b, c, d = back[direction]
    return path(f"M{x:g} {y:g} L{x + a:g} {y + b:g} L{x + c:g} {y + d:g} Z", kind)


def arrow(x, top, bottom, kind="line"):
    """Straight down, or up where ``bottom`` lies above ``top``."""
    down = bottom > top
    end = bottom - 6 if down else bottom + 6
    lit = " lit" if "lit" in kind.split() else ""
    return path(f"M{x:g} {top:g} V{end:g}", kind) + tip(x, bottom, f"tip{lit}", "down" if down else "up")


def group(pieces, kind="", name=""):
    named = f' data-part="{name}"' if name else ""
    return f'<g{named} class="{kind}">\n' + "\n".join(pieces) + "\n</g>"


def drawing(name, pieces, height):
    """The text of one SVG file; caption and alternative text are those of ``words_en.json``."""
    words = WORDS["drawings"][name]
    body = "\n".join(pieces)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="title-{name} desc-{name}">\n'
        f'<title id="title-{name}">{escape(words["caption"])}</title>\n'
        f'<desc id="desc-{name}">{escape(words["alt"])}</desc>\n'
        f"<style>{STYLE}</style>\n"
        f"{rect(0.5, 0.5, WIDTH - 1, height - 1, 'ground', 12)}\n{body}\n</svg>\n"
    )


def number(value, decimals=0):
    """A number as the page writes it: a true minus sign, commas in thousands."""
    return f"{value:,.{decimals}f}".replace("-", "−")
