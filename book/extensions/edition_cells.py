"""Cells that hold for one edition only stand on its pages only.

A markdown cell tagged ``mini`` says what gpt2-mini and the sample print. Pages built from another
model or other messages leave it out.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edition import is_embedded_edition  # noqa: E402


def without_mini(text):
    """The text of a notebook file without its cells tagged ``mini``."""
    notebook = json.loads(text)
    notebook["cells"] = [cell for cell in notebook["cells"] if "mini" not in cell["metadata"].get("tags", [])]
    return json.dumps(notebook)


def leave_out(app, docname, source):
    """Before a notebook is read: leave out what its outputs will not show."""
    if Path(app.env.doc2path(docname)).suffix == ".ipynb" and not is_embedded_edition():
        source[0] = without_mini(source[0])


def setup(app):
    app.connect("source-read", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
