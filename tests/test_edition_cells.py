"""Pages of another edition leave out what holds for gpt2-mini only: book/extensions/edition_cells.py."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "extensions"
CONF = f"""\
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_nb", "edition_cells"]
nb_execution_mode = "off"
nb_ipywidgets_js = {{}}
"""


def page_of(folder, model, data):
    """Build a small book in one edition; returns the text of its page."""
    notebook = new_notebook()
    notebook.cells = [
        new_markdown_cell("# A lesson\n\nFor every edition."),
        new_markdown_cell("gpt2-mini says spam.", metadata={"tags": ["mini"]}),
        new_markdown_cell("For every edition again."),
    ]
    nbformat.write(notebook, folder / "index.ipynb")
    (folder / "conf.py").write_text(CONF)
    process = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-n", str(folder), str(folder / "html")],
        env={**os.environ, "CHOOSE_MODEL": model, "CHOOSE_DATA": data},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return (folder / "html" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model, data, stays",
    [
        ("gpt2-mini (10M)", "sample", True),
        ("gpt2-mini (10M)", "uci", False),
        ("gpt2-small (124M)", "uci", False),
    ],
)
def test_cell_tagged_mini_stands_on_pages_of_the_embedded_edition_only(tmp_path, model, data, stays):
    page = page_of(tmp_path, model, data)
    assert ("gpt2-mini says spam." in page) is stays
    assert page.count("For every edition") == 2
