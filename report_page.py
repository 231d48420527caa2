"""A report as one HTML page that needs nothing else: plots are drawn in it, light and dark, without a script.

Every number of a plot stands in a table or a text as well, and texts of the data are shown as text only.
"""

from html import escape

from report import LARGE, accuracy_line, confusions

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #595959; --line: #d0d0d0; --paper: #fff;
  --bar: #1f6fb4; --tint: 31, 111, 180; --wrong: 196, 78, 0; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #b0b0b0; --line: #4a4a4a;
  --paper: #181a1b; --bar: #6db3f2; --tint: 109, 179, 242; --wrong: 255, 150, 70; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; }
.text { overflow-wrap: anywhere; min-width: 16rem; }
.big { font-size: 2.2rem; font-weight: 600; margin: 0; } .soft, caption { color: var(--soft); }
caption { text-align: left; padding-bottom: .4rem; } svg text { fill: var(--ink); font-size: 12px; }
svg { max-width: 100%; height: auto; } td svg { max-width: none; }
"""


class Markup(str):
    """A cell that is HTML already."""


def as_html(report):
    """The whole page as a str."""
    title = f"Report: {escape(report['trained_on'])}"
    names = [row["name"] for row in report["classes"]]
    matrix = confusion_matrix(names, report["confusion"]) if len(names) <= LARGE else frequent(report)
    about = f"{report['classifier']}: {report['model']}, fine-tuned on {report['trained_on']}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="big">{report["accuracy"]:.1%}</p>
<p>{escape(accuracy_line(report))}</p>
<p class="soft">Measured on {escape(report["data"])}. {escape(about)}.</p>
<h2>Classes</h2>
{classes(report)}
<h2>Confusion</h2>
{matrix}
<h2>Calibration</h2>
<p>The probability of an answer is off by {report["calibration_error"]:.1%} on average.</p>
{calibration_plot(report["calibration"])}
{calibration_table(report["calibration"])}
<h2>Most confident mistakes</h2>
{mistakes(report["mistakes"])}
</main>
</body>
</html>"""


def table(caption, header, rows, numbers=()):
    """A table of escaped cells; the columns ``numbers`` are aligned on the right."""

    kinds = ["n" if i in numbers else "text" if name == "text" else "" for i, name in enumerate(header)]
    head = "".join(f'<th scope="col" class="{kind}">{escape(name)}</th>' for kind, name in zip(kinds, header))
    lines = []
    for row in rows:
        cells = [cell if isinstance(cell, Markup) else escape(str(cell)) for cell in row]
        lines.append(
            "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, cells)) + "</tr>"
        )
    return framed(caption, head, lines)


def framed(caption, head, lines):
    """A table from the HTML of its header and its lines; a wide one scrolls by itself, also by keyboard."""
    label = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}"><table>'
        f"<caption>{label}</caption><thead><tr>{head}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table></div>"
    )


def classes(report):
    """Precision, recall and F1 with a bar of F1."""
    rows = []
    for row in report["classes"]:
        scores = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        bar = Markup(
            '<svg width="120" height="14" aria-hidden="true">'
            '<rect width="120" height="14" fill="var(--line)"/>'
            f'<rect width="{120 * row["f1"]:.0f}" height="14" fill="var(--bar)"/></svg>'
        )
        rows.append((row["name"], f"{row['texts']:,}", *scores, bar))
    caption = f"Mean F1 of the classes: {report['macro_f1']:.3f}"
    return table(caption, ("class", "texts", "precision", "recall", "F1", "F1 as a bar"), rows, range(1, 5))


def confusion_matrix(names, confusion):
    """Right classes in rows, answers in columns; the darker a cell, the larger its share of the row."""
    head = "".join(f'<th scope="col" class="n">{escape(name)}</th>' for name in names)
    lines = []
    for i, (name, counts) in enumerate(zip(names, confusion)):
        cells = []
        for j, count in enumerate(counts):
            share = count / max(sum(counts), 1)
            colour = f"rgba(var(--{'tint' if i == j else 'wrong'}), {0.45 * share:.2f})"
            cells.append(f'<td class="n" style="background: {colour}">{count}</td>')
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return framed("In rows the right class, in columns the answer", f"<td></td>{head}", lines)


def frequent(report):
    rows = confusions(report)
    return table("The most frequent mistakes", ("right class", "answer", "texts"), rows, (2,))


def calibration_plot(bins, size=260):
    """Share of right answers against their probability; on the diagonal both are equal."""

    def at(x, y):
        return f"{60 + x * size:.1f}", f"{10 + (1 - y) * size:.1f}"

    marks = []
    for tick in (0, 0.5, 1):
        x, y = at(tick, 0)
        marks.append(f'<text x="{x}" y="{size + 28}" text-anchor="middle">{tick:.0%}</text>')
        x, y = at(0, tick)
        marks.append(f'<text x="54" y="{float(y) + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    most = max((row["texts"] for row in bins), default=1)
    for row in bins:
        x, y = at(row["probability"], row["accuracy"])
        radius = 3 + 6 * (row["texts"] / most) ** 0.5
        marks.append(f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="var(--bar)" fill-opacity=".8"/>')
    (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
    return f"""<svg viewBox="0 0 {size + 80} {size + 50}" width="{size + 80}" role="img"
 aria-label="Share of right answers against the probability that was said; the numbers stand in the table">
<rect x="60" y="10" width="{size}" height="{size}" fill="none" stroke="var(--line)"/>
<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="var(--soft)" stroke-dasharray="4 4"/>
{"".join(marks)}
<text x="{60 + size / 2}" y="{size + 46}" text-anchor="middle">probability that was said</text>
<text transform="translate(14 {10 + size / 2}) rotate(-90)" text-anchor="middle">right</text>
</svg>"""


def calibration_table(bins):
    rows = [(f"{row['probability']:.1%}", f"{row['accuracy']:.1%}", f"{row['texts']:,}") for row in bins]
    return table("Answers by their probability", ("said", "right", "texts"), rows, range(3))


def mistakes(rows):
    """The wrong answers with the highest probability, with their texts."""
    if not rows:
        return "<p>There is none.</p>"
    header = ("right class", "answer", "said", "text")
    cells = [(row["label"], row["predicted"], f"{row['probability']:.1%}", row["text"]) for row in rows]
    return table("Worth reading: here and there the label is wrong", header, cells, (2,))
