"""Light pages: what is cut is what no page uses, on small examples and in the built book."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "extensions"))

import light_pages  # noqa: E402
import style_sheets  # noqa: E402

# ---------------------------------------------------------------------------------
# Style sheets
# ---------------------------------------------------------------------------------


def used(sheet, page="", *scripts):
    """The rules of a sheet that stay beside a page and scripts, in one line."""
    names = style_sheets.names_on(page).union(*map(style_sheets.names_in, scripts))
    return style_sheets.used_styles([sheet], names).replace("\n", "")


@pytest.mark.parametrize(
    "selector",
    [
        ".card",
        "#top",
        "p",
        "*",
        "div.card > p",
        "p:hover",
        "p::after",
        "p:not(.gone)",
        ":is(.gone, p)",
        "[data-gone]",
        ".card[data-mode=dark] p:nth-child(2n + 1)",
        ".added-by-script",
        ".tooltip-top",
        "@media print{.card",
        "@supports (gap: 1px){@media print{.card",
    ],
)
def test_rule_that_may_find_something_stays(selector):
    page = '<div class="card wide" id="top"><p>text</p></div>'
    script = 'element.classList.add("added-by-script", `tooltip-${place}`)'
    rule = f"{selector}{{color:red}}" + "}" * selector.count("{")
    assert used(rule, page, script) == rule.replace("2n + 1", "2n + 1")


@pytest.mark.parametrize(
    "selector",
    [".gone", "#gone", "video", "p.gone", ".card .gone p", "@media print{.gone", "p.gone:not(.card)"],
)
def test_rule_that_finds_nothing_goes(selector):
    rule = f"{selector}{{color:red}}" + "}" * selector.count("{")
    assert used(rule, '<p class="card">gone, and a video</p>') == ""


def test_only_the_selectors_that_find_something_stay():
    assert used(".gone, p, .gone p { color: red }", "<p>") == "p{color:red}"


def test_variable_stays_only_where_something_uses_it():
    root = ":root{--a:1px;--b:var(--c);--c:2px;--d:var(--e);--e:3px;--f:4px}"
    sheet = f"{root}p{{margin:var(--b)}}.gone{{margin:var(--d)}}"
    script = 'style.getPropertyValue("--f")'
    assert used(sheet, "<p>", script) == ":root{--b:var(--c);--c:2px;--f:4px}p{margin:var(--b)}"


def test_animation_stays_only_where_something_uses_it():
    moves = "@keyframes {}{{from{{top:0}}to{{top:1px}}}}"
    sheet = f"{moves.format('spin')}{moves.format('fade')}p{{animation:1s spin}}.gone{{animation:fade 1s}}"
    assert used(sheet, "<p>") == f"{moves.format('spin')}p{{animation:1s spin}}"


def test_order_importance_licence_and_signs_are_kept():
    rules = 'p{color:red!important;content:"\\f0c9;}"}', "p{color:blue}", "p{color:red!important}"
    sheet = f"/*! licence */ /* a word */ {' '.join(rules)}"
    assert used(sheet, "<p>") == f"/*! licence */{''.join(rules)}".replace("\\f0c9", "\uf0c9")


def test_imported_sheets_and_addresses_are_found_from_the_new_place(tmp_path):
    (tmp_path / "styles").mkdir()
    (tmp_path / "basic.css").write_text("p{background:url(file.png)}")
    (tmp_path / "styles" / "theme.css").write_text(
        '@import "../basic.css";\nb{background:url("../fonts/a.woff2")}'
    )
    text = style_sheets.read_sheet(tmp_path / "styles" / "theme.css", tmp_path)
    assert text == 'p{background:url("file.png")}\nb{background:url("fonts/a.woff2")}'


def test_one_order_of_sheets_has_the_order_of_every_page():
    assert light_pages.merged([["a", "c"], ["a", "b", "c"], ["c", "d"]]) == ["a", "b", "c", "d"]


# ---------------------------------------------------------------------------------
# A small book
# ---------------------------------------------------------------------------------

FONTAWESOME = (
    'var p={github:[496,512,[],"f09b","M1 1z"]};(function(){d("fab",p),d("fa-brands",p)})'
    'var p={"sun":[640,512,["old-sun"],"f185","M2 2z"]};(function(){d("fas",p),d("fa-solid",p)})'
    "s=':root{--x:1}.svg-inline--fa{height:1em}.fa-gone{top:0}'"
)
PAGE = """<!DOCTYPE html>
<html data-theme="auto"><head>
    <link rel="stylesheet" href="../_static/styles/theme.css?digest=1" />
    <link rel="preload" as="script" href="../_static/scripts/theme.js" />
    <link rel="stylesheet" type="text/css" href="../_static/book.css?v=1" />
    <link rel="next" href="other.html" />
    <script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
    <script src="../_static/documentation_options.js?v=1"></script>
    <script src="../_static/copybutton.js?v=1"></script>
    <script>DOCUMENTATION_OPTIONS.pagename = 'book/page';</script>
    <script src="../_static/searchtools.js"></script>
    <script src="../searchindex.js"></script>
</head><body>
<article><h1>Title</h1>
<i class="theme-switch fa-solid fa-sun fa-lg" data-mode="light" aria-hidden="true"></i>
<span class="fab fa-github"></span>
<img alt="a plot" src="../_images/plot.png" /><img alt="a drawing" src="../_images/drawing.svg" />
</article></body></html>
"""


@pytest.fixture
def book(tmp_path):
    files = {
        "_static/scripts/fontawesome.js": FONTAWESOME,
        "_static/styles/theme.css": ".theme-switch{top:1px}.gone{top:2px}.svg-inline--fa{color:red}",
        "_static/book.css": "img{height:auto}.copied{top:3px}",
        "_static/documentation_options.js": "const DOCUMENTATION_OPTIONS = {};",
        "_static/copybutton.js": 'element.classList.add("copied")',
        "_static/searchtools.js": "",
        "searchindex.js": "",
        "_images/drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"></svg>',
        "book/page.html": PAGE,
        "search.html": PAGE.replace("../", ""),
        "index.html": '<meta http-equiv="Refresh" content="0; url=book/page.html" />\n',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "_images" / "plot.png")
    return tmp_path


def test_icons_become_what_font_awesome_would_draw(book):
    light_pages.make_light(book)
    text = (book / "book" / "page.html").read_text("utf-8")
    assert (
        '<svg class="svg-inline--fa theme-switch fa-sun fa-lg" data-mode="light" aria-hidden="true" '
        'focusable="false" role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 512">'
        '<path fill="currentColor" d="M2 2z"></path></svg>' in text
    )
    assert 'viewBox="0 0 496 512"' in text and "fontawesome.js" not in text


def test_former_name_of_an_icon_is_known(book):
    page = book / "book" / "page.html"
    page.write_text(PAGE.replace("fa-sun", "fa-old-sun"), "utf-8")
    light_pages.make_light(book)
    assert 'class="svg-inline--fa theme-switch fa-old-sun fa-lg"' in page.read_text("utf-8")


def test_unknown_icon_ends_the_build(book):
    (book / "book" / "page.html").write_text(PAGE.replace("fa-sun", "fa-unheard-of"), "utf-8")
    with pytest.raises(Exception, match="no icon for: .*fa-unheard-of"):
        light_pages.make_light(book)


def test_page_has_one_style_sheet_and_it_has_what_the_page_uses(book):
    light_pages.make_light(book)
    for name, up in [("book/page.html", "../"), ("search.html", "")]:
        text = (book / name).read_text("utf-8")
        [sheet] = re.findall(r'rel="stylesheet" href="([^"?]+)', text)
        assert sheet == f"{up}_static/light.css"
        assert "preload" not in text and '<link rel="next" href="' in text
    assert (book / "_static" / "light.css").read_text("utf-8").splitlines() == [
        '@charset "utf-8";',
        ".svg-inline--fa{height:1em}",
        ".theme-switch{top:1px}",
        ".svg-inline--fa{color:red}",
        "img{height:auto}",
        ".copied{top:3px}",
    ]


def test_scripts_wait_and_the_search_index_is_on_the_search_page_only(book):
    light_pages.make_light(book)
    page, search = ((book / name).read_text("utf-8") for name in ("book/page.html", "search.html"))
    assert "searchindex.js" not in page and "searchtools.js" not in page
    assert '<script defer src="searchtools.js"></script>' in search.replace("_static/", "")
    assert '<script defer src="searchindex.js"></script>' in search
    assert page.index("<script>const DOCUMENTATION_OPTIONS") < page.index(
        "<script>DOCUMENTATION_OPTIONS.pagename"
    )
    assert '<script defer src="../_static/copybutton.js?v=1"></script>' in page


def test_images_say_their_size_wait_and_are_smaller(book):
    light_pages.make_light(book)
    text = (book / "book" / "page.html").read_text("utf-8")
    assert 'src="../_images/plot.webp" width="300" height="200" loading="lazy"' in text
    assert 'src="../_images/drawing.svg" width="40" height="30" loading="lazy"' in text
    with Image.open(book / "_images" / "plot.png") as png, Image.open(book / "_images" / "plot.webp") as webp:
        assert png.convert("RGB").tobytes() == webp.convert("RGB").tobytes()


@pytest.mark.parametrize("see_through", [False, True])
def test_many_colours_become_256_that_look_the_same(see_through):
    ramps = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    image = Image.merge("RGB", ramps)
    if see_through:
        image.putalpha(ramps[0])
    few = light_pages.with_few_colours(image)
    if see_through:
        assert few.tobytes() == image.tobytes()
    else:
        assert len(image.getcolors(2**16)) > 10_000 and len(few.getcolors(2**16)) <= 256
        assert max(ImageStat.Stat(ImageChops.difference(image, few)).mean) < 8  # of 255, in the worst case


def everything_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_time_changes_nothing(book):
    light_pages.make_light(book)
    once = everything_in(book)
    light_pages.make_light(book)
    assert everything_in(book) == once


def test_page_built_anew_gives_what_a_whole_build_gives(book):
    """An incremental build writes some pages; the style sheet and the others follow."""
    (book / "search.html").write_text(PAGE.replace("../", "").replace("<h1>", '<h1 class="gone">'), "utf-8")
    light_pages.make_light(book)
    assert ".gone{top:2px}" in (book / "_static" / "light.css").read_text("utf-8")
    (book / "search.html").write_text(PAGE.replace("../", ""), "utf-8")
    light_pages.make_light(book)
    incremental = everything_in(book)
    for name, up in [("book/page.html", "../"), ("search.html", "")]:
        (book / name).write_text(PAGE.replace("../", up), "utf-8")
    light_pages.make_light(book)
    assert everything_in(book) == incremental
