"""A notebook finds the book: above or below its folder, in a zip file, on a Drive, or fetched on Colab.

Every notebook has the same first cell (tests/test_repository.py), and nbval executes the notebooks
whole. So the cell is run here by itself, as a program in a folder of its own.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from edition import EMBEDDED
from tools.set_repository import FIRST_CELL

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARTS = ("edition.py", "files.py", "assets/10M/vocab.bpe", "assets/10M/encoder.json")  # what the cell needs
ON_COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"
WHERE = "\nprint(pathlib.Path.cwd())"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A folder with those files of the book that the first cell needs, as a git repository."""
    folder = tmp_path_factory.mktemp("origin") / "spam-book"
    for name in PARTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "The book"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def pip(tmp_path):
    """The program of a stand-in for pip, which takes seconds. It leaves the file ``pip-was-here``."""
    (tmp_path / "stand-in" / "pip").mkdir(parents=True)
    (tmp_path / "stand-in" / "pip" / "__init__.py").touch()
    program = tmp_path / "stand-in" / "pip" / "__main__.py"
    program.write_text(f"open({str(tmp_path / 'pip-was-here')!r}, 'w')")
    return program


@pytest.fixture
def first_cell(tmp_path, pip):
    """A function that runs the first cell in the folder ``content`` and returns the finished process."""
    content = tmp_path / "content"
    content.mkdir()
    folders = {"TIKTOKEN_CACHE_DIR": str(tmp_path / "tokens"), "PYTHONPATH": str(tmp_path / "stand-in")}

    def run(address="", colab=False, **variables):
        variables = {"CHOOSE_MODEL": EMBEDDED.name, "CHOOSE_DATA": "sample", **variables}
        code = (ON_COLAB if colab else "") + FIRST_CELL.format(address=address) + WHERE
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=content,
            env={**os.environ, **folders, **variables},
            capture_output=True,
            text=True,
        )

    run.content = content
    return run


def folder_found(process):
    assert process.returncode == 0, process.stderr
    edition, folder = process.stdout.splitlines()
    assert edition == "Model: gpt2-mini (10M). Messages: sample."
    return Path(folder)


def test_every_notebook_begins_with_this_cell():
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        first = next(cell for cell in cells if cell.cell_type == "code").source
        assert re.sub(r'(?<="BOOK_REPOSITORY", ").*(?="\))', "", first) == FIRST_CELL.format(address="")


def test_book_is_found_above(first_cell, book):
    deep = book / "notebooks" / "deep"
    deep.mkdir(parents=True, exist_ok=True)
    process = subprocess.run(
        [sys.executable, "-c", FIRST_CELL.format(address="") + WHERE],
        cwd=deep,
        env={**os.environ, "CHOOSE_MODEL": EMBEDDED.name, "CHOOSE_DATA": "sample"},
        capture_output=True,
        text=True,
    )
    assert folder_found(process) == book


@pytest.mark.parametrize("colab", [False, True])
@pytest.mark.parametrize("place", ["spam-book", "drive/MyDrive/Colab Notebooks/spam-book"])
def test_book_is_found_below(place, colab, first_cell, book, tmp_path):
    shutil.copytree(book, first_cell.content / place)
    assert folder_found(first_cell(colab=colab)) == first_cell.content / place
    assert (tmp_path / "pip-was-here").exists() == colab


def test_book_in_a_zip_file_beside_the_notebook_is_unpacked(first_cell, book):
    (first_cell.content / "another.zip").write_text("no zip file at all")
    with zipfile.ZipFile(first_cell.content / "spam-book-main.zip", "w") as archive:
        for name in PARTS:
            archive.write(book / name, f"spam-book-main/{name}")
    process = first_cell(colab=True, PYTHONPATH="")  # with the real pip
    assert folder_found(process) == first_cell.content / "book" / "spam-book-main"


@pytest.mark.parametrize("by", ["address in the cell", "address in the environment"])
def test_book_is_fetched_on_colab(by, first_cell, book):
    if by == "address in the cell":
        process = first_cell(book.as_posix(), colab=True)
    else:
        process = first_cell("https://localhost/another/address", colab=True, BOOK_REPOSITORY=book.as_posix())
    assert folder_found(process) == first_cell.content / "book"


def test_book_is_fetched_on_colab_only(first_cell, book):
    process = first_cell(book.as_posix())
    assert process.returncode != 0 and "neither above nor below" in process.stderr
    assert list(first_cell.content.iterdir()) == []


def test_without_an_address_colab_hears_every_way_on(first_cell):
    error = first_cell(colab=True).stderr
    for way in ("upload the book as a zip file", "drive.mount", "BOOK_REPOSITORY"):
        assert way in error


def test_a_git_that_fails_is_named(first_cell):
    error = first_cell("/no/book/here", colab=True).stderr
    assert "This command failed: git clone -q --depth 1 /no/book/here" in error
    assert "does not exist" in error  # what git says itself


def test_a_pip_that_fails_is_named(first_cell, book, pip):
    pip.write_text("raise SystemExit('pip has no network')")
    error = first_cell(book.as_posix(), colab=True).stderr
    assert "This command failed" in error and "pip install -q tiktoken safetensors" in error
    assert "pip has no network" in error


def test_a_notebook_opened_by_hand_says_what_it_would_download_and_how_to_go_without(first_cell, book):
    shutil.copytree(book, first_cell.content / "book")
    process = first_cell(CHOOSE_MODEL="gpt2-small (124M)", CHOOSE_DATA="uci")
    first, stored, download, way, line, _ = process.stdout.splitlines()
    assert first == "Model: gpt2-small (124M). Messages: uci."
    assert "made with gpt2-mini (10M) and the sample" in stored
    assert download == "To download: gpt2-small (124M), 498 MB and the SMS Spam Collection, 0.2 MB."
    environment = {}
    exec(line, {"os": type("os", (), {"environ": environment})})  # the line does what it says
    assert environment == {"CHOOSE_MODEL": "gpt2-mini (10M)", "CHOOSE_DATA": "sample"}

    (first_cell.content / "book" / "gpt2" / "124M").mkdir(parents=True)
    (first_cell.content / "book" / "gpt2" / "124M" / "model.safetensors").touch()
    (first_cell.content / "book" / "sms_spam_collection").mkdir()
    (first_cell.content / "book" / "sms_spam_collection" / "SMSSpamCollection.tsv").touch()
    process = first_cell(CHOOSE_MODEL="gpt2-small (124M)", CHOOSE_DATA="uci")
    assert "To download: nothing, all is here already." in process.stdout


@pytest.mark.parametrize("variable", ["CHOOSE_MODEL", "CHOOSE_DATA"])
def test_an_unknown_edition_is_named(variable, first_cell, book):
    shutil.copytree(book, first_cell.content / "book")
    process = first_cell(**{variable: "nonsense"})
    assert process.returncode != 0 and "'nonsense'. Choose one of" in process.stderr
