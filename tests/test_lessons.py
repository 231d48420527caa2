"""The lessons hold to the rules of tools/lesson_rules.py; each rule finds what breaks it."""

import json
import re
from pathlib import Path
from unittest.mock import MagicMock

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from tools import execute, lesson_rules
from tools.execute import metadata_of
from tools.lesson_rules import (
    FOLD,
    RULES,
    Lesson,
    first_uses,
    is_shown,
    link_words,
    numbers_of_prose,
    problems,
)

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLE = ROOT / "tests" / "data" / "90_example_lesson.ipynb"

# The lessons that hold to all rules. A lesson joins when it has been rewritten; none leaves.
REWRITTEN = [
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "07",
    "08",
    "09",
    "10",
    "11",
    "12",
]
LESSONS = [EXAMPLE] + [path for path in NOTEBOOKS if path.name[:2] in REWRITTEN]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@each_lesson
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_lesson_holds_to_the_rule(path, rule):
    assert list(rule(Lesson(path))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_closed_on_the_page_is_closed_everywhere(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.metadata == metadata_of(cell), f"run tools/execute.py, which writes it: {cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_machine_with_two_gpus_is_not_warned_of(path):
    """Without ``devices``, PyTorch warns there, on stderr, and the build stops."""
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.cell_type != "code" or "fork_rng()" not in cell.source


@pytest.fixture(scope="module")
def exporter():
    return HTMLExporter(embed_images=False)


@each_lesson
def test_jupyter_shows_what_the_page_shows(exporter, path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = ""  # colouring it takes its time, and it is left out below
    html, _ = exporter.from_notebook_node(notebook)
    page = BeautifulSoup(html, "html.parser").body
    folds = sum(len(FOLD.findall(cell.source)) for _, cell in Lesson(path).markdown())
    assert len(page.find_all("details")) == folds
    for figure in page.find_all("figure"):
        assert len(figure.img["alt"]) >= 20 and figure.img["src"].startswith("data:image/")
        assert figure.figcaption.get_text(strip=True)
    for code in page.find_all(["pre", "code", "style", "script"]):
        code.decompose()
    assert not re.search(
        r"```|:::|:alt:|:name:|\{\w+\}`|\{(?:figure|cite|ref|note)\}|</?details>", page.get_text()
    )


# ---------------------------------------------------------------------------------
# The rules find what breaks them
# ---------------------------------------------------------------------------------


def replaced(old, new):
    """A function that replaces a text in all cells of a notebook, outputs included."""

    def change(cells):
        places = 0
        for cell in cells:
            places += cell.source.count(old)
            cell.source = cell.source.replace(old, new)
            for output in cell.get("outputs", []):
                for holder, key in ((output, "text"), (output.get("data", {}), "text/html")):
                    if old in holder.get(key, ""):
                        holder[key], places = holder[key].replace(old, new), places + 1
        assert places

    return change


def tagged(cell_id, *names):
    def change(cells):
        (cell,) = [cell for cell in cells if cell.id == cell_id]
        cell.metadata.tags = list(names)
        cell.metadata = metadata_of(cell)

    return change


def added(source, kind="markdown", at=4, output=""):
    def change(cells):
        for _ in range(1 if kind == "markdown" else 30):
            new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}[kind](source)
            if output:
                new.outputs = [nbformat.v4.new_output("stream", text=output)]
            cells.insert(at, new)

    return change


def plotted(cells):
    plot = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells.insert(4, nbformat.v4.new_code_cell("plt.show()", outputs=[plot]))


def opened(cells):
    for cell in cells:
        cell.metadata.pop("jupyter", None)


ALT = json.loads((ROOT / "book" / "figures" / "words_en.json").read_text("utf-8"))["drawings"]["last_row"][
    "alt"
]
BROKEN = {
    "too many words": (added("word " * 2300), "words on the main path"),
    "too many cells": (added("x = 1", "code"), "code cells on the main path"),
    "goals": (replaced("Which row should it read?", "You will learn to read it."), "lists goals"),
    "no prediction": (replaced("Predict", "Note"), 'no "Predict"'),
    "directive": (added("```{figure} ../book/figures/last_row.svg\n:alt: rows\n```"), "{figure}"),
    "role": (added("As shown {cite}`raschka2024build`."), "{cite}"),
    "colon fence": (added(":::{note}\nA note.\n:::"), ":::{note}"),
    "open fold": (added("<details>\n<summary>More</summary>\n\ntext"), "does not end in its cell"),
    "fold without blank line": (added("<details>\n<summary>A</summary>\ntext\n\n</details>"), "blank lines"),
    "heading in a fold": (
        added("<details>\n<summary>More</summary>\n\n### Deep\n\ntext\n\n</details>"),
        "a heading in a fold",
    ),
    "picture in Markdown": (added("![rows](../book/figures/last_row.svg)"), "a picture in Markdown"),
    "no alt text": (replaced(f'alt="{ALT}"', 'alt=""'), "no stored picture with a caption and an alt text"),
    "plot without alt text": (plotted, "a plot without an alt text"),
    "no drawing": (replaced("show_figure(", "print("), "no drawing"),
    "closed cell without a title": (replaced("#@title Comparison", "# Comparison"), "#@title What it holds"),
    "open in JupyterLab": (opened, "writes {"),
    "table of dashes": (replaced("Class label: 1\n", "Class label: 1\nx | 1 | -\n"), "table of dashes"),
    "mini on code": (tagged("scores", "mini"), "the tag mini is for text"),
    "model not named": (replaced("gpt2-mini, with", "The model, with"), "does not name gpt2-mini"),
    "heading in a mini cell": (replaced("gpt2-mini, with", "## gpt2-mini\n\nIt, with"), "a heading"),
    "number that nothing shows": (replaced("0.441 against", "0.461 against"), "0.461 stands in no output"),
    "percentage that nothing shows": (replaced("0.441 against", "45.1 % against"), "45.1 % stands in no"),
    "no claim": (replaced("claim:", "note:"), "without a claim"),
    "wrong class": (replaced("Class label: 1\n", "Class label: 0\n"), "the output denies it"),
    "wrong order": (replaced("-0.3127 0.4410", "0.3127 0.2410"), "the output denies it"),
    "claim about nothing": (replaced('number("last row:"', 'number("first row:"'), "no output above has"),
    "other tensor in the box": (replaced("[[-3.5983", "[[-3.5993"), "does not hold"),
    "other number in the box": (replaced("scores, −3.5983", "scores, −3.6083"), "no published number"),
    "comparison in the open": (tagged("compare"), "for a closed cell"),
    "exercise without a check": (replaced('...\ncheck("90-1", answer)', "..."), "no open cell that calls"),
    "solution in the open": (tagged("solution-1"), "no closed solution"),
    "solution that fails": (replaced("90-1: right.", "90-1: near: within 10 %."), "does not pass"),
    "no conclusion": (replaced("# One row for each token, whatever", "x = 1  # whatever"), "conclusion"),
    "no open exercise": (replaced(" (open)", ""), "0 exercises are marked (open)"),
    "word without a link": (replaced("[logits](../book/glossary.md#logit)", "logits"), "first “logits”"),
    "second word linked": (replaced("Four [tokens]", "Four tokens, [tokens]"), "first “tokens”"),
    "link to no word": (replaced("glossary.md#logit", "glossary.md#logits"), "leads nowhere"),
    "link to no work": (replaced("#raschka-2024", "#raschka-2025"), "leads nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_rule_finds_what_breaks_it(name, tmp_path):
    change, said = BROKEN[name]
    notebook = nbformat.read(EXAMPLE, as_version=4)
    change(notebook.cells)
    path = tmp_path / EXAMPLE.name
    nbformat.write(notebook, path)
    assert said in "\n".join(problems(path))


def test_each_lesson_with_a_live_figure_needs_it(tmp_path):
    path = tmp_path / "05_lesson.ipynb"
    path.write_bytes(EXAMPLE.read_bytes())
    assert "figures: no live figure" in problems(path)


@pytest.mark.parametrize(
    "number, values, shown",
    [
        ("83.45 %", {0.8345}, True),
        ("83.45 %", {83.452}, True),
        ("83 %", {0.8345}, True),
        ("83.5 %", {0.8345}, True),  # rounded up, as people do
        ("83.6 %", {0.8345}, False),
        ("1,045", {1045.0}, True),
        ("1,045", {1044.0}, False),
        ("0.97", {0.9721}, True),
        ("0.97", {0.9621}, False),
        ("−3.598", {-3.5983}, True),
        ("0.8345", {83.45}, False),
    ],
)
def test_number_is_shown(number, values, shown):
    assert is_shown(number, values) is shown


@pytest.mark.parametrize(
    "prose, numbers",
    [
        ("It is 83.45 % of 1,045 messages, and 0.97 in the end.", ["83.45 %", "1,045", "0.97"]),
        ("GPT-2 124M, gpt2-mini (10M), fp16, 1e-3, notebook 07: 12 names and small numbers.", []),
        ("From −1.5 to 3%; see [table 45](x_46.md) and `top_k=50`.", ["−1.5", "3%", "45", "50"]),
        ("A formula $x + 17$ <!-- 18 --> and\n\n```text\n19\n```\n", []),
    ],
)
def test_numbers_of_prose(prose, numbers):
    assert list(numbers_of_prose(prose)) == numbers


def test_claims_read_results_and_the_reference(tmp_path):
    words = lesson_rules.claim_functions(Lesson(EXAMPLE), 6)
    assert words["published"]("initial_accuracy_percent.train") == 46.25
    assert words["numbers"]("last row:") == [-0.3127, 0.441]
    assert "Class label" in words["text"]
    assert words["result"]("scale.batch.messages") == 8


def test_claim_reads_a_row_by_the_name_at_its_end(tmp_path):
    notebook = nbformat.read(EXAMPLE, as_version=4)
    printed = " 2.00   134   0.5  more than 10 rows, 4\n 1.20   133  -0.5  10 rows, 4\n"
    added("", "code", at=0, output=printed)(notebook.cells)
    path = tmp_path / EXAMPLE.name
    nbformat.write(notebook, path)
    row = lesson_rules.claim_functions(Lesson(path), len(notebook.cells))["row"]
    assert row("10 rows, 4") == [1.2, 133, -0.5]
    assert row("more than 10 rows, 4") == [2, 134, 0.5]
    with pytest.raises(LookupError, match="ends with"):
        row("5 rows, 4")


@pytest.fixture
def without_links(tmp_path):
    """The example lesson without links to the glossary."""
    notebook = nbformat.read(EXAMPLE, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"\[(\w+)\]\(../book/glossary.md#\w+\)", r"\1", cell.source)
    nbformat.write(notebook, tmp_path / EXAMPLE.name)
    return tmp_path / EXAMPLE.name


def test_missing_links_are_written(without_links):
    missing = len(list(first_uses(Lesson(without_links))))
    assert link_words(without_links) == missing > 0
    assert problems(without_links) == []


@pytest.mark.parametrize("write", [link_words, execute.execute])
def test_notebook_that_is_not_written_whole_stays_as_it_was(without_links, monkeypatch, write):
    def write_half(notebook, path):
        Path(path).write_text(nbformat.writes(notebook)[:1000], encoding="utf-8")
        raise OSError("the disk is full")

    former = without_links.read_bytes()
    monkeypatch.setattr(execute, "NotebookClient", MagicMock())
    monkeypatch.setattr(nbformat, "write", write_half)
    with pytest.raises(OSError, match="full"):
        write(without_links)
    assert [path.read_bytes() for path in without_links.parent.iterdir()] == [former]


# ---------------------------------------------------------------------------------
# Plots
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["import edition", "import edition, matplotlib"])
def test_first_cell_sets_the_style_of_plots(run_python, first):
    code = f"{first}; edition.prepare(); import matplotlib.pyplot as p; print(p.rcParams['axes.spines.top'])"
    process = run_python("-W", "error", "-c", code)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("False\n")
