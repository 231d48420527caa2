"""Tables of measured results, made from the files in results/ when the book is built.

    ```{result-table} memory
    ```

stands for the table of that name, one of ``TABLES``. No number on these pages is typed.
``speed.py``, ``page_speed.py`` and ``scale.py`` in ``benchmarks/`` write the files.
"""

import json
import statistics
import sys
from datetime import date
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edition import find_model  # noqa: E402
from reference_results import is_published_setting  # noqa: E402

SPACE = "\N{NO-BREAK SPACE}"  # a number and its unit stay together
NOT_MEASURED = "No measurement is stored yet. Run `make {}`."


def table(header, rows):
    """Lines of a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def times(ratio):
    return f"{ratio:.2f}{SPACE}×"


def seconds(value, digits=3):
    return "–" if value is None else f"{value:#.{digits}g}".rstrip(".") + f"{SPACE}s"


# ---------------------------------------------------------------------------------
# results/benchmark*.json: the speed of several sides
# ---------------------------------------------------------------------------------


def benchmarks(root):
    """What ``make bench`` has stored, a result for each machine, device and data type."""
    paths = sorted((root / "results").glob("benchmark*.json"), key=lambda path: path.stem)
    return [json.loads(path.read_text("utf-8")) for path in paths]


def speed(root):
    """A table for each result; the notes are those of the first."""
    results = benchmarks(root)
    if not results:
        return [NOT_MEASURED.format("bench")]
    notes = (
        f"- **{one['name']}**: {' '.join(filter(None, details(one)))}" for one in results[0]["measurements"]
    )
    of_first = ["Of the first table:", ""] if len(results) > 1 else []
    return [*(line for one in results for line in speed_table(one)), *of_first, *notes]


def speed_table(result):
    about, measurements = result["machine"], result["measurements"]
    found = {side for one in measurements for side in one["seconds"]}
    sides = [side for side in ("book", "transformers", "plain") if side in found]
    rows = [[one["name"], *(speed_cell(one, side) for side in sides)] for one in measurements]
    return [
        f"**{about['device']}, {about['dtype']}:** {result['setting']['model']}; {about['cpu']}, "
        f"{about['threads']} threads; {about['system']}; Python {about['python']}, PyTorch {about['torch']}, "
        f"transformers {about['transformers']}. Behind a time: how many times as fast the book is. "
        f"{missed_targets(measurements)}",
        "",
        *table(["", *sides], rows),
        "",
    ]


def speed_cell(measurement, side):
    """The time of one side, and how many times as fast the book is."""
    cell = seconds(measurement["seconds"].get(side))
    return f"{cell}, {times(measurement['ratios'][side])}" if side in measurement["ratios"] else cell


def missed_targets(measurements):
    """The targets of ``benchmarks/speed.py`` that were missed, in a sentence."""
    missed = [
        f"{one['name']} against {side} {one['ratios'][side]:.2f} < {target:g}"
        for one in measurements
        for side, target in one["targets"].items()
        if one["ratios"][side] < target
    ]
    for one in measurements:
        limits, memory = one.get("peak_memory_limit_gb", {}), one.get("peak_memory_gb", {})
        missed += [
            f"{one['name']}, memory {memory[side]:.2f} GB > {limit:g} GB"
            for side, limit in limits.items()
            if memory[side] is not None and memory[side] > limit
        ]
        above = one.get("seconds_above_import_torch", {"value": 0, "limit": 0})
        if above["value"] > above["limit"]:
            missed.append(f"{one['name']}, above import torch {above['value']:.2f} s > {above['limit']:g} s")
    return f"Targets of the benchmark that were missed: {'; '.join(missed)}." if missed else ""


def details(measurement):
    """What belongs to a row: the work, memory, times outside the measured one, differences of outputs."""

    def of_sides(key):
        return ", ".join(f"{side} {seconds(value)}" for side, value in measurement.get(key, {}).items())

    memory = ", ".join(
        f"{side} {value:.2f}{SPACE}GB"
        for side, value in measurement.get("peak_memory_gb", {}).items()
        if value is not None
    )
    differences = "; ".join(
        f"{one['what']} {one['value']:.1e}" if one["value"] else f"{one['what']} 0"
        for one in measurement["differences"]
    )
    above = measurement.get("seconds_above_import_torch")
    repeats = measurement["repeats"]
    prepared, first = of_sides("seconds_to_prepare"), of_sides("seconds_to_first_logits")
    return (
        f"{measurement['work']}; {'one run' if repeats == 1 else f'median of {repeats} runs'}.",
        f"A process that only imports torch takes all but {seconds(above['value'])} of it." if above else "",
        f"Packing the weights, once and not in the time: {prepared}." if prepared else "",
        f"To the first logits: {first}." if first else "",
        f"Peak memory: {memory}." if memory else "",
        f"Largest differences: {differences}." if differences else "",
    )


def peers(root):
    """The tables of ``benchmarks/peers.py``: texts a second, and what became of the outputs."""
    results = [one for one in benchmarks(root) if one.get("peers")]
    if not results:
        return [NOT_MEASURED.format("bench")]
    found = peer_outputs([line for one in results for line in one["peers"]])
    works = list(dict.fromkeys(work for cells in found.values() for work in cells))
    return [
        *(f"- **{name}**: {work}." for name, work in works_of(results[0]["peers"]).items()),
        "",
        "Texts a second; the fastest is bold. The lead: how many times as fast as the fastest other.",
        "",
        *(line for one in results for line in peer_rates(one)),
        "What becomes of the outputs, against the book in float32: labels that change, and the largest "
        f"difference of a logit{', on any of these machines' if len(results) > 1 else ''}.",
        "",
        *table(
            ["", *works], [[who, *(cells.get(work, "–") for work in works)] for who, cells in found.items()]
        ),
    ]


def peer_rates(result):
    """The table of one machine."""
    measurements, about = result["peers"], result["machine"]
    sides = ["book", "transformers", "ONNX Runtime", "OpenVINO"]
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in about["peers"].items())
    rows = [[one["name"], *(peer_cell(one, side) for side in sides), lead(one)] for one in measurements]
    return [
        f"**{about['cpu']}**, {about['threads']} threads; {versions}; median of {measurements[0]['repeats']} "
        "runs:",
        "",
        *table(["", *sides, "the book's lead"], rows),
        "",
    ]


def peer_cell(measurement, side):
    """Texts a second of one side."""
    taken = measurement["seconds"]
    if side not in taken:
        return "–"
    rate = measurement["texts"] / taken[side]
    cell = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
    return f"**{cell}**" if taken[side] == min(taken.values()) else cell


def lead(measurement):
    """How many times as fast the book is as the fastest of the others."""
    return times(min(measurement["ratios"].values())) if measurement["ratios"] else "–"


def works_of(measurements):
    """{name of a work: what it is}, without the precisions."""
    return {one["name"].rsplit(", ", 1)[0]: one["work"].split(";")[0] for one in measurements}


def peer_outputs(measurements):
    """{side and precision: {work: labels that changed and the largest difference, at most}}."""
    most = {}
    for one in measurements:
        work = f"{one['name'].rsplit(', ', 1)[0]}, of {one['texts']}"
        for difference in one["differences"]:
            who = difference["what"].removesuffix(" against book float32")
            changed = one["texts"] - one["same_labels"][who.rsplit(" ", 1)[0]]
            former = most.setdefault(who, {}).get(work, (0, 0.0))
            most[who][work] = max(former[0], changed), max(former[1], difference["value"])
    return {
        who: {work: f"{changed}; {value:.2g}" for work, (changed, value) in cells.items()}
        for who, cells in most.items()
    }


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
    """The median page and the worst one, for each figure; written by `make page-speed`."""
    stored = root / "results" / "page_speed.json"
    if not stored.exists():
        return [NOT_MEASURED.format("page-speed")]
    result = json.loads(stored.read_text("utf-8"))
    about, pages = result["machine"], result["pages"]
    rows = []
    for name, (words, worst_of, unit) in PAGE_FIGURES.items():
        values = {page: one[name] for page, one in pages.items()}
        worst, middle = worst_of(values.values()), statistics.median(values.values())
        which = [Path(page).stem.replace("_", " ") for page, value in values.items() if value == worst]
        same = "all pages" if len(which) == len(pages) else ", ".join(which[:2]) + " …" * (len(which) > 2)
        rows.append([words, f"{middle:.3g}{unit}", f"{worst:.3g}{unit}", same])
    runs = "one run" if result["runs"] == 1 else f"median of {result['runs']} runs"
    return [
        f"{len(pages)} pages; Lighthouse {about['lighthouse']} with its settings for phones, Chromium "
        f"{about['browser']}, {about['cpu']}, {about['cores']} cores, {about['date']}; {runs} a page.",
        "",
        *table(["", "median", "worst", "where"], rows),
    ]


PAGE_FIGURES = {  # {name: (in words, which value is the worst, unit)}
    "performance": ("performance", min, ""),
    "accessibility": ("accessibility", min, ""),
    "best-practices": ("best practices", min, ""),
    "seo": ("search engines", min, ""),
    "kilobytes": ("weight", max, f"{SPACE}kB"),
    "first_paint": ("first paint", max, f"{SPACE}s"),
    "largest_paint": ("largest paint", max, f"{SPACE}s"),
    "layout_shift": ("layout shift", max, ""),
}


# ---------------------------------------------------------------------------------
# results/scale.json: what each size needs; what was not measured is calculated
# ---------------------------------------------------------------------------------


def gigabytes(number):
    return f"{number / 1e9:.2f}"


def sizes(models, about):
    header = ["model", "parameters of the language model", "checkpoint, GB", "parameters of the classifier"]
    rows = []
    for name, model in models.items():
        trained = model["jobs"]["last block"]["calculated"]["trained_parameters"]
        counts = f"{model['parameters']:,}", gigabytes(model["checkpoint_bytes"])
        rows.append([find_model(name).size, *counts, f"{model['classifier_parameters']:,}", f"{trained:,}"])
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
            rows.append([find_model(name).size, job, *bytes_of, *activations])
    header = ["model", "job", "weights, GB", "gradients, GB", "AdamW, GB", "activations, MB", "counted, MB"]
    return table(header, rows)


def memory(models, about):
    jobs = list(next(iter(models.values()))["jobs"])
    rows = []
    for name, model in models.items():
        row = [find_model(name).size]
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
        row = [find_model(name).size]
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
    return [
        *table(["reader", "agrees with the label (95 % interval)", "Cohen's kappa", "not sure"], rows),
        "",
        "Cohen's kappa is agreement beyond chance: 0 is what chance gives, 1 is complete.",
    ]


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
OTHERS = {
    "speed": speed,
    "peers": peers,
    "attention": attention,
    "pages": page_speed,
    "checks": checks,
}
TABLES = [*OTHERS, *SCALE, *SAMPLE]


class ResultTable(SphinxDirective):
    required_arguments = 1

    def run(self):
        root, name = Path(self.env.srcdir), self.arguments[0]
        self.env.note_reread()  # a new file in results/ is not a change of the page itself
        if name not in TABLES:
            raise self.error(f"No table {name!r}. Choose one of: {', '.join(TABLES)}.")
        if name in OTHERS:
            return self.parsed(OTHERS[name](root))
        if name in SAMPLE:
            file, lines = SAMPLE[name]
            card = json.loads((root / "results" / file).read_text("utf-8"))
            return self.parsed(lines(card))
        results = json.loads((root / "results" / "scale.json").read_text("utf-8"))
        return self.parsed(SCALE[name](results["models"], results))

    def parsed(self, lines):
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, source="results"), 0, parent)
        return parent.children


def setup(app):
    app.add_directive("result-table", ResultTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
