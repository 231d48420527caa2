"""Fixtures that several test files share."""

import csv
import os
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import edition  # noqa: F401 - it sets what PyTorch reads when it starts

# isort: split
import pytest
import torch
from web_server import WebServer

import gpt_download
import own_training
import text_classifier
from classification import add_classification_head, save_classifier
from downloads import is_web_address
from edition import EMBEDDED, get_tokenizer
from files import why_not_writable
from previous_chapters import MODEL_CONFIGS, GPTModel, model_config
from spam_data import SAMPLE_FILE, UCI_URL, create_spam_loaders, download_and_unzip_spam_data
from tools.checkpoints import SETTINGS_124M, TINY, random_values, write_openai_folder

ROOT = Path(__file__).resolve().parents[1]
SPAM_MIRROR = os.environ.get("SPAM_MIRROR")  # the one variable of the caller that tests use: see uci_mirror
collect_ignore_glob = ["data/*"]  # no tests, nor notebooks to execute
VARIABLES = (
    "BOOK_REPOSITORY CHOOSE_MODEL CHOOSE_DATA GPT2_MIRROR GPT2_VERIFY SPAM_MIRROR SPAM_VERIFY PYTEST_ADDOPTS"
).split()


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """No test depends on the caller's variables, and none reaches beyond this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    look_up = socket.getaddrinfo

    def look_up_here(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost"):
            pytest.fail(f"This test asked the network for {host!r}.")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """On a busy machine, threads that wait for each other take far longer than one alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    return get_tokenizer()


@pytest.fixture(scope="session")
def sample_loaders(tokenizer):
    """Training, validation and test loader of the sample, as notebook 01 makes them."""
    return create_spam_loaders(tokenizer, SAMPLE_FILE)


@pytest.fixture(scope="session")
def write_beginning_of_sample():
    """A function that writes how the first messages of the sample begin, so that a training takes seconds."""

    def write(path, num_messages):
        lines = SAMPLE_FILE.read_text(encoding="utf-8").splitlines()[:num_messages]
        path.write_text("".join(f"{line[:60]}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def uci_mirror():
    """The caller's SPAM_MIRROR, where it is set: a folder or an http(s) base with the UCI archive."""
    if not SPAM_MIRROR:
        pytest.skip("The UCI SMS Spam Collection is not here: set SPAM_MIRROR to the folder of its zip file.")
    return SPAM_MIRROR if is_web_address(SPAM_MIRROR) else str(Path(SPAM_MIRROR).resolve())


@pytest.fixture(scope="session")
def uci_file(uci_mirror, tmp_path_factory):
    """The UCI messages, fetched and unpacked as notebook 01 does."""
    folder = tmp_path_factory.mktemp("uci")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAM_MIRROR", uci_mirror)
        download_and_unzip_spam_data(
            UCI_URL, folder / "archive.zip", folder, folder / "SMSSpamCollection.tsv"
        )
    return folder / "SMSSpamCollection.tsv"


@pytest.fixture(scope="session")
def messages_file(request):
    """The UCI messages where SPAM_MIRROR has them, else the sample."""
    return request.getfixturevalue("uci_file") if SPAM_MIRROR else SAMPLE_FILE


# ---------------------------------------------------------------------------------
# A small classifier
# ---------------------------------------------------------------------------------


@pytest.fixture
def model():
    """A tiny classifier with random values that reads GPT-2's token IDs, all of it trainable."""
    torch.manual_seed(1)
    config = {"vocab_size": 50257, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
    model = GPTModel({**config, "drop_rate": 0.0, "qkv_bias": True})
    add_classification_head(model)
    return model.eval()


@pytest.fixture
def saved(model, tmp_path, monkeypatch):
    """The file of the tiny classifier, whose model has the name "tiny"."""
    shape = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
    monkeypatch.setitem(MODEL_CONFIGS, "tiny", shape)
    path = tmp_path / "made" / "tiny.safetensors"
    save_classifier(path, model, "tiny", "sample", max_length=12, threshold=0.25)
    return path


@pytest.fixture
def tiny_pretrained(monkeypatch):
    """A pretrained model "tiny" of random values for classifiers of own texts."""
    shape = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 3}
    monkeypatch.setitem(MODEL_CONFIGS, "tiny", shape)

    def load(name, models_dir):
        torch.manual_seed(1)
        return GPTModel(model_config(name)).eval()

    monkeypatch.setattr(own_training, "load_pretrained_model", load)
    monkeypatch.setattr(own_training, "find_model", lambda name: EMBEDDED)


@pytest.fixture
def write_table(tmp_path):
    """A function that writes rows of text and label to a CSV file and returns its path."""

    def write(rows, name="my.csv", header=("text", "label")):
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / name

    return write


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """A function that does what ``python text_classifier.py ...`` does, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["text_classifier.py", *map(str, arguments)])
        text_classifier.main()

    return run


# ---------------------------------------------------------------------------------
# A script, here and in a process of its own
# ---------------------------------------------------------------------------------


@pytest.fixture
def run_script(monkeypatch):
    """A function that does what ``python SCRIPT ARGUMENTS...`` does, in this process; what it exits with."""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.fixture
def run_python(tmp_path):
    """A function that runs ``python ARGUMENTS...`` where the modules of the book can be imported."""

    def run(*arguments, cwd=tmp_path, **variables):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


# ---------------------------------------------------------------------------------
# A folder that cannot be written
# ---------------------------------------------------------------------------------


@pytest.fixture
def protect():
    """A function that protects a folder from writing, also from a superuser where that is possible."""
    undo = []

    def protect(folder):
        if os.name == "posix" and os.geteuid() == 0:
            for options in (["--bind", folder], ["-o", "remount,ro,bind"]):
                subprocess.run(["mount", *options, folder], capture_output=True)
            undo.append(lambda: subprocess.run(["umount", folder], capture_output=True))
        else:
            for path in [folder, *folder.rglob("*")]:
                if path.is_dir():
                    path.chmod(0o555)
                    undo.append(lambda path=path: path.chmod(0o755))
        if why_not_writable(folder) is None:
            pytest.skip("No folder can be protected from this user.")

    yield protect
    for step in undo:
        step()


# ---------------------------------------------------------------------------------
# A web server
# ---------------------------------------------------------------------------------


@pytest.fixture
def web_server():
    with WebServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


# ---------------------------------------------------------------------------------
# Checkpoints
# ---------------------------------------------------------------------------------

LOAD_WITHOUT_NETWORK = """
import socket, sys

def refuse(*args, **kwargs):
    raise RuntimeError("the network was used")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.modules["tensorflow"] = None  # takes seconds; test_gpt_download.py compares what it reads
from gpt_download import download_and_load_gpt2
download_and_load_gpt2("10M", sys.argv[1])
"""


@pytest.fixture(scope="session")
def embedded_load(tmp_path_factory):
    """The first load of the embedded checkpoint, in a process that cannot open a connection.

    Attributes: ``models_dir``, and ``process`` with its exit status and error messages.
    """
    models_dir = tmp_path_factory.mktemp("embedded") / "gpt2"
    process = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_NETWORK, models_dir], cwd=ROOT, capture_output=True, text=True
    )  # ``-c`` finds the modules in the working folder
    return SimpleNamespace(models_dir=models_dir, process=process)


@pytest.fixture(scope="session")
def tiny_values():
    """Random values of a checkpoint with about 2,500 parameters: {variable name: array}."""
    return random_values(TINY)


@pytest.fixture(scope="session")
def _tiny_folder(tmp_path_factory, tiny_values):
    folder = tmp_path_factory.mktemp("tiny")
    write_openai_folder(folder, TINY, tiny_values)
    return folder


@pytest.fixture
def tiny_mirror(_tiny_folder, tmp_path, monkeypatch):
    """A folder for GPT2_MIRROR. It holds the tiny checkpoint as "355M", a size without known hashes."""
    monkeypatch.setattr(gpt_download, "known_settings", lambda model_size: TINY)
    shutil.copytree(_tiny_folder, tmp_path / "mirror" / "355M")
    return tmp_path / "mirror"


@pytest.fixture(scope="session")
def values_124m():
    """Random values at the architecture of GPT-2 124M: {variable name: array}."""
    return random_values(SETTINGS_124M)


@pytest.fixture(scope="session")
def mirror_124m(tmp_path_factory, values_124m):
    """A folder for GPT2_MIRROR with these values, half a gigabyte."""
    mirror = tmp_path_factory.mktemp("random") / "mirror"
    write_openai_folder(mirror / "124M", SETTINGS_124M, values_124m)
    yield mirror
    shutil.rmtree(mirror)
