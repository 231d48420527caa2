"""Formulas as MathML.

Sphinx shows formulas with MathJax, a script that every page with a formula loads from a
content delivery network. Browsers show MathML by themselves, with no script and no
network, and screen readers read it. docutils, which Sphinx builds on, translates it from
LaTeX. Chosen by ``html_math_renderer: mathml`` in ``_config.yml``.
"""

import html
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

# "log" stands apart from what follows, as in LaTeX, unless that is a bracket
FUNCTION = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>[(\[{|])")
THIN_SPACE = '<mo>&ApplyFunction;</mo><mspace width="0.167em"/>'


def to_mathml(node, as_block):
    """Translate one formula; a formula that docutils cannot translate is a warning."""
    try:
        return FUNCTION.sub(THIN_SPACE, tex2mathml(node.astext().strip(), as_block=as_block))
    except ValueError as error:  # docutils' MathError is one
        logger.warning("no MathML for the formula %r: %s", node.astext(), error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def visit_inline(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="math"))
    self.body.append(to_mathml(node, as_block=False) + "</span>")
    raise nodes.SkipNode


def visit_block(self, node):
    # tabindex: a formula wider than a phone is scrolled, also with the keyboard
    self.body.append(self.starttag(node, "div", "", CLASS="math", tabindex="0"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(to_mathml(node, as_block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
