"""The published results of GPT-2 124M, and how a run compares with them.

``reference_results.json`` holds the numbers that Raschka (2024) prints for OpenAI's 124M
checkpoint, the UCI SMS Spam Collection and the seeds of this book, and the tolerances.
"""

import json
import math
from pathlib import Path

from edition import chosen_data, chosen_model

RESULTS = json.loads((Path(__file__).resolve().parent / "reference_results.json").read_text(encoding="utf-8"))


def published(key):
    """A published value by its dotted path, such as ``"initial_loss.train"``; else a ``KeyError``."""
    value = RESULTS
    for part in key.split("."):
        if isinstance(value, list):
            value = value[int(part)]
        elif part in value:
            value = value[part]
        else:
            raise KeyError(f"{key!r} is not in reference_results.json (no {part!r}).")
    return value


def tolerance_of(key):
    """Largest allowed difference for a published number; 0 where none is stated."""
    tolerances = RESULTS["tolerances"].items()
    return next((value for name, value in tolerances if f"{key}.".startswith(f"{name}.")), 0)


def is_published_setting():
    """Whether this run uses the checkpoint and the data of the published numbers."""
    return chosen_model() == RESULTS["checkpoint"] and chosen_data() == "uci"


def agrees(value, reference, tolerance):
    """Whether a result equals its reference; numbers, also nested ones, within the tolerance."""
    if isinstance(reference, list):
        return len(value) == len(reference) and all(agrees(v, r, tolerance) for v, r in zip(value, reference))
    if isinstance(reference, (int, float)):
        # a hair more than the tolerance, for the rounding of the difference itself
        return math.isfinite(value) and abs(value - reference) <= tolerance + 1e-9
    return value == reference


def compare_with_published(results):
    """In the published setting, print a table (result | this run | published) and require that they agree.

    ``results`` is {dotted path in reference_results.json: value of this run}, a number, a str, or a
    (nested) list of numbers. In any other setting, such as the embedded edition, nothing is printed.

    Raises:
        AssertionError: in the published setting, if a result disagrees.
        KeyError: if there is no such published value.
    """
    references = {key: published(key) for key in results}
    if not is_published_setting():
        return
    rows, wrong = [("result", "this run", "124M published", "match")], []
    for key, reference in references.items():
        match = agrees(results[key], reference, tolerance_of(key))
        ours, theirs = _show(results[key]), _show(reference)
        rows.append((key, ours, theirs, "yes" if match else "NO"))
        if not match:
            wrong.append(f"{key}: this run {ours}, published {theirs}, tolerance {tolerance_of(key)}")

    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if wrong:
        raise AssertionError("This run disagrees with the published results:\n" + "\n".join(wrong))


def _show(value):
    """A value as text: floats with four decimals, as the published outputs are printed."""
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return f"{value:.4f}" if isinstance(value, float) else repr(value)
