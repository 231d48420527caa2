"""A file is fetched whole and right, or not at all; and the tokenizer, edition.py, needs no network."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from web_server import Answer

import downloads
import edition
from downloads import DownloadError, fetch_file, on_mirror

ROOT = Path(__file__).resolve().parents[1]
CONTENT = bytes(range(256)) * 200  # fifty kilobytes
CACHED = [  # the names under which tiktoken looks for the two files
    hashlib.sha1(f"{edition.TOKENIZER_URL}/{name}".encode()).hexdigest() for name in edition.TOKENIZER_FILES
]


def accept(path):
    pass


def accept_only_content(path):
    if path.read_bytes() != CONTENT:
        raise ValueError("wrong content")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody waits long in a test."""
    monkeypatch.setattr(downloads, "BACKOFF", 0.01)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "folder" / "file.bin"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [CONTENT, b""])
@pytest.mark.parametrize("place", ["web", "folder"])
def test_a_file_comes_from_the_web_or_from_a_folder(web_server, tmp_path, target, place, content):
    web_server.files["/original"] = content
    (tmp_path / "original").write_bytes(content)
    source = f"{web_server.url}/original" if place == "web" else tmp_path / "original"
    fetch_file(target, [source], accept, way_on="")
    assert target.read_bytes() == content


PROBLEMS = {
    "missing": Answer(status=404),
    "cut": Answer(cut_after=len(CONTENT) // 2, version=None),
    "wrong": Answer(content=b"something else"),
}


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_where_all_sources_fail_all_is_as_it_was(web_server, target, problem, before):
    web_server.files["/file.bin"] = CONTENT
    web_server.always["/file.bin"] = PROBLEMS[problem]
    target.parent.mkdir()
    if before:
        target.write_bytes(before)
    with pytest.raises(DownloadError):
        fetch_file(target, [f"{web_server.url}/file.bin"], accept_only_content, way_on="")
    assert [path.read_bytes() for path in target.parent.iterdir()] == ([before] if before else [])


def test_the_error_lists_each_source_with_its_reason_and_the_way_on(web_server, tmp_path, target):
    web_server.files["/wrong"] = b"something else"
    sources = [f"{web_server.url}/missing", f"{web_server.url}/wrong", str(tmp_path / "absent")]
    with pytest.raises(DownloadError) as error:
        fetch_file(target, sources, accept_only_content, way_on="Take the embedded one.")
    lines = str(error.value).splitlines()
    assert lines[0] == "Could not get file.bin. Tried:"
    assert [line.strip() for line in lines[1:-1:2]] == sources
    assert "404" in lines[2] and "wrong content" in lines[4] and "No such file" in lines[6]
    assert lines[-1] == "Take the embedded one."


def test_a_mirror_is_a_web_address_or_a_folder_or_none(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_MIRROR", "http://127.0.0.1/base/")
    assert on_mirror("SOME_MIRROR", "124M", "file") == ["http://127.0.0.1/base/124M/file"]
    monkeypatch.setenv("SOME_MIRROR", str(tmp_path))
    assert on_mirror("SOME_MIRROR", "124M", "file") == [str(tmp_path / "124M" / "file")]
    monkeypatch.delenv("SOME_MIRROR")
    assert on_mirror("SOME_MIRROR", "124M", "file") == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_cannot_be_written_is_named_with_the_way_on(tmp_path, protect, exists):
    (tmp_path / "book" / "data").mkdir(parents=True)
    protect(tmp_path / "book")
    folder = tmp_path / "book" / ("data" if exists else "other")
    with pytest.raises(DownloadError) as error:
        fetch_file(folder / "file.bin", [ROOT / "README.md"], accept, way_on="Take the embedded one.")
    assert str(error.value).startswith(f"Could not get file.bin: {folder} cannot be written (")
    assert str(error.value).endswith("run it there.\nTake the embedded one.")


def make_links(folder, names, precious):
    precious.write_bytes(b"precious")
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to(precious)


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_no_link_is_followed_when_a_file_is_written(web_server, tmp_path, target):
    make_links(target.parent, ["file.bin", ".file.bin.copy", "file.bin.part"], tmp_path / "precious")
    (tmp_path / "original").write_bytes(CONTENT)
    web_server.files["/file.bin"] = CONTENT
    for source in (tmp_path / "original", f"{web_server.url}/file.bin"):
        fetch_file(target, [source], accept, way_on="")
        assert target.read_bytes() == CONTENT and not target.is_symlink()
        assert (tmp_path / "precious").read_bytes() == b"precious"


# ---------------------------------------------------------------------------------
# The tokenizer's files
# ---------------------------------------------------------------------------------

WITHOUT_NETWORK = """
import importlib, os, socket, sys

def refuse(*args, **kwargs):
    raise RuntimeError("the network was used")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
"""
ENCODE = f"""{WITHOUT_NETWORK}
import {{module}}, tiktoken
print(tiktoken.get_encoding("gpt2").encode("Every effort moves you"))
"""
ENCODED = "[6109, 3626, 6100, 345]\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that TIKTOKEN_CACHE_DIR names; it does not exist."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_module_of_the_book_brings_the_tokenizer_along(run_python):
    modules = sorted({path.stem for path in ROOT.glob("*.py")} - {"files"})  # edition.py writes with it
    code = f"""{WITHOUT_NETWORK}
from tiktoken.load import read_file_cached  # what tiktoken.get_encoding("gpt2") calls for each of the two
for module in {modules}:
    for name in {modules}:
        sys.modules.pop(name, None)
    os.environ.pop("TIKTOKEN_CACHE_DIR", None)
    try:
        importlib.import_module(module)
        for name in ("vocab.bpe", "encoder.json"):
            read_file_cached("{edition.TOKENIZER_URL}/" + name)
        print(module)
    except Exception as error:
        print(module, error)
"""
    assert len(modules) >= 12
    assert run_python("-c", code).stdout.split("\n") == [*modules, ""]


@pytest.mark.parametrize("state", ["missing", "empty", "damaged", "cut", "folders", "not set"])
def test_whatever_is_in_the_cache_the_tokenizer_needs_no_network(run_python, cache, state):
    if state != "missing":
        cache.mkdir()
    for name, file in zip(CACHED, edition.TOKENIZER_FILES):
        if state == "damaged":
            (cache / name).write_bytes(b"<html>not found</html>")
        elif state == "cut":
            (cache / name).write_bytes((edition.ASSETS / "10M" / file).read_bytes()[:-1])
        elif state == "folders":  # nobody can put the files there: others are used
            (cache / name / "full").mkdir(parents=True)
    process = run_python(
        "-c", ENCODE.format(module="edition"), TIKTOKEN_CACHE_DIR="" if state == "not set" else str(cache)
    )
    assert process.stdout == ENCODED, process.stderr
    if state not in ("folders", "not set"):
        assert names_in(cache) == sorted(CACHED)


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_no_link_is_followed_when_the_tokenizer_files_are_written(cache, tmp_path):
    names = [name for cached in CACHED for name in (cached, f".{cached}.copy", f"{cached}.part")]
    make_links(cache, names, tmp_path / "precious")
    edition.provide_tokenizer_files()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not any((cache / name).is_symlink() for name in CACHED)


def test_a_relative_cache_serves_after_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "cache")
    edition.provide_tokenizer_files()
    assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path / "cache")


def test_several_processes_fill_one_cache_at_once(cache):
    cache.mkdir()
    (cache / CACHED[0]).write_bytes(b"damaged")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENCODE.format(module="edition")]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == [ENCODED] * 4
    assert names_in(cache) == sorted(CACHED)


def test_a_read_only_copy_of_the_book_has_its_tokenizer_and_its_model(tmp_path, run_python, protect):
    """A fresh copy: neither ``.cache`` nor ``gpt2`` is there, and neither can be made."""
    book = tmp_path / "book"
    shutil.copytree(ROOT / "assets" / "10M", book / "assets" / "10M")
    for module in ROOT.glob("*.py"):
        shutil.copy(module, book)
    (tmp_path / "tmp").mkdir()
    protect(book)
    code = ENCODE.format(module="gpt_download") + (
        "sys.modules['tensorflow'] = None\n"
        "print(gpt_download.download_and_load_gpt2('10M', 'gpt2')[1]['wpe'].shape)"
    )
    process = run_python(
        "-c", code, cwd=book, PYTHONPATH=str(book), TIKTOKEN_CACHE_DIR="", TMPDIR=str(tmp_path / "tmp")
    )
    encoded, note, shape = process.stdout.splitlines()
    assert (f"{encoded}\n", shape) == (ENCODED, "(1024, 160)"), process.stderr
    assert note.startswith(f"{Path('gpt2', '10M')} cannot be written (") and note.endswith("into memory.")
    assert names_in(tmp_path / "tmp") == []  # what was put there is gone


def test_where_nothing_can_be_written_the_error_names_the_folders_and_the_way_on(cache, monkeypatch, protect):
    cache.mkdir()
    protect(cache)

    monkeypatch.setattr(edition, "ROOT", cache)
    monkeypatch.setattr(tempfile, "tempdir", str(cache))
    with pytest.raises(OSError) as error:
        edition.provide_tokenizer_files()
    assert "Set TIKTOKEN_CACHE_DIR to one that you may write" in str(error.value)
    assert str(cache) in str(error.value) and str(cache / ".cache") in str(error.value)
