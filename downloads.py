"""One way to fetch a file, shared by ``gpt_download.py`` and ``spam_data.py``.

A file is fetched under a temporary name, checked, and only then put in its place: what
stands under the final name is whole and verified. Where one source fails, the next is
tried; where all fail, one error lists every address with its reason.

Until an answer begins, urllib3 repeats the request. Where an answer breaks off in its middle,
what came is kept as ``NAME.part``, and the next request, in the same run or a later one, asks
for the rest only (HTTP ``Range``), if the server still has the same content (``If-Range``).
"""

import itertools
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from filelock import FileLock, Timeout  # comes with PyTorch
from requests.adapters import HTTPAdapter
from tqdm import tqdm  # tqdm.auto would ignore TQDM_DISABLE in a notebook
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Retry

from files import is_disk_full, require_space

CONNECT_TIMEOUT, READ_TIMEOUT = 10, 30  # seconds
BACKOFF, MAX_WAIT = 0.5, 10  # seconds: the wait before a repetition doubles each time, up to MAX_WAIT
TRIES = 4  # how often answers may break off in a row ...
PROGRESS = 1 << 20  # ... without this many new bytes
CHUNK = 1 << 16  # bytes
BAR = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}


class DownloadError(OSError):
    """No source gave the file. The message lists every address and why it failed."""


def is_web_address(source):
    """Tell an http(s) address from the path of a file."""
    return str(source).startswith(("http://", "https://"))


def join_source(base, *parts):
    """Append path parts to a mirror, which is an http(s) base or a folder."""
    if is_web_address(base):
        return "/".join([str(base).rstrip("/"), *parts])
    return str(Path(base, *parts))


def fetch_file(target, sources, verify, way_on):
    """Put a file in place, from the first source that has it whole and right.

    Two processes may ask for the same file at once: one fetches it, the other waits and uses it.

    Args:
        target (str or Path): where the file shall stand; its folder is created.
        sources (list of str): http(s) addresses or paths of local files, best first.
        verify (callable): called with the path of the fetched file; raises ``ValueError``
            where the content is wrong.
        way_on (str): what the user can do when every source failed; ends the error message.

    Returns:
        Path: ``target``.

    Raises:
        DownloadError: if no source gave a file that passes ``verify``, or the disk has no room
            for it. Nothing is left behind but a ``NAME.part`` that the next call can continue.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = identity(target)
    with one_process_at_a_time(target):
        if identity(target) != before:  # another process has put it there while this one waited
            with suppress(ValueError):
                verify(target)
                return target
        failures = []
        for source in sources:
            fetch = fetch_from_web if is_web_address(source) else fetch_from_disk
            try:
                fetch(source, target, verify)
                Partial(target).remove()  # what an earlier source may have left
                return target
            except (OSError, ValueError) as error:
                if is_disk_full(error):  # no other source would help
                    raise DownloadError(
                        f"Could not get {target.name}: {error}. Make room and run again to go on.\n{way_on}"
                    ) from error
                failures.append(f"  {source}\n    {reason_of(error)}")
    raise DownloadError(f"Could not get {target.name}. Tried:\n" + "\n".join(failures) + f"\n{way_on}")


def fetch_from_disk(source, target, verify):
    """Copy a file, check the copy, and put it in place."""
    copy = target.with_name(
        f".{target.name}.copy"
    )  # a fixed name: the next run replaces what a killed one left
    try:
        require_space(target.parent, os.stat(source).st_size, target.name)
        shutil.copyfile(source, copy)
        verify(copy)
        os.replace(copy, target)
    finally:
        copy.unlink(missing_ok=True)


def fetch_from_web(address, target, verify):
    """Download a file, check it, and put it in place."""
    partial = Partial(target)
    continued = partial.read_note(address) is not None
    try:
        download(address, partial, target.name)
    except BaseException:  # also Ctrl-C
        if not partial.note_path.exists():
            partial.remove()  # nobody could continue it
        raise
    try:
        verify(partial.path)
    except ValueError:
        partial.remove()  # a wrong file is never continued
        if not continued:
            raise
        return fetch_from_web(
            address, target, verify
        )  # perhaps its old beginning was wrong: once from the start
    os.replace(partial.path, target)


@contextmanager
def one_process_at_a_time(target):
    """Wait until no other process fetches ``target``. The lock of a killed process is free."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is fetching {target}. Waiting for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # removed while held: a process that waits for it notices, and makes it anew
            os.unlink(lock.lock_file)
        lock.release()


def identity(path):
    """What changes when a file is replaced; None where there is no file."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def reason_of(error):
    """The innermost reason of an error, without what the libraries wrap around it."""
    if isinstance(error, requests.HTTPError):
        wait = error.response.headers.get("Retry-After")
        asks = f"; the server asks to wait {wait} s" if wait else ""
        return f"status {error.response.status_code} {error.response.reason}{asks}"
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), Exception):
        error = inner
    return str(error)


# ---------------------------------------------------------------------------------
# From one web address, with as many requests as it takes
# ---------------------------------------------------------------------------------


class BrokenOffError(OSError):
    """An answer ended before its end."""


class Partial:
    """The beginning of a file, ``NAME.part``, and a note of what it is the beginning of, ``NAME.part.json``.

    The note holds the address, the length of the whole, and what the server calls this version
    of the content, its ETag or its time of last change. Without a note nothing is continued.
    """

    def __init__(self, target):
        self.path, self.note_path = Path(f"{target}.part"), Path(f"{target}.part.json")

    def length(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def read_note(self, address):
        """The note as a dict, if there is something to continue from this address, else None."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self.note_path.read_text())
            if note["address"] == address and note["version"] and 0 < self.length() <= note["size"]:
                return note
        return None

    def begin(self, address, version, size):
        """Start anew."""
        self.remove()
        self.path.touch()
        if version and size:
            self.note_path.write_text(json.dumps({"address": address, "version": version, "size": size}))

    def remove(self):
        self.note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class BoundedRetry(Retry):
    """A server may ask to wait for a day (``Retry-After``); here nobody waits longer than ``MAX_WAIT``."""

    def get_retry_after(self, response):
        wait = super().get_retry_after(response)
        return wait and min(wait, MAX_WAIT)


def download(address, partial, name):
    """Bring ``partial`` to its whole length.

    Args:
        address (str): where the file is.
        partial (Partial): what is there of it; continued, or started anew.
        name (str): the file's name, for the progress bar and messages.

    Raises:
        BrokenOffError: if answers broke off ``TRIES`` times in a row. ``partial`` keeps what came.
        DiskFullError: if there is no room for it, before anything is written.
        ValueError: if a web page came instead of the file.
        requests.RequestException: if no answer came, or one that the file is not to be had.
    """
    statuses = (429, 500, 502, 503, 504)
    retry = BoundedRetry(
        3, connect=1, backoff_factor=BACKOFF, status_forcelist=statuses, raise_on_status=False
    )
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        failures, best = 0, 0
        while True:
            try:
                return receive(session, address, partial, name)
            except BrokenOffError as error:
                failures += 1
                if partial.length() >= best + PROGRESS:
                    failures, best = 0, partial.length()
                if failures == TRIES:
                    kept = "; what came is kept, run again to go on" if partial.read_note(address) else ""
                    raise BrokenOffError(f"{error}, {TRIES} times in a row{kept}") from error
                time.sleep(min(BACKOFF * 2**failures, MAX_WAIT))


def receive(session, address, partial, name):
    """Send one request and append what comes to ``partial``; ``BrokenOffError`` if that is not all."""
    headers = {"Accept-Encoding": "identity"}  # lengths and positions are those of the file itself
    note, have = partial.read_note(address), 0
    if note:
        have = partial.length()
        if have == note["size"]:
            return  # all had come, only the check is missing
        headers |= {"Range": f"bytes={have}-", "If-Range": note["version"]}

    timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
    with session.get(address, headers=headers, stream=True, timeout=timeout) as response:
        if have and response.status_code in (206, 416) and not is_the_rest(response, note, have):
            partial.remove()  # the content is another one by now
            return receive(session, address, partial, name)
        response.raise_for_status()
        if response.status_code != 206:
            have = 0  # the server sends the whole, whatever was asked for
        size = note["size"] if have else length_of(response)
        require_space(partial.path.parent, (size or 0) - have, name)
        try:
            chunks = response.iter_content(CHUNK)
            first = next(chunks, b"")
            if not have:
                if is_html(response, first):
                    raise ValueError(
                        f"an HTML page came instead of {name}, from {response.url} (often the login page of "
                        "a network, or a page of a proxy). Open that address in a browser"
                    )
                partial.begin(address, version_of(response), size)
            bar = tqdm(total=size, initial=have, desc=f"{name} (continued)" if have else name, **BAR)
            with open(partial.path, "ab") as file, bar:
                for chunk in itertools.chain([first], chunks):
                    file.write(chunk)
                    file.flush()  # a killed process loses nothing
                    have += len(chunk)
                    bar.update(len(chunk))
        except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:
            stalled = isinstance(next(iter(error.args), None), ReadTimeoutError)
            what = f"nothing came for {READ_TIMEOUT} s" if stalled else "the connection was cut"
            of_all = f" of {size:,}" if size is not None else ""
            raise BrokenOffError(f"{what} after {have:,}{of_all} bytes") from error


def is_the_rest(response, note, have):
    """Whether an answer 206 is exactly what is missing, of the version that the note names."""
    rest = f"bytes {have}-{note['size'] - 1}/{note['size']}"
    return response.headers.get("Content-Range") == rest and version_of(response) in (None, note["version"])


def version_of(response):
    """What the server calls this version of the content, or None. A weak ETag, W/"...", does not serve."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def length_of(response):
    """Length of the whole file, or None where the server does not tell it."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def is_html(response, first):
    """Whether an answer is a web page. No file of this book begins with a tag."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    declared = "html" in response.headers.get("Content-Type", "")
    return start.startswith((b"<!doctype html", b"<html")) or (declared and start.startswith(b"<"))
