"""Which notebooks are executed again after which change: book/extensions/edition_cache.py."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {
    "one": ["import data\ndata.load()"],
    "two": ["from model import build, train"],
    "three": ["%%time\nimport os, tools", "%%bash\nls *.txt | head", "!ls", "print('import model')"],
    "four": ["import subprocess, sys\nsubprocess.run([sys.executable, 'program.py'])"],
}
MODULES = {
    "data.py": "import tools\n",
    "model.py": "def build():\n    from data import load\n",
    "tools.py": "import json  # not the file tools.json\n",
    "program.py": "print('started by its name')\n",
}


@pytest.fixture(scope="module")
def edition_cache():
    path = ROOT / "book" / "extensions" / "edition_cache.py"
    spec = importlib.util.spec_from_file_location("edition_cache", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path):
    """A small book: four notebooks, four modules, and one data file of each kind."""
    for name, cells in NOTEBOOKS.items():
        nbformat.write(
            new_notebook(cells=[new_code_cell(cell) for cell in cells]), tmp_path / f"{name}.ipynb"
        )
    for name, code in MODULES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "assets" / "10M").mkdir(parents=True)
    for name in ("results.json", "assets/sample.tsv", "assets/10M/hparams.json", "constraints.txt"):
        (tmp_path / name).write_text("first\n")
    return tmp_path


@pytest.fixture
def states(book, edition_cache):
    return lambda: {name: edition_cache.state_of(book / f"{name}.ipynb", book) for name in NOTEBOOKS}


@pytest.mark.parametrize(
    "module, importing",
    [
        ("data.py", {"one", "two"}),  # two: through model, which imports it in a function
        ("model.py", {"two"}),
        ("tools.py", {"one", "two", "three"}),  # three: below a magic
        ("program.py", {"four"}),
    ],
)
def test_change_in_a_module_changes_the_notebooks_that_use_it(book, states, module, importing):
    before = states()
    with open(book / module, "a") as file:
        file.write("# a comment\n")
    after = states()
    assert {name for name in NOTEBOOKS if after[name] != before[name]} == importing


@pytest.mark.parametrize(
    "name", ["results.json", "assets/sample.tsv", "assets/10M/hparams.json", "constraints.txt"]
)
def test_change_in_a_data_file_changes_all_notebooks(book, states, name):
    before = states()
    (book / name).write_text("second\n")
    after = states()
    assert all(after[notebook] != before[notebook] for notebook in NOTEBOOKS)


@pytest.mark.parametrize("variable, value", [("CHOOSE_MODEL", "gpt2-xl (1558M)"), ("CHOOSE_DATA", "sample")])
def test_editions_have_caches_of_their_own(states, monkeypatch, variable, value):
    before = states()
    monkeypatch.setenv(variable, value)
    after = states()
    assert all(after[notebook] != before[notebook] for notebook in NOTEBOOKS)


def test_other_files_change_nothing(book, states):
    before = states()
    (book / "README.md").write_text("prose")
    (book / "unused.py").write_text("import data\n")
    (book / "assets" / "__pycache__").mkdir()
    (book / "assets" / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"compiled")
    assert states() == before


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_depends_on_what_its_first_cell_imports(edition_cache, path):
    assert "edition" in edition_cache.modules_of(path, ROOT)


def test_notebooks_are_executed_once_and_a_failure_is_left_to_the_build(edition_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sources = {"good": "print('executed', file=open('note.txt', 'a'))", "bad": "1 / 0"}
    paths = [tmp_path / f"{name}.ipynb" for name in sources]
    for path, source in zip(paths, sources.values()):
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    for _ in range(2):
        edition_cache.execute_all(paths, [tmp_path / "good", tmp_path / "bad"], 60)
    assert (tmp_path / "note.txt").read_text() == "executed\n"
    assert len(list((tmp_path / "good").rglob("*.ipynb"))) == 1
    assert not list((tmp_path / "bad").rglob("*.ipynb"))


@pytest.mark.parametrize("data, shown", [("sample", "0.5 s"), ("uci", "0.7 s")])
def test_pages_show_the_stored_times(edition_cache, tmp_path, monkeypatch, data, shown):
    monkeypatch.setenv("CHOOSE_MODEL", edition_cache.EMBEDDED.name)
    monkeypatch.setenv("CHOOSE_DATA", data)
    path = tmp_path / "times.ipynb"

    def write(seconds):
        stored = [new_output("stream", name="stdout", text=seconds)]
        cells = [new_code_cell("print('0.7 s')", outputs=stored), new_code_cell("print(1)", outputs=stored)]
        cells[0].metadata["tags"] = ["nbval-ignore-output"]
        nbformat.write(new_notebook(cells=cells), path)
        return edition_cache.state_of(path, tmp_path)

    assert write("0.6 s") != write("0.5 s")  # and other stored outputs are another state
    assert edition_cache.execute(path, tmp_path / "cache", 60) is None
    (executed,) = (tmp_path / "cache").rglob("base.ipynb")
    texts = [cell.outputs[0].text.strip() for cell in nbformat.read(executed, as_version=4).cells]
    assert texts == [shown, "1"]


# A module that counts how often it is imported.
NOTES = """
from pathlib import Path
VALUE = 1
with open(Path(__file__).with_suffix(".runs"), "a") as file:
    file.write(".")
"""


@pytest.mark.slow
def test_nbval_compares_the_outputs_of_the_build_and_executes_what_has_changed(edition_cache, tmp_path):
    for name in ("_config.yml", "notebooks/conftest.py", "book/extensions/edition_cache.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def write(name, module, stored):
        (tmp_path / f"{module}.py").write_text(NOTES)
        code = f"import sys; sys.path.insert(0, '..')\nimport {module}\nprint({module}.VALUE)"
        output = new_output("stream", name="stdout", text=stored)
        cell = new_code_cell(code, outputs=[output], execution_count=1)
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[cell]), path)
        return path

    def build(path):
        folder = edition_cache.cache_folder(tmp_path, edition_cache.state_of(path, tmp_path))
        assert edition_cache.execute(path, folder, 60) is None

    write("new", "absent", "1\n")  # not built: executed
    build(write("current", "same", "1\n"))  # the run of the build is compared
    write("wrong", "same", "2\n")  # the same code, so the same run, with another stored output
    build(write("changed", "other", "2\n"))
    # Executed again. (Longer than before: Python takes a file of the same second and length for unchanged.)
    (tmp_path / "other.py").write_text(NOTES.replace("VALUE = 1", "VALUE = 1 + 1"))

    command = "-m pytest -q --nbval --nbval-current-env --outputs-of-the-build -rA notebooks".split()
    variables = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython"), "PYTEST_ADDOPTS": ""}
    process = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    outcomes = re.findall(r"^(PASSED|FAILED) notebooks/(\w+).ipynb", process.stdout, re.M)
    passed = {name: outcome == "PASSED" for outcome, name in outcomes}
    assert passed == {"new": True, "current": True, "wrong": False, "changed": True}
    assert process.returncode == 1
    runs = {path.stem: path.read_text() for path in tmp_path.glob("*.runs")}
    assert runs == {"absent": ".", "same": ".", "other": ".."}
