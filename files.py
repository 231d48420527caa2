"""Files written whole or not at all, their hashes, and room on the disk."""

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


class DiskFullError(OSError):
    """The disk has no room for a file."""


def is_disk_full(error):
    """Whether an error says that the disk, or the user's share of it, is used up."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskFullError) or getattr(error, "errno", None) in full


def require_space(folder, size, name):
    """Raise ``DiskFullError`` if ``folder`` has no room for ``size`` more bytes, which ``name`` needs."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskFullError(f"{name} needs {size:,} bytes more, but only {free:,} bytes are free in {folder}")


def sha256_of(path):
    """The SHA-256 of a file as a hexadecimal str."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_file(target):
    """Give a temporary path to write; it becomes ``target`` only if the block ends without an error."""
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


def replace_together(contents):
    """Give several files new contents, {path: bytes}: all of them, or after an error none."""
    before = {path: Path(path).read_bytes() for path in contents}
    try:
        for path, content in contents.items():
            with atomic_file(path) as partial:
                partial.write_bytes(content)
    except BaseException:
        for path, content in before.items():
            if Path(path).read_bytes() != content:
                Path(path).write_bytes(content)
        raise
