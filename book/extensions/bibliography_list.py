"""The bibliography as a plain list.

docutils writes a citation as a label, such as ``[Ras24]``, and an entry with a role that
ARIA has deprecated, so that a screen reader finds a list without entries. Citations in the
text of this book read "Raschka, 2024" and lead to the entry: it needs no label.
"""

from docutils import nodes


def is_citation(node):
    return isinstance(node, nodes.citation)


def visit_citation(self, node):
    if not is_citation(node.previous_sibling()):
        self.body.append('<div role="list" class="citation-list">\n')
    self.body.append(self.starttag(node, "div", role="listitem", CLASS="citation"))
    for label in node.findall(nodes.label):
        label.parent.remove(label)


def depart_citation(self, node):
    self.body.append("</div>\n")
    if not is_citation(node.next_node(descend=False, siblings=True)):
        self.body.append("</div>\n")


def setup(app):
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
