"""One way to fetch a file, shared by ``gpt_download.py`` and ``spam_data.py``.

A file is fetched under a temporary name, checked, and only then put in its place: what
stands under the final name is whole and verified. Where one source fails, the next is
tried; where all fail, one error lists every address with its reason. ``web_download.py``
fetches from one address and continues what was interrupted.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from filelock import FileLock, Timeout  # comes with PyTorch

from web_download import DiskFullError, Partial, download, require_space


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


def sha256_of(path):
    """Return the SHA-256 of a file as a hexadecimal str."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_file(target):
    """Give a temporary path to write; it becomes ``target`` only if the block ends without an error.

    Nothing half-written ever stands under the final name, and nothing is left behind.
    """
    target = Path(target)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        os.chmod(partial, 0o644)  # mkstemp made it private to this user
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


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


def is_disk_full(error):
    """Whether an error says that the disk, or the user's share of it, is used up."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskFullError) or getattr(error, "errno", None) in full


def reason_of(error):
    """The innermost reason of an error, without what the libraries wrap around it."""
    if isinstance(error, requests.HTTPError):
        wait = error.response.headers.get("Retry-After")
        asks = f"; the server asks to wait {wait} s" if wait else ""
        return f"status {error.response.status_code} {error.response.reason}{asks}"
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), Exception):
        error = inner
    return str(error)
