"""What happens when a download goes wrong: nothing lost, nothing wrong accepted, and a message that helps.

A web server on this machine misbehaves as its script says. That both functions that readers call fetch
their files in this way is shown in test_gpt_download.py and test_spam_data.py.
"""

import errno
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from web_server import Answer

import downloads
from downloads import DownloadError, fetch_file

ROOT = Path(__file__).resolve().parents[1]
HTML = b"<!DOCTYPE html>\n<html><body>Welcome. Please sign in to use this network.</body></html>"
QUICK = {"CONNECT_TIMEOUT": 10, "READ_TIMEOUT": 10, "BACKOFF": 0.01, "MAX_WAIT": 0.05, "CHUNK": 1024}
CONTENT = b"".join(b"message number %d\n" % i for i in range(900))


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
def case(web_server, tmp_path):
    """A file with its mirror, which has it, and its official address, which has it not."""
    web_server.files["/mirror"] = CONTENT
    target = tmp_path / "data" / "file"
    sources = [f"{web_server.url}/mirror", f"{web_server.url}/official"]

    def verify(path):
        if path.read_bytes() != CONTENT:
            raise ValueError("its SHA-256 is another than expected")

    return SimpleNamespace(
        run=lambda: fetch_file(target, sources, verify, way_on="To go on, use the sample."),
        target=target,
        part=target.with_name("file.part"),
        folder=target.parent,
    )


def names_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def succeed(case):
    """Run, and check that the file is right and that nothing else is left."""
    case.run()
    assert case.target.read_bytes() == CONTENT
    assert names_in(case.folder) == {"file"}


def fail(case, kept=False):
    """Run, and check that it fails with nothing left but, where told, the part to continue; the message."""
    with pytest.raises(DownloadError) as error:
        case.run()
    assert names_in(case.folder) == ({"file.part", "file.part.json"} if kept else set())
    return str(error.value)


def fetch_a_part(case, server):
    """Leave a part behind, as a run that was given up does; returns its length and the message."""
    server.script["/mirror"] = [Answer(cut_after=5000), *[Answer(cut_after=0) for _ in range(3)]]
    message = fail(case, kept=True)
    server.requests.clear()
    return case.part.stat().st_size, message


def statuses(server, path):
    return [status for _, status, _ in server.of(path)]


def reason(message, path):
    """The line below the one of an address."""
    lines = message.splitlines()
    return next(lines[i + 1].strip() for i, line in enumerate(lines) if line.endswith(path))


# ---------------------------------------------------------------------------------
# The connection
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["etag", "date"])
def test_after_a_cut_connection_only_the_rest_is_asked_for(case, web_server, version, capsys):
    web_server.script["/mirror"] = [Answer(cut_after=5000, version=version), Answer(version=version)]
    succeed(case)
    first, second = web_server.of("/mirror")
    have = int(re.fullmatch(r"bytes=(\d+)-", second[0])[1])
    assert 3000 < have <= 5000
    assert first[0] is None and second[1:] == [206, len(CONTENT) - have]
    # the progress bar shows where it goes on
    bars = re.findall(r"file \(continued\): +(\d+)%", capsys.readouterr().err)
    assert int(bars[0]) == round(100 * have / len(CONTENT))


def test_a_connection_that_is_cut_again_and_again_makes_progress(case, web_server, monkeypatch):
    monkeypatch.setattr(downloads, "PROGRESS", 1024)
    web_server.script["/mirror"] = [Answer(cut_after=2048) for _ in range(6)]  # more often than TRIES
    succeed(case)
    assert len(web_server.of("/mirror")) >= 6
    assert sum(sent for *_, sent in web_server.of("/mirror")) <= len(CONTENT) + 6 * 1024


def test_a_connection_that_never_gets_on_is_given_up_and_continued_by_the_next_run(case, web_server):
    have, message = fetch_a_part(case, web_server)
    assert re.fullmatch(
        r"the connection was cut after \d,\d{3} of \d\d,\d{3} bytes, 4 times in a row; "
        r"what came is kept, run again to go on",
        reason(message, "/mirror"),
    )
    succeed(case)
    assert web_server.of("/mirror") == [[f"bytes={have}-", 206, len(CONTENT) - have]]


def test_after_a_connection_that_never_gets_on_the_next_source_is_tried(case, web_server):
    web_server.always["/mirror"] = Answer(cut_after=0)
    web_server.files["/official"] = CONTENT
    succeed(case)


def test_a_stalled_stream_is_continued(case, web_server, impatient):
    web_server.script["/mirror"] = [Answer(stall_after=5000)]
    succeed(case)
    assert web_server.of("/mirror")[1][1] == 206


def test_a_stream_that_stalls_each_time_is_given_up(case, web_server, impatient, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 2)
    web_server.script["/mirror"] = [Answer(stall_after=3000), Answer(stall_after=0)]
    message = fail(case, kept=True)
    assert re.match(r"nothing came for 0.5 s after \d,\d{3} of .* 2 times", reason(message, "/mirror"))


def test_a_redirect_is_followed_also_for_the_rest(case, web_server):
    web_server.files["/elsewhere"] = CONTENT
    web_server.always["/mirror"] = Answer(status=302, headers={"Location": "/elsewhere"})
    web_server.script["/elsewhere"] = [Answer(cut_after=5000)]
    succeed(case)
    assert statuses(web_server, "/elsewhere") == [200, 206]


def test_redirects_in_a_circle_are_an_error(case, web_server):
    web_server.always["/mirror"] = Answer(status=302, headers={"Location": "/mirror"})
    assert "redirects" in reason(fail(case), "/mirror")


# ---------------------------------------------------------------------------------
# What the server says
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status, words", [(403, "status 403 Forbidden"), (404, "status 404 Not Found")])
def test_a_refusal_is_not_repeated_and_the_next_source_is_tried(case, web_server, status, words):
    web_server.always["/mirror"] = Answer(status=status)
    assert reason(fail(case), "/mirror") == words
    web_server.files["/official"] = CONTENT
    succeed(case)
    assert len(web_server.of("/mirror")) == 2  # one of each run


@pytest.mark.parametrize(
    "first, expected",
    [(Answer(status=500), [500, 502, 200]), (Answer(cut_after=5000), [200, 502, 206])],
    ids=["at first", "after a part"],
)
def test_a_server_error_is_repeated_and_does_not_cost_what_came_before(case, web_server, first, expected):
    web_server.script["/mirror"] = [first, Answer(status=502)]
    succeed(case)
    assert statuses(web_server, "/mirror") == expected


def test_nobody_waits_for_a_day(case, web_server):
    web_server.always["/mirror"] = Answer(status=503, headers={"Retry-After": 86400})
    started = time.monotonic()
    message = fail(case)
    assert time.monotonic() - started < 5
    expected = "status 503 Service Unavailable; the server asks to wait 86400 s"
    assert reason(message, "/mirror") == expected
    assert statuses(web_server, "/mirror") == [503] * 4


def test_a_server_that_ignores_ranges_sends_all_again(case, web_server):
    web_server.script["/mirror"] = [Answer(cut_after=5000), Answer(honours_range=False)]
    succeed(case)
    assert web_server.of("/mirror")[1][1:] == [200, len(CONTENT)]


def test_a_part_from_another_address_is_not_continued(case, web_server):
    fetch_a_part(case, web_server)
    del web_server.files["/mirror"]
    web_server.files["/official"] = CONTENT
    succeed(case)
    assert web_server.of("/official") == [[None, 200, len(CONTENT)]]


def test_without_a_version_nothing_is_continued_and_nothing_kept(case, web_server):
    web_server.always["/mirror"] = Answer(cut_after=5000, version=None)
    assert "kept" not in fail(case)
    assert {wanted for wanted, _, _ in web_server.of("/mirror")} == {None}


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_between_two_tries_is_fetched_anew(case, web_server, honours_if_range):
    old = Answer(cut_after=5000, content=bytes(reversed(CONTENT)))
    web_server.script["/mirror"] = [old, Answer(honours_if_range=honours_if_range)]
    succeed(case)
    assert web_server.of("/mirror")[-1][1:] == [200, len(CONTENT)]


def test_a_file_that_became_shorter_is_fetched_anew(case, web_server):
    longer = Answer(cut_after=len(CONTENT) + 5000, content=CONTENT + bytes(9000))
    web_server.script["/mirror"] = [longer, Answer(honours_if_range=False)]  # the second answers 416
    succeed(case)
    assert statuses(web_server, "/mirror") == [200, 416, 200]


# ---------------------------------------------------------------------------------
# Wrong content
# ---------------------------------------------------------------------------------


def changed(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


WRONG_CONTENT = {
    "too short": Answer(content=CONTENT[:-1000]),
    "too long": Answer(content=CONTENT + b"more"),
    "right length": Answer(content=changed(CONTENT)),
    "announced too short": Answer(announced=len(CONTENT) - 1000),
    "empty": Answer(content=b""),
}


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_wrong_content_is_refused_and_the_next_source_is_tried(case, web_server, kind):
    web_server.always["/mirror"] = WRONG_CONTENT[kind]
    assert reason(fail(case), "/mirror") == "its SHA-256 is another than expected"
    web_server.files["/official"] = CONTENT
    succeed(case)


def test_content_that_is_shorter_than_announced_is_not_taken_for_the_whole(case, web_server):
    web_server.always["/mirror"] = Answer(announced=len(CONTENT) + 1000, honours_range=False)
    message = fail(case, kept=True)
    assert f" of {len(CONTENT) + 1000:,} bytes, 4 times in a row" in reason(message, "/mirror")


def test_a_wrong_beginning_is_not_continued_a_second_time(case, web_server):
    fetch_a_part(case, web_server)
    case.part.write_bytes(changed(case.part.read_bytes()))
    succeed(case)
    assert statuses(web_server, "/mirror") == [206, 200]


def test_a_part_that_is_whole_is_checked_and_not_fetched_again(case, web_server):
    fetch_a_part(case, web_server)
    case.part.write_bytes(CONTENT)  # as where the check was interrupted
    succeed(case)
    assert web_server.of("/mirror") == []


@pytest.mark.parametrize("redirected", [False, True])
def test_a_page_in_place_of_the_file_is_told_as_such(case, web_server, redirected):
    web_server.always["/mirror"] = Answer(content=HTML, headers={"Content-Type": "text/html"})
    if redirected:
        web_server.always["/mirror"] = Answer(status=302, headers={"Location": "/login"})
        web_server.files["/login"] = HTML
    page = f"{web_server.url}{'/login' if redirected else '/mirror'}"
    expected = f"an HTML page came instead of file, from {page} (often the login page"
    assert reason(fail(case), "/mirror").startswith(expected)


def test_a_page_does_not_cost_what_came_before(case, web_server):
    fetch_a_part(case, web_server)
    web_server.always["/mirror"] = Answer(content=HTML)
    fail(case, kept=True)
    del web_server.always["/mirror"]
    web_server.requests.clear()
    succeed(case)
    assert statuses(web_server, "/mirror") == [206]


def test_an_address_where_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match="Connection refused|actively refused"):
        fetch_file(tmp_path / "file", ["http://127.0.0.1:9/file"], lambda path: None, way_on="")


# ---------------------------------------------------------------------------------
# The disk
# ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(monkeypatch):
    """A disk with room for eight kilobytes, and after ``make_room`` for more."""
    limit = SimpleNamespace(bytes=8192)

    class SmallDisk:
        def __init__(self, file):
            self.file, self.written = file, 0

        def write(self, content):
            self.written += len(content)
            if self.written > limit.bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def flush(self):
            self.file.flush()

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

    monkeypatch.setattr(downloads, "open", lambda *args: SmallDisk(open(*args)), raising=False)
    return SimpleNamespace(make_room=lambda: setattr(limit, "bytes", 10**9))


def disk_usage(free):
    return lambda folder: SimpleNamespace(free=free)


def test_a_disk_that_becomes_full_keeps_what_came(case, web_server, small_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(10**9))  # another program takes the room meanwhile
    message = fail(case, kept=True)
    assert message.startswith("Could not get file: [Errno 28] No space left on device. Make room")
    assert web_server.of("/official") == []  # another source would not help
    have = case.part.stat().st_size
    small_disk.make_room()
    web_server.requests.clear()
    succeed(case)
    assert web_server.of("/mirror") == [[f"bytes={have}-", 206, len(CONTENT) - have]]


def test_too_little_room_is_noticed_before_anything_is_written(case, web_server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(1000))
    assert fail(case).startswith(
        f"Could not get file: file needs {len(CONTENT):,} bytes more, "
        f"but only 1,000 bytes are free in {case.folder}. Make room and run again"
    )
    assert web_server.of("/official") == []


def test_a_rest_needs_only_room_for_the_rest(case, web_server, monkeypatch):
    fetch_a_part(case, web_server)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(len(CONTENT) - 3000))
    succeed(case)


def test_a_copy_from_a_folder_needs_room_too(tmp_path, monkeypatch):
    (tmp_path / "original").write_bytes(bytes(5000))
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(1000))
    with pytest.raises(DownloadError, match="copy needs 5,000 bytes more, but only 1,000 bytes are free"):
        fetch_file(tmp_path / "copy", [tmp_path / "original"], lambda path: None, way_on="")
    assert names_in(tmp_path) == {"original"}


# ---------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------

FETCH = f"""
import signal, sys, downloads
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has Ctrl-C turned off
for name, value in {QUICK}.items():
    setattr(downloads, name, value)
downloads.READ_TIMEOUT = 30
downloads.fetch_file(sys.argv[1], sys.argv[2:], lambda path: None, "")
"""


def start(case, server):
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(case.target), f"{server.url}/mirror"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_and_wait_for_a_part(case, server):
    """A process that has four kilobytes and waits for more."""
    server.script["/mirror"] = [Answer(stall_after=5000)]
    process, deadline = start(case, server), time.monotonic() + 60
    while not (case.part.exists() and case.part.stat().st_size >= 4096):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_process_is_continued_by_the_next(case, web_server, signal_number):
    process = start_and_wait_for_a_part(case, web_server)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if signal_number == signal.SIGINT:
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert names_in(case.folder) - {".file.lock"} == {
        "file.part",
        "file.part.json",
    }  # SIGKILL leaves the lock
    have = case.part.stat().st_size
    web_server.requests.clear()
    succeed(case)
    assert web_server.of("/mirror") == [[f"bytes={have}-", 206, len(CONTENT) - have]]


def test_two_processes_fetch_a_file_once(case, web_server):
    gate = threading.Event()
    web_server.script["/mirror"] = [Answer(gate=gate)]
    processes = [start(case, web_server), start(case, web_server)]
    # one of them waits for the other, and says so
    ready, _, _ = select.select([process.stdout for process in processes], [], [], 60)
    assert ready[0].readline().startswith(f"Another process is fetching {case.target}.")
    gate.set()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert statuses(web_server, "/mirror") == [200]
    assert case.target.read_bytes() == CONTENT and names_in(case.folder) == {"file"}


def test_where_the_first_of_two_processes_is_killed_the_second_goes_on(case, web_server):
    first = start_and_wait_for_a_part(case, web_server)
    second = start(case, web_server)
    assert "Another process is fetching" in second.stdout.readline()
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert statuses(web_server, "/mirror") == [200, 206]
    assert case.target.read_bytes() == CONTENT and names_in(case.folder) == {"file"}
