"""Draw the overview of the three stages: five SVG files from one description.

    python book/figures/make_three_stages.py

writes, next to this script, ``three_stages.svg`` (nothing highlighted),
``three_stages_model.svg`` (notebooks 02 to 04), ``three_stages_evaluation.svg`` (notebook 07),
``three_stages_training.svg`` (notebook 08) and ``three_stages_use.svg`` (notebook 09).
Python's standard library is all that it needs.
"""

import textwrap
from pathlib import Path

# What is drawn: for each stage its title and its steps (notebook number, lines of text).
STAGES = [
    (
        "Data",
        [
            ("01", ["Download", "the messages"]),
            ("01", ["Balance", "the two classes"]),
            ("01", ["Split: training,", "validation, test"]),
            ("01", ["Tokenise and pad"]),
            ("01", ["Data loaders"]),
        ],
    ),
    (
        "Model",
        [
            ("02", ["Configure"]),
            ("03", ["Load pretrained", "weights"]),
            ("04", ["Probe what it", "generates"]),
            ("05", ["Replace the head"]),
            ("06", ["Unfreeze the", "last layers"]),
            ("07", ["Accuracy and", "loss functions"]),
        ],
    ),
    (
        "Fine-tune and use",
        [
            ("08", ["Train"]),
            ("08", ["Evaluate the", "fine-tuned model"]),
            ("09", ["Classify new", "messages"]),
        ],
    ),
]

# Which files: the name, the notebooks that are highlighted, and how the description ends.
FIGURES = [
    ("three_stages.svg", [], ""),
    (
        "three_stages_model.svg",
        ["02", "03", "04"],
        "Highlighted, as the part we are in: configure (02), load weights (03), probe (04).",
    ),
    (
        "three_stages_evaluation.svg",
        ["07"],
        "Highlighted, as the part we are in: the evaluation functions, accuracy and loss (07).",
    ),
    (
        "three_stages_training.svg",
        ["08"],
        "Highlighted, as the part we are in: training and the evaluation of its result (08).",
    ),
    (
        "three_stages_use.svg",
        ["09"],
        "Highlighted, as the part we are in: the classification of new messages (09).",
    ),
]

# The palette shared by all figures of the book.
INK, GREY, LIGHT = "#1f2937", "#6b7280", "#f3f4f6"
ORANGE, ORANGE_FILL = "#b45309", "#ffedd5"
BOLD = ' font-weight="bold"'

# Sizes in pixels.
WIDTH, MARGIN, GAP = 760, 16, 28
COLUMN = (WIDTH - 2 * MARGIN - 2 * GAP) // 3
HEADER, PADDING = 66, 14
STEP, STEP_GAP = 52, 20
BADGE, TEXT = 32, 50  # the badge's width; where a step's text begins
ROWS = max(len(steps) for _, steps in STAGES)
HEIGHT = 2 * MARGIN + HEADER + ROWS * STEP + (ROWS - 1) * STEP_GAP + PADDING


def step_top(row):
    """Give the y coordinate of the upper edge of a step."""
    return MARGIN + HEADER + row * (STEP + STEP_GAP)


def draw_box(x, y, width, height, radius, fill, stroke, thickness=2):
    """Draw a rounded box."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="{thickness}"/>'
    )


def draw_text(x, y, text, extra=""):
    """Write one line of text; ``extra`` holds further attributes."""
    return f'<text x="{x}" y="{y}"{extra}>{text}</text>'


def draw_arrow(x1, y1, x2, y2):
    """Draw a straight arrow."""
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="2" '
    return line + 'marker-end="url(#arrow)"/>'


def draw_badge(x, middle, number, colour):
    """Draw a notebook's number, white on a dark badge."""
    extra = ' font-family="monospace" font-weight="bold" text-anchor="middle" fill="#ffffff"'
    return [
        f'<rect x="{x}" y="{middle - 13}" width="{BADGE}" height="26" rx="6" fill="{colour}"/>',
        draw_text(x + BADGE // 2, middle + 5, number, extra),
    ]


def draw_step(x, y, number, lines, highlighted):
    """Draw one step: a box, a badge with the notebook's number, one or two lines of text."""
    width, middle = COLUMN - 2 * PADDING, y + STEP // 2
    first = middle + 5 - 10 * (len(lines) - 1)
    if highlighted:
        parts = [draw_box(x, y, width, STEP, 8, ORANGE_FILL, ORANGE, thickness=4)]
    else:
        parts = [draw_box(x, y, width, STEP, 8, "#ffffff", GREY)]
    parts += draw_badge(x + 8, middle, number, ORANGE if highlighted else INK)
    for i, line in enumerate(lines):
        parts.append(draw_text(x + TEXT, first + 20 * i, line, BOLD if highlighted else ""))
    return parts


def draw_stage(column, title, steps, highlighted):
    """Draw one stage: a panel with a header, its steps, and the arrows between them."""
    x = MARGIN + column * (COLUMN + GAP)
    height = step_top(len(steps) - 1) + STEP + PADDING - MARGIN
    parts = [
        f"<!-- stage {column + 1}: {title} -->",
        draw_box(x, MARGIN, COLUMN, height, 12, LIGHT, GREY),
        draw_text(x + PADDING, MARGIN + 25, f"Stage {column + 1}", f' fill="{GREY}"'),
        draw_text(x + PADDING, MARGIN + 49, title, f' font-size="18"{BOLD}'),
    ]
    for row, (number, lines) in enumerate(steps):
        y = step_top(row)
        if row:
            parts.append(draw_arrow(x + COLUMN // 2, y - STEP_GAP + 2, x + COLUMN // 2, y - 3))
        parts += draw_step(x + PADDING, y, number, lines, number in highlighted)
    return parts


def draw_key(highlighted):
    """Say, in the free corner under stage 3, what the badges and the thick frame mean."""
    x = MARGIN + 2 * (COLUMN + GAP) + PADDING
    middle = step_top(ROWS - 1) + STEP // 2
    parts = ["<!-- key -->", *draw_badge(x + 8, middle, "01", INK)]
    parts.append(draw_text(x + TEXT, middle + 5, "notebook number"))
    if highlighted:
        middle -= 44
        parts.append(draw_box(x + 8, middle - 13, BADGE, 26, 6, ORANGE_FILL, ORANGE, thickness=4))
        parts.append(draw_text(x + TEXT, middle + 5, "we are here", BOLD))
    return parts


def describe(ending):
    """Put the whole drawing into words, for readers who do not see it."""
    stages = []
    for i, (title, steps) in enumerate(STAGES):
        listed = ", ".join(f"{' '.join(lines).lower()} ({number})" for number, lines in steps)
        stages.append(f"Stage {i + 1}, {title.lower()}: {listed}.")
    text = " ".join(["In brackets the number of the notebook.", *stages, ending]).strip()
    return "\n    ".join(textwrap.wrap(text, 100))


def draw_figure(highlighted, ending):
    """Give the text of one SVG file."""
    body = []
    for column, (title, steps) in enumerate(STAGES):
        body += draw_stage(column, title, steps, highlighted)
    body.append("<!-- from stage to stage -->")
    for column in range(len(STAGES) - 1):
        x = MARGIN + column * (COLUMN + GAP) + COLUMN
        y = MARGIN + HEADER // 2
        body.append(draw_arrow(x + 3, y, x + GAP - 3, y))
    body += draw_key(highlighted)
    drawing = "\n".join("  " + part for part in body)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"
     viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc"
     font-family="system-ui, sans-serif" font-size="15" fill="{INK}">
  <!-- written by make_three_stages.py: change it there -->
  <title id="title">Fine-tuning for classification in three stages</title>
  <desc id="desc">{describe(ending)}</desc>
  <defs>
    <marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="5" markerHeight="5"
            orient="auto-start-reverse">
      <path d="M0 0 L10 5 L0 10 Z" fill="{INK}"/>
    </marker>
  </defs>
  <rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>
{drawing}
</svg>
"""


def main():
    """Write the files."""
    folder = Path(__file__).resolve().parent
    for name, highlighted, ending in FIGURES:
        text = draw_figure(highlighted, ending)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
