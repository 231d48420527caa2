"""Tables of what each size of GPT-2 needs, made from results/scale.json when the book is built.

    ```{scale-table} memory
    ```

stands for the table of that name: sizes, parts, memory or time. What was not measured is
marked as calculated. ``benchmarks/scale.py`` writes the file.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def table(header, rows):
    """Lines of a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def size(name):
    """``"124M"`` of ``"gpt2-small (124M)"``."""
    return name.split("(")[1].rstrip(")")


def gigabytes(number):
    return f"{number / 1e9:.2f}"


def sizes(results):
    rows = []
    for name, model in results["models"].items():
        trained = model["jobs"]["last block"]["calculated"]["trained_parameters"]
        rows.append(
            [
                size(name),
                f"{model['parameters']:,}",
                gigabytes(model["checkpoint_bytes"]),
                f"{model['classifier_parameters']:,}",
                f"{trained:,}",
            ]
        )
    header = [
        "model",
        "parameters of the language model",
        "checkpoint, GB",
        "parameters of the classifier",
        "of which head, final layer norm and last block",
    ]
    return table(header, rows)


def parts(results):
    """Where the memory goes; activations as calculated and as counted in a running step."""
    rows = []
    for name, model in results["models"].items():
        for job, entry in model["jobs"].items():
            if job == "inference":  # weights, and activations that nothing keeps
                continue
            memory = entry["calculated"]["bytes"]
            measured = entry["measured"] or {}
            rows.append(
                [
                    size(name),
                    job,
                    *(gigabytes(memory[part]) for part in ("weights", "gradients", "adamw")),
                    f"{memory['activations'] / 1e6:,.0f}",
                    f"{measured['saved_bytes'] / 1e6:,.0f}" if measured.get("saved_bytes") else "–",
                ]
            )
    header = ["model", "job", "weights, GB", "gradients, GB", "AdamW, GB", "activations, MB", "counted, MB"]
    return table(header, rows)


def memory(results):
    rows = []
    for name, model in results["models"].items():
        row = [size(name)]
        for entry in model["jobs"].values():
            row.append(gigabytes(entry["calculated"]["total_bytes"]))
            row.append(gigabytes(entry["measured"]["peak_bytes"]) if entry["measured"] else "–")
        rows.append(row)
    jobs = list(next(iter(results["models"].values()))["jobs"])
    return table(["model", *(f"{job}, {kind}" for job in jobs for kind in ("calculated", "measured"))], rows)


def seconds_of(results, job):
    """{model: (seconds of a step, "measured" or "calculated")}; None where nothing at all was measured.

    Calculated: the operations, at the rate of the largest size that was measured.
    """
    found, rate = {}, None
    for name, model in results["models"].items():  # from small to large
        entry = model["jobs"][job]
        work = entry["calculated"]["operations"]
        seconds = entry["measured"] and entry["measured"]["seconds_per_step"]
        if seconds:
            found[name], rate = (seconds, "measured"), work / seconds
        else:
            found[name] = (work / rate, "calculated") if rate else None
    return found


def time(results):
    jobs = list(next(iter(results["models"].values()))["jobs"])
    seconds = {job: seconds_of(results, job) for job in jobs}
    rows = []
    for name, model in results["models"].items():
        row = [size(name)]
        for job in jobs:
            row.append(f"{model['jobs'][job]['calculated']['operations'] / 1e9:,.0f}")
            value = seconds[job][name]
            row.append(f"{value[0]:.3g} s, {value[1]}" if value else "–")
        rows.append(row)
    return table(
        ["model", *(f"{job}{what}" for job in jobs for what in (", 10⁹ operations", ", time"))], rows
    )


def machine(results):
    about = results["machine"]
    threads = {
        entry["measured"]["threads"]
        for model in results["models"].values()
        for entry in model["jobs"].values()
        if entry["measured"]
    }
    batch = results["batch"]
    return [
        f"Measured on: {about['processor']}, {about['cores']} cores, "
        f"{about['memory_bytes'] / 1e9:.0f} GB of memory, no GPU; "
        f"Python {about['python']}, PyTorch {about['torch']}; "
        f"{' or '.join(map(str, sorted(threads)))} threads; float32; "
        f"a batch of {batch['messages']} messages of {batch['tokens']} tokens."
    ]


TABLES = {"sizes": sizes, "parts": parts, "memory": memory, "time": time, "machine": machine}


class ScaleTable(SphinxDirective):
    required_arguments = 1

    def run(self):
        path = Path(self.env.srcdir) / "results" / "scale.json"
        self.env.note_dependency(str(path))
        if self.arguments[0] not in TABLES:
            raise self.error(f"No table {self.arguments[0]!r}. Choose one of: {', '.join(TABLES)}.")
        results = json.loads(path.read_text(encoding="utf-8"))
        parent = nodes.Element()
        lines = TABLES[self.arguments[0]](results)
        self.state.nested_parse(StringList(lines, source=str(path)), 0, parent)
        return parent.children


def setup(app):
    app.add_directive("scale-table", ScaleTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
