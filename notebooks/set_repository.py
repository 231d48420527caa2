"""Put the address of the book's repository where it is needed: `make repository URL=...`.

    python notebooks/set_repository.py https://github.com/OWNER/REPOSITORY [NOTEBOOK ...]

The first cell of every notebook fetches the book from this address when it runs on Colab.
"""

import re
import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent
CLONE = re.compile(r"(git clone -q --depth 1 )(\S+)( book)")


def set_repository(path, address):
    """Write the address into the first code cell of one notebook."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source, count = CLONE.subn(lambda match: match[1] + address + match[3], cell.source)
    if count != 1:
        raise ValueError(f"{path}: the first cell has {count} addresses to set, expected 1.")
    nbformat.write(notebook, path)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not re.fullmatch(r"https://\S+", sys.argv[1]):
        sys.exit(__doc__)
    for path in [Path(name) for name in sys.argv[2:]] or sorted(FOLDER.glob("*.ipynb")):
        set_repository(path, sys.argv[1])
