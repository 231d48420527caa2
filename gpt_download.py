"""Fetch, verify and read pretrained GPT-2 checkpoints.

``download_and_load_gpt2`` is the one function that a notebook needs. It gives the same
result for every size, from OpenAI's TensorFlow files or from the same weights in the
safetensors format, and leaves a safetensors copy behind: only the first load needs
TensorFlow.

Sources: the file layout and variable names are OpenAI's (Radford et al. 2019,
github.com/openai/gpt-2); the nested ``params`` are those of Raschka (2024).
"""

import contextlib
import filecmp
import importlib.util
import json
import os
from hashlib import sha1
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from downloads import atomic_file, fetch_file, join_source, sha256_of

ASSETS = Path(__file__).resolve().parent / "assets"

# Where each size stands on Hugging Face; the embedded size stands in assets/ instead.
HUGGING_FACE_NAMES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
EMBEDDED_SIZE = "10M"
MODEL_SIZES = (EMBEDDED_SIZE, *HUGGING_FACE_NAMES)

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
BACKUP_URL = "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2"
HUGGING_FACE_URL = "https://huggingface.co/openai-community"

DATA_FILE = "model.ckpt.data-00000-of-00001"
SAFETENSORS_FILE = "model.safetensors"
FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    DATA_FILE,
    "model.ckpt.index",
    "model.ckpt.meta",
    "vocab.bpe",
)

SHA256_124M = {
    "checkpoint": "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "hparams.json": "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
    DATA_FILE: "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
    "model.ckpt.index": "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    "model.ckpt.meta": "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    SAFETENSORS_FILE: "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
}
SHA256_FILE = "sha256.json"  # the same table of the embedded checkpoint, made with it

WAY_ON = (
    "To go on without a network, use the embedded checkpoint: set CHOOSE_MODEL to 'gpt2-mini (10M)' "
    "(make CHECKPOINT=mini). To use files that you have, set GPT2_MIRROR to a folder or an http(s) "
    "address laid out as <base>/<size>/<file>."
)


def download_and_load_gpt2(model_size, models_dir):
    """Fetch a pretrained GPT-2, unless it is there already, and read it.

    Sources, in this order: files already in ``<models_dir>/<model_size>/``; ``GPT2_MIRROR``
    (an http(s) base or a folder); OpenAI's public storage; the book author's mirror. Where
    TensorFlow is not installed, the same weights come from Hugging Face as safetensors.
    The embedded size "10M" is copied from ``assets/``.

    Args:
        model_size (str): ``"10M"`` (embedded), ``"124M"``, ``"355M"``, ``"774M"`` or ``"1558M"``.
        models_dir (str or Path): folder that holds one folder for each size.

    Returns:
        tuple: ``(settings, params)``. ``settings`` is the dict of ``hparams.json``
        (``n_vocab n_ctx n_embd n_head n_layer``). ``params`` is a nested dict of float32
        NumPy arrays in OpenAI's [in, out] layout: ``wte`` (V, C), ``wpe`` (T, C), ``g`` and
        ``b`` (C,) of the final layer norm, and ``blocks``, a list of dicts ``attn mlp ln_1 ln_2``.

    Raises:
        ValueError: for an unknown size, a damaged file, or tensors whose names or shapes
            do not fit ``hparams.json``.
        DownloadError: if no source gives a file.
    """
    if model_size not in MODEL_SIZES:
        raise ValueError(f"Unknown model size {model_size!r}. Choose one of: {', '.join(MODEL_SIZES)}.")
    folder = Path(models_dir) / model_size
    if model_size == EMBEDDED_SIZE:
        remove_outdated_copy(folder)

    copy = folder / SAFETENSORS_FILE
    if not copy_is_current(folder):
        if importlib.util.find_spec("tensorflow") is not None:
            fetch_checkpoint(model_size, folder)
            write_safetensors(copy, read_tensorflow_checkpoint(folder), source=folder / DATA_FILE)
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
    if model_size == EMBEDDED_SIZE:
        raise ModuleNotFoundError(
            "The embedded checkpoint is a TensorFlow checkpoint, and TensorFlow is not installed. "
            "Install it for the first load (pip install tensorflow); later loads do without."
        )
    if (folder / SAFETENSORS_FILE).exists() and (folder / DATA_FILE).exists():
        raise ModuleNotFoundError(
            f"{folder / SAFETENSORS_FILE} was not made from the {DATA_FILE} beside it, and TensorFlow, "
            "which reads that, is not installed. Install it (pip install tensorflow), or remove one of "
            "the two files."
        )
    provide_file(model_size, folder, "hparams.json")
    provide_file(model_size, folder, SAFETENSORS_FILE)


def provide_file(model_size, folder, name):
    """Verify one file that is there, or fetch it."""
    target = folder / name
    if not target.exists():
        fetch_file(
            target,
            sources_of(model_size, name),
            verify=lambda path: verify_file(path, model_size, name, folder),
            way_on=WAY_ON,
        )
        return
    try:
        verify_file(target, model_size, name, folder)
    except ValueError as error:
        raise ValueError(
            f"{target} is damaged or not the published file: {error}. Delete it and load again to "
            "fetch it anew; GPT2_VERIFY=0 turns this check off."
        ) from error


def remove_outdated_copy(folder):
    """Remove the copy of the embedded checkpoint where ``assets/`` has another by now."""
    data = folder / DATA_FILE
    if data.exists() and not filecmp.cmp(data, ASSETS / EMBEDDED_SIZE / DATA_FILE, shallow=False):
        for name in (*FILES, SAFETENSORS_FILE):
            (folder / name).unlink(missing_ok=True)


def sources_of(model_size, name):
    """Return the addresses of one file, best first."""
    if model_size == EMBEDDED_SIZE:
        return [join_source(ASSETS, model_size, name)]
    mirror = os.environ.get("GPT2_MIRROR")
    sources = [join_source(mirror, model_size, name)] if mirror else []
    if name == SAFETENSORS_FILE:
        return [*sources, f"{HUGGING_FACE_URL}/{HUGGING_FACE_NAMES[model_size]}/resolve/main/{name}"]
    return [*sources, f"{OPENAI_URL}/{model_size}/{name}", f"{BACKUP_URL}/{model_size}/{name}"]


def known_hashes(model_size):
    """Return {file name: SHA-256} of one size, empty where none is published."""
    if model_size == EMBEDDED_SIZE:
        return json.loads((ASSETS / EMBEDDED_SIZE / SHA256_FILE).read_text())
    return SHA256_124M if model_size == "124M" else {}


def verify_file(path, model_size, name, folder):
    """Raise ``ValueError`` if a file is not the published one. ``GPT2_VERIFY=0`` turns the check off.

    Where the SHA-256 is known it must match. For the larger sizes none is known: there the
    data file must hold exactly 4 bytes for each parameter that ``hparams.json`` implies.

    Args:
        path (Path): the file, possibly under a temporary name.
        model_size (str): the size it belongs to.
        name (str): the file's proper name.
        folder (Path): the folder of that size, where ``hparams.json`` stands.
    """
    if os.environ.get("GPT2_VERIFY") == "0":
        return
    size = path.stat().st_size
    expected = known_hashes(model_size).get(name)
    if expected is not None:
        found = sha256_of(path)
        if found != expected:
            raise ValueError(f"its SHA-256 is {found} ({size:,} bytes), expected {expected}")
    elif name == DATA_FILE:
        expected_bytes = 4 * count_parameters(read_settings(folder))
        if size != expected_bytes:
            raise ValueError(f"it has {size:,} bytes, expected {expected_bytes:,}, 4 for each parameter")


def use_bundled_tokenizer_files():
    """Let ``tiktoken.get_encoding("gpt2")`` work without a network.

    tiktoken looks in the folder ``TIKTOKEN_CACHE_DIR`` for files named by the SHA-1 of their
    address, and checks their content itself. The two files of GPT-2's tokenizer belong to
    the embedded checkpoint; this puts them into such a folder and sets the variable. A
    variable that is set already stays as it is.
    """
    if "TIKTOKEN_CACHE_DIR" in os.environ:
        return
    cache = Path(__file__).resolve().parent / ".cache" / "tiktoken"
    for name in ("vocab.bpe", "encoder.json"):
        address = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        target = cache / sha1(address.encode()).hexdigest()
        if not target.exists():
            fetch_file(target, [ASSETS / EMBEDDED_SIZE / name], verify=lambda path: None, way_on="")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)


# ---------------------------------------------------------------------------------
# Content: names, shapes and layouts
# ---------------------------------------------------------------------------------


def read_settings(folder):
    """Read ``hparams.json``: a dict with ``n_vocab n_ctx n_embd n_head n_layer``."""
    path = Path(folder) / "hparams.json"
    try:
        settings = json.loads(path.read_text())
        return {key: int(settings[key]) for key in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a valid hparams.json ({error!r}). Delete it and load again."
        ) from error


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


def read_tensorflow_checkpoint(folder):
    """Read OpenAI's checkpoint files through TensorFlow.

    Returns:
        dict: {variable name without ``model/``: float32 array}, shapes as :func:`expected_shapes`.

    Raises:
        ValueError: if the files cannot be read or do not fit ``hparams.json``.
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
        return {
            name: reader.get_tensor(f"model/{name}").astype(np.float32).reshape(shape)
            for name, shape in expected_shapes(settings).items()
        }
    except (tf.errors.OpError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Delete the files in {folder} and load again."
        ) from error


def write_tensorflow_checkpoint(folder, settings, flat, dtype=np.float32):
    """Write a checkpoint in OpenAI's layout: what ``read_tensorflow_checkpoint`` reads.

    Args:
        folder (str or Path): gets ``checkpoint hparams.json model.ckpt.*``.
        settings (dict): as in ``hparams.json``.
        flat (dict): {variable name: array}, names and shapes as :func:`expected_shapes`.
        dtype: the type on disk, ``np.float32`` (OpenAI's) or ``np.float16`` (half the size).
    """
    tf = import_tensorflow().compat.v1
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_shapes({name: array.shape for name, array in flat.items()}, settings, folder)
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in flat.items():
            value = array.astype(dtype)
            if array.ndim == 2 and name not in ("wte", "wpe"):
                value = value[None]  # OpenAI's matrices have a leading axis of 1
            variable = tf.Variable(
                tf.zeros(value.shape, value.dtype), name=f"model/{name}", use_resource=False
            )
            # fed at run time, so that the values do not also end up in the .meta file
            placeholder = tf.placeholder(value.dtype, value.shape)
            session.run(tf.assign(variable, placeholder), {placeholder: value})
        tf.train.Saver().save(session, str(folder / "model.ckpt"))
    (folder / "hparams.json").write_text(json.dumps(settings, indent=2))


def write_safetensors(path, flat, source):
    """Write the safetensors copy of a checkpoint that was read through TensorFlow.

    The copy has the names and the layout of Hugging Face's file of the same weights. It
    notes size and time of the data file that it was made from (see :func:`copy_is_current`).
    """
    tensors = {safetensors_name(name): np.ascontiguousarray(array) for name, array in flat.items()}
    with atomic_file(path) as partial:
        save_file(tensors, partial, metadata={"format": "pt", "made_from": fingerprint(source)})


def fingerprint(path):
    """Size and time of last change of a file, as a str."""
    status = path.stat()
    return f"{path.name} {status.st_size} bytes {status.st_mtime_ns}"


def copy_is_current(folder):
    """Whether ``folder`` holds a safetensors file that still matches the checkpoint beside it."""
    copy, data = folder / SAFETENSORS_FILE, folder / DATA_FILE
    if not copy.exists() or not (folder / "hparams.json").exists():
        return False
    if not data.exists():
        return True
    try:
        with safe_open(copy, framework="np") as file:
            return (file.metadata() or {}).get("made_from") == fingerprint(data)
    except SafetensorError:
        return False  # damaged: it is made again from the checkpoint


def read_safetensors(path, settings):
    """Read a safetensors file in Hugging Face's layout.

    Returns:
        dict: {OpenAI variable name: float32 array}, shapes as :func:`expected_shapes`.

    Raises:
        ValueError: if the file is damaged or does not fit ``hparams.json``.
    """
    try:
        with safe_open(path, framework="np") as file:
            stored = set(file.keys())
            names = {name: safetensors_name(name) for name in expected_shapes(settings)}
            shapes = {
                name: file.get_slice(other).get_shape() for name, other in names.items() if other in stored
            }
            check_shapes(shapes, settings, path)
            return {
                name: file.get_tensor(other).astype(np.float32, copy=False) for name, other in names.items()
            }
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and load again.") from error
