"""The page of the bibliography is made from book/references.bib, and every link to a work finds it."""

import re
from pathlib import Path

from tools.make_bibliography import TARGET, bibliography

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")]


def test_page_is_made_from_the_list():
    assert TARGET.read_text(encoding="utf-8") == bibliography()


def test_every_work_that_is_linked_is_listed():
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall("(?m)^## (.*)", bibliography())
    }
    linked = {
        anchor
        for page in PAGES
        for anchor in re.findall(r"bibliography\.md#([\w-]+)", page.read_text("utf-8"))
    }
    assert len(linked) > 10 and linked - anchors == set()
