"""`make repository`: one setting, and buttons, badges, citation and Colab cell that follow from it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from tools.set_repository import pages_address, set_repository, setting

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://github.com/some-one/spam.book"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def copy_files(folder):
    """Copy the files that hold the address, as they are."""
    files = [ROOT / name for name in ("_config.yml", "README.md", "CITATION.cff")]
    for path in (*files, *ROOT.glob("notebooks/*.ipynb")):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


@pytest.fixture
def copy(tmp_path):
    copy_files(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def book(copy):
    """The copy without an address."""
    set_repository("", copy)
    return copy


def contents(book):
    files = [path for path in book.rglob("*.*") if path.suffix in (".yml", ".md", ".cff", ".ipynb")]
    return {path.relative_to(book).as_posix(): path.read_bytes() for path in files}


def first_cell(path):
    return next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def files_with(text, book):
    return {name for name, content in contents(book).items() if text.encode() in content}


# ---------------------------------------------------------------------------------
# Setting the address
# ---------------------------------------------------------------------------------


def test_book_as_it_stands_follows_from_its_setting(copy):
    # It also has the common first cell in every notebook. `make repository` writes what is named here.
    changed = set_repository(setting()[0], copy)
    assert [path.name for path in changed] == []


def test_address_stands_in_every_file_that_needs_it(book):
    set_repository(ADDRESS, book)
    expected = {"_config.yml", "README.md", "CITATION.cff"} | {f"notebooks/{name}" for name in NOTEBOOKS}
    assert files_with(ADDRESS, book) == expected
    assert yaml.safe_load((book / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"] == ADDRESS
    assert yaml.safe_load((book / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == ADDRESS
    assert f'"BOOK_REPOSITORY", "{ADDRESS}")' in first_cell(book / "notebooks" / NOTEBOOKS[-1]).source


def test_address_can_be_set_again_changed_and_taken_out(book):
    before = contents(book)
    set_repository("https://github.com/first/one", book)
    set_repository(ADDRESS, book)
    after = contents(book)
    assert set_repository(ADDRESS, book) == [] and contents(book) == after
    assert files_with("first/one", book) == set()
    set_repository("", book)
    assert contents(book) == before


def test_without_an_address_no_file_names_one(book):
    badges = re.search(r"<!-- badges: .*? -->\n(.*?)<!-- end", (book / "README.md").read_text("utf-8"), re.S)
    assert badges[1] == ""
    assert "repository-code" not in (book / "CITATION.cff").read_text("utf-8")
    assert '"BOOK_REPOSITORY", "")' in first_cell(book / "notebooks" / NOTEBOOKS[0]).source


@pytest.mark.parametrize("written", [ADDRESS + "/", ADDRESS + ".git", ADDRESS + ".git/"])
def test_address_is_stored_in_one_form(book, written):
    set_repository(written, book)
    assert setting(book)[0] == ADDRESS


@pytest.mark.parametrize(
    "wrong",
    [
        "some-one/spam",
        "http://github.com/some-one/spam",
        "https://gitlab.com/some-one/spam",
        "https://github.com/some-one",
        "https://github.com/some-one/spam/tree/main",
        "git@github.com:some-one/spam.git",
        'https://github.com/some-one/spam"; rm -rf x; "',
        "https://github.com/some-one/spam\n",
        "https://github.com/some-one/..",
        "https://github.com/some-one/./",
        " ",
    ],
)
def test_wrong_address_is_named_and_changes_nothing(book, wrong):
    before = contents(book)
    with pytest.raises(ValueError, match="not the address of a repository on GitHub") as error:
        set_repository(wrong, book)
    assert repr(wrong) in str(error.value)
    assert contents(book) == before


def test_notebook_is_written_as_nbformat_writes_it(book, tmp_path):
    set_repository(ADDRESS, book)
    for name in NOTEBOOKS:
        path = book / "notebooks" / name
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        nbformat.write(notebook, tmp_path / "again.ipynb")
        assert path.read_bytes() == (tmp_path / "again.ipynb").read_bytes().replace(b"\r\n", b"\n")


def test_only_the_source_of_the_first_cell_changes(book):
    path = book / "notebooks" / NOTEBOOKS[0]
    before = nbformat.read(path, as_version=4)
    set_repository(ADDRESS, book)
    after = nbformat.read(path, as_version=4)
    different = [i for i, (a, b) in enumerate(zip(before.cells, after.cells)) if a != b]
    first = next(i for i, cell in enumerate(after.cells) if cell.cell_type == "code")
    assert different == [first] and len(before.cells) == len(after.cells)
    after.cells[first].source = before.cells[first].source
    assert before == after


def test_all_files_change_or_none(book, monkeypatch):
    before, last = contents(book), book / "notebooks" / NOTEBOOKS[-1]
    replace = os.replace

    def replace_all_but_the_last(source, target):
        if Path(target) == last:
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_all_but_the_last)
    with pytest.raises(PermissionError):
        set_repository(ADDRESS, book)
    assert contents(book) == before


def test_setting_that_is_gone_is_an_error(book):
    (book / "_config.yml").write_text("title: A book\n", encoding="utf-8")
    with pytest.raises(ValueError, match="_config.yml has no setting"):
        set_repository(ADDRESS, book)


@pytest.mark.parametrize(
    "address, pages",
    [
        ("https://github.com/Some-One/Spam", "https://some-one.github.io/Spam/"),
        ("https://github.com/some-one/some-one.github.io", "https://some-one.github.io/"),
    ],
)
def test_address_of_the_pages(address, pages):
    assert pages_address(address) == pages


def test_badges_lead_to_workflows_that_exist(book):
    set_repository(ADDRESS, book)
    readme = (book / "README.md").read_text(encoding="utf-8")
    workflows = set(re.findall(r"/actions/workflows/([\w.]+)", readme))
    assert workflows and all((ROOT / ".github" / "workflows" / name).exists() for name in workflows)
    (notebook,) = re.findall(
        r"colab\.research\.google\.com/github/some-one/spam\.book/blob/main/([^)]+)", readme
    )
    assert (ROOT / notebook).exists()
    assert pages_address(ADDRESS) in readme


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_sets_keeps_refuses_and_removes_the_address(book):
    shutil.copy(ROOT / "Makefile", book)
    shutil.copytree(ROOT / "tools", book / "tools")

    def make(*variables):
        python = f"PYTHON={Path(sys.executable).as_posix()}"
        command = ["make", "--no-print-directory", "repository", python, *variables]
        return subprocess.run(command, cwd=book, env=own_variables, capture_output=True, text=True)

    # not the variables of the `make test` that may have started these tests
    own_variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    own_variables.pop("BOOK_URL", None)

    before = contents(book)
    assert make(f"URL={ADDRESS}").stdout.startswith(
        f"Repository: {ADDRESS}. Files changed: {3 + len(NOTEBOOKS)}."
    )
    path = book / "notebooks" / NOTEBOOKS[0]
    complete = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.cell_type == "code").source = "import os"
    nbformat.write(notebook, path)
    assert f"Repository: {ADDRESS}. Files changed: 1.\n  notebooks/{NOTEBOOKS[0]}" in make().stdout
    assert path.read_bytes() == complete
    commands = (
        "`touch pwned`",
        "$(touch pwned)",
        "$(shell touch pwned)",
        '"; touch pwned; "',
        "'; touch pwned; '",
    )
    for address in ("https://example.org", *(f"https://github.com/a/b{command}" for command in commands)):
        refused = make(f"URL={address}")
        assert refused.returncode != 0 and "is not the address" in refused.stderr
        assert setting(book)[0] == ADDRESS and not (book / "pwned").exists()
    assert make("URL=").stdout.startswith("Repository: none.")
    assert contents(book) == before


# ---------------------------------------------------------------------------------
# The buttons of a page
# ---------------------------------------------------------------------------------


BUILD = """
import sys
from jupyter_book.cli.main import main
for book in sys.argv[1:]:
    main(["build", "-q", book], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two books with one notebook, with and without an address: {address: the notebook's page}."""
    books = {address: tmp_path_factory.mktemp("book") for address in (ADDRESS, "")}
    for address, book in books.items():
        copy_files(book)
        set_repository(address, book)
        for folder in ("_static", "extensions", "extra"):
            shutil.copytree(ROOT / "book" / folder, book / "book" / folder)
        config = (book / "_config.yml").read_text(encoding="utf-8")
        config = config.replace("execute_notebooks: cache", 'execute_notebooks: "off"')
        (book / "_config.yml").write_text(config, encoding="utf-8")
        (book / "book" / "intro.md").write_text("# Title\n", encoding="utf-8")
        (book / "_toc.yml").write_text(
            f"format: jb-book\nroot: book/intro\nchapters:\n- file: notebooks/{NOTEBOOKS[0][:-6]}\n",
            encoding="utf-8",
        )
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Notebook")])
        nbformat.write(notebook, book / "notebooks" / NOTEBOOKS[0])
    command = [sys.executable, "-c", BUILD, *books.values()]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    page = Path("_build", "html", "notebooks", NOTEBOOKS[0]).with_suffix(".html")
    return {
        address: BeautifulSoup((book / page).read_text(encoding="utf-8"), "html.parser")
        for address, book in books.items()
    }


def buttons_of(page):
    return {link["href"]: link.get_text(strip=True) for link in page.select(".article-header-buttons a")}


@pytest.mark.slow
def test_page_has_buttons_with_an_address(pages):
    page = pages[ADDRESS]
    buttons = buttons_of(page)
    path = f"main/notebooks/{NOTEBOOKS[0]}"
    assert buttons[ADDRESS] == "Repository"
    assert buttons[f"{ADDRESS}/edit/{path}"] == "Suggest edit"
    assert buttons[f"https://colab.research.google.com/github/some-one/spam.book/blob/{path}"] == "Colab"
    assert [text for href, text in buttons.items() if href.startswith(f"{ADDRESS}/issues/new?")] == [
        "Open issue"
    ]
    # every button has a name, and no image of one comes from elsewhere
    assert all(
        button.get("aria-label") for button in page.select(".article-header-buttons .dropdown > button")
    )
    images = page.select(".article-header-buttons img")
    assert images and all(image["src"].startswith("../_static/") and image["alt"] for image in images)


@pytest.mark.slow
def test_page_has_no_such_button_without_an_address(pages):
    assert list(buttons_of(pages[""]).values()) == [".ipynb"]  # the download
    assert not re.search(r"github\.com|colab\.research|Launch interactive", str(pages[""]))
