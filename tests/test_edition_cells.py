"""The pages of the example lesson: no warning, folds and links work, and each edition has its own cells."""

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


EDITIONS = ["gpt2-mini (10M), sample", "gpt2-mini (10M), uci", "gpt2-small (124M), uci"]
BUILD = """
import os, sys
from sphinx.cmd.build import main
for edition in sys.argv[3:]:
    os.environ["CHOOSE_MODEL"], os.environ["CHOOSE_DATA"] = edition.split(", ")
    if main(["-q", "-W", "-n", "--keep-going", sys.argv[1], f"{sys.argv[2]}/{edition}/html"]) != 0:
        sys.exit(f"above: warnings about {edition}")
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of the example lesson in each edition of a small book: {edition: page}."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for folder in ("book", "notebooks"):
        (source / folder).mkdir()
    (source / "conf.py").write_text(CONF)
    for name in ("glossary.md", "bibliography.md"):
        shutil.copy(ROOT / "book" / name, source / "book")
    shutil.copy(ROOT / "tests" / "data" / "90_example_lesson.ipynb", source / "notebooks")
    next_lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# The next lesson")])
    nbformat.write(next_lesson, source / "notebooks" / "06_selective_unfreezing.ipynb")
    names = "\n".join(
        ["glossary", "bibliography", "../notebooks/90_example_lesson", "../notebooks/06_selective_unfreezing"]
    )
    (source / "book" / "index.md").write_text(f"# Book\n\n```{{toctree}}\n{names}\n```\n")
    process = subprocess.run(
        [sys.executable, "-c", BUILD, source, built, *EDITIONS], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    page = Path("html", "notebooks", "90_example_lesson.html")
    return {
        edition: BeautifulSoup((built / edition / page).read_text(encoding="utf-8"), "html.parser")
        for edition in EDITIONS
    }


@pytest.mark.parametrize("edition", EDITIONS[1:])
def test_page_of_another_edition_leaves_out_what_holds_for_gpt2_mini(pages, edition):
    text = pages[edition].get_text()
    assert "has learned nothing, gives class 1" not in text
    assert "The last row alone decides" in text and "In short" in text


def test_page_has_folds_links_and_closed_cells(pages):
    page = pages[EDITIONS[0]]
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
