"""A notebook is executed again when anything that its outputs depend on has changed.

The cache finds an executed notebook by its own code. What a notebook prints also depends
on the chosen model and data, on the modules that it imports, directly or through others,
and on the data files of the book. A hash of those, the state of the notebook, names the
folder of its cache: a change in one module runs the notebooks that import it and no other,
and going back to a former edition finds its outputs still there.
"""

import ast
import hashlib
import re
import sys
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edition import chosen_data, chosen_model  # noqa: E402

# What every notebook depends on, besides its modules.
SHARED_FILES = ["*.json", "assets/*.tsv", "assets/*/*.json", "results/*.json", "constraints.txt"]


def imported_modules(code):
    """Names of the modules that Python code imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def modules_in_cell(source):
    """Names of the modules that a code cell imports, or runs as a program by their file name."""
    source = re.sub(r"^%%.*", "", source)  # what follows `%%time` is code like any other
    try:
        imported = imported_modules(TransformerManager().transform_cell(source))
    except SyntaxError:  # not Python, such as the lines that follow `%%bash`
        imported = set()
    return imported | set(re.findall(r"\b(\w+)\.py\b", source))


def modules_of(notebook_path, root):
    """Names of the modules in the folder ``root`` that a notebook uses, directly or through others."""
    modules = {path.stem: path for path in root.glob("*.py")}
    cells = [cell for cell in nbformat.read(notebook_path, as_version=4).cells if cell.cell_type == "code"]
    waiting = {name for cell in cells for name in modules_in_cell(cell.source)}
    found = set()
    while waiting := (waiting & modules.keys()) - found:
        found |= waiting
        waiting = {
            name for module in waiting for name in imported_modules(modules[module].read_text("utf-8"))
        }
    return found


def state_of(notebook_path, root):
    """Return a short hash of all that a notebook's outputs depend on, its own code aside."""
    digest = hashlib.sha256(f"{chosen_model()} {chosen_data()}".encode())
    paths = {path for pattern in SHARED_FILES for path in root.glob(pattern)}
    paths |= {root / f"{name}.py" for name in modules_of(notebook_path, root)}
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def read_again(app, env, added, changed, removed):
    """Name the notebooks whose state is another one than at the last build."""
    former = getattr(env, "notebook_states", {})
    paths = {name: Path(env.doc2path(name)) for name in env.found_docs}
    env.notebook_states = {
        name: state_of(path, Path(app.srcdir)) for name, path in paths.items() if path.suffix == ".ipynb"
    }
    return [name for name, state in env.notebook_states.items() if former.get(name) != state]


def choose_cache(app, docname, source):
    """Before a notebook is read: the cache of its state."""
    if state := app.env.notebook_states.get(docname):
        folder = Path(app.srcdir) / app.config.nb_execution_cache_path / state
        app.env.mystnb_config = app.env.mystnb_config.copy(execution_cache_path=str(folder))


def setup(app):
    app.connect("env-get-outdated", read_again)
    app.connect("source-read", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
