"""What happens when a download goes wrong: nothing lost, nothing wrong accepted, and a message that helps.

A web server on this machine misbehaves as its script says. Each case goes through the two
functions that readers call, ``download_and_load_gpt2`` and ``download_and_unzip_spam_data``.
"""

import errno
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import downloads
import gpt_download
import spam_data
from downloads import DownloadError, fetch_file
from gpt_download import SAFETENSORS_FILE, download_and_load_gpt2
from spam_data import ARCHIVE_NAME, download_and_unzip_spam_data
from tools.checkpoints import TINY, flatten, random_values, write_hugging_face_file

ROOT = Path(__file__).resolve().parents[1]
HTML = b"<!DOCTYPE html>\n<html><body>Welcome. Please sign in to use this network.</body></html>"
QUICK = {"CONNECT_TIMEOUT": 10, "READ_TIMEOUT": 10, "BACKOFF": 0.01, "MAX_WAIT": 0.05, "CHUNK": 1024}


# ---------------------------------------------------------------------------------
# A web server that misbehaves
# ---------------------------------------------------------------------------------


@dataclass
class Answer:
    """How the server answers one request; without arguments, as a good server does."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    content: bytes = None  # instead of the file's
    announced: int = None  # Content-Length, where it is not the true one
    cut_after: int = None  # bytes of the body, then the connection ends
    stall_after: int = None  # bytes of the body, then nothing more comes
    gate: threading.Event = None  # the second kilobyte comes only when it is set
    honours_range: bool = True
    honours_if_range: bool = True
    version: str = "etag"  # "etag", "date" or None


class FaultServer(ThreadingHTTPServer):
    """Serves ``files`` {path: content}; ``script`` {path: [Answer, ...]} says how, request by request.

    Where no script is left, ``always`` {path: Answer} says how, else a good server answers.
    ``requests`` lists (path, Range header or None, status, bytes sent) of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FaultHandler)
        self.files, self.script, self.always, self.requests = {}, {}, {}, []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def next_answer(self, path):
        script = self.script.get(path)
        return script.pop(0) if script else self.always.get(path, Answer())

    def of(self, path):
        """The requests for one path, without the path."""
        return [request[1:] for request in self.requests if request[0] == path]


class FaultHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, answer, wanted = self.server, self.server.next_answer(self.path), self.headers.get("Range")
        record = [self.path, wanted, answer.status, 0]
        server.requests.append(record)
        content = server.files.get(self.path) if answer.content is None else answer.content
        if answer.status == 200 and content is None:
            record[2] = 404
            return self.send_error(404)
        content, headers = content or b"", dict(answer.headers)
        version = {
            "etag": {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'},
            "date": {"Last-Modified": formatdate(1e9, usegmt=True)},
            None: {},
        }[answer.version]
        status, body = answer.status, content
        if status == 200 and wanted and answer.honours_range:
            if not answer.honours_if_range or self.headers["If-Range"] in version.values():
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                if start >= len(content):
                    status, body = 416, b""
                else:
                    status, body = 206, content[start:]
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        record[2] = status
        self.send_response(status)
        announced = len(body) if answer.announced is None else answer.announced
        for name, value in {"Content-Length": announced, **version, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        ends = [n for n in (answer.cut_after, answer.stall_after) if n is not None]
        body = body[: min(ends)] if ends else body
        for start in range(0, len(body), 1024):
            if answer.gate and start:
                answer.gate.wait(60)
            try:
                self.wfile.write(body[start : start + 1024])
            except OSError:  # the other side is gone
                return
            record[3] += len(body[start : start + 1024])
        if answer.stall_after is not None:
            server.closing.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with FaultServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


# ---------------------------------------------------------------------------------
# The two functions that readers call
# ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody waits long in a test."""
    for name, value in QUICK.items():
        monkeypatch.setattr(downloads, name, value)


@pytest.fixture
def impatient(monkeypatch):
    """For what stalls; elsewhere so short a time would be too short on a busy machine."""
    monkeypatch.setattr(downloads, "READ_TIMEOUT", 0.5)


@pytest.fixture
def gpt2(server, monkeypatch, tmp_path):
    """A tiny model.safetensors, fetched as "355M" where TensorFlow is not installed."""
    values = random_values(TINY)
    write_hugging_face_file(tmp_path / "published", TINY, values)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(gpt_download, "known_settings", lambda model_size: TINY)
    content = (tmp_path / "published").read_bytes()
    hashes = {SAFETENSORS_FILE: hashlib.sha256(content).hexdigest()}
    monkeypatch.setattr(gpt_download, "known_hashes", lambda model_size: hashes)
    for name in ("OPENAI_URL", "BACKUP_URL", "HUGGING_FACE_URL"):
        monkeypatch.setattr(gpt_download, name, f"{server.url}/official")
    monkeypatch.setenv("GPT2_MIRROR", f"{server.url}/mirror")
    server.files["/mirror/355M/hparams.json"] = json.dumps(TINY).encode()

    def check(result):
        assert result[0] == TINY
        loaded = flatten(result[1])
        assert all(np.array_equal(loaded[name], values[name]) for name in values)

    return SimpleNamespace(
        run=lambda: download_and_load_gpt2("355M", tmp_path / "models"),
        check=check,
        content=content,
        folder=tmp_path / "models" / "355M",
        target=SAFETENSORS_FILE,
        others={"hparams.json"},  # files that are there before the target is fetched
        finished={"hparams.json", SAFETENSORS_FILE},
        mirror=f"/mirror/355M/{SAFETENSORS_FILE}",
        official=f"/official/gpt2-medium/resolve/main/{SAFETENSORS_FILE}",
    )


@pytest.fixture
def spam(server, monkeypatch, tmp_path):
    """The archive of messages."""
    messages = "".join(f"ham\tmessage number {i}\n" for i in range(600)).encode()
    monkeypatch.setattr(spam_data, "MEMBER_SHA256", hashlib.sha256(messages).hexdigest())
    monkeypatch.setattr(spam_data, "BACKUP_URL", f"{server.url}/backup.zip")
    monkeypatch.setenv("SPAM_MIRROR", f"{server.url}/mirror")
    with zipfile.ZipFile(tmp_path / "published", "w") as archive:
        archive.writestr(spam_data.MEMBER, messages)
    folder = tmp_path / "data"

    def check(result):
        assert (folder / "messages.tsv").read_bytes() == messages

    return SimpleNamespace(
        run=lambda: download_and_unzip_spam_data(
            f"{server.url}/uci.zip", folder / "archive.zip", folder, folder / "messages.tsv"
        ),
        check=check,
        content=(tmp_path / "published").read_bytes(),
        folder=folder,
        target="archive.zip",
        others=set(),
        finished={"archive.zip", "messages.tsv"},
        mirror=f"/mirror/{ARCHIVE_NAME}",
        official="/uci.zip",
    )


@pytest.fixture(params=["gpt2", "spam"])
def case(request, server):
    """One of the two, with its file on the mirror."""
    case = request.getfixturevalue(request.param)
    server.files[case.mirror] = case.content
    return case


def names_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def succeed(case):
    """Run, and check that the result is right and that nothing else is left."""
    case.check(case.run())
    assert names_in(case.folder) == case.finished


def fail(case, kept=False):
    """Run, and check that it fails with nothing left but, where told, the part to continue; the message."""
    with pytest.raises(DownloadError) as error:
        case.run()
    part = {f"{case.target}.part", f"{case.target}.part.json"} if kept else set()
    assert names_in(case.folder) == case.others | part
    return str(error.value)


def fetch_a_part(case, server):
    """Leave a part behind, as a run that was given up does; returns its length."""
    server.script[case.mirror] = [Answer(cut_after=5000), *[Answer(cut_after=0) for _ in range(3)]]
    fail(case, kept=True)
    server.requests.clear()
    return (case.folder / f"{case.target}.part").stat().st_size


def provide_others(case):
    """Put the files in place that are fetched before the target."""
    case.folder.mkdir(parents=True)
    for name in case.others:
        (case.folder / name).write_text(json.dumps(TINY))


def reason(message, path):
    """The line below the one of an address."""
    lines = message.splitlines()
    return next(lines[i + 1].strip() for i, line in enumerate(lines) if line.endswith(path))


# ---------------------------------------------------------------------------------
# The connection
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["etag", "date"])
def test_after_a_cut_connection_only_the_rest_is_asked_for(case, server, version):
    server.script[case.mirror] = [Answer(cut_after=5000, version=version), Answer(version=version)]
    succeed(case)
    first, second = server.of(case.mirror)
    have = int(re.fullmatch(r"bytes=(\d+)-", second[0])[1])
    assert 3000 < have <= 5000
    assert first[0] is None and second[1:] == [206, len(case.content) - have]


def test_a_connection_that_is_cut_again_and_again_makes_progress(case, server, monkeypatch):
    monkeypatch.setattr(downloads, "PROGRESS", 1024)
    server.script[case.mirror] = [Answer(cut_after=2048) for _ in range(6)]  # more often than TRIES
    succeed(case)
    assert len(server.of(case.mirror)) >= 6
    assert sum(sent for *_, sent in server.of(case.mirror)) <= len(case.content) + 6 * 1024


def test_a_connection_that_never_gets_on_is_given_up_and_continued_by_the_next_run(case, server):
    server.script[case.mirror] = [Answer(cut_after=5000), *[Answer(cut_after=0) for _ in range(3)]]
    message = fail(case, kept=True)
    assert re.fullmatch(
        r"the connection was cut after \d,\d{3} of \d\d,\d{3} bytes, 4 times in a row; "
        r"what came is kept, run again to go on",
        reason(message, case.mirror),
    )
    have = (case.folder / f"{case.target}.part").stat().st_size
    server.requests.clear()
    succeed(case)
    assert server.of(case.mirror) == [[f"bytes={have}-", 206, len(case.content) - have]]


def test_a_stalled_stream_is_continued(case, server, impatient):
    server.script[case.mirror] = [Answer(stall_after=5000)]
    succeed(case)
    assert server.of(case.mirror)[1][1] == 206


def test_a_stream_that_stalls_each_time_is_given_up(case, server, impatient):
    server.always[case.mirror] = Answer(stall_after=3000)
    server.script[case.mirror] = [Answer(stall_after=3000), *[Answer(stall_after=0) for _ in range(3)]]
    message = fail(case, kept=True)
    assert re.match(r"nothing came for 0.5 s after \d,\d{3} of", reason(message, case.mirror))


def test_a_progress_bar_shows_where_it_goes_on(case, server, capsys):
    server.script[case.mirror] = [Answer(cut_after=5000)]
    succeed(case)
    bars = re.findall(rf"{case.target} \(continued\): +(\d+)%", capsys.readouterr().err)
    have = int(server.of(case.mirror)[1][0].removeprefix("bytes=").removesuffix("-"))
    assert int(bars[0]) == round(100 * have / len(case.content))


def test_a_redirect_is_followed_also_for_the_rest(case, server):
    server.files["/elsewhere"] = case.content
    server.always[case.mirror] = Answer(status=302, headers={"Location": "/elsewhere"})
    server.script["/elsewhere"] = [Answer(cut_after=5000)]
    succeed(case)
    assert [status for _, status, _ in server.of("/elsewhere")] == [200, 206]


def test_redirects_in_a_circle_are_an_error(case, server):
    server.always[case.mirror] = Answer(status=302, headers={"Location": case.mirror})
    assert "redirects" in reason(fail(case), case.mirror)


# ---------------------------------------------------------------------------------
# What the server says
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status, words", [(403, "status 403 Forbidden"), (404, "status 404 Not Found")])
def test_a_refusal_is_not_repeated_and_the_next_source_is_tried(case, server, status, words):
    server.always[case.mirror] = Answer(status=status)
    assert reason(fail(case), case.mirror) == words
    server.files[case.official] = case.content
    succeed(case)
    assert len(server.of(case.mirror)) == 2  # one of each run


def test_a_server_error_is_repeated(case, server):
    server.script[case.mirror] = [Answer(status=500), Answer(status=502)]
    succeed(case)
    assert [status for _, status, _ in server.of(case.mirror)] == [500, 502, 200]


def test_a_server_error_does_not_cost_what_came_before(case, server):
    server.script[case.mirror] = [Answer(cut_after=5000), Answer(status=500)]
    succeed(case)
    assert [status for _, status, _ in server.of(case.mirror)] == [200, 500, 206]


def test_nobody_waits_for_a_day(case, server):
    server.always[case.mirror] = Answer(status=503, headers={"Retry-After": 86400})
    started = time.monotonic()
    message = fail(case)
    assert time.monotonic() - started < 5
    expected = "status 503 Service Unavailable; the server asks to wait 86400 s"
    assert reason(message, case.mirror) == expected


def test_a_server_that_ignores_ranges_sends_all_again(case, server):
    server.script[case.mirror] = [Answer(cut_after=5000), Answer(honours_range=False)]
    succeed(case)
    assert server.of(case.mirror)[1][1:] == [200, len(case.content)]


def test_a_part_from_another_address_is_not_continued(case, server):
    fetch_a_part(case, server)
    del server.files[case.mirror]
    server.files[case.official] = case.content
    succeed(case)
    assert server.of(case.official) == [[None, 200, len(case.content)]]


def test_without_a_version_nothing_is_continued_and_nothing_kept(case, server):
    server.always[case.mirror] = Answer(cut_after=5000, version=None)
    assert "kept" not in fail(case)
    assert {wanted for wanted, _, _ in server.of(case.mirror)} == {None}


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_between_two_tries_is_fetched_anew(case, server, honours_if_range):
    old = bytes(reversed(case.content))
    server.script[case.mirror] = [
        Answer(cut_after=5000, content=old),
        Answer(honours_if_range=honours_if_range),
    ]
    succeed(case)
    assert server.of(case.mirror)[-1][1:] == [200, len(case.content)]


def test_a_file_that_became_shorter_is_fetched_anew(case, server):
    longer = case.content + bytes(9000)
    server.script[case.mirror] = [
        Answer(cut_after=len(case.content) + 5000, content=longer),
        Answer(honours_if_range=False),  # answers 416
    ]
    succeed(case)
    assert [status for _, status, _ in server.of(case.mirror)] == [200, 416, 200]


# ---------------------------------------------------------------------------------
# Wrong content
# ---------------------------------------------------------------------------------


def changed(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


WRONG_CONTENT = {
    "too short": lambda content: Answer(content=content[:-1000]),
    "too long": lambda content: Answer(content=content + b"more"),
    "right length": lambda content: Answer(content=changed(content)),
    "announced too short": lambda content: Answer(announced=len(content) - 1000),
    "empty": lambda content: Answer(content=b""),
}


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_wrong_content_is_refused_and_the_next_source_is_tried(case, server, kind):
    server.always[case.mirror] = WRONG_CONTENT[kind](case.content)
    if kind == "too long" and case.target == "archive.zip":
        return succeed(case)  # what follows the end of an archive is no part of it; its data file is right
    assert re.search("its SHA-256 is .* expected|not a valid zip", reason(fail(case), case.mirror))
    server.files[case.official] = case.content
    succeed(case)


def test_content_that_is_shorter_than_announced_is_not_taken_for_the_whole(case, server):
    server.always[case.mirror] = Answer(announced=len(case.content) + 1000, honours_range=False)
    message = fail(case, kept=True)
    assert f" of {len(case.content) + 1000:,} bytes, 4 times in a row" in reason(message, case.mirror)


def test_a_wrong_beginning_is_not_continued_a_second_time(case, server):
    fetch_a_part(case, server)
    part = case.folder / f"{case.target}.part"
    part.write_bytes(changed(part.read_bytes()))
    succeed(case)
    assert [status for _, status, _ in server.of(case.mirror)] == [206, 200]


def test_a_part_that_is_whole_is_checked_and_not_fetched_again(case, server):
    fetch_a_part(case, server)
    (case.folder / f"{case.target}.part").write_bytes(case.content)  # as where the check was interrupted
    succeed(case)
    assert server.of(case.mirror) == []


def test_a_page_in_place_of_the_file_is_told_as_such(case, server):
    server.always[case.mirror] = Answer(content=HTML, headers={"Content-Type": "text/html"})
    expected = f"an HTML page came instead of {case.target}, from {server.url}{case.mirror} (often the login"
    assert reason(fail(case), case.mirror).startswith(expected)


def test_a_redirect_to_a_login_page_names_that_page(case, server):
    server.always[case.mirror] = Answer(status=302, headers={"Location": "/login"})
    server.files["/login"] = HTML
    assert f"instead of {case.target}, from {server.url}/login (often" in reason(fail(case), case.mirror)


def test_a_page_does_not_cost_what_came_before(case, server):
    fetch_a_part(case, server)
    server.always[case.mirror] = Answer(content=HTML)
    fail(case, kept=True)
    del server.always[case.mirror]
    server.requests.clear()
    succeed(case)
    assert [status for _, status, _ in server.of(case.mirror)] == [206]


def test_a_page_in_place_of_a_small_file_is_told_as_such(gpt2, server):
    server.files["/mirror/355M/hparams.json"] = HTML
    with pytest.raises(DownloadError, match="an HTML page came instead of hparams.json"):
        gpt2.run()
    assert names_in(gpt2.folder) == set()


def test_the_error_lists_each_address_and_ends_with_the_way_on(case, server):
    del server.files[case.mirror]
    lines = fail(case).splitlines()
    assert lines[0] == f"Could not get {case.target}. Tried:"
    assert lines[1:5] == [
        f"  {server.url}{case.mirror}",
        "    status 404 Not Found",
        f"  {server.url}{case.official}",
        "    status 404 Not Found",
    ]
    assert lines[-1].startswith("To go on without a network, use the")


def test_an_address_where_nobody_listens(case, server, monkeypatch):
    for variable in ("GPT2_MIRROR", "SPAM_MIRROR"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    provide_others(case)
    assert "Connection refused" in fail(case)


# ---------------------------------------------------------------------------------
# The disk
# ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(case, monkeypatch):
    """A file system of 16 kB under the folder, where this user may mount one; else writing fails as there."""
    case.folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(case.folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        yield SimpleNamespace(make_room=lambda: subprocess.run([*mount[:4], "remount,size=1m", *mount[5:]]))
        subprocess.run(["umount", str(case.folder)], check=True)
        return

    limit = SimpleNamespace(bytes=8192)

    class SmallDisk:
        def __init__(self, file):
            self.file, self.written = file, 0

        def write(self, content):
            self.written += len(content)
            if self.written > limit.bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def flush(self):
            self.file.flush()

    monkeypatch.setattr(downloads, "open", lambda *args: SmallDisk(open(*args)), raising=False)
    yield SimpleNamespace(make_room=lambda: setattr(limit, "bytes", 10**9))


def disk_usage(free):
    return lambda folder: SimpleNamespace(free=free)


def test_a_disk_that_becomes_full_keeps_what_came(case, server, small_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(10**9))  # another program takes the room meanwhile
    message = fail(case, kept=True)
    assert message.startswith(f"Could not get {case.target}: [Errno 28] No space left on device. Make room")
    assert server.of(case.official) == []  # another source would not help
    have = (case.folder / f"{case.target}.part").stat().st_size
    small_disk.make_room()
    server.requests.clear()
    succeed(case)
    assert server.of(case.mirror) == [[f"bytes={have}-", 206, len(case.content) - have]]


def test_too_little_room_is_noticed_before_anything_is_written(case, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(1000))
    message = fail(case)
    assert message.startswith(
        f"Could not get {case.target}: {case.target} needs {len(case.content):,} bytes more, "
        f"but only 1,000 bytes are free in {case.folder}. Make room and run again"
    )
    assert server.of(case.official) == []


def test_a_rest_needs_only_room_for_the_rest(case, server, monkeypatch):
    fetch_a_part(case, server)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(len(case.content) - 3000))
    succeed(case)


def test_a_copy_from_a_folder_needs_room_too(tmp_path, monkeypatch):
    (tmp_path / "original").write_bytes(bytes(5000))
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(1000))
    with pytest.raises(DownloadError, match="file needs 5,000 bytes more, but only 1,000 bytes are free"):
        fetch_file(tmp_path / "to" / "file", [tmp_path / "original"], lambda path: None, way_on="")
    assert names_in(tmp_path / "to") == set()


def test_the_copy_in_safetensors_format_needs_room_too(tmp_path, monkeypatch):
    (tmp_path / "data").touch()
    (tmp_path / "hparams.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(1000))
    with pytest.raises(OSError, match="copy needs .* bytes more, but only 1,000 bytes are free"):
        gpt_download.write_safetensors(tmp_path / "copy", random_values(TINY).items(), tmp_path / "data")
    assert names_in(tmp_path) == {"data", "hparams.json"}


# ---------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------

SETTING = f"""
import signal, sys, downloads
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has Ctrl-C turned off
for name, value in {QUICK}.items():
    setattr(downloads, name, value)
downloads.READ_TIMEOUT = 30
"""
LOAD_GPT2 = f"""{SETTING}
import gpt_download
sys.modules["tensorflow"] = None
gpt_download.known_settings = lambda model_size: {TINY}
settings, params = gpt_download.download_and_load_gpt2("355M", sys.argv[1])
print(params["wte"].sum())
"""
FETCH_SPAM = f"""{SETTING}
import spam_data
spam_data.MEMBER_SHA256 = sys.argv[2]
spam_data.download_and_unzip_spam_data(sys.argv[1] + ".zip", sys.argv[1] + "/archive.zip", sys.argv[1],
                                       sys.argv[1] + "/messages.tsv")
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def process_of(case):
    if case.others:
        return start(LOAD_GPT2, case.folder.parent)
    return start(FETCH_SPAM, case.folder, spam_data.MEMBER_SHA256)


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "case, signal_number",
    [("gpt2", signal.SIGKILL), ("spam", signal.SIGKILL), ("gpt2", signal.SIGINT)],
    ids=["gpt2-killed", "spam-killed", "gpt2-Ctrl-C"],
    indirect=["case"],
)
def test_an_interrupted_process_is_continued_by_the_next(case, server, signal_number):
    server.script[case.mirror] = [Answer(stall_after=5000)]
    part = case.folder / f"{case.target}.part"
    process = process_of(case)
    wait_for(lambda: part.exists() and part.stat().st_size >= 4096, process)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if signal_number == signal.SIGINT:
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
    kept = {f"{case.target}.part", f"{case.target}.part.json"}
    assert (
        names_in(case.folder) - {f".{case.target}.lock"} == case.others | kept
    )  # SIGKILL leaves the lock file
    have = part.stat().st_size
    server.requests.clear()
    succeed(case)
    assert server.of(case.mirror) == [[f"bytes={have}-", 206, len(case.content) - have]]


def test_two_processes_fetch_a_file_once(gpt2, server):
    provide_others(gpt2)
    server.files[gpt2.mirror] = gpt2.content
    gate = threading.Event()
    server.script[gpt2.mirror] = [Answer(gate=gate)]
    processes = [process_of(gpt2), process_of(gpt2)]
    # one of them waits for the other, and says so
    ready, _, _ = select.select([process.stdout for process in processes], [], [], 60)
    assert ready[0].readline().startswith(f"Another process is fetching {gpt2.folder / gpt2.target}.")
    gate.set()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert [status for _, status, _ in server.of(gpt2.mirror)] == [200]
    succeed(gpt2)  # what they left is right, and nothing else is there


def test_where_the_first_of_two_processes_is_killed_the_second_goes_on(gpt2, server):
    server.files[gpt2.mirror] = gpt2.content
    server.script[gpt2.mirror] = [Answer(stall_after=5000)]
    first = process_of(gpt2)
    part = gpt2.folder / f"{gpt2.target}.part"
    wait_for(lambda: part.exists() and part.stat().st_size >= 4096, first)
    second = process_of(gpt2)
    assert "Another process is fetching" in second.stdout.readline()
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert [status for _, status, _ in server.of(gpt2.mirror)] == [200, 206]
    succeed(gpt2)
