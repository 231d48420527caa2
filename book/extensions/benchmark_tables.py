"""Tables of the measured speed, made from the files that ``make bench`` writes.

The directive ``{benchmark-tables}`` puts one section on the page for each
``results/benchmark*.json``: the machine, and a table of the measurements. No number on the
page is typed.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

SIDES = ("plain", "transformers", "book")


def heading(result):
    """The device and the data type, for example "CPU, float32"."""
    return f"{result['machine']['device']}, {result['machine']['dtype']}"


def description(result):
    """One paragraph: what was measured, and where."""
    machine, setting = result["machine"], result["setting"]
    return (
        f"{setting['model']} in {machine['dtype']}. "
        f"Processor: {machine['cpu']}, {machine['threads']} threads; {machine['system']}. "
        f"Python {machine['python']}, PyTorch {machine['torch']}, "
        f"transformers {machine['transformers']}."
    )


def seconds(value):
    """A time with three significant digits, or a dash where the side does not take part."""
    return "–" if value is None else f"{value:#.3g}".rstrip(".") + "\N{NO-BREAK SPACE}s"


def ratio(measurement, side):
    """How many times as fast the book is, and the target."""
    if side not in measurement["ratios"]:
        return "–"
    value, target = measurement["ratios"][side], measurement["targets"][side]
    verdict = "reached" if value >= target else "missed"
    return f"{value:.2f} times as fast (target {target:g}, {verdict})"


def difference(measurement):
    """The largest differences between outputs, by what was compared."""
    return "; ".join(
        f"{entry['what']}: {entry['value']:.1e}" if entry["value"] else f"{entry['what']}: 0"
        for entry in measurement["differences"]
    )


def memory(measurement):
    """Peak memory by side, where it was measured."""
    limits = measurement.get("peak_memory_limit_gb", {})
    parts = []
    for side, value in measurement.get("peak_memory_gb", {}).items():
        if value is None:
            continue
        verdict = "reached" if value <= limits.get(side, value) else "missed"
        limit = f" (at most {limits[side]:g} GB: {verdict})" if side in limits else ""
        parts.append(f"{side} {value:.2f} GB{limit}")
    return "Peak memory: " + ", ".join(parts) + "." if parts else ""


def preparation(measurement):
    """What a side does once before the measured work, where it does."""
    times = measurement.get("seconds_to_prepare", {})
    parts = ", ".join(f"{side} {seconds(value)}" for side, value in times.items())
    return f"Once before, not in the time: {parts}." if parts else ""


def first_use(measurement):
    """Time until the model was used for the first time, where it was measured."""
    times = measurement.get("seconds_to_first_logits", {})
    parts = ", ".join(f"{side} {seconds(value)}" for side, value in times.items())
    return f"To the first logits: {parts}." if parts else ""


def lines_of(result):
    """The table and what belongs to it, in MyST's Markdown."""
    lines = [description(result), ""]
    lines += ["| measurement | plain | transformers | book | against plain | against transformers |"]
    lines += ["|---|---|---|---|---|---|"]
    for measurement in result["measurements"]:
        times = [seconds(measurement["seconds"].get(side)) for side in SIDES]
        ratios = [ratio(measurement, side) for side in ("plain", "transformers")]
        lines.append("| " + " | ".join([measurement["name"], *times, *ratios]) + " |")
    lines.append("")
    for measurement in result["measurements"]:
        runs = "one run" if measurement["repeats"] == 1 else f"median of {measurement['repeats']} runs"
        parts = (memory(measurement), preparation(measurement), first_use(measurement))
        details = " ".join(text for text in parts if text)
        lines.append(
            f"- **{measurement['name']}**: {measurement['work']}; {runs}. {details} "
            f"Largest differences between the outputs: {difference(measurement)}."
        )
    return lines


class BenchmarkTables(SphinxDirective):
    def run(self):
        root = Path(self.env.srcdir)
        self.env.note_reread()  # a new file in results/ is not a change of the page itself
        sections = []
        for path in sorted((root / "results").glob("benchmark*.json"), key=lambda path: path.stem):
            result = json.loads(path.read_text(encoding="utf-8"))
            section = nodes.section(ids=[nodes.make_id(f"results {heading(result)}")])
            section += nodes.title(text=heading(result))
            self.state.document.note_explicit_target(section)
            self.state.nested_parse(StringList(lines_of(result), source=str(path)), 0, section)
            sections.append(section)
        if not sections:
            return [nodes.paragraph(text="No measurement is stored yet. Run make bench.")]
        return sections


def setup(app):
    app.add_directive("benchmark-tables", BenchmarkTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
