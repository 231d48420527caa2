"""The built pages, for the tests that open them in a browser.

Without a browser or without built pages these tests are skipped. With BOOK_BROWSER=required,
which .ci/run sets, that is an error.
"""

import os
from pathlib import Path

import pytest

from tools.browser import BROWSERS, find_browser

ROOT = Path(__file__).resolve().parents[1]
HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html"))  # another folder: to try these tests
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.parts and path != HTML / "index.html"  # that one leads to the first page
)
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]


def need_browser_and_pages():
    """Skip the calling module, or stop, when there is nothing to test with."""
    need_browser()
    if not NOTEBOOKS:
        skip_or_stop(f"No built pages in {HTML}: run `make book` first.")


def need_browser():
    """Skip the calling module, or stop, when there is no browser."""
    if find_browser() is None:
        skip_or_stop(f"No browser found; looked for {', '.join(BROWSERS)}.")


def skip_or_stop(missing):
    if os.environ.get("BOOK_BROWSER") == "required":
        raise RuntimeError(missing)
    pytest.skip(missing, allow_module_level=True)
