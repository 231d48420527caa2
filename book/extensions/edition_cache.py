"""One cache of executed notebooks for each edition and each state of the book's modules.

The cache finds an executed notebook by its own code. What a notebook prints also depends
on the chosen model and data and on the modules that it imports. This extension puts a
hash of those into the path of the cache: where any of them changes, the notebooks run
again, and going back to a former edition finds its outputs still there.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edition import chosen_data, chosen_model  # noqa: E402


def state_of(root):
    """Return a short hash of everything that the outputs depend on, the notebooks aside."""
    digest = hashlib.sha256(f"{chosen_model()} {chosen_data()}".encode())
    patterns = ["*.py", "*.json", "assets/*.tsv", "assets/*/*.json", "results/*.json", "constraints.txt"]
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def choose_cache(app, config):
    root = Path(app.srcdir)
    config.nb_execution_cache_path = str(root / config.nb_execution_cache_path / state_of(root))


def setup(app):
    app.connect("config-inited", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
