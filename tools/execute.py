"""Execute notebooks from top to bottom and store them with their outputs.

    python tools/execute.py [NOTEBOOK ...]      # default: all; `make notebooks` runs this

What is stored holds nothing that changes from run to run: no times, no progress bars, no kernel
version, and each printed stream in one piece. A notebook that fails stays as it was.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


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
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"  # in the notebooks; the bar below is for the one who waits
    paths = [Path(name).resolve() for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb"))
    for path in (bar := tqdm(paths, unit="notebook", disable=False)):
        bar.set_description(path.name)
        execute(path)
