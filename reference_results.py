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
    """Look a published value up by its dotted path, for example ``"initial_loss.train"``.

    Raises:
        KeyError: if there is no such value.
    """
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
    fitting = [
        name for name in RESULTS["tolerances"] if name != "about" and (key + ".").startswith(name + ".")
    ]
    return RESULTS["tolerances"][fitting[0]] if fitting else 0


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


def compare_with_published(results, same_setting=None):
    """In the published setting, print a table (result | this run | published) and require that they agree.

    In any other, such as the embedded edition, nothing has to agree and nothing is printed.

    Args:
        results (dict): {dotted path in reference_results.json: value of this run}. A value
            is a number, a str, or a (nested) list of numbers.
        same_setting (bool): whether the run must agree; default: :func:`is_published_setting`.

    Raises:
        AssertionError: in the published setting, if a result disagrees.
        KeyError: if there is no such published value.
    """
    same_setting = is_published_setting() if same_setting is None else same_setting
    rows, wrong = [("result", "this run", "124M published", "match")], []
    for key, value in results.items():
        reference = published(key)
        if not same_setting:
            continue
        match = agrees(value, reference, tolerance_of(key))
        rows.append((key, _show(value), _show(reference), "yes" if match else "NO"))
        if not match:
            wrong.append(
                f"{key}: this run {_show(value)}, published {_show(reference)}, tolerance {tolerance_of(key)}"
            )

    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows if same_setting else []:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if wrong:
        raise AssertionError("This run disagrees with the published results:\n" + "\n".join(wrong))


def _show(value):
    """A value as text: floats with four decimals, as the published outputs are printed."""
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value) if isinstance(value, int) else repr(value)
