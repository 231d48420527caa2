"""What the pages say about this build: the edition, and how long each notebook took.

- ``{{ model }}``, ``{{ messages }}``, ``{{ cores }}`` and ``{{ python }}`` stand for the chosen
  model and messages, the processor cores and the Python version of this build.
- A table with the class ``notebook-map``, whose rows start with a link to a notebook, gets a
  last column with the time that the notebook took to run.
- ``nb-exec-table`` shows titles in place of file names, and its status in words.
"""

import os
import platform
import sys
from datetime import datetime
from pathlib import Path

from docutils import nodes
from myst_nb.ext.execution_tables import ExecutionStatsNode
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edition import chosen_data, chosen_model  # noqa: E402

MESSAGES = {"sample": "the sample of the book", "uci": "the SMS Spam Collection"}


def add_substitutions(app, config):
    config.myst_substitutions = {
        **config.myst_substitutions,
        "model": chosen_model(),
        "messages": MESSAGES[chosen_data()],
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def read_first_page(app, env, added, changed, removed):
    """The first page is made in every build, and with it style and figures that changed are copied."""
    return [app.config.root_doc]


def as_text(seconds):
    """A duration such as "12 s" or "3 min"; "unknown" for None."""
    if seconds is None:
        return "unknown"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def cell(content, right=False):
    if isinstance(content, str):
        content = nodes.Text(content)
    return nodes.entry("", nodes.paragraph("", "", content), classes=["text-right"] if right else [])


def link_to(docname):
    """A link that shows the title of the page; Sphinx resolves it."""
    return pending_xref(
        "", nodes.inline(), refdomain="std", reftype="doc", reftarget=f"/{docname}", refexplicit=False
    )


def table_of_times(env):
    """One row for each executed notebook: title, when it ran, for how long, and how it ended."""
    rows = [[cell("notebook"), cell("executed"), cell("time", right=True), cell("status")]]
    for docname, data in sorted(NbMetadataCollector.get_doc_data(env).items()):
        if run := data.get("exec_data"):
            when = datetime.fromtimestamp(run["mtime"]).strftime("%Y-%m-%d %H:%M")
            status = "no error" if run["succeeded"] else f"failed: {run['error']}"
            rows.append(
                [cell(link_to(docname)), cell(when), cell(as_text(run["runtime"]), right=True), cell(status)]
            )
    head, *body = [nodes.row("", *cells) for cells in rows]
    columns = [nodes.colspec(colwidth=width) for width in (50, 20, 10, 20)]
    group = nodes.tgroup("", *columns, nodes.thead("", head), nodes.tbody("", *body), cols=len(columns))
    return nodes.table("", group, classes=["colwidths-auto"])


def notebook_maps(document):
    return [table for table in document.findall(nodes.table) if "notebook-map" in table["classes"]]


def note_map(app, document):
    """Mark a page with a table of notebooks: myst-nb then writes it again after each execution."""
    if notebook_maps(document):
        NbMetadataCollector.set_doc_data(app.env, app.env.docname, "has_exec_table", True)


def add_times(table, env):
    """Add the column with the times to a table of notebooks."""
    group = table.next_node(nodes.tgroup)
    group["cols"] += 1
    group.insert(group.index(group.next_node(nodes.thead)), nodes.colspec(colwidth=10))
    for row in table.findall(nodes.row):
        if link := row.next_node(pending_xref):
            run = NbMetadataCollector.get_exec_data(env, link["reftarget"]) or {}
            row += cell(as_text(run.get("runtime")), right=True)
        else:
            row += cell("time", right=True)


class ShowTimes(SphinxPostTransform):
    default_priority = 7  # before myst-nb makes its table (8) and links are resolved (9)

    def run(self, **kwargs):
        for table in notebook_maps(self.document):
            add_times(table, self.env)
        for node in list(self.document.findall(ExecutionStatsNode)):
            node.replace_self(table_of_times(self.env))


def setup(app):
    app.connect("config-inited", add_substitutions)
    app.connect("env-get-outdated", read_first_page)
    app.connect("doctree-read", note_map)
    app.add_post_transform(ShowTimes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
