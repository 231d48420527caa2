"""Files written whole or not at all, their hashes, and room on the disk."""

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
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
    remove_leftovers(target)
    handle, name = locked_file(target)
    partial = Path(name)
    try:
        with os.fdopen(handle) as file:
            yield partial
            if fcntl is None:  # Windows, where an open file keeps its name
                file.close()
            os.chmod(partial, 0o644)  # mkstemp made it private to this user
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, value, indent=1):
    """Write a JSON file, and its folder, as all of ``results/`` are written; no NaN, which JSON lacks.

    With ``indent`` None it is one line, for thousands of numbers.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def locked_file(target):
    """Make a temporary file beside ``target``, locked until it is closed: so it is no leftover.

    Until it is locked, another process that writes ``target`` may take it for one; then the next is made.
    """
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            lock(handle)
            is_ours = os.path.exists(name)
        except BlockingIOError:
            is_ours = False
        except OSError:  # some network folders have no locks
            is_ours = True
        if is_ours:
            return handle, name
        os.close(handle)


@contextmanager
def new_folder(target):
    """Give a temporary folder to fill; it becomes ``target`` only if the block ends without an error.

    Raises ``FileExistsError`` if ``target`` is there already and is no empty folder.
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target} is there already. Name a new folder, or remove that one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield partial
        for path in (partial, *partial.iterdir()):
            os.chmod(path, 0o755 if path.is_dir() else 0o644)  # it was private to this user
        if target.exists():
            target.rmdir()
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tensors(path, layout, arrays, metadata):
    """Write NumPy arrays one after the other in the safetensors format, so that memory need not hold all.

    That is the length of the header in 8 bytes, the header as JSON, the values
    (https://huggingface.co/docs/safetensors). When the library's own ``save_file`` is killed, it
    leaves a file of a random name behind, and its errors do not say of which kind they are.

    ``layout`` is {name: (``"float32"`` or ``"float16"``, shape)}, ``arrays`` are contiguous and in its order,
    ``metadata`` {key: str}. For the key ``sha256``, the hash of all values is put in.
    """
    header, end = {"__metadata__": metadata}, 0
    for name, (dtype, shape) in layout.items():
        code, size = {"float32": ("F32", 4), "float16": ("F16", 2)}[dtype]
        start, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    length = len(json.dumps(header))
    length += -(8 + length) % 64  # values begin where fast reading wants them to
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        file.seek(8 + length)
        for array in arrays:
            digest.update(array)
            file.write(array)
        if "sha256" in metadata:
            header["__metadata__"] = {**metadata, "sha256": digest.hexdigest()[: len(metadata["sha256"])]}
        file.seek(0)
        file.write(length.to_bytes(8, "little") + json.dumps(header).encode().ljust(length))


def has_its_values(path, sha256, note):
    """Whether the values in a file of :func:`write_tensors` have the hash that it names.

    They are read once after each change of the file: ``note`` is a file that remembers its state.
    Where that cannot be written, they are read each time.
    """
    state = state_of(path)
    with suppress(OSError):
        if note.read_bytes() == state.encode():
            return True
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not sha256_of(path, start=8 + length).startswith(sha256):
        return False
    with suppress(OSError), atomic_file(note) as partial:
        partial.write_text(state)
    return True


def remove_leftovers(target):
    """Remove temporary files of :func:`atomic_file` whose process was killed before it could do so."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with suppress(OSError):  # such as BlockingIOError: another process writes it
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
