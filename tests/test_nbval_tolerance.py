"""notebooks/conftest.py: stored outputs may differ from new ones in the last digits of floats, only."""

import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

CONFTEST = Path(__file__).resolve().parents[1] / "notebooks" / "conftest.py"


@pytest.fixture(scope="module")
def is_same_output():
    spec = importlib.util.spec_from_file_location("notebooks_conftest", CONFTEST)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.is_same_output


# ---------------------------------------------------------------------------------
# The comparison of two texts
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored, new",
    [
        ("Training loss: 2.453", "Training loss: 2.453"),
        ("Training loss: 2.453", "Training loss: 2.454"),
        ("Training loss: 2.453", "Training loss: 2.452"),
        ("46.25%", "46.26%"),
        ("loss 0.999.", "loss 1.000."),
        ("tensor([[-1.5854,  0.9904]])", "tensor([[-1.5853,  0.9905]])"),
        ("-0.0000", "0.0000"),
        ("12345.678", "12346.678"),  # 1 of 12,345 is less than 1/10,000
        ("1.2345e-05", "1.2346e-05"),
        ("1.23456789e-05", "1.2345678e-05"),
        ("0.12345678901234567", "0.1234567890123"),
        ("1e-05", "1e-05"),
        ("nan", "nan"),
        ("tensor([nan, 0.5000])", "tensor([nan, 0.5001])"),
        ("inf", "inf"),
        ("<td>0.1234</td>", "<td>0.1235</td>"),
        ("1,234.5 bytes", "1,234.6 bytes"),
        ("torch 2.13.0", "torch 2.13.0"),
        ("", ""),
    ],
)
def test_outputs_that_count_as_equal(is_same_output, stored, new):
    assert is_same_output(stored, new)


@pytest.mark.parametrize(
    "stored, new",
    [
        ("2.553", "2.453"),
        ("46.35%", "46.25%"),
        ("2.455", "2.453"),
        ("2.453", "-2.453"),
        ("12345.678", "12347.678"),
        ("1.2345e-05", "1.2345e-04"),
        ("1e-05", "2e-05"),  # no decimal place, no tolerance of a unit
        ("tensor([1., 2.])", "tensor([1., 3.])"),
        ("tensor([1.0])", "tensor([1])"),
        ("46.2%", "46.25%"),
        ("46.25%", "46.3%"),
        ("0.5", "nan"),
        ("nan", "0.5"),
        ("inf", "-inf"),
        ("[0.5000, 0.5000]", "[0.5000]"),
        ("120 tokens", "121 tokens"),
        ("10000000", "10000001"),
        ("1,234.5", "2,234.5"),
        ("torch 2.13.0", "torch 2.13.1"),
        ("h0.5x", "h0.6x"),
        ("loss 2.453", "Loss 2.453"),
        ("loss 2.453", "loss  2.453"),
        ("loss 2.453", "loss 2.453\n"),
        ("loss 2.453", ""),
        ("<td>0.1234</td>", "<th>0.1234</th>"),
    ],
)
def test_outputs_that_count_as_different(is_same_output, stored, new):
    assert not is_same_output(stored, new)


@pytest.mark.parametrize(
    "stored, new, same",
    [
        ("test 89.5%, seeds 81.7%", "test 89.7%, seeds 81.7%", True),
        ("+2.6 points [-3.8 to +8.1]", "+2.7 points [-3.8 to +8.3]", True),
        ("89.5%", "90.1%", False),  # more than one message of 223
        ("89.51%", "89.73%", False),  # the tag is for shares with one decimal place
        ("loss 0.674", "loss 0.676", False),
        ("106 of 223, 47.5%", "105 of 223, 47.1%", False),
    ],
)
def test_one_message_may_differ_where_the_cell_says_so(is_same_output, stored, new, same):
    assert is_same_output(stored, new, one_message=True) is same
    assert not is_same_output(stored, new)


# ---------------------------------------------------------------------------------
# nbval itself, on notebooks with stored outputs of our own
# ---------------------------------------------------------------------------------


def printed(text):
    return [new_output("stream", name="stdout", text=text)]


def shown(html):
    data = {"text/plain": "<IPython.core.display.HTML object>", "text/html": html}
    return [new_output("display_data", data=data)]


def result(text):
    return [new_output("execute_result", data={"text/plain": text}, execution_count=1)]


LOSS, ACCURACY = "print('Training loss: 2.453')", "print('Training accuracy: 46.25%')"
HTML = "from IPython.display import HTML, display; display(HTML('<b>0.1234</b>'))"

GREEN = {  # name: (code, stored outputs)
    "unchanged": (LOSS, printed("Training loss: 2.453\n")),
    "last digit": (LOSS, printed("Training loss: 2.454\n")),
    "last digit of a result": ("0.1234", result("0.1235")),
    "last digit in HTML": (HTML, shown("<b>0.1235</b>")),
    "nan": ("print(float('nan'))", printed("nan\n")),
    "no output": ("x = 1", []),
    "one message": ("print('test 46.5%')", printed("test 46.2%\n"), "one-message"),
    "other picture": (  # nbval itself leaves pictures out
        "from IPython.display import display; display({'image/png': 'YQ=='}, raw=True)",
        [new_output("display_data", data={"image/png": "Yg=="})],
    ),
}
RED = {
    "one message without the tag": ("print('test 46.5%')", printed("test 46.2%\n")),
    "two messages": ("print('test 46.5%')", printed("test 45.9%\n"), "one-message"),
    "wrong digit of a loss": (LOSS, printed("Training loss: 2.553\n")),
    "wrong digit of an accuracy": (ACCURACY, printed("Training accuracy: 46.35%\n")),
    "wrong digit of a result": ("0.1234", result("0.1334")),
    "wrong digit in HTML": (HTML, shown("<b>0.1334</b>")),
    "wrong integer": ("print(120, 'tokens')", printed("121 tokens\n")),
    "wrong word": (LOSS, printed("Test loss: 2.453\n")),
    "wrong space": (LOSS, printed("Training loss:  2.453\n")),
    "missing output": (LOSS, []),
    "missing second output": (f"{LOSS}\n0.1234", printed("Training loss: 2.453\n")),
    "output that is no longer made": ("x = 1", printed("Training loss: 2.453\n")),
    "nan instead of a number": ("print(float('nan'))", printed("0.5\n")),
    "an error": ("1 / 0", []),
}


def outcomes_of(cells, folder):
    """Run nbval on a notebook. Returns ({name of the cell: whether it passed}, exit status)."""
    notebook = new_notebook()
    for number, (code, outputs, *tags) in enumerate(cells.values(), start=1):
        metadata = {"tags": tags} if tags else {}
        cell = new_code_cell(code, outputs=outputs, execution_count=number, metadata=metadata)
        notebook.cells.append(cell)
    shutil.copy(CONFTEST, folder)
    nbformat.write(notebook, folder / "notebook.ipynb")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--junitxml=report.xml", "."],
        cwd=folder,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython"), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    report = ElementTree.parse(folder / "report.xml").getroot()
    passed = [case.find("failure") is None and case.find("error") is None for case in report.iter("testcase")]
    assert len(passed) == len(cells), process.stdout
    return dict(zip(cells, passed)), process.returncode


@pytest.fixture(scope="module")
def green(tmp_path_factory):
    return outcomes_of(GREEN, tmp_path_factory.mktemp("green"))


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    return outcomes_of(RED, tmp_path_factory.mktemp("red"))


@pytest.mark.parametrize("name", GREEN)
def test_cell_passes(green, name):
    outcomes, _ = green
    assert outcomes[name]


@pytest.mark.parametrize("name", RED)
def test_cell_fails(red, name):
    outcomes, _ = red
    assert not outcomes[name]


def test_run_without_a_failing_cell_is_green(green):
    assert green[1] == 0


def test_run_with_a_failing_cell_is_red(red):
    assert red[1] == 1
