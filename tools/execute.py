"""Execute notebooks from top to bottom and store them with their outputs.

    python tools/execute.py [NOTEBOOK ...]      # default: all; `make notebooks` runs this

What is stored holds nothing that changes from run to run: no times, no progress bars, no kernel
version, and each printed stream in one piece. A notebook that fails stays as it was.

A cell's tags say what is closed on the page; the same is closed in JupyterLab (``jupyter``) and
in Colab (``cellView``, with a first line ``#@title Solution``). Both are written here. The alt text
of a plot (``mystnb``) stays.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from files import atomic_file  # noqa: E402

FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
CLOSED_SOURCE = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
CLOSED_OUTPUT = {"hide-cell", "hide-output", "remove-cell", "remove-output"}


def alt_text_of(cell):
    """What stands in place of a cell's plots for those who do not see them, or None."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt")


def metadata_of(cell):
    """The metadata of a cell that are stored: its tags, what follows from them, and an alt text."""
    tags = cell.metadata.get("tags", [])
    metadata = {"tags": tags} if tags else {}
    if alt := alt_text_of(cell):
        metadata["mystnb"] = {"image": {"alt": alt}}
    if cell.cell_type == "code":
        parts = {"source_hidden": CLOSED_SOURCE, "outputs_hidden": CLOSED_OUTPUT}
        closed = {part: True for part, names in parts.items() if names & set(tags)}
        if closed:
            metadata["jupyter"] = closed
        if "source_hidden" in closed:
            metadata["cellView"] = "form"
    return metadata


def execute(path):
    """Execute one notebook and write it back with its new outputs."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = metadata_of(cell)
    nbformat.validate(notebook)
    with atomic_file(path) as partial:
        nbformat.write(notebook, partial)


if __name__ == "__main__":
    # In the notebooks; the bar below is for the one who waits.
    os.environ |= {"TQDM_DISABLE": "1", "CHECKS_MUST_HOLD": "1"}
    paths = [Path(name).resolve() for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb"))
    for path in (bar := tqdm(paths, unit="notebook", disable=False)):
        bar.set_description(path.name)
        execute(path)
