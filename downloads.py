"""Fetch a file under a temporary name, check it, and only then put it in its place.

So what stands under the final name is whole and verified. Where one source fails, the next is tried;
where all fail, one error lists every address with its reason.

Where an answer breaks off in its middle, what came is kept as ``NAME.part``. The next request, in
this run or a later one, asks for the rest (``Range``) if the content is still the same (``If-Range``).
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
from tqdm import tqdm  # tqdm.auto would ignore TQDM_DISABLE in a notebook
from urllib3.exceptions import ReadTimeoutError

import edition  # noqa: F401 - tiktoken needs no network
from files import atomic_file, is_disk_full, require_space, state_of, why_not_writable

TRIES, CONNECT_TRIES = 4, 2  # how often a request may fail in a row: broken off or BUSY; without any answer
BUSY = (429, 500, 502, 503, 504)  # what a server may answer for a moment only
PROGRESS = 1 << 20  # bytes; after so many new ones, the tries are counted anew
BACKOFF, MAX_WAIT = 0.5, 10  # seconds until the second try; it doubles each time, up to MAX_WAIT
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 30  # seconds until a connection stands, and without a new byte
CHUNK = 1 << 16  # bytes
BAR = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}


class DownloadError(OSError):
    """No source gave the file. The message lists every address and why it failed."""


def is_web_address(source):
    return str(source).startswith(("http://", "https://"))


def on_mirror(variable, *parts):
    """The source of a file on the mirror that a variable names, an http(s) base or a folder: one or none."""
    base = os.environ.get(variable)
    if base and is_web_address(base):
        return ["/".join([base.rstrip("/"), *parts])]
    return [str(Path(base, *parts))] if base else []


def fetch_file(target, sources, verify, way_on):
    """Put a file in place, from the first source that has it whole and right.

    Sources are http(s) addresses or paths of files, best first. ``verify(path)`` raises ``ValueError``
    where what came is wrong. ``way_on``, what the user can do, ends the error message. Of two processes
    that ask for the same file at once, one fetches it; the other waits and uses it. Raises
    ``DownloadError`` if no source gave the right file; then nothing is left but a ``NAME.part``.
    """
    target = Path(target)
    if reason := why_not_writable(target.parent):
        raise DownloadError(
            f"Could not get {target.name}: {target.parent.absolute()} cannot be written ({reason}). "
            f"Copy the book to a folder of your own, and run it there.\n{way_on}"
        )
    before = state_of(target)
    with one_process_at_a_time(target):
        if state_of(target) != before:  # another process has put it there while this one waited
            with suppress(ValueError):
                verify(target)
                return
        failures = []
        for source in sources:
            fetch = fetch_from_web if is_web_address(source) else fetch_from_disk
            try:
                fetch(source, target, verify)
                Partial(target).remove()  # what an earlier source may have left
                return
            except (OSError, ValueError) as error:
                if is_disk_full(error):  # no other source would help
                    raise DownloadError(
                        f"Could not get {target.name}: {error}. Make room and run again to go on.\n{way_on}"
                    ) from error
                failures.append(f"  {source}\n    {reason_of(error)}")
    raise DownloadError(f"Could not get {target.name}. Tried:\n" + "\n".join(failures) + f"\n{way_on}")


def fetch_from_disk(source, target, verify):
    """Copy a file, check the copy, and put it in place."""
    require_space(target.parent, os.stat(source).st_size, target.name)
    with atomic_file(target) as copy:
        shutil.copyfile(source, copy)
        verify(copy)


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
        # perhaps its old beginning was wrong: once from the start
        return fetch_from_web(address, target, verify)
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
    """An answer that ended too early."""


class Partial:
    """The beginning of a file, ``NAME.part``; nothing is continued without its note, ``NAME.part.json``."""

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

    def begin_anew(self, address, version, size):
        self.remove()
        self.path.touch()
        if version and size:
            self.note_path.write_text(json.dumps({"address": address, "version": version, "size": size}))

    def remove(self):
        self.note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def download(address, partial, name):
    """Bring ``partial`` to its whole length; ``name`` is for the progress bar and messages."""
    failures, best = 0, 0
    while True:
        try:
            return receive(address, partial, name)
        except (BrokenOffError, requests.RequestException) as error:
            failures += 1
            if partial.length() >= best + PROGRESS:
                failures, best = 0, partial.length()
            if failures >= tries_for(error):
                if isinstance(error, BrokenOffError):
                    kept = "; what came is kept, run again to go on" if partial.read_note(address) else ""
                    raise BrokenOffError(f"{error}, {failures} times in a row{kept}") from error
                raise
            time.sleep(wait_after(error, failures))


def tries_for(error):
    """How often a request is sent that fails in this way."""
    if isinstance(error, requests.HTTPError):
        return TRIES if error.response.status_code in BUSY else 1
    return TRIES if isinstance(error, BrokenOffError) else CONNECT_TRIES


def wait_after(error, failures):
    """Seconds until the next try. A server may ask for a day (``Retry-After``); nobody waits that long."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, requests.HTTPError) else ""
    return min(int(asked) if asked.isdigit() else BACKOFF * 2 ** (failures - 1), MAX_WAIT)


def receive(address, partial, name):
    """Send one request and append what comes to ``partial``; ``BrokenOffError`` if that is not all."""
    headers = {"Accept-Encoding": "identity"}  # lengths and positions are those of the file itself
    note, have = partial.read_note(address), 0
    if note:
        have = partial.length()
        if have == note["size"]:
            return  # all had come, only the check is missing
        headers |= {"Range": f"bytes={have}-", "If-Range": note["version"]}

    timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
    with requests.get(address, headers=headers, stream=True, timeout=timeout) as response:
        if have and response.status_code in (206, 416) and not is_the_rest(response, note, have):
            partial.remove()  # the content is another one by now
            return receive(address, partial, name)
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
                partial.begin_anew(address, version_of(response), size)
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
