"""downloads.py: a file is fetched whole and right, or not at all. A real web server on this machine."""

import pytest

import downloads
from downloads import DownloadError, fetch_file, join_source

CONTENT = bytes(range(256)) * 4000  # a megabyte


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


def test_a_file_comes_over_http(web_server, target):
    web_server.files["/file.bin"] = CONTENT
    fetch_file(target, [f"{web_server.url}/file.bin"], accept, way_on="")
    assert target.read_bytes() == CONTENT


def test_a_file_comes_from_a_folder(tmp_path, target):
    (tmp_path / "original").write_bytes(CONTENT)
    fetch_file(target, [tmp_path / "original"], accept, way_on="")
    assert target.read_bytes() == CONTENT


def test_an_empty_file_is_a_file(web_server, target):
    web_server.files["/file.bin"] = b""
    fetch_file(target, [f"{web_server.url}/file.bin"], accept, way_on="")
    assert target.read_bytes() == b""


def test_after_404_the_next_source_is_tried(web_server, target):
    web_server.files["/second"] = CONTENT
    fetch_file(target, [f"{web_server.url}/first", f"{web_server.url}/second"], accept, way_on="")
    assert target.read_bytes() == CONTENT


def test_a_server_error_is_tried_again(web_server, target):
    web_server.files["/file.bin"] = CONTENT
    web_server.failures["/file.bin"] = 1
    fetch_file(target, [f"{web_server.url}/file.bin"], accept, way_on="")
    assert web_server.requests["/file.bin"] == 2


def test_after_a_cut_connection_the_next_source_is_tried(web_server, target):
    web_server.files |= {"/first": CONTENT, "/second": CONTENT}
    web_server.cut.add("/first")
    fetch_file(target, [f"{web_server.url}/first", f"{web_server.url}/second"], accept, way_on="")
    assert target.read_bytes() == CONTENT


def test_after_wrong_content_the_next_source_is_tried(web_server, target):
    web_server.files |= {"/first": b"something else", "/second": CONTENT}
    sources = [f"{web_server.url}/first", f"{web_server.url}/second"]
    fetch_file(target, sources, accept_only_content, way_on="")
    assert target.read_bytes() == CONTENT


def test_nothing_but_the_file_is_left(web_server, target):
    web_server.files |= {"/first": b"something else", "/second": CONTENT}
    sources = [f"{web_server.url}/first", f"{web_server.url}/second"]
    fetch_file(target, sources, accept_only_content, way_on="")
    assert names_in(target.parent) == ["file.bin"]


@pytest.mark.parametrize("problem", ["missing", "cut", "wrong"])
def test_where_all_sources_fail_nothing_is_left(web_server, target, problem):
    if problem != "missing":
        web_server.files["/file.bin"] = CONTENT if problem == "cut" else b"something else"
    if problem == "cut":
        web_server.cut.add("/file.bin")
    with pytest.raises(DownloadError):
        fetch_file(target, [f"{web_server.url}/file.bin"], accept_only_content, way_on="")
    assert names_in(target.parent) == []


def test_a_file_that_stands_there_survives_a_failure(web_server, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DownloadError):
        fetch_file(target, [f"{web_server.url}/file.bin"], accept, way_on="")
    assert target.read_bytes() == b"old"


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


def test_a_web_address_and_a_folder_are_joined_in_their_own_way(tmp_path):
    assert join_source("http://127.0.0.1/base/", "124M", "file") == "http://127.0.0.1/base/124M/file"
    assert join_source(tmp_path, "124M", "file") == str(tmp_path / "124M" / "file")
