"""Files written whole or not at all, their hashes, and room on the disk."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that another process has open
    fcntl = None


class DiskFullError(OSError):
    """The disk has no room for a file."""


def is_disk_full(error):
    """Whether an error says that the disk, or what of it the user or a file may take, is used up."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
    remove_leftovers(target)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle):
            with contextlib.suppress(OSError):  # some network folders have no locks
                lock(handle)  # until the block ends: this one is no leftover
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


def remove_leftovers(target):
    """Remove temporary files of :func:`atomic_file` whose process was killed before it could do so."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):  # such as BlockingIOError: another process writes it
            if leftover.is_file():
                with open(leftover, "rb") as file:
                    lock(file)
                leftover.unlink()


def lock(file):
    """Lock an open file; ``BlockingIOError`` if another process has locked it."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def require_replaceable(path):
    """Raise ``OSError`` if ``path`` is there and is no file, or one that is protected from writing."""
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is a folder or a device. Name a file.")
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & stat.S_IWUSR):
        raise PermissionError(f"{path} is protected from writing. Name another file, or allow it: chmod u+w")


def write_tensors(path, arrays, metadata):
    """Write {name: array of float32 or float16} and {key: str} in the safetensors format.

    That is the length of the header in 8 bytes, the header as JSON, the values
    (https://huggingface.co/docs/safetensors). When the library's own ``save_file`` is killed, it
    leaves a file of a random name behind, and its errors do not say of which kind they are.
    """
    header, end = {"__metadata__": metadata}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        dtype = {"float32": "F32", "float16": "F16"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(8 + len(encoded)) % 64)  # values begin where fast reading wants them to
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for array in arrays.values():
            file.write(array)
