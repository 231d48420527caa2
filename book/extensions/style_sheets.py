"""Several style sheets as one, without what no page uses.

A selector stays if each of its classes, ids and tags occurs on a page, or as a word of a script, which
may add it. Attributes and what stands inside ``:not()``, ``:is()`` and the like are not looked at. A
variable stays if something that stays uses it, or a page or script names it; an animation likewise.
Licences stay.
"""

import base64
import io
import os
import re

import tinycss2
from fontTools import subset
from fontTools.ttLib import TTFont

WORD = re.compile(r"-{0,2}[A-Za-z_][\w-]*")
CLASS_OR_ID = re.compile(r'\b(?:class|id)="([^"]*)"')
TAG = re.compile(r"<([a-z][\w-]*)")
VARIABLE = re.compile(r"--[\w-]+")
INLINE_SCRIPT = re.compile(r"<script\b(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
ADDRESS = re.compile(r"""url\(\s*(["']?)(?!data:|https?:|[/#])([^"')]+)\1\s*\)""")
GROUPS = ("media", "supports", "layer", "container")  # at-rules that hold rules
IMPORT = re.compile(r"""@import\s+(?:url\()?["']([^"':]+)["']\)?\s*;""")
ICON = re.compile("[\ue000-\uf8ff]")  # the signs of a font of icons


# ---------------------------------------------------------------------------------
# What occurs
# ---------------------------------------------------------------------------------


def names_on(page):
    """Classes, ids and tags of a page, variables that it names, and the words of its scripts."""
    names = {name for found in CLASS_OR_ID.findall(page) for name in found.split()}
    names.update(TAG.findall(page), VARIABLE.findall(page))
    return names.union(*map(names_in, INLINE_SCRIPT.findall(page)))


def names_in(script):
    return set(WORD.findall(script))


class Used:
    """``name in used``: it occurs, or a script has its beginning, such as ``bs-tooltip-``."""

    def __init__(self, names):
        self.names = names
        self.beginnings = tuple(name for name in names if re.fullmatch(r"\w[\w-]+-", name))

    def __contains__(self, name):
        return name in self.names or name.startswith(self.beginnings)


# ---------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------


def at_commas(tokens):
    """The tokens between commas: the selectors of a rule."""
    parts = [[]]
    for token in tokens:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def names_of(selector):
    """The classes, ids and tags without which a selector finds nothing."""
    before = None
    for token in selector:
        if token.type == "hash" or (token.type == "ident" and before == "."):
            yield token.value
        elif token.type == "ident" and before != ":":
            yield token.lower_value
        before = token.value if token.type == "literal" else None


def text_of(tokens):
    """Tokens as text, in one line."""
    tokens = [token for token in tokens if token.type != "comment"]
    for token in tokens:
        if token.type == "whitespace":
            token.value = " "
    return tinycss2.serialize(tokens).strip()


def declarations(content):
    """What a rule declares: [(name, text), ...]; a rule inside it has no name."""
    return [
        (node.name, f"{node.name}:{text_of(node.value)}{'!important' * node.important}")
        if node.type == "declaration"
        else (None, node.serialize())
        for node in tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
        if node.type != "error"
    ]


def used_rules(nodes, used):
    """The rules that stay: [(kind, beginning, content), ...]."""
    kept = []
    for node in nodes:
        if node.type == "comment" and node.value.startswith("!"):
            kept.append(("licence", f"/*{node.value}*/", None))
        elif node.type == "qualified-rule":
            selectors = [
                text_of(selector)
                for selector in at_commas(node.prelude)
                if all(name in used for name in names_of(selector))
            ]
            if selectors:
                kept.append(("rule", ",".join(selectors), declarations(node.content)))
        elif node.type == "at-rule":
            kind, beginning = node.lower_at_keyword, f"@{node.at_keyword} {text_of(node.prelude)}".strip()
            if kind in GROUPS and node.content is not None:
                inner = tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True)
                kept.append((kind, beginning, used_rules(inner, used)))
            elif kind == "font-face":
                kept.append((kind, beginning, declarations(node.content)))
            elif node.content is not None:
                kept.append((kind, beginning, text_of(node.content)))
            elif kind != "charset":
                kept.append(("statement", f"{beginning};", None))
    return kept


def write(rules, needed):
    """Rules as text; variables and animations only where they are needed."""
    parts = []
    for kind, beginning, content in rules:
        if content is None:
            if kind != "licence" or beginning not in parts:
                parts.append(beginning)
            continue
        if "keyframes" in kind and beginning.split()[-1] not in needed:
            continue
        if kind in GROUPS:
            content = write(content, needed)
        elif isinstance(content, list):
            content = ";".join(
                text for name, text in content if not (name or "").startswith("--") or name in needed
            )
        if content:
            parts.append(f"{beginning}{{{content}}}")
    return "\n".join(parts)


def used_styles(sheets, names):
    """The texts of several style sheets as one, without what no page with these names uses."""
    used = Used(names)
    nodes = [tinycss2.parse_stylesheet(sheet, skip_whitespace=True) for sheet in sheets]
    rules = [rule for sheet in nodes for rule in used_rules(sheet, used)]
    everything = {name for sheet in sheets for name in WORD.findall(sheet)}
    text, former = write(rules, everything), None
    while text != former:  # what only something used that is gone now, goes too
        values = " ".join(re.findall(r"var\([^;}]*|animation[^;}]*", text))
        needed = names | set(WORD.findall(values))
        text, former = write(rules, needed), text
    return text


# ---------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------


def read_sheet(path, folder):
    """The text of a sheet with those that it imports; its addresses are those seen from ``folder``."""

    def moved(match):
        return f'url("{os.path.relpath(path.parent / match[2], folder).replace(os.sep, "/")}")'

    def imported(match):
        return read_sheet(path.parent / match[1], folder)

    text = ADDRESS.sub(moved, path.read_text("utf-8"))
    return IMPORT.sub(imported, text)


def with_icons_inside(text, folder):
    """The icon fonts of a sheet reduced to the signs that it uses, each sign once, and put into it."""
    icons, placed = set(ICON.findall(text)), set()

    def reduced(match):
        source = re.search(r'url\("([^"]+\.ttf)"\)', match[0])
        if "Font Awesome" not in match[0] or source is None:
            return match[0]
        font = TTFont(folder / source[1])
        found = (icons - placed) & set(map(chr, font.getBestCmap()))
        if not found:
            return ""
        placed.update(found)
        subsetter = subset.Subsetter(subset.Options(layout_features=[], name_IDs=[], hinting=False))
        subsetter.populate(text="".join(found))
        subsetter.subset(font)
        font.flavor, content = "woff", io.BytesIO()
        font.save(content)
        data = base64.b64encode(content.getvalue()).decode()
        return re.sub(r"src:[^;}]*", f'src:url("data:font/woff;base64,{data}")', match[0])

    return re.sub(r"@font-face\{[^}]*\}", reduced, text)
