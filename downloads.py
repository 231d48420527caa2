"""One way to fetch a file, shared by ``gpt_download.py`` and ``spam_data.py``.

A file is fetched under a temporary name, checked, and only then put in its place: what
stands under the final name is whole and verified. Where one source fails, the next is
tried; where all fail, one error lists every address with its reason.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.util import Retry

CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60  # seconds
CHUNK = 1 << 20  # bytes


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
        while chunk := file.read(CHUNK):
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

    Args:
        target (str or Path): where the file shall stand; its folder is created.
        sources (list of str): http(s) addresses or paths of local files, best first.
        verify (callable): called with the path of the fetched file; raises ``ValueError``
            where the content is wrong.
        way_on (str): what the user can do when every source failed; ends the error message.

    Returns:
        Path: ``target``.

    Raises:
        DownloadError: if no source gave a file that passes ``verify``. Nothing is left behind.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in sources:
        try:
            with atomic_file(target) as partial:
                if is_web_address(source):
                    _download(source, partial, target.name)
                else:
                    shutil.copyfile(source, partial)
                verify(partial)
            return target
        except (OSError, ValueError) as error:
            failures.append(f"  {source}\n    {error}")
    raise DownloadError(f"Could not get {target.name}. Tried:\n" + "\n".join(failures) + f"\n{way_on}")


def _download(address, path, name):
    """Stream one address into a file, with retries, time-outs and a progress bar."""
    retry = Retry(
        total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
    )
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        with session.get(address, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            with (
                open(path, "wb") as file,
                tqdm(total=size, unit="B", unit_scale=True, unit_divisor=1024, desc=name) as bar,
            ):
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
