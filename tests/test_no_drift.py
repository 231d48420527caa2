"""What a notebook shows is what the modules do, and each stored output was printed by its cell."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from edition import PAD_TOKEN_ID

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted(ROOT.glob("*.py"))
# What notebooks teach is here. In other modules, a name that a notebook uses too is another function's.
TAUGHT = ("previous_chapters", "spam_data", "classification", "fast_paths", "variants")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


class PaddingAsPublished(ast.NodeTransformer):
    """Modules name the padding token, published code has its number: the one constant that may differ so."""

    def visit_Name(self, node):
        return ast.Constant(PAD_TOKEN_ID) if node.id == "PAD_TOKEN_ID" else node


def definitions(code):
    """{name: its syntax tree without docstrings} of the functions and classes of a code."""
    found = {}
    for node in PaddingAsPublished().visit(ast.parse(code)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for part in ast.walk(node):
                if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(part) is not None:
                    part.body = part.body[1:]
            found[node.name] = ast.dump(node)
    return found


def in_modules():
    found = {}
    for name in TAUGHT:
        found |= definitions((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    return found


def in_notebooks():
    """[(notebook, name)] of all definitions that carry the name of one in a module."""
    names = in_modules()
    return [
        (path, name)
        for path in NOTEBOOKS
        for cell in code_cells(path)
        for name in definitions(cell.source)
        if name in names
    ]


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) >= 7


@pytest.mark.parametrize("path, name", in_notebooks(), ids=lambda value: getattr(value, "stem", value))
def test_definition_in_a_notebook_is_that_of_the_module(path, name):
    expected = in_modules()[name]
    for cell in code_cells(path):
        assert definitions(cell.source).get(name, expected) == expected


@pytest.mark.parametrize(
    "name",
    [
        "create_balanced_dataset",
        "random_split",
        "SpamDataset",
        "calc_accuracy_loader",
        "calc_loss_batch",
        "calc_loss_loader",
    ],
)
def test_function_of_the_walk_through_is_defined_in_a_notebook(name):
    assert name in [defined for _, defined in in_notebooks()]


@each_notebook
def test_first_cell_is_the_same_in_all_notebooks(path):
    assert code_cells(path)[0].source == code_cells(NOTEBOOKS[0])[0].source


@each_notebook
def test_cells_were_executed_in_their_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_cells_that_print_have_a_stored_output(path):
    def prints(cell):
        calls = [node.value for node in ast.parse(cell.source).body if isinstance(node, ast.Expr)]
        return any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print" for call in calls)

    printing = [cell for cell in code_cells(path) if prints(cell)]
    assert printing
    assert [cell.source for cell in printing if not cell.outputs] == []


@each_notebook
def test_no_stored_output_is_an_error(path):
    outputs = [out for cell in code_cells(path) for out in cell.outputs]
    assert [out.evalue for out in outputs if out.output_type == "error"] == []


@each_notebook
def test_no_stored_output_is_a_warning(path):
    outputs = [out for cell in code_cells(path) for out in cell.outputs]
    assert [out.text for out in outputs if out.get("name") == "stderr"] == []


@each_notebook
def test_stored_outputs_are_those_of_the_embedded_edition(path):
    first = code_cells(path)[0].outputs
    assert [out.text for out in first] == ["Model: gpt2-mini (10M). Messages: sample.\n"]


def imported_from_modules(code):
    modules = {module.stem for module in MODULES}
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module in modules for alias in node.names}


def explained_in(cell):
    """Names that a cell explains: in inline code, in comments or beside them, or by a definition."""
    if cell.cell_type == "markdown":
        prose = re.sub(r"^```.*$", "", cell.source, flags=re.MULTILINE)
        texts = re.findall(r"`([^`]+)`", prose)
    else:
        texts = [line for line in cell.source.splitlines() if "#" in line]
    return set(re.findall(r"\w+", " ".join(texts))) | (
        set(definitions(cell.source)) if cell.cell_type == "code" else set()
    )


def test_every_imported_name_is_explained_here_or_earlier():
    explained = set()
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        explained = explained.union(*(explained_in(cell) for cell in cells))
        imported = set().union(*(imported_from_modules(c.source) for c in cells if c.cell_type == "code"))
        assert not imported - explained, f"{path.name} imports without a word: {imported - explained}"
