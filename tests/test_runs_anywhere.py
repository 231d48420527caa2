"""Every notebook runs from any folder of the book, and on Colab, where it fetches the book first.

The first cell goes to the book's folder, so that what follows runs as it does anywhere else,
and nbval executes that whole. Here each notebook runs to its first steps with model or data.
"""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.set_repository import with_first_cell

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LEFT_OUT = (
    ".venv",
    ".git",
    "_build",
    "gpt2",
    "classifiers",
    ".cache",
    "sms_spam_collection",
    "__pycache__",
    ".*_cache",
)
EMBEDDED = {"CHOOSE_MODEL": "gpt2-mini (10M)", "CHOOSE_DATA": "sample", "TQDM_DISABLE": "1"}


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
pytestmark = pytest.mark.slow


def run(path, folder, monkeypatch):
    """Execute the first code cells with a folder as working directory; return what the first printed."""
    for name, value in EMBEDDED.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:4]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return "".join(output.get("text", "") for output in notebook.cells[0].outputs)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with the book as it stands here."""
    folder = tmp_path_factory.mktemp("origin") / "book"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "The book"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """A kernel that looks like Colab's: the module google.colab is loaded when it starts."""
    content, start = tmp_path / "content", tmp_path / "start"
    content.mkdir()
    start.mkdir()
    (start / "sitecustomize.py").write_text(
        "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(start))
    return content


@each_notebook
def test_notebook_runs_from_another_folder_of_the_book(path, monkeypatch):
    assert "gpt2-mini (10M)" in run(path, ROOT / "tests" / "data", monkeypatch)


@each_notebook
def test_notebook_fetches_the_book_on_colab(path, colab, repository, monkeypatch):
    alone = colab / path.name  # Colab opens the notebook without the files around it
    alone.write_text(
        with_first_cell(path.read_text(encoding="utf-8"), repository.as_posix()), encoding="utf-8"
    )
    assert "gpt2-mini (10M)" in run(alone, colab, monkeypatch)
    assert (colab / "book" / "edition.py").exists()


def test_notebook_alone_says_what_is_missing(tmp_path, monkeypatch):
    alone = Path(shutil.copy(NOTEBOOKS[0], tmp_path))
    with pytest.raises(Exception, match="Open the notebook from a copy of the whole book"):
        run(alone, tmp_path, monkeypatch)


@pytest.mark.parametrize("address, named", [("", "no address is set"), ("/no/book/here", "/no/book/here")])
def test_notebook_on_colab_says_where_it_could_not_fetch_the_book(address, named, colab, monkeypatch):
    alone = colab / NOTEBOOKS[0].name
    alone.write_text(with_first_cell(NOTEBOOKS[0].read_text(encoding="utf-8"), address), encoding="utf-8")
    with pytest.raises(Exception, match=f"On Colab it is fetched from: {named}"):
        run(alone, colab, monkeypatch)


def test_first_cell_has_at_most_eight_lines():
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert len(first.source.splitlines()) <= 8, path.name
