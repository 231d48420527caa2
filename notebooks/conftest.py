"""A numeric tolerance for nbval, which compares stored and new outputs as plain text.

The last digits of a computed number differ between a CPU and a GPU, and between library
versions. With this file, two text outputs (plain text, HTML, printed lines) are equal if
they differ in nothing but floating-point numbers, and each of these is close to the stored
one: no further than one unit in its last printed decimal place, or than 1/10,000 of it.

Everything else must match exactly: integers, words, spaces, the number of outputs, and nan
and inf, which are compared as words.
"""

import os
import re
from decimal import Decimal

from nbval.plugin import IPyNbCell

FLOAT = re.compile(
    r"""
    (?<![\w.])                                  # not in a word, nor in a version such as 2.13.0
    [-+]? (?: \d+\.\d* | \.\d+ | \d+(?=[eE]) )  # a decimal point, or an exponent to come
    (?: [eE][-+]?\d+ )?
    (?! \w | \.\w )
    """,
    re.VERBOSE,
)


def decimals(number):
    """How many digits a number, as text, has after its decimal point."""
    match = re.search(r"\.(\d+)", number)
    return len(match[1]) if match else 0


def is_close(stored, new):
    """Whether a floating-point number agrees with the stored one. Both are texts."""
    places = decimals(stored), decimals(new)
    if places[0] != places[1] and min(places) < 6:  # 46.25 is not printed like 46.3
        return False
    a, b = Decimal(stored), Decimal(new)
    unit = Decimal((0, (1,), a.as_tuple().exponent)) if places[0] else 0  # "1." and "1e3" have none
    return abs(a - b) <= max(unit, abs(a) * Decimal("1e-4"))


def is_same_output(stored, new):
    """Whether two texts are equal but for small differences of floating-point numbers."""
    return FLOAT.split(stored) == FLOAT.split(new) and all(
        map(is_close, FLOAT.findall(stored), FLOAT.findall(new))
    )


class OutputText(str):
    """A text that nbval compares with ``is_same_output``."""

    def __eq__(self, new):
        return is_same_output(str(self), str(new))

    def __ne__(self, new):
        return not self == new

    __hash__ = str.__hash__


nbval_sanitize = IPyNbCell.sanitize


def sanitize(cell, value):
    """nbval passes each output through this method of a cell, then compares stored != new."""
    value = nbval_sanitize(cell, value)
    return OutputText(value) if isinstance(value, str) else value


def pytest_configure(config):
    IPyNbCell.sanitize = sanitize


def pytest_collection_finish(session):
    # For the notebooks' kernels: stored outputs have no progress bars, and solutions pass their checks.
    os.environ |= {"TQDM_DISABLE": "1", "CHECKS_MUST_HOLD": "1"}
