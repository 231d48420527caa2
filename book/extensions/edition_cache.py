"""A notebook is executed again when anything that its outputs depend on has changed.

The cache finds an executed notebook by its own code. What a notebook prints also depends on the
chosen model and data, on the modules that it imports, directly or through others, on the data files
of the book, on the device, and on the versions of Python and of the packages. A hash of those, the
state of the notebook, names the folder of its cache: a change in one module runs the notebooks that
import it and no other, and going back to a former edition finds its outputs still there.

`make test` compares these outputs with the stored ones (notebooks/conftest.py): what the build has just
executed need not be executed a second time.

Times, and what is said only where an optional package is, differ from machine to machine: for cells
tagged ``nbval-ignore-output`` the pages of the embedded edition show the stored outputs, of which the
text beside them speaks.

MyST-NB executes one notebook after the other. What is not in its cache yet is executed before it
looks there, two side by side, each with half of the cores: that takes little more than half the time.
"""

import ast
import functools
import hashlib
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import nbformat
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from devices import choose_device  # noqa: E402
from edition import EMBEDDED, chosen_data, chosen_model, is_embedded_edition  # noqa: E402

CACHE = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["execute"]["cache"]
# What every notebook depends on, besides its modules; of the checkpoint, the hashes.
SHARED_FILES = """*.json assets/*.csv assets/*.tsv assets/*.safetensors assets/*/*.json results/*.json
results/*/*.npz book/figures/*.json book/*.mplstyle constraints.txt""".split()
MACHINE = [
    choose_device().type,
    sys.version,
    *map(version, "torch numpy pandas scikit-learn matplotlib tiktoken".split()),
]


@functools.cache
def imported_modules(code):
    """Names of the modules that Python code imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def modules_in_cell(source):
    """Names of the modules that a code cell imports, or runs as a program by their file name."""
    source = re.sub(r"^%%.*", "", source)  # what follows `%%time` is code like any other
    try:
        imported = imported_modules(TransformerManager().transform_cell(source))
    except SyntaxError:  # not Python, such as the lines that follow `%%bash`
        imported = frozenset()
    return imported | set(re.findall(r"\b(\w+)\.py\b", source))


def code_of(notebook_path):
    """The code of a notebook, cell by cell."""
    cells = nbformat.read(notebook_path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def figures_of(notebook_path, root):
    """The files of the figures that a notebook shows."""
    names = {name for code in code_of(notebook_path) for name in re.findall(r'\bshow_\w+\("(\w+)"', code)}
    return [path for name in names for path in (root / "book" / "figures").glob(f"**/{name}.*")]


def modules_of(notebook_path, root):
    """Names of the modules in the folder ``root`` that a notebook uses, directly or through others."""
    modules = {path.stem: path for path in root.glob("*.py")}
    waiting = {name for code in code_of(notebook_path) for name in modules_in_cell(code)}
    found = set()
    while waiting := (waiting & modules.keys()) - found:
        found |= waiting
        waiting = {
            name for module in waiting for name in imported_modules(modules[module].read_text("utf-8"))
        }
    return found


def state_of(notebook_path, root):
    """Return a short hash of all that a notebook's outputs depend on, its own code aside."""
    digest = hashlib.sha256(f"{chosen_model()} {chosen_data()} {MACHINE}".encode())
    paths = {path for pattern in SHARED_FILES for path in root.glob(pattern)}
    paths |= {root / f"{name}.py" for name in modules_of(notebook_path, root)}
    paths |= set(figures_of(notebook_path, root))
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    digest.update(str(machine_outputs(nbformat.read(notebook_path, as_version=4))).encode())
    return digest.hexdigest()[:12]


def machine_outputs(notebook):
    """The outputs that differ from machine to machine: {position of the cell: outputs}."""
    return {
        position: cell.outputs
        for position, cell in enumerate(notebook.cells)
        if "nbval-ignore-output" in cell.metadata.get("tags", [])
    }


def execute(path, folder, timeout):
    """Execute a notebook, unless it is in the cache in ``folder``; return its error, or None."""
    cache, notebook = get_cache(folder), nbformat.read(path, as_version=4)
    stored = machine_outputs(notebook) if is_embedded_edition() else {}
    try:
        cache.match_cache_notebook(notebook)
        return None
    except KeyError:
        result = single_nb_execution(notebook, cwd=str(path.parent), timeout=timeout, allow_errors=False)
    if result.err is None:
        for position, outputs in stored.items():
            notebook.cells[position].outputs = outputs
        bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return result.err


def read_again(app, env, added, changed, removed):
    """Execute what is not in the cache; name the notebooks whose state has changed since the last build."""
    former = getattr(env, "notebook_states", {})
    paths = {name: Path(env.doc2path(name)) for name in sorted(env.found_docs)}
    paths = {name: path for name, path in paths.items() if path.suffix == ".ipynb"}
    env.notebook_states = {name: state_of(path, Path(app.srcdir)) for name, path in paths.items()}
    if app.config.nb_execution_mode == "cache":
        execute_all(
            list(paths.values()),
            [cache_folder(app.srcdir, state) for state in env.notebook_states.values()],
            app.config.nb_execution_timeout,
        )
    return [name for name, state in env.notebook_states.items() if former.get(name) != state]


def execute_all(paths, folders, timeout):
    """Execute notebooks side by side; what fails is left to MyST-NB, which executes it again and reports."""
    at_once = 2 if chosen_model() == EMBEDDED.name else 1  # a large model needs the memory for itself
    threads = max(1, (os.cpu_count() or 1) // at_once)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # kernels are processes of their own
    with ThreadPoolExecutor(at_once) as pool:
        # The last one takes longest and begins first: so no core waits for it at the end.
        jobs = reversed(list(zip(paths, folders)))
        running = {pool.submit(execute, path, folder, timeout): path for path, folder in jobs}
        for done in as_completed(running):
            if done.result() is None:
                logging.getLogger(__name__).info("executed: %s", running[done].name)


def cache_folder(root, state):
    """Where the executed notebooks of one state are kept."""
    return Path(root) / CACHE / state


def executed_by_the_build(notebook_path, root):
    """The notebook with the outputs of the last build, if all that they depend on is as it was; else None."""
    folder = cache_folder(root, state_of(notebook_path, root))
    if not folder.exists():
        return None
    cache = get_cache(folder)
    try:
        match = cache.match_cache_notebook(nbformat.read(notebook_path, as_version=4))
    except KeyError:
        return None
    return cache.get_cache_bundle(match.pk).nb


def choose_cache(app, docname, source):
    """Before a notebook is read: the cache of its state."""
    if state := app.env.notebook_states.get(docname):
        folder = cache_folder(app.srcdir, state)
        app.env.mystnb_config = app.env.mystnb_config.copy(execution_cache_path=str(folder))


def setup(app):
    app.connect("env-get-outdated", read_again)
    app.connect("source-read", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
