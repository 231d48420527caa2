"""How nbval compares stored and new outputs, and where the new ones come from.

By default nbval executes a notebook and compares text by text. With ``--outputs-of-the-build``, as `make
test` calls it, a notebook that the last build of the book executed, and of which nothing that its outputs
depend on has changed since (book/extensions/edition_cache.py), is not executed once more: its outputs of
that run are compared.

The last digits of a computed number differ between a CPU and a GPU, and between library
versions. With this file, two text outputs (plain text, HTML, printed lines) are equal if
they differ in nothing but floating-point numbers, and each of these is close to the stored
one: no further than one unit in its last printed decimal place, or than 1/10,000 of it.

Everything else must match exactly: integers, words, spaces, the number of outputs, and nan
and inf, which are compared as words.

Processors round differently, and after a training one message near the border may fall on its other
side. A cell that prints shares of messages after a training carries the tag ``one-message``: in it,
numbers with one decimal place, which are percentages and points, may differ by what one message makes up.
"""

import os
import re
import sys
from decimal import Decimal
from pathlib import Path

from nbval.plugin import IPyNbCell, IPyNbFile

ROOT = Path(__file__).resolve().parents[1]

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


ONE_MESSAGE = Decimal("0.5")  # percent: one of the 223 messages of validation, the smallest set


def is_close(stored, new, one_message=False):
    """Whether a floating-point number agrees with the stored one. Both are texts."""
    places = decimals(stored), decimals(new)
    if places[0] != places[1] and min(places) < 6:  # 46.25 is not printed like 46.3
        return False
    a, b = Decimal(stored), Decimal(new)
    unit = Decimal((0, (1,), a.as_tuple().exponent)) if places[0] else 0  # "1." and "1e3" have none
    if one_message and places == (1, 1):
        unit = ONE_MESSAGE
    return abs(a - b) <= max(unit, abs(a) * Decimal("1e-4"))


def is_same_output(stored, new, one_message=False):
    """Whether two texts are equal but for small differences of floating-point numbers."""
    numbers = zip(FLOAT.findall(stored), FLOAT.findall(new))
    return FLOAT.split(stored) == FLOAT.split(new) and all(is_close(a, b, one_message) for a, b in numbers)


class OutputText(str):
    """A text that nbval compares with ``is_same_output``."""

    one_message = False

    def __eq__(self, new):
        return is_same_output(str(self), str(new), self.one_message)

    def __ne__(self, new):
        return not self == new

    __hash__ = str.__hash__


nbval_sanitize = IPyNbCell.sanitize


def sanitize(cell, value):
    """nbval passes each output through this method of a cell, then compares stored != new."""
    value = nbval_sanitize(cell, value)
    if isinstance(value, str):
        value = OutputText(value)
        value.one_message = "one-message" in cell.cell.metadata.get("tags", [])
    return value


class FinishedRun:
    """A stand-in for nbval's kernel: to each cell it answers with the outputs of a run that has been."""

    def __init__(self, notebook):
        self.cells = iter([cell for cell in notebook.cells if cell.cell_type == "code"])
        self.messages, self.executed = [], 0

    def execute_cell_input(self, source, allow_stdin=None):
        cell = next(cell for cell in self.cells if cell.source == source)
        self.executed += 1
        answers = [(output.output_type, output) for output in cell.outputs]
        self.messages = [*answers, ("status", {"execution_state": "idle"})]
        return self.executed

    def get_message(self, stream, timeout=None):
        kind, content = self.messages.pop(0)
        return {"msg_type": kind, "content": content, "parent_header": {"msg_id": self.executed}}

    def await_reply(self, msg_id, timeout=None):
        """The run is over: every reply is there."""

    def is_alive(self):
        return True

    def stop(self):
        """There is no process to stop."""


nbval_setup = IPyNbFile.setup


def setup(notebook_file):
    """Give a notebook the outputs of the build, if asked to and they are current; else a kernel."""
    if notebook_file.config.getoption("outputs_of_the_build"):
        sys.path.insert(0, str(ROOT / "book" / "extensions"))
        from edition_cache import executed_by_the_build

        if notebook := executed_by_the_build(notebook_file.path, ROOT):
            notebook_file.kernel = FinishedRun(notebook)
            return
    nbval_setup(notebook_file)


def pytest_addoption(parser):
    parser.addoption(
        "--outputs-of-the-build",
        action="store_true",
        help="compare what the last build of the book printed, where that is current, in place of executing",
    )


def pytest_configure(config):
    IPyNbCell.sanitize, IPyNbFile.setup = sanitize, setup


def pytest_collection_finish(session):
    # For the notebooks' kernels: stored outputs have no progress bars, and solutions pass their checks.
    os.environ |= {"TQDM_DISABLE": "1", "CHECKS_MUST_HOLD": "1"}
