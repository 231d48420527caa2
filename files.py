"""Files written whole or not at all, their hashes, and room on the disk."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import edition  # noqa: F401 - tiktoken needs no network


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


def why_not_writable(folder):
    """Why no file can be made in a folder, such as "Permission denied"; None where one can. Creates it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)


def state_of(path):
    """A str that is another one after a file was changed or replaced; None where there is no file."""
    if not os.path.exists(path):
        return None
    status = os.stat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def sha256_of(path, start=0):
    """The SHA-256 of a file, from the byte ``start`` to its end, as a hexadecimal str."""
    with open(path, "rb") as file:
        file.seek(start)
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sample_hash_of(path):
    """A hash of 64 places of a file: quick for a large one, and another one for any other model."""
    digest, size = hashlib.sha256(), os.stat(path).st_size
    with open(path, "rb") as file:
        for start in range(0, size, size // 64 + 1):
            file.seek(start)
            digest.update(file.read(4096))
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


def write_safetensors(path, shapes, arrays, metadata):
    """Write NumPy arrays (float32, contiguous) in the safetensors format, one after the other.

    The format: the length of the header in 8 bytes, the header as JSON, the values
    (https://huggingface.co/docs/safetensors). ``shapes`` is {name: shape}, ``arrays`` gives the
    arrays in its order, ``metadata`` is {key: str}. To it is added ``sha256``, 32 digits for the values.
    """
    header, end = {"__metadata__": {**metadata, "sha256": "0" * 32}}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    length = len(json.dumps(header))
    length += -(8 + length) % 64  # values begin where fast reading wants them to
    require_space(path.parent, 8 + length + end, path.name)
    digest = hashlib.sha256()
    with atomic_file(path) as partial, open(partial, "wb") as file:
        file.seek(8 + length)
        for array in arrays:
            digest.update(array)
            file.write(array)
        header["__metadata__"]["sha256"] = digest.hexdigest()[:32]
        file.seek(0)
        file.write(length.to_bytes(8, "little") + json.dumps(header).encode().ljust(length))


def has_its_values(path, note):
    """Whether a file of :func:`write_safetensors` has the values that were written.

    They are read once after each change of the file: ``note`` is a file that remembers its state.
    Where that cannot be written, they are read each time.
    """
    state = state_of(path)
    with suppress(OSError):
        if note.read_bytes() == state.encode():
            return True
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length))["__metadata__"]
    if not sha256_of(path, start=8 + length).startswith(metadata["sha256"]):
        return False
    with suppress(OSError), atomic_file(note) as partial:
        partial.write_text(state)
    return True
