"""Hidden cells say what they hide: the tag ``hide-cell`` a solution, ``hide-input`` code.

A first line ``#@title Code of the plot``, which Colab shows in place of closed code, names something
else. The words are the name of the control too; myst-nb gives it another name for screen readers.
"""

import re
from html import escape

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode

NAMES = {"all": "the solution", "input": "the code"}
TITLE = re.compile(r"# ?@title (\S.*)")


def name_hidden_cells(app, document):
    for cell in document.findall(nodes.container):
        if name := NAMES.get(cell.get("hide_mode")):
            if title := TITLE.match(cell.next_node(nodes.literal_block).astext()):
                name = f"the {title[1][0].lower()}{title[1][1:]}"
            cell["prompt_show"], cell["prompt_hide"] = f"Show {name}", f"Hide {name}"


def visit_hidden(self, node):
    self.body.append(f'<details class="admonition hide {" ".join(node["classes"])}">\n<summary>\n')
    for state, prompt in [("collapsed", "prompt_show"), ("expanded", "prompt_hide")]:
        self.body.append(f'<p class="{state} admonition-title">{escape(node[prompt])}</p>\n')
    self.body.append("</summary>\n")


def depart_hidden(self, node):
    self.body.append("</details>\n")


def setup(app):
    app.connect("doctree-read", name_hidden_cells)
    app.add_node(HideCodeCellNode, override=True, html=(visit_hidden, depart_hidden))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
