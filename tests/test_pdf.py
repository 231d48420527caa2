"""The PDF of the whole book, printed from the built pages by tools/make_pdf.py."""

import subprocess
import sys

import pytest
from built_book import HTML, NOTEBOOKS, ROOT, need_browser_and_pages
from pypdf import PdfReader
from pypdfium2 import PdfDocument

from tools.make_pdf import anchor, table_of_contents

need_browser_and_pages()

CHAPTERS = [chapter for _, chapters in table_of_contents(HTML) for chapter in chapters]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("pdf") / "book.pdf"
    subprocess.run([sys.executable, ROOT / "tools/make_pdf.py", HTML, path], check=True, timeout=300)
    assert [file.name for file in path.parent.iterdir()] == ["book.pdf"]
    return path


@pytest.fixture(scope="module")
def pdf(path):
    return PdfReader(path)


@pytest.fixture(scope="module")
def texts(path):
    """The text of each page."""
    with PdfDocument(path) as document:
        return [page.get_textpage().get_text_range() for page in document]


@pytest.fixture(scope="module")
def first_page_of(pdf):
    """{name of a place in the PDF: its page, counted from 0}."""
    return {
        name.removeprefix("/"): pdf.get_destination_page_number(destination)
        for name, destination in pdf.named_destinations.items()
    }


def words(text):
    return " ".join(text.split())


def links(pdf):
    for page in pdf.pages:
        for annotation in page.get("/Annots") or []:
            annotation = annotation.get_object()
            if annotation["/Subtype"] == "/Link":
                yield annotation


def test_all_pages_of_the_table_of_contents_are_in_the_book():
    assert {page for page, _ in CHAPTERS} >= {"book/intro.html", "book/setup.html", *NOTEBOOKS}


@pytest.mark.parametrize("page, title", CHAPTERS, ids=[page for page, _ in CHAPTERS])
def test_chapter_starts_a_page_with_its_title(texts, first_page_of, page, title):
    assert words(texts[first_page_of[anchor(page)]]).startswith(words(title))


def test_table_of_contents_shows_the_pages(pdf, first_page_of):
    # with some fonts PDFium takes this page, of few words, for columns of letters
    contents = words(pdf.pages[1].extract_text())
    for page, title in CHAPTERS:
        assert f"{words(title)} {first_page_of[anchor(page)] + 1}" in contents


def test_outline_has_each_chapter(pdf):
    titles = [words(entry.title) for entry in pdf.outline if not isinstance(entry, list)]
    assert titles == ["Contents", *(words(title) for _, title in CHAPTERS)]


def test_pages_are_numbered(texts):
    for number in (2, 10, len(texts)):
        assert texts[number - 1].split()[-1] == str(number)


def test_links_lead_into_the_book_or_to_the_web(pdf, first_page_of):
    addresses = [link["/A"]["/URI"] for link in links(pdf) if "/A" in link and "/URI" in link["/A"]]
    assert addresses
    assert [address for address in addresses if not address.startswith("https://")] == []
    inside = [str(link["/Dest"]).removeprefix("/") for link in links(pdf) if "/Dest" in link]
    assert {anchor(page) for page, _ in CHAPTERS} <= set(inside) <= set(first_page_of)


def test_solutions_are_shown(texts):
    text = "".join(texts)
    in_notebooks = sum((HTML / page).read_text("utf-8").count("#@title Solution") for page in NOTEBOOKS)
    assert text.count("#@title Solution") == in_notebooks > 0
