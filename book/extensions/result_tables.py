"""Tables of measured results, made from the files in results/ when the book is built.

    ```{result-table} memory
    ```

stands for the table of that name, one of ``TABLES``. No number on these pages is typed.
``speed.py``, ``page_speed.py`` and ``scale.py`` in ``benchmarks/`` write the files.
"""

import json
import sys
from datetime import date
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from reference_results import is_published_setting  # noqa: E402

SPACE = "\N{NO-BREAK SPACE}"  # a number and its unit stay together


def table(header, rows):
    """Lines of a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def seconds(value, digits=3):
    return "–" if value is None else f"{value:#.{digits}g}".rstrip(".") + f"{SPACE}s"


# ---------------------------------------------------------------------------------
# results/benchmark*.json: the speed of several sides
# ---------------------------------------------------------------------------------


def speed(root):
    """A section for each device and data type: heading, and lines in Markdown."""
    results = [
        json.loads(path.read_text("utf-8"))
        for path in sorted((root / "results").glob("benchmark*.json"), key=lambda path: path.stem)
    ]
    if not results:
        return [("", ["No measurement is stored yet. Run make bench."])]
    return [(f"{one['machine']['device']}, {one['machine']['dtype']}", speed_lines(one)) for one in results]


def speed_lines(result):
    about, measurements = result["machine"], result["measurements"]
    sides = list(dict.fromkeys(side for one in measurements for side in one["seconds"]))
    others = [side for side in sides if side != "book"]
    rows = [
        [
            one["name"],
            *(seconds(one["seconds"].get(side)) for side in sides),
            *(ratio(one, side) for side in others),
        ]
        for one in measurements
    ]
    return [
        f"{result['setting']['model']} in {about['dtype']}. "
        f"Processor: {about['cpu']}, {about['threads']} threads; {about['system']}. "
        f"Python {about['python']}, PyTorch {about['torch']}, transformers {about['transformers']}.",
        "",
        *table(["measurement", *sides, *(f"against {side}" for side in others)], rows),
        "",
        *items(measurements),
        *peer_lines(result),
    ]


def items(measurements):
    return [f"- **{one['name']}**: {' '.join(filter(None, details(one)))}" for one in measurements]


def peer_lines(result):
    """The table of ``benchmarks/peers.py``: a row for each work and precision; nothing if it did not run."""
    measurements, versions = result.get("peers"), result["machine"].get("peers", {})
    if not measurements:
        return []
    sides = ["book", "transformers", "ONNX Runtime", "OpenVINO"]
    rows = [[one["name"], *(peer_cell(one, side, versions) for side in sides)] for one in measurements]
    names = [f"{name} {version or 'not installed'}" for name, version in versions.items()]
    return [
        "",
        "Beside engines that only answer. Each has what `text_classifier.py export` writes, and reads texts, "
        "32 at once, as `classify` does. A cell has the time, the texts a second, and how many times as fast "
        f"the book is; the fastest is bold. {', '.join(names)}; NNCF rounds weights for OpenVINO. The book "
        "has no int8: its bfloat16 stands there. The exported model generates no text.",
        "",
        *table(["measurement", *sides], rows),
        "",
        *items(measurements),
    ]


def peer_cell(measurement, side, versions):
    """Time, texts a second and ratio of one side."""
    times = measurement["seconds"]
    if side not in times:
        return "–" if versions.get(side, "") is not None else "not installed"
    cell = f"{seconds(times[side])}, {measurement['texts'] / times[side]:,.0f}{SPACE}a{SPACE}second"
    if side in measurement["ratios"]:
        cell += f", {measurement['ratios'][side]:.2f}{SPACE}×"
    return f"**{cell}**" if times[side] == min(times.values()) else cell


def ratio(measurement, side):
    """How many times as fast the book is, and the target."""
    if side not in measurement["ratios"]:
        return "–"
    value, target = measurement["ratios"][side], measurement["targets"][side]
    return f"{value:.2f} times as fast (target {target:g}, {'reached' if value >= target else 'missed'})"


def details(measurement):
    """What belongs to a row: the work, memory, times outside the measured one, differences of outputs."""

    def times(key):
        return ", ".join(f"{side} {seconds(value)}" for side, value in measurement.get(key, {}).items())

    memory, limits = [], measurement.get("peak_memory_limit_gb", {})
    for side, value in measurement.get("peak_memory_gb", {}).items():
        if value is not None:
            verdict = "reached" if value <= limits.get(side, value) else "missed"
            limit = f" (at most {limits[side]:g} GB: {verdict})" if side in limits else ""
            memory.append(f"{side} {value:.2f} GB{limit}")
    differences = [
        f"{one['what']}: {one['value']:.1e}" if one["value"] else f"{one['what']}: 0"
        for one in measurement["differences"]
    ]
    repeats = measurement["repeats"]
    return (
        f"{measurement['work']}; {'one run' if repeats == 1 else f'median of {repeats} runs'}.",
        f"Peak memory: {', '.join(memory)}." if memory else "",
        f"Once before, not in the time: {times('seconds_to_prepare')}."
        if times("seconds_to_prepare")
        else "",
        f"To the first logits: {times('seconds_to_first_logits')}."
        if times("seconds_to_first_logits")
        else "",
        above_import_torch(measurement),
        same_labels(measurement),
        f"Largest differences between the outputs: {'; '.join(differences)}." if differences else "",
    )


def above_import_torch(measurement):
    if not (above := measurement.get("seconds_above_import_torch")):
        return ""
    verdict = "reached" if above["value"] <= above["limit"] else "missed"
    return f"Above `import torch`: {seconds(above['value'])} (at most {seconds(above['limit'])}: {verdict})."


def same_labels(measurement):
    """How many labels of each side are those of the book in float32."""
    if not (same := measurement.get("same_labels")):
        return ""
    counts = ", ".join(f"{side} {count}" for side, count in same.items())
    return f"Of {measurement['texts']} labels, so many are those of the book in float32: {counts}."


# ---------------------------------------------------------------------------------
# results/attention.json: where a batch's time goes
# ---------------------------------------------------------------------------------


def attention(root):
    """Lines in Markdown: a column for each data type."""
    result = json.loads((root / "results" / "attention.json").read_text("utf-8"))
    about, setting = result["machine"], result["setting"]
    columns = {row["dtype"]: attention_times(row) for row in result["rows"]}
    short, long = (one["seconds"] for one in result["rows"][-1]["attention"])  # in bfloat16
    saved = 1000 * setting["full_blocks"] * (short["fused"] - short["step by step"])
    slower = long["step by step"] / long["fused"]
    rows = [
        [name, *(f"{1000 * times[name]:#.3g}".rstrip(".") + f"{SPACE}ms" for times in columns.values())]
        for name in next(iter(columns.values()))
    ]
    return [
        f"{setting['model']}, last-token logits of {setting['batch_size']} texts of {setting['lengths'][0]} "
        f"tokens, packed layers. Processor: {about['cpu']}, {about['threads']} threads; PyTorch "
        f"{about['torch']} and its profiler.",
        "",
        *table(["", *columns], rows),
        "",
        f"In bfloat16, step by step, the {setting['full_blocks']} blocks that attend from every position "
        f"would save {saved:.0f}{SPACE}ms of a batch of {setting['lengths'][0]} tokens; at "
        f"{setting['lengths'][1]:,} tokens they would take {slower:.1f} times as long.",
    ]


def attention_times(row):
    """{what is measured: seconds} in one data type."""
    parts = {f"of it: {part}": value for part, value in row["parts"].items()}
    alone = {
        f"attention of one block, {one['tokens']:,} tokens, {way}": value
        for one in row["attention"]
        for way, value in one["seconds"].items()
    }
    return {"a batch": row["batch"], **parts, **alone}


# ---------------------------------------------------------------------------------
# results/page_speed.json: the pages themselves, as Lighthouse sees them on a phone
# ---------------------------------------------------------------------------------


def page_speed(root):
    """A row for each page; written by `make page-speed`."""
    stored = root / "results" / "page_speed.json"
    if not stored.exists():
        return ["No measurement is stored yet. Run `make page-speed`."]
    result = json.loads(stored.read_text("utf-8"))
    about = result["machine"]
    rows = [
        [
            Path(page).stem.replace("_", " "),
            f"{one['performance']:g}",
            ", ".join(f"{one[name]:g}" for name in ("accessibility", "best-practices", "seo")),
            f"{one['kilobytes']:.0f}",
            *(f"{one[name]:.1f}{SPACE}s" for name in ("first_paint", "largest_paint")),
            f"{one['layout_shift']:g}",
        ]
        for page, one in result["pages"].items()
    ]
    scores = ["performance", "accessibility, best practices, search engines"]
    runs = "one run" if result["runs"] == 1 else f"median of {result['runs']} runs"
    return [
        f"Lighthouse {about['lighthouse']} with its settings for phones, Chromium {about['browser']}, "
        f"{about['cpu']}, {about['cores']} cores, {about['date']}; {runs} a page.",
        "",
        *table(["page", *scores, "kB", "first paint", "largest paint", "layout shift"], rows),
    ]


# ---------------------------------------------------------------------------------
# results/scale.json: what each size needs; what was not measured is calculated
# ---------------------------------------------------------------------------------


def size(name):
    """``"124M"`` of ``"gpt2-small (124M)"``."""
    return name.split("(")[1].rstrip(")")


def gigabytes(number):
    return f"{number / 1e9:.2f}"


def sizes(models, about):
    header = ["model", "parameters of the language model", "checkpoint, GB", "parameters of the classifier"]
    rows = []
    for name, model in models.items():
        trained = model["jobs"]["last block"]["calculated"]["trained_parameters"]
        counts = f"{model['parameters']:,}", gigabytes(model["checkpoint_bytes"])
        rows.append([size(name), *counts, f"{model['classifier_parameters']:,}", f"{trained:,}"])
    return table([*header, "of which head, final layer norm and last block"], rows)


def parts(models, about):
    """Where the memory goes; activations as calculated and as counted in a running step."""
    rows = []
    for name, model in models.items():
        for job in ("last block", "everything"):  # inference has weights, and activations that nothing keeps
            entry = model["jobs"][job]
            memory, counted = entry["calculated"]["bytes"], (entry["measured"] or {}).get("saved_bytes")
            bytes_of = [gigabytes(memory[part]) for part in ("weights", "gradients", "adamw")]
            activations = [f"{memory['activations'] / 1e6:,.0f}", f"{counted / 1e6:,.0f}" if counted else "–"]
            rows.append([size(name), job, *bytes_of, *activations])
    header = ["model", "job", "weights, GB", "gradients, GB", "AdamW, GB", "activations, MB", "counted, MB"]
    return table(header, rows)


def memory(models, about):
    jobs = list(next(iter(models.values()))["jobs"])
    rows = []
    for name, model in models.items():
        row = [size(name)]
        for entry in model["jobs"].values():
            row.append(gigabytes(entry["calculated"]["total_bytes"]))
            row.append(gigabytes(entry["measured"]["peak_bytes"]) if entry["measured"] else "–")
        rows.append(row)
    return table(["model", *(f"{job}, {kind}" for job in jobs for kind in ("calculated", "measured"))], rows)


def step_seconds(models, job):
    """{model: (seconds of a step, "measured" or "calculated")}; None where nothing at all was measured.

    Calculated: the operations, at the rate of the largest size that was measured.
    """
    found, rate = {}, None
    for name, model in models.items():  # from small to large
        entry = model["jobs"][job]
        work, measured = entry["calculated"]["operations"], entry["measured"]
        if measured and measured["seconds_per_step"]:
            found[name], rate = (
                (measured["seconds_per_step"], "measured"),
                work / measured["seconds_per_step"],
            )
        else:
            found[name] = (work / rate, "calculated") if rate else None
    return found


def time(models, about):
    jobs = list(next(iter(models.values()))["jobs"])
    steps = {job: step_seconds(models, job) for job in jobs}
    rows = []
    for name, model in models.items():
        row = [size(name)]
        for job in jobs:
            row.append(f"{model['jobs'][job]['calculated']['operations'] / 1e9:,.0f}")
            row.append(f"{seconds(steps[job][name][0])}, {steps[job][name][1]}" if steps[job][name] else "–")
        rows.append(row)
    return table(
        ["model", *(f"{job}{what}" for job in jobs for what in (", 10⁹ operations", ", time"))], rows
    )


def machine(models, about):
    measured = [entry["measured"] for model in models.values() for entry in model["jobs"].values()]
    threads = sorted({str(one["threads"]) for one in measured if one})
    machine, batch = about["machine"], about["batch"]
    return [
        f"Measured on: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, no GPU; "
        f"Python {machine['python']}, PyTorch {machine['torch']}; {' or '.join(threads)} threads; float32; "
        f"a batch of {batch['messages']} messages of {batch['tokens']} tokens."
    ]


# ---------------------------------------------------------------------------------
# results/sms_sample.json, headlines.json: the texts written for this book
# ---------------------------------------------------------------------------------


def sample_patterns(card):
    """Patterns and words that tell the classes apart, in percent of the messages of each class."""
    rows = [[name, f"{share['ham']:.1f}", f"{share['spam']:.1f}"] for name, share in card["patterns"].items()]
    for word, share in card["words"].items():
        name = (
            f"a number of {len(word)} digit{'s' * (len(word) > 1)}"
            if set(word) == {"0"}
            else f"the word `{word}`"
        )
        rows.append([name, f"{share['ham']:.1f}", f"{share['spam']:.1f}"])
    return table(["what stands in the message", "% of ham", "% of spam"], rows)


def sample_lengths(card):
    counts = card.get("messages") or card["headlines"]
    rows = [
        [name, f"{counts[name]:,}", *map(str, quartiles)]
        for name, quartiles in card["quartiles of characters"].items()
    ]
    return table(["class", "number", "a quarter is shorter than", "half", "three quarters"], rows)


def sample_readers(card):
    readings, rows = card["blind readings"], []
    for reader in ("reader_a", "reader_b"):
        one = readings[reader]
        low, high = one["interval"]
        right = f"{one['right']} of {readings['messages']} ({low} to {high} %)"
        rows.append([reader[-1].upper(), right, f"{one['kappa with labels']:.2f}", str(one["not sure"])])
    return table(["reader", "agrees with the label (95 % interval)", "Cohen's kappa", "not sure"], rows)


# ---------------------------------------------------------------------------------
# book/checks.json: what has been checked, and by what; results/full_run.json: the last full edition
# ---------------------------------------------------------------------------------


def checks(root):
    """What the book claims of itself, the test behind it, and when that test runs."""
    rows = []
    for check in json.loads((root / "book" / "checks.json").read_text("utf-8")):
        tests = [f"`tests/{name.replace('::', '`: `')}`" for name in check.get("tests", [])]
        by = "; ".join(tests) or f"`{check['command']}`"
        rows.append([check["claim"], by, check["when"]])
    rows.append(
        ["OpenAI's 124M weights give the published numbers", "`make test CHECKPOINT=124M`", full_run(root)]
    )
    return table(["claim", "checked by", "when"], rows)


def full_run(root):
    """When the published numbers were last reached with OpenAI's weights."""
    if is_published_setting():
        return f"when these pages were built, {date.today()}: a number that differs stops the build"
    stored = root / "results" / "full_run.json"
    if not stored.exists():
        return "not yet: no such run is stored"
    run = json.loads(stored.read_text("utf-8"))
    return f"last on {run['date']}, PyTorch {run['torch']}, {run['device']}"


SAMPLE = {
    "sample-patterns": ("sms_sample.json", sample_patterns),
    "sample-lengths": ("sms_sample.json", sample_lengths),
    "sample-readers": ("sms_sample.json", sample_readers),
    "headline-lengths": ("headlines.json", sample_lengths),
    "headline-readers": ("headlines.json", sample_readers),
}
SCALE = {"sizes": sizes, "parts": parts, "memory": memory, "time": time, "machine": machine}
OTHERS = {"attention": attention, "pages": page_speed, "checks": checks}
TABLES = ["speed", *OTHERS, *SCALE, *SAMPLE]


class ResultTable(SphinxDirective):
    required_arguments = 1

    def run(self):
        root, name = Path(self.env.srcdir), self.arguments[0]
        self.env.note_reread()  # a new file in results/ is not a change of the page itself
        if name not in TABLES:
            raise self.error(f"No table {name!r}. Choose one of: {', '.join(TABLES)}.")
        if name == "speed":
            return [part for heading, lines in speed(root) for part in self.section(heading, lines)]
        if name in OTHERS:
            return self.parsed(OTHERS[name](root), nodes.Element()).children
        if name in SAMPLE:
            file, lines = SAMPLE[name]
            card = json.loads((root / "results" / file).read_text("utf-8"))
            return self.parsed(lines(card), nodes.Element()).children
        results = json.loads((root / "results" / "scale.json").read_text("utf-8"))
        return self.parsed(SCALE[name](results["models"], results), nodes.Element()).children

    def section(self, heading, lines):
        if not heading:
            return self.parsed(lines, nodes.Element()).children
        section = nodes.section(ids=[nodes.make_id(f"results {heading}")])
        section += nodes.title(text=heading)
        self.state.document.note_explicit_target(section)
        return [self.parsed(lines, section)]

    def parsed(self, lines, parent):
        self.state.nested_parse(StringList(lines, source="results"), 0, parent)
        return parent


def setup(app):
    app.add_directive("result-table", ResultTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
