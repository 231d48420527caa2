"""Pages that open fast on a phone: what no page uses is cut after the build, what can wait waits.

- Style sheets become one, ``_static/light.css``, without what no page uses (``style_sheets.py``).
- Icons of Font Awesome, drawn by a script of 1.5 MB, become the SVG that this script would make.
- Scripts wait until the page is read; the search index loads on the search page only.
- Images say how large they are, load when they come near the screen, and are small: WebP without loss,
  of at most 256 colours, beside PNG.
- Every page describes itself to search engines, by its first paragraph.

Pages that an earlier build wrote are made light again from what they say of themselves: each names
the style sheets that it had. So nothing depends on which pages are new.
"""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.errors import ExtensionError
from style_sheets import names_in, names_on, read_sheet, used_styles, with_icons_inside

SHEET = "_static/light.css"
DESCRIPTION = 155  # characters, what search engines show

LINK = re.compile(r"[ \t]*<link\b[^>]*>\n?")
SCRIPT = re.compile(r'[ \t]*<script\b([^>]*)\bsrc="([^"]+)"([^>]*)></script>\n?')
IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^"]+)"[^>]*>')
ICON = re.compile(
    r'<(i|span)\b([^>]*)\bclass="((?:[^"]*\s)?(fa[srb]?|fa-(?:solid|regular|brands))(?:\s[^"]*)?)"([^>]*)></\1>'
)
DRAWN = re.compile(r'"?([\w-]+)"?:\[(\d+),(\d+),\[([^\]]*)\],"\w+","([^"]+)"\]')  # in Font Awesome's script
PACK = re.compile(r'\(function\(\)\{\w+\("(fa[srb])",')  # ends a pack of icons there, and names it
ICON_STYLE = re.compile(r"'([^']*\.svg-inline--fa\{[^']*)'")  # its style sheet
PREFIXES = {"fa-solid": "fas", "fa": "fas", "fa-regular": "far", "fa-brands": "fab"}
MARK = "<!-- style sheets -->"
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")


def file_of(address):
    return address.split("?")[0]


# ---------------------------------------------------------------------------------
# Icons
# ---------------------------------------------------------------------------------


class Icons:
    """The icons in Font Awesome's script, and the style sheet in it."""

    def __init__(self, static):
        scripts = [*static.glob("scripts/fontawesome.js"), *static.glob("vendor/fontawesome/*/js/all.min.js")]
        text = scripts[0].read_text("utf-8")
        self.style = ICON_STYLE.search(text)[1]
        self.drawn, self.missing, start = {}, set(), 0
        for pack in PACK.finditer(text):
            for name, width, height, aliases, path in DRAWN.findall(text, start, pack.start()):
                for one in [name, *re.findall(r'"([\w-]+)"', aliases)]:
                    self.drawn[pack[1], one] = width, height, path
            start = pack.end()

    def svg(self, match):
        """What the script makes of one ``<i>`` or ``<span>``."""
        _, before, classes, style, after = match.groups()
        names = [name for name in classes.split() if name != style]
        keys = [(PREFIXES.get(style, style), name.removeprefix("fa-")) for name in names]
        icon = next((self.drawn[key] for key in keys if key in self.drawn), None)
        if icon is None:
            self.missing.add(classes)
            return match[0]
        width, height, path = icon
        more = "".join(f" {part}" for part in (before + after).split() if not part.startswith("aria-hidden"))
        return (
            f'<svg class="svg-inline--fa {" ".join(names)}"{more} aria-hidden="true" focusable="false" '
            f'role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
            f'<path fill="currentColor" d="{path}"></path></svg>'
        )


# ---------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------


def size_of(path):
    """Width and height of an image in pixels, or None."""
    if path.suffix != ".svg":
        with Image.open(path) as image:
            return image.size
    root = re.search(r"<svg\b[^>]*>", path.read_text("utf-8"))[0]
    found = [re.search(rf'\b{name}="([\d.]+)(?:px)?"', root) for name in ("width", "height")]
    return tuple(round(float(value[1])) for value in found) if all(found) else None


def with_few_colours(image):
    """The image in the 256 colours that stand for its own best, if it is opaque: the eye sees the same."""
    image = image.convert("RGBA")
    least_opaque, _ = image.getextrema()[3]
    if least_opaque < 255:
        return image
    few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return few.convert("RGB")


def smaller(path):
    """The image in a smaller file beside it, or the file itself."""
    if path.suffix != ".png":
        return path
    target = path.with_suffix(".webp")
    if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
        with Image.open(path) as image:
            # The slowest search would save 4 % more, and takes 30 times as long.
            with_few_colours(image).save(target, lossless=True)
    return target if target.stat().st_size < path.stat().st_size else path


def light_image(match, folder):
    """An ``<img>`` that says its size and waits until it is near the screen."""
    tag, address = match[0], match[1]
    path = folder / address
    if "loading=" in tag or not path.is_file():
        return tag
    new = address.removesuffix(path.name) + smaller(path).name
    size = size_of(path)
    more = ' loading="lazy"'
    if size and not re.search(r"\b(width|height)[=:]", tag):
        more = f' width="{size[0]}" height="{size[1]}"' + more
    return tag.replace(f'src="{address}"', f'src="{new}"{more}')


# ---------------------------------------------------------------------------------
# Style sheets and scripts
# ---------------------------------------------------------------------------------


def attribute(tag, name):
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return found[1] if found else ""


def take_sheets(text, folder, root):
    """The page with one link for all its style sheets, and their paths below ``root``."""
    sheets = []

    def replaced(match):
        tag, address = match[0], file_of(attribute(match[0], "href"))
        if attribute(tag, "rel") == "preload":  # of scripts and icon fonts, which are not urgent
            return ""
        if attribute(tag, "rel") != "stylesheet" or "://" in address:
            return tag
        first = not sheets
        if "data-sheets" in tag:
            sheets.extend(attribute(tag, "data-sheets").split())
        else:
            sheets.append(Path(os.path.relpath(folder / address, root)).as_posix())
        return MARK if first else ""

    return LINK.sub(replaced, text), sheets


def light_script(match, page, folder):
    """A ``<script src>`` that waits, or nothing; Sphinx's options, which the page changes, stand in it."""
    tag, address = match[0], file_of(match[2])
    path = Path(address)
    if "fontawesome" in address or (path.name in SEARCH and page != "search.html"):
        return ""
    if path.name == "documentation_options.js":
        return f"<script>{(folder / address).read_text('utf-8').strip()}</script>\n"
    if "://" in address or re.search(r"\b(defer|async|module)\b", match[1] + match[3]):
        return tag
    return tag.replace("<script", "<script defer", 1)


# The theme names the colours of the system when its scripts run. Until then the page has none.
COLOURS = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
COLOURS_AT_ONCE = """if (document.documentElement.dataset.mode !== "auto")
      document.documentElement.dataset.theme = document.documentElement.dataset.mode;
    else
      document.documentElement.dataset.theme =
        matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";"""

LIVE_SCRIPT = re.compile(r'[ \t]*<script defer[^>]*src="[^"]*_static/live/[^"]*"></script>\n?')
LIVE_FIGURE = re.compile(r'<div class="live-figure".*?</div>\n?', re.DOTALL)


def figure_in_place(text):
    """A live figure on the first screen is drawn before the text below it is there, which it would move."""
    figure = LIVE_FIGURE.search(text)
    if figure is None or "<h2" in text[text.find("<article") : figure.start()]:
        return text
    scripts = "".join(LIVE_SCRIPT.findall(text)).replace("<script defer", "<script").replace('="defer"', "")
    before, after = LIVE_SCRIPT.sub("", text[: figure.start()]), text[figure.end() :]
    return f"{before}{figure[0]}{scripts}<script>Live.start();</script>\n{after}" if scripts else text


def merged(lists):
    """One order of all names, as each list has its own."""
    order = []
    for names in lists:
        place = 0
        for name in names:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order


# ---------------------------------------------------------------------------------
# The build
# ---------------------------------------------------------------------------------


def pages_in(root):
    return sorted(path for path in root.rglob("*.html") if "_static" not in path.relative_to(root).parts)


def make_light(root):
    """Make all built pages light, and write their style sheet."""
    icons, pages = Icons(root / "_static"), {}
    with ThreadPoolExecutor() as pool:  # pictures take longest, and all cores can work on them
        list(pool.map(smaller, (root / "_images").glob("*.png")))
    for path in pages_in(root):
        text, sheets = take_sheets(path.read_text("utf-8"), path.parent, root)
        if sheets:  # else it only leads to another page
            pages[path] = light_page(text, path, root, icons), sheets
    if icons.missing:
        raise ExtensionError(f"Font Awesome has no icon for: {', '.join(sorted(icons.missing))}.")
    version = write_style(root, pages, icons.style)
    for path, (text, sheets) in pages.items():
        address = Path(os.path.relpath(root / SHEET, path.parent)).as_posix()
        link = (
            f'    <link rel="stylesheet" href="{address}?v={version}" data-sheets="{" ".join(sheets)}" />\n'
        )
        text = text.replace(MARK, link, 1)
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8", newline="\n")


def light_page(text, path, root, icons):
    """The text of a page with light icons, scripts and images."""
    page, folder = path.relative_to(root).as_posix(), path.parent
    text = ICON.sub(icons.svg, text)
    text = SCRIPT.sub(lambda match: light_script(match, page, folder), text)
    text = IMAGE.sub(lambda match: light_image(match, folder), text)
    return figure_in_place(text.replace(COLOURS, COLOURS_AT_ONCE))


def write_style(root, pages, icon_style):
    """Write the style sheet of all pages, {path: (text, sheets)}; return its version."""
    names, scripts = set(), set()
    for path, (text, _) in pages.items():
        names |= names_on(text)
        addresses = (file_of(address) for _, address, _ in SCRIPT.findall(text) if "://" not in address)
        scripts.update((path.parent / address).resolve() for address in addresses)
    names = names.union(*(names_in(path.read_text("utf-8")) for path in scripts))
    target = root / SHEET
    texts = [
        read_sheet(root / sheet, target.parent) for sheet in merged(sheets for _, sheets in pages.values())
    ]
    style = with_icons_inside(used_styles([icon_style, *texts], names), target.parent)
    target.write_text(f'@charset "utf-8";\n{style}\n', "utf-8", newline="\n")
    return hashlib.sha256(style.encode()).hexdigest()[:8]


def finish(app, exception):
    if exception is None and app.builder.format == "html":
        make_light(Path(app.outdir))


def describe(app, pagename, templatename, context, doctree):
    """A description of the page for search engines: its first paragraph, or its title."""
    text = f"{context.get('title') or pagename.title()}: {app.config.project}"
    if doctree is not None:
        paragraphs = [
            node for node in doctree.findall(nodes.paragraph) if isinstance(node.parent, nodes.section)
        ]
        text = next((node.astext() for node in paragraphs if len(node.astext()) > 60), text)
    text = " ".join(text.split())
    if len(text) > DESCRIPTION:
        text = text[: DESCRIPTION - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"
    context["metatags"] = (
        f'{context.get("metatags", "")}\n    <meta name="description" content="{escape(text)}" />'
    )


def setup(app):
    app.connect("html-page-context", describe)
    app.connect("build-finished", finish, priority=900)  # the theme writes colours of code at that event too
    return {"parallel_read_safe": True, "parallel_write_safe": True}
