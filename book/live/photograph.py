"""Take the pictures that stand in for the live figures where nothing is live.

    python book/live/photograph.py [NAME ...]        # default: all

builds a small book with one page a figure, opens it in Chromium and writes
``book/figures/live/NAME.png``. Run it, and ``make notebooks``, after a figure has changed its looks.
"""

import io
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from figures import FOLDER, LIVE, show_live  # noqa: E402
from tools.browser import open_browser  # noqa: E402

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "extensions")!r})
project = "Live figures"
extensions = ["myst_nb", "live_figures"]
html_theme = "sphinx_book_theme"
html_static_path = [{str(ROOT / "book" / "_static")!r}]
html_css_files = ["book.css"]
html_favicon = {str(ROOT / "book" / "_static" / "favicon.svg")!r}
html_context = {{"default_mode": "auto"}}
language = "en"
numfig = True
nb_execution_mode = "off"
suppress_warnings = ["image.not_readable", "myst-nb.lexer"]
"""


def make_small_book(folder, names=tuple(LIVE)):
    """Build a book with a page for each live figure, and one notebook that shows them by code cells.

    Returns:
        Path: the folder of its pages: ``NAME.html``, and ``notebook.html``.
    """
    source, html = Path(folder) / "source", Path(folder) / "html"
    source.mkdir(parents=True, exist_ok=True)
    (source / "conf.py").write_text(CONF, "utf-8")
    pages = "\n".join([*names, "notebook"])
    (source / "index.md").write_text(f"# Live figures\n\n```{{toctree}}\n{pages}\n```\n", "utf-8")
    for name in names:
        (source / f"{name}.md").write_text(f"# {name}\n\n```{{live-figure}} {name}\n```\n", "utf-8")
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    notebook.cells.append(nbformat.v4.new_markdown_cell("# Notebook"))
    for name in names:
        html_output = show_live(name)._repr_html_() if show_live(name).path.exists() else ""
        output = nbformat.v4.new_output("execute_result", {"text/html": html_output}, execution_count=1)
        notebook.cells.append(nbformat.v4.new_code_cell(f'show_live("{name}")', outputs=[output]))
    nbformat.write(notebook, source / "notebook.ipynb")
    Sphinx(source, source, html, Path(folder) / "doctrees", "html", status=None, parallel=1).build()
    return html


def photograph(page, name):
    """Photograph the figure on an open page into ``book/figures/live``."""
    page.add_style_tag(content=".live-foot { display: none !important; }")  # what it says is of the page
    figure = page.locator(f'[data-live="{name}"][data-state="live"]')
    picture = Image.open(io.BytesIO(figure.screenshot(animations="disabled"))).convert("RGB")
    path = FOLDER / "live" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main(names):
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        html = make_small_book(folder, names)
        page = browser.new_page(viewport={"width": 860, "height": 1400}, device_scale_factor=1.5)
        for name in names:
            page.goto((html / f"{name}.html").as_uri())
            photograph(page, name)


if __name__ == "__main__":
    main(sys.argv[1:] or list(LIVE))
