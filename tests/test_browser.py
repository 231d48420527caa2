"""The built book in a real browser: _build/html as `make book` leaves it."""

import gzip
import posixpath
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup, SoupStrainer
from built_book import HTML, NOTEBOOKS, PAGES, need_browser_and_pages

from tools.browser import QuietHandler, open_browser, serve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book" / "extensions"))
from light_pages import Icons  # noqa: E402

need_browser_and_pages()
if version("sphinx-book-theme").startswith("1.1."):
    pytest.skip(
        "These tests are for the pages of Python 3.11 or later: 3.10 has an older theme.",
        allow_module_level=True,
    )

DESKTOP = {"width": 1300, "height": 900}
PHONE = {"width": 360, "height": 760}


@pytest.fixture(scope="module")
def web():
    """Address of a local server with the built pages."""
    with serve(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def windows(browser):
    """One window for each screen, kept open: {(screen, colours): page}."""
    return {
        (screen, colours): browser.new_context(
            viewport=DESKTOP if screen == "desktop" else PHONE,
            is_mobile=screen == "phone",
            has_touch=screen == "phone",
            color_scheme=colours,
        ).new_page()
        for screen, colours in [("desktop", "light"), ("phone", "dark")]
    }


@pytest.fixture
def window(windows):
    """The window on a desktop; what a test changed in it is undone afterwards."""
    window = windows["desktop", "light"]
    yield window
    window.emulate_media(media="screen")
    window.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")


def open_and_watch(window, address):
    """Open a page; return what went wrong on it, and each address that it asked for."""
    problems, asked = [], []
    watchers = {
        "console": lambda message: (
            problems.append(message.text) if message.type in ("error", "warning") else None
        ),
        "pageerror": lambda error: problems.append(str(error)),
        "requestfailed": lambda request: (
            problems.append(f"{request.url}: {request.failure}")
            if request.failure != "net::ERR_ABORTED"  # the page before was left while it still loaded
            else None
        ),
        "response": lambda response: (
            problems.append(f"{response.url}: {response.status}") if response.status >= 400 else None
        ),
        "request": lambda request: asked.append(request.url),
    }
    for event, watcher in watchers.items():
        window.on(event, watcher)
    window.goto(address)
    window.evaluate("document.fonts.ready")
    for event, watcher in watchers.items():
        window.remove_listener(event, watcher)
    return problems, asked


# ---------------------------------------------------------------------------------
# Every page
# ---------------------------------------------------------------------------------

EMPTY_IMAGES = """async () => {
    const images = [...document.images];
    images.forEach(image => { image.loading = "eager"; });
    const shown = await Promise.allSettled(images.map(image => image.decode()));
    return images.filter((image, i) => shown[i].status === "rejected" || !image.naturalWidth)
        .map(image => image.src);
}"""


@pytest.fixture(scope="module")
def served_window(browser):
    return browser.new_page(viewport=DESKTOP)


@pytest.fixture(scope="module", params=PAGES)
def served(request, served_window, web):
    """A page from the server, opened once for the tests below: its name, window, what was seen meanwhile."""
    problems, asked = open_and_watch(served_window, f"{web}/{request.param}")
    return SimpleNamespace(name=request.param, window=served_window, problems=problems, asked=asked)


def test_page_describes_itself_and_its_images_say_how_large_they_are(served):
    window = served.window
    assert 20 < len(window.locator("meta[name=description]").get_attribute("content")) <= 155
    for image in window.locator("article.bd-article img").all():  # in a live figure, until its script runs
        assert {"width", "height"} <= set(image.evaluate("image => image.getAttributeNames()"))
        assert image.get_attribute("loading") == "lazy"
    assert window.evaluate(UNDRAWN_ICONS) == []


UNDRAWN_ICONS = """[...document.querySelectorAll("[class*='fa-'], .fa, .fas, .far, .fab")]
    .filter(icon => icon.localName !== "svg" || !icon.querySelector("path")?.getAttribute("d"))
    .map(icon => icon.outerHTML)"""


def weight(url):
    """Bytes of a file of the book as a server that compresses sends it; a font is compressed already."""
    content = (HTML / urlsplit(url).path.lstrip("/")).read_bytes()
    return len(content if url.endswith((".png", ".webp", ".woff2")) else gzip.compress(content, 6))


def test_page_is_light(served, web):
    """All that is loaded until a reader touches a live figure, and every image of the page."""
    images = served.window.evaluate("[...document.images].map(image => image.src)")
    assert sum(map(weight, {url for url in [*served.asked, *images] if url.startswith(web)})) <= 400_000
    sheets = served.window.evaluate("[...document.styleSheets].map(sheet => sheet.href).filter(Boolean)")
    assert [Path(urlsplit(url).path).name for url in sheets] == ["light.css"]
    assert served.name == "search.html" or not any("searchindex.js" in url for url in served.asked)


def assert_complete(window, problems, asked, base):
    assert problems == []
    assert [url for url in asked if not url.startswith((base, "data:"))] == []
    assert window.evaluate(EMPTY_IMAGES) == []


def test_page_is_complete_and_asks_for_nothing_outside(served, web):
    # after the page was weighed: it makes the images load that wait for a reader
    assert_complete(served.window, served.problems, served.asked, web)


PRINTED = """() => ({
    shown: ["#pst-primary-sidebar", "#pst-secondary-sidebar", ".bd-header-article", ".prev-next-footer"]
        .filter(name => document.querySelector(name)?.offsetHeight),
    hidden: [...document.querySelectorAll("article details pre")].filter(code => !code.checkVisibility(
        {contentVisibilityAuto: true})).length,
    cut: [...document.querySelectorAll("article pre, article figure, article table, article div.math")]
        .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth)
        .map(part => part.textContent.slice(0, 80)),
})"""


def test_page_on_paper_has_no_navigation_and_nothing_hidden_or_cut(served):
    try:
        served.window.emulate_media(media="print")
        served.window.set_viewport_size({"width": 680, "height": 960})  # the text of an A4 page
        assert served.window.evaluate(PRINTED) == {"shown": [], "hidden": 0, "cut": []}
    finally:
        served.window.emulate_media(media="screen")
        served.window.set_viewport_size(DESKTOP)


# Rules that must hold although axe counts them as less than serious, or as experimental.
MORE_RULES = ["region", "heading-order", "page-has-heading-one", "label-content-name-mismatch", "skip-link"]
AXE_OPTIONS = {
    "resultTypes": ["violations"],
    "preload": False,
    "rules": {name: {"enabled": True} for name in MORE_RULES},
}
# One word of code in each colour is enough for the contrast of all of them, and much faster.
KEEP_ONE_OF_EACH_COLOUR = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll(".highlight pre span")) {
        if (word.childElementCount) continue;
        const style = [word.className, word.closest(".cell_input, .cell_output, .highlight").className];
        if (seen.has(style.join())) word.replaceWith(word.textContent);
        seen.add(style.join());
    }
}"""


def violations(window):
    """What axe finds on a page as it stands."""
    window.evaluate(KEEP_ONE_OF_EACH_COLOUR)
    return [
        (violation["impact"], violation["id"], node["target"], node["html"][:200])
        for violation in Axe().run(window, options=AXE_OPTIONS).response["violations"]
        for node in violation["nodes"]
        if violation["impact"] in ("serious", "critical") or violation["id"] in MORE_RULES
    ]


def test_page_has_no_accessibility_violation(served):
    # the last of these tests: it takes most of the coloured words away
    assert served.window.evaluate("document.documentElement.dataset.theme") == "light"
    assert violations(served.window) == []


@pytest.fixture(scope="module", params=PAGES)
def on_a_phone(request, windows, web):
    """A page on a phone in dark colours, opened once for the two tests below."""
    window = windows["phone", "dark"]
    window.goto(f"{web}/{request.param}")
    return window


def test_page_has_no_sideways_scroll_on_a_phone(on_a_phone):
    assert on_a_phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_page_has_no_accessibility_violation_on_a_phone(on_a_phone):
    assert on_a_phone.evaluate("document.documentElement.dataset.theme") == "dark"
    assert violations(on_a_phone) == []


@pytest.mark.parametrize("page", PAGES)
def test_images_of_a_page_have_alt_texts_in_words(page):
    # as it was written: a live figure takes the place of its picture
    html = (HTML / page).read_text("utf-8")
    images = BeautifulSoup(html, "html.parser", parse_only=SoupStrainer("img")).find_all("img")
    alts = [(image["src"], image.get("alt", "").strip()) for image in images]
    # without a text of its own, an image is given its path
    assert [(src, alt) for src, alt in alts if len(alt) < 20 or alt.endswith((".png", ".svg", ".webp"))] == []


@pytest.mark.parametrize("page", PAGES)
def test_page_opened_from_disk_is_complete(windows, page):
    window = windows["desktop", "light"]
    assert_complete(window, *open_and_watch(window, f"{HTML.as_uri()}/{page}"), HTML.as_uri())


SHIFTS = """window.shifts = []; new PerformanceObserver(list => window.shifts.push(...list.getEntries().map(
    shift => [shift.value, shift.sources.map(source => source.node?.textContent?.slice(0, 80))])))
    .observe({ type: "layout-shift", buffered: true });"""
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


class SlowHandler(QuietHandler):
    """Sends scripts and fonts late, at each visit."""

    def end_headers(self):
        if self.path.split("?")[0].endswith((".js", ".woff2")):
            time.sleep(0.05)
            self.send_header("Cache-Control", "no-store")
        super().end_headers()


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_moves_when_scripts_and_fonts_come_late(browser, screen):
    window = browser.new_page(viewport=screen)
    window.add_init_script(SHIFTS)
    moved = {}
    with serve(HTML, SlowHandler) as web:
        for page in PAGES:
            window.goto(f"{web}/{page}")
            window.evaluate(FRAMES)
            moved[page] = window.evaluate("window.shifts")
    window.close()
    seen = {page: [shift for shift in shifts if shift[0] > 0.001] for page, shifts in moved.items()}
    assert {page: shifts for page, shifts in seen.items() if shifts} == {}  # less, nobody sees


# Elements with the same classes below the same classes look the same; a live figure has a sheet of its own.
LOOKS = """() => {
    const looks = new Map(), place = scrollY;
    document.body.style.display = "none";  // so that all is laid out afresh: automatic margins are kept else
    document.body.offsetHeight;
    document.body.style.display = "";
    scrollTo({ top: place, behavior: "instant" });
    const properties = [...getComputedStyle(document.body)].filter(name => !name.startsWith("--"));
    const named = element => element ? `${element.localName}.${element.className}#${element.id}` : "";
    for (const element of document.querySelectorAll("html, body, body *")) {
        const key = `${named(element.parentElement)} > ${named(element)}`.replace(/ active/g, "");
        if (looks.has(key) || element.closest("math *, svg *, [data-live] *")) continue;
        for (const part of ["", "::before", "::after"]) {
            const style = getComputedStyle(element, part);
            looks.set(key + part, part && style.content === "none" ? []
                : properties.map(name => `${name}: ${style.getPropertyValue(name)}`));
        }
    }
    return looks;
}"""
DIFFERENCES = """async ([looks, icons]) => {
    const still = document.createElement("style");
    still.textContent = "*, ::before, ::after { transition: none !important; animation: none !important }";
    document.head.append(still);
    const light = eval(looks)(), sheet = document.querySelector("link[data-sheets]");
    const added = document.createElement("style");
    added.textContent = icons;
    sheet.before(added);
    await Promise.all(sheet.dataset.sheets.split(" ").map(path => new Promise(done => {
        const link = document.createElement("link");
        Object.assign(link, { rel: "stylesheet", onload: done });
        link.href = document.documentElement.dataset.content_root + path;
        sheet.before(link);
    })));
    sheet.remove();
    await document.fonts.ready;
    const whole = eval(looks)(), found = [];
    for (const [key, look] of light) {
        const other = whole.get(key) ?? [];
        const changed = look.flatMap((one, i) => (one === other[i] ? [] : `${one}, was ${other[i]}`));
        if (look.length !== other.length || changed.length) found.push([key, changed.slice(0, 10)]);
    }
    return found.slice(0, 10);
}"""


def lost_styles(window):
    """What looks another way on a page, as it stands, with the style sheets that it was built with."""
    return window.evaluate(DIFFERENCES, [LOOKS, Icons(HTML / "_static").style])


# It takes some seconds a page: of each kind one.
KINDS = ["book/intro.html", "notebooks/05_two_class_head.html", "book/glossary.html", "search.html"]


@pytest.mark.parametrize("page", KINDS)
def test_nothing_on_a_page_lost_its_style(windows, web, page):
    window = windows["phone", "dark"]
    window.goto(f"{web}/{page}")
    assert lost_styles(window) == []


def open_tooltip(window):
    window.locator(".bd-header-article .theme-switch-button").hover()
    window.locator(".tooltip.show").wait_for()


def close_sidebar(window):
    window.locator(".primary-toggle").first.click()
    window.mouse.move(0, 0)  # else the button is passed over now or not, as the page moves below the pointer


def copy_code(window):
    window.evaluate("() => { window.setTimeout = () => 0; }")  # the mark of success stays
    window.locator(".cell_input:visible").first.hover()
    window.locator(".cell_input button.copybtn:visible").first.click()
    window.locator("button.copybtn.success").wait_for()


# What scripts add to a page or change on it: the address after the page's, and what a reader does.
STATES = {
    "search dialog": ("", lambda window: window.locator("button.search-button-field").click()),
    "menu": ("", lambda window: window.get_by_label("Download this page").click()),
    "tooltip": ("", open_tooltip),
    "copied code": ("", copy_code),
    "open fold": ("", lambda window: window.locator("article details summary").first.click()),
    "closed sidebar": ("", close_sidebar),
    "found words": ("?highlight=softmax", lambda window: window.locator(".highlighted").first.wait_for()),
    "paper": ("", lambda window: window.emulate_media(media="print")),
}


@pytest.mark.parametrize("state", STATES)
def test_nothing_that_scripts_change_lost_its_style(window, web, state):
    address, act = STATES[state]
    window.goto(f"{web}/notebooks/07_initial_accuracy_and_loss.html{address}")
    act(window)
    assert lost_styles(window) == []


@pytest.mark.parametrize(
    "question, answer", [("softmax", "Search finished"), ("qwxzjk", "did not match any")]
)
def test_no_result_of_a_search_lost_its_style(window, web, question, answer):
    window.goto(f"{web}/search.html?q={question}")
    window.get_by_text(answer).wait_for()
    window.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('Searching')")
    assert lost_styles(window) == []


@pytest.mark.parametrize("button", [".primary-toggle", ".secondary-toggle:visible"])
def test_no_sidebar_of_a_phone_lost_its_style(windows, web, button):
    window = windows["phone", "dark"]
    window.goto(f"{web}/notebooks/07_initial_accuracy_and_loss.html")
    window.locator(button).first.click()
    assert lost_styles(window) == []


NUMBERED_REFERENCES = """[...document.querySelectorAll("article a .std-numref")].map(reference => {
    const address = reference.closest("a").getAttribute("href");
    const figure = address.startsWith("#") ? document.getElementById(address.slice(1)) : null;
    return [reference.textContent, figure?.querySelector(".caption-number")?.textContent ?? address];
})"""


@pytest.mark.parametrize("page", [page for page in PAGES if "std-numref" in (HTML / page).read_text("utf-8")])
def test_numbered_references_lead_to_the_figure_with_that_number(windows, web, page):
    window = windows["desktop", "light"]
    window.goto(f"{web}/{page}")
    references = window.evaluate(NUMBERED_REFERENCES)
    numbers = window.locator("h1 .section-number").all_inner_texts()  # none on a page before the chapters
    chapter = re.match(r"\d+", numbers[0])[0] + r"\." if numbers else ""
    assert references
    for text, number_of_figure in references:
        assert re.fullmatch(rf"Fig\. {chapter}\d+", text)
        assert number_of_figure.strip() == text


# ---------------------------------------------------------------------------------
# What a reader does
# ---------------------------------------------------------------------------------


def test_start_page_leads_to_the_first_page(window, web):
    window.goto(web)
    window.wait_for_url("**/book/intro.html")


def test_previous_and_next_lead_through_the_whole_book():
    arrows = SoupStrainer("a", class_=["left-prev", "right-next"])

    def neighbours(page):
        """The pages before and after a page, None where there is none."""
        links = BeautifulSoup((HTML / page).read_text("utf-8"), "html.parser", parse_only=arrows)
        found = [links.select_one(name) for name in ("a.left-prev", "a.right-next")]
        return [
            link and posixpath.normpath(posixpath.join(posixpath.dirname(page), link["href"]))
            for link in found
        ]

    seen, (_, following) = ["book/intro.html"], neighbours("book/intro.html")
    while following:
        before, after = neighbours(following)
        assert before == seen[-1]
        seen.append(following)
        following = after
    assert set(seen) == set(PAGES) - {"genindex.html", "search.html"}
    assert len(seen) == len(set(seen))


def test_next_leads_on(window, web):
    window.goto(f"{web}/book/intro.html")
    window.locator("a.right-next").click()
    window.wait_for_url(f"{web}/book/setup.html")


@pytest.mark.parametrize("source", ["server", "disk"])
def test_search_finds_a_word_and_its_result_opens(window, web, source):
    base = web if source == "server" else HTML.as_uri()
    window.goto(f"{base}/book/intro.html")
    window.locator("button.search-button-field").click()
    window.locator("#pst-search-dialog input").fill("softmax")
    window.keyboard.press("Enter")
    window.wait_for_url("**/search.html?q=softmax**")
    window.get_by_text("Search finished").wait_for()
    result = window.locator("#search-results ul.search li a").first
    title = result.inner_text()
    result.click()
    window.wait_for_url(lambda address: "/search.html" not in address)
    article = window.locator("article.bd-article").inner_text()
    assert title.split(" > ")[-1] in article and "softmax" in article


def test_search_for_a_word_that_is_nowhere_says_so(window, web):
    window.goto(f"{web}/search.html?q=qwxzjk")
    window.get_by_text("did not match any documents").wait_for()


LUMINANCE = """element => {
    const [r, g, b, alpha = 1] = getComputedStyle(element).backgroundColor.match(/[\\d.]+/g).map(Number);
    return alpha ? (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255 : null;
}"""
FILTER = "image => getComputedStyle(image).filter"


def test_theme_switch_works_and_figures_follow(window, web):
    window.goto(f"{web}/notebooks/07_initial_accuracy_and_loss.html")
    switch = window.locator(".bd-header-article .theme-switch-button")
    background = {}
    for _ in range(3):  # the system's colours, light, dark
        switch.click()
        colours = window.evaluate("document.documentElement.dataset.theme")
        background[colours] = window.locator("body").evaluate(LUMINANCE)
        if colours == "dark":
            drawings = window.locator("article figure img").all()
            plots = window.locator("article .cell_output img").all()
            assert drawings and plots
            # drawings have dark colours of their own, plots are turned
            assert all(drawing.evaluate(FILTER) == "none" for drawing in drawings)
            assert all(plot.evaluate(FILTER).startswith("invert") for plot in plots)
            window.reload()
            assert window.evaluate("document.documentElement.dataset.theme") == "dark"  # remembered
    assert background["light"] > 0.9 and background["dark"] < 0.1


@pytest.fixture(scope="module", params=NOTEBOOKS)
def lesson(request, windows, web):
    """The page of a notebook, opened once for the two tests below: its name and window."""
    window = windows["desktop", "light"]
    window.goto(f"{web}/{request.param}")
    return SimpleNamespace(name=request.param, window=window)


def test_hidden_solutions_open(lesson):
    solutions = lesson.window.locator("details:has-text('#@title Solution')")
    assert solutions.count() >= 2
    for solution in solutions.all():
        code = solution.locator("pre").first
        assert not code.is_visible()
        summary = solution.locator("summary")
        assert summary.inner_text().strip() == "Show the solution"
        summary.click()
        assert code.is_visible()
        assert summary.inner_text().strip() == "Hide the solution"


def test_notebook_can_be_downloaded_from_its_page(lesson, tmp_path):
    window, name = lesson.window, Path(lesson.name).stem + ".ipynb"
    window.get_by_label("Download this page").click()
    with window.expect_download() as download:
        window.locator("a.btn-download-source-button").click()
    assert download.value.suggested_filename == name
    download.value.save_as(tmp_path / name)
    title, *_ = nbformat.read(tmp_path / name, as_version=4).cells[0].source.splitlines()
    assert title.removeprefix("# ") in window.locator("h1").first.inner_text()


def test_copy_button_copies_the_code_of_its_cell(window, web):
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    window.goto(f"{web}/notebooks/07_initial_accuracy_and_loss.html")
    cell = window.locator(".cell_input:has-text('probas = torch.softmax')").first
    cell.hover()
    cell.locator("button.copybtn").click()
    copied = window.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == cell.locator("pre").inner_text().strip()
    assert "label = torch.argmax(probas)" in copied


def test_download_of_a_notebook_from_disk_opens_its_file(window):
    window.goto(f"{HTML.as_uri()}/{NOTEBOOKS[0]}")
    window.get_by_label("Download this page").click()
    with window.expect_popup() as popup:  # Chromium does not save what comes from a disk
        window.locator("a.btn-download-source-button").click()
    popup.value.wait_for_load_state()
    assert nbformat.reads(popup.value.locator("body").inner_text(), as_version=4).cells


def test_keyboard_reaches_the_skip_link_and_the_search(window, web):
    window.goto(f"{web}/notebooks/07_initial_accuracy_and_loss.html")
    window.keyboard.press("Tab")
    skip = window.locator("#pst-skip-link a")
    assert skip.evaluate("link => link === document.activeElement")
    window.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")  # it slides in
    assert skip.is_visible()
    for _ in range(5):
        window.keyboard.press("Tab")
        if window.evaluate("document.activeElement.matches('.search-button-field')"):
            break
    assert window.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    window.keyboard.press("Enter")
    dialog = window.locator("#pst-search-dialog")
    dialog.wait_for(state="visible")
    window.keyboard.type("freezing")
    assert dialog.locator("input").input_value() == "freezing"
    window.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    skip.focus()
    window.keyboard.press("Enter")
    window.wait_for_url("**/*#main-content")
