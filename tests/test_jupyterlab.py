"""The lessons in JupyterLab, in a real browser: figures are seen, folds and solutions are closed."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from test_lessons import LESSONS, ROOT

from tools.browser import find_browser, open_browser
from tools.lesson_rules import FOLD, Lesson, tags

SHOWN = re.compile(r'show_(live|figure)\("\w+"\)\s*$')  # a cell that ends with a figure

pytestmark = pytest.mark.slow
if find_browser() is None:
    pytest.skip("No browser found.", allow_module_level=True)


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """The address of a JupyterLab in the book's folder, with settings of its own."""
    home = tmp_path_factory.mktemp("jupyterlab")
    settings = home / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kernel = home / "data" / "kernels" / "python3"  # stands before Python's: nothing here is executed
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}  # as the notebooks have it
    (kernel / "kernel.json").write_text(json.dumps(spec))
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root"]
    options += ["--expose-app-in-browser"]  # window.jupyterapp
    folders = {"JUPYTERLAB_SETTINGS_DIR": home / "settings", "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces"}
    folders |= {"JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_DATA_DIR": home / "data"}
    folders |= {"JUPYTER_PATH": home / "data"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={ROOT}"],
        env={**os.environ, **{name: str(folder) for name, folder in folders.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def window(jupyterlab):
    with open_browser() as browser:
        window = browser.new_page(viewport={"width": 1300, "height": 1000})
        window.goto(f"{jupyterlab}/lab?reset")
        window.wait_for_function("window.jupyterapp?.restored.then(() => true)")
        yield window


OPEN = """async path => {
    const { commands, shell } = window.jupyterapp;
    shell.currentWidget?.dispose(); // the notebook before
    await commands.execute("docmanager:open", { path });
}"""


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_jupyterlab_shows_figures_and_closes_solutions(window, path):
    window.evaluate(OPEN, path.relative_to(ROOT).as_posix())
    lesson, cells = Lesson(path), window.locator(".jp-Notebook .jp-Cell")
    cells.nth(len(lesson.cells) - 1).wait_for(timeout=60_000)
    window.locator(".jp-Notebook .jp-MarkdownOutput h2").first.wait_for()
    for i, cell in lesson.code():
        shown = cells.nth(i).locator(".jp-InputArea-editor")
        assert shown.is_visible() is not bool(tags(cell) & {"hide-cell", "hide-input", "remove-cell"}), (
            cell.source
        )
        if SHOWN.search(cell.source) and cell.outputs:
            picture = cells.nth(i).locator("figure img")
            cells.nth(i).scroll_into_view_if_needed()  # JupyterLab draws what is near the window
            picture.wait_for()
            assert picture.evaluate("image => image.complete && image.naturalWidth > 200")
            assert picture.get_attribute("alt")
    folds = window.locator(".jp-Notebook .jp-MarkdownOutput details")
    assert folds.count() == sum(len(FOLD.findall(cell.source)) for _, cell in lesson.markdown())
    assert all(not fold.evaluate("fold => fold.open") for fold in folds.all())
    assert not window.evaluate("window.jupyterapp.shell.currentWidget.context.model.dirty")  # nothing to save
