"""The pages of the example lesson: no warning, folds and links work, and each edition has its own cells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
CONF = f"""\
import sys
sys.path.insert(0, {str(ROOT / "book" / "extensions")!r})
extensions = ["myst_nb", "edition_cells", "hidden_cells"]
root_doc = "book/index"
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {{}}
"""


@pytest.fixture
def page_of(tmp_path):
    """A function that builds a small book with the example lesson in one edition; returns its page."""
    for folder in ("book", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conf.py").write_text(CONF)
    for name in ("glossary.md", "bibliography.md"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    lesson = tmp_path / "notebooks" / "90_example_lesson.ipynb"
    shutil.copy(ROOT / "tests" / "data" / lesson.name, lesson)
    next_lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# The next lesson")])
    nbformat.write(next_lesson, tmp_path / "notebooks" / "06_selective_unfreezing.ipynb")
    pages = "\n".join(
        ["glossary", "bibliography", "../notebooks/90_example_lesson", "../notebooks/06_selective_unfreezing"]
    )
    (tmp_path / "book" / "index.md").write_text(f"# Book\n\n```{{toctree}}\n{pages}\n```\n")

    def build(model, data):
        process = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", tmp_path, tmp_path / "html"],
            env={**os.environ, "CHOOSE_MODEL": model, "CHOOSE_DATA": data},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        page = tmp_path / "html" / "notebooks" / "90_example_lesson.html"
        return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")

    return build


@pytest.mark.parametrize("model, data", [("gpt2-mini (10M)", "uci"), ("gpt2-small (124M)", "uci")])
def test_page_of_another_edition_leaves_out_what_holds_for_gpt2_mini(page_of, model, data):
    text = page_of(model, data).get_text()
    assert "has learned nothing, gives class 1" not in text
    assert "The last row alone decides" in text and "In short" in text


def test_page_has_folds_links_and_closed_cells(page_of):
    page = page_of("gpt2-mini (10M)", "sample")
    assert "has learned nothing, gives class 1" in page.get_text()
    folds = [fold.summary.get_text(" ", strip=True) for fold in page.select("details")]
    assert folds == [
        "Show the code Hide the code",
        "Answer",
        "Show the code of the plot Hide the code of the plot",
        "With GPT-2 124M",
        "Show the solution Hide the solution",
    ]
    assert "The last one. The causal mask hides" in page.select("details")[1].get_text()
    links = {link.get_text(): link["href"] for link in page.select("a.reference.internal[href*='/book/']")}
    assert links["logits"] == "../book/glossary.html#logit"
    assert links["Raschka 2024"] == "../book/bibliography.html#raschka-2024"
    assert "compare_with_published" not in page.get_text()  # remove-cell
    assert "claim" not in page.get_text()
