"""The drawings in book/figures/ are what their code draws, and no word in them is cut or covered."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.browser import find_browser, open_browser

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "figures"
WORDS = json.loads((FOLDER / "words_en.json").read_text(encoding="utf-8"))["drawings"]
DRAWINGS = sorted(FOLDER.glob("*.svg"))
each_drawing = pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)


def test_each_drawing_has_words_and_the_reverse():
    assert [path.stem for path in DRAWINGS] == sorted(WORDS)
    for words in WORDS.values():
        assert len(words["caption"]) > 20 and len(words["alt"]) > 60


def test_drawings_are_those_that_the_code_draws(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("draw_model", "draw_others"):
        module = __import__(name)
        monkeypatch.setattr(module, "FOLDER", tmp_path)
        module.main()
        sys.modules.pop(name)
    sys.modules.pop("drawing")
    for path in DRAWINGS:
        assert (tmp_path / path.name).read_text("utf-8") == path.read_text("utf-8"), f"draw {path.name} again"


@each_drawing
def test_drawing_is_for_a_phone_in_light_and_dark(path):
    svg = path.read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert 'width="400"' in svg and "prefers-color-scheme: dark" in svg
    assert not re.findall(r'(?:fill|stroke)="#', svg), "a colour outside the style"


OVERLAPS = """() => {
    const wrong = [], frame = document.querySelector("svg").viewBox.baseVal;
    const edges = part => {
        const {x, y, width, height} = part.getBBox();
        return {x, y, right: x + width, bottom: y + height, middle: x + width / 2, level: y + height / 2};
    };
    const texts = [...document.querySelectorAll("svg text")].map(
        text => ({words: text.textContent, ...edges(text)}));
    texts.forEach((a, i) => {
        if (a.x < 8 || a.right > frame.width - 8 || a.y < 4 || a.bottom > frame.height - 4)
            wrong.push("cut: " + a.words);
        for (const b of texts.slice(i + 1))
            if (a.x < b.right && b.x < a.right && a.y + 3 < b.bottom && b.y + 3 < a.bottom)
                wrong.push(a.words + " covers " + b.words);
    });
    for (const group of document.querySelectorAll("svg g")) {
        const boxes = [...group.children].filter(part => part.tagName == "rect");
        if (boxes.length != 1) continue;
        const box = edges(boxes[0]);
        for (const text of [...group.children].filter(part => part.tagName == "text")) {
            const {x, right, middle, level} = edges(text);
            const inside = level > box.y && level < box.bottom && middle > box.x && middle < box.right;
            if (inside && (x < box.x + 2 || right > box.right - 2))
                wrong.push("over the edge of its box: " + text.textContent);
        }
    }
    return wrong;
}"""


@pytest.fixture(scope="module")
def window():
    if find_browser() is None:
        pytest.skip("No browser found.")
    with open_browser() as browser:
        yield browser.new_page()


@each_drawing
def test_no_word_is_cut_or_covered(window, path):
    window.set_content(f"<body>{path.read_text('utf-8')}</body>")
    assert window.evaluate(OVERLAPS) == []
