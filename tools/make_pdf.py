"""The whole book as one PDF, printed from its built pages by a browser: `make pdf`.

    python tools/make_pdf.py [BUILT_PAGES [PDF]]     # default: _build/html _build/pdf/book.pdf

The pages are put one after the other into one HTML file, in the order of the table of
contents; links between them become links inside the PDF. The browser prints that file, which
says on which page each chapter starts, and then the table of contents alone, with these numbers
in place of "000". What print changes in a page is in book/_static/book.css.
"""

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pikepdf
from bs4 import BeautifulSoup, SoupStrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.browser import open_browser  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FIRST_PAGE = "book/intro.html"
FOOTER = """
<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #555">
  <span class="pageNumber"></span>
</div>"""
PRINT = {
    "prefer_css_page_size": True,
    "print_background": True,
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": FOOTER,
    "outline": True,
    "tagged": True,
}
SHELL = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>{title}</title>{styles}<style>
  article.bd-article, #contents {{ break-before: page; }}
  #title-page {{ padding-top: 60mm; text-align: center; font-size: 14pt; }}
  #title-page .title {{ font-size: 30pt; line-height: 1.3; }}
  #contents .part {{ margin: 1.2em 0 0.3em; font-weight: 600; }}
  #contents ul {{ margin: 0; padding: 0; list-style: none; }}
  #contents li {{ display: flex; justify-content: space-between; padding: 0.15em 0; }}
  #contents li {{ border-bottom: 0.5pt dotted #999; }}
  #contents a {{ text-decoration: none; }}
</style></head>
<body>
<main class="bd-main"><div class="bd-content"><div class="bd-article-container">
<section id="title-page"><p class="title">{title}</p><p>{subtitle}</p></section>
<nav id="contents" aria-label="Contents"><h1>Contents</h1>{contents}</nav>
{articles}
</div></div></main>
</body>
</html>
"""


def read_page(html, name):
    return BeautifulSoup((html / name).read_text(encoding="utf-8"), "html.parser")


def table_of_contents(html):
    """Parts and pages in the order of the sidebar: a list of (part, [(page, title), ...])."""
    soup = read_page(html, FIRST_PAGE)
    parts = [("", [(FIRST_PAGE, soup.h1.get_text().removesuffix("#"))])]
    for tag in soup.select("nav.bd-links p.caption, nav.bd-links a.reference"):
        if tag.name == "p":
            parts.append((tag.get_text(strip=True), []))
        else:
            page = os.path.normpath(os.path.join(os.path.dirname(FIRST_PAGE), tag["href"]))
            parts[-1][1].append((Path(page).as_posix(), tag.get_text(strip=True)))
    return parts


def anchor(page, fragment=""):
    """The name in the PDF of a page, or of a place in it."""
    return f"{page.removesuffix('.html')}--{fragment}" if fragment else page.removesuffix(".html")


def adapt_link(link, page, pages):
    """Make a link to a page of the book one inside the PDF; drop links to other files of the book."""
    address = urlsplit(link.get("href", ""))
    if address.scheme in ("http", "https"):
        return
    target = page
    if address.path:
        target = os.path.normpath(os.path.join(os.path.dirname(page), unquote(address.path)))
    if target in pages:
        link["href"] = f"#{anchor(target, address.fragment)}"
    else:
        link.unwrap()


def article_of(html, page, pages, folder):
    """The text of one page, with names and links that are unique in the whole book."""
    article = read_page(html, page).select_one("article.bd-article")
    for tag in article.select("a.headerlink, button, script"):
        tag.decompose()
    for tag in article.select("[id]"):
        tag["id"] = anchor(page, tag["id"])
    for link in article.select("a"):
        adapt_link(link, page, pages)
    for image in article.select("img"):
        image["src"] = os.path.relpath(html / os.path.dirname(page) / image["src"], folder)
        image.attrs.pop("loading", None)  # a print does not wait for images
    for hidden in article.select("details"):
        hidden["open"] = ""
    article["id"] = anchor(page)
    return str(article)


def contents_list(parts, page_numbers):
    lines = []
    for part, chapters in parts:
        lines.append(f'<p class="part">{part}</p><ul>' if part else "<ul>")
        for page, title in chapters:
            number = page_numbers.get(anchor(page), "")
            lines.append(f'<li><a href="#{anchor(page)}">{title}</a><span>{number}</span></li>')
        lines.append("</ul>")
    return "\n".join(lines)


def one_file(html, folder, contents, articles):
    """The book as one HTML text, images and styles found from ``folder``."""
    first = read_page(html, FIRST_PAGE)
    styles = [link["href"] for link in first.select('link[rel="stylesheet"]')]
    for i, address in enumerate(styles):
        path = os.path.normpath(html / os.path.dirname(FIRST_PAGE) / urlsplit(address).path)
        styles[i] = f'<link rel="stylesheet" href="{os.path.relpath(path, folder)}">'
    return SHELL.format(
        title=first.select_one("p.logo__title").get_text(strip=True),
        subtitle=first.select_one("article p em").get_text(strip=True),
        styles="".join(styles),
        contents=contents,
        articles="\n".join(articles),
    )


def read_headings(path):
    """The words of each heading of an HTML file."""
    only_headings = SoupStrainer(["h1", "h2", "h3", "h4"])
    tags = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser", parse_only=only_headings)
    return [" ".join(tag.get_text().split()) for tag in tags.find_all(True, recursive=False)]


def outline_entries(entry):
    """The entries of an outline in the order of the pages."""
    while entry is not None:
        yield entry
        yield from outline_entries(entry.get("/First"))
        entry = entry.get("/Next")


def page_of(path):
    """{name of a place in the PDF: its page, counted from 1}."""
    with pikepdf.open(path) as pdf:
        numbers = {page.objgen: number for number, page in enumerate(pdf.pages, 1)}
        return {name.removeprefix("/"): numbers[place[0].objgen] for name, place in pdf.Root.Dests.items()}


def finish(path, contents, headings):
    """Number the table of contents, give the outline the words of the headings; returns the number of pages.

    Chromium writes some of the headings twice.
    """
    with pikepdf.open(path, allow_overwriting_input=True) as pdf, pikepdf.open(contents) as numbered:
        for page, with_numbers in zip(pdf.pages[1:], numbered.pages):
            for key in ("/Contents", "/Resources"):  # what is drawn and with what; the links stay
                page[key] = pdf.copy_foreign(numbered.make_indirect(with_numbers[key]))
        entries = list(outline_entries(pdf.Root.Outlines.get("/First")))
        if len(entries) != len(headings):
            raise RuntimeError(f"{path} has {len(entries)} outline entries for {len(headings)} headings.")
        for entry, heading in zip(entries, headings):
            entry.Title = heading
        pdf.save(path)
        return len(pdf.pages)


def make_pdf(html, target):
    """Print the built pages in the folder ``html`` into the file ``target``."""
    if not (html / FIRST_PAGE).exists():
        sys.exit(f"{html / FIRST_PAGE} is not there: build the pages first, with `make book`.")
    target.parent.mkdir(parents=True, exist_ok=True)
    source, contents = target.with_suffix(".html"), target.with_suffix(".contents.pdf")
    parts = table_of_contents(html)
    pages = [page for _, chapters in parts for page, _ in chapters]
    articles = [article_of(html, page, pages, target.parent) for page in pages]
    with open_browser() as browser:
        page = browser.new_page(java_script_enabled=False)

        def print_pdf(path, page_numbers, articles, page_ranges=""):
            text = one_file(html, target.parent, contents_list(parts, page_numbers), articles)
            source.write_text(text, encoding="utf-8")
            page.goto(source.resolve().as_uri())
            page.pdf(path=path, page_ranges=page_ranges, **PRINT)

        print_pdf(target, dict.fromkeys(map(anchor, pages), "000"), articles)
        headings = read_headings(source)
        page_numbers = page_of(target)
        last_page = page_numbers[anchor(pages[0])] - 1
        print_pdf(contents, page_numbers, articles[:1], f"2-{last_page}")  # drawn as with all chapters
    num_pages = finish(target, contents, headings)
    source.unlink()
    contents.unlink()
    print(f"The book as a PDF of {num_pages} pages: {target}")


if __name__ == "__main__":
    folders = [Path(name) for name in sys.argv[1:]]
    make_pdf(*(folders + [ROOT / "_build/html", ROOT / "_build/pdf/book.pdf"][len(folders) :]))
