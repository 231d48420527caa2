"""Fetch, verify and read pretrained GPT-2 checkpoints.

``download_and_load_gpt2`` is the one function that a notebook needs. It gives the same result for
every size, from OpenAI's TensorFlow files or from the same weights in Hugging Face's safetensors
file. The first load leaves a copy of the values behind, ``mapped.safetensors``, and later loads map
that file: they use no TensorFlow, and read a value from disk when it is first used.

Sources: the file layout and variable names are OpenAI's (Radford et al. 2019,
github.com/openai/gpt-2); the nested ``params`` are those of Raschka (2024).
"""

import contextlib
import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

import files
from edition import ASSETS, EMBEDDED, MODELS, find_model

MODEL_SIZES = tuple(model.size for model in MODELS)

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
BACKUP_URL = "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2"
HUGGING_FACE_URL = "https://huggingface.co/openai-community"

SETTINGS_FILE, INDEX_FILE, DATA_FILE = "hparams.json", "model.ckpt.index", "model.ckpt.data-00000-of-00001"
# In the order in which they are fetched: what is wrong with a small file shows before the big one comes.
FILES = (SETTINGS_FILE, "checkpoint", "encoder.json", "vocab.bpe", INDEX_FILE, "model.ckpt.meta", DATA_FILE)
SETTINGS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
SAFETENSORS_FILE = "model.safetensors"  # as Hugging Face publishes it
MAPPED_FILE = "mapped.safetensors"  # the copy that a load leaves
VERIFIED_FILE = "mapped.verified"  # its state when its values last had their hash

SHA256_FILE, TENSORS_FILE = "sha256.json", "tensors.json"  # beside the embedded checkpoint, of its files
INDEX_END = bytes.fromhex("57fb808b247547db")  # how each table file of TensorFlow ends

WAY_ON = (
    "To go on without a network, use the embedded checkpoint: set CHOOSE_MODEL to 'gpt2-mini (10M)' "
    "(make CHECKPOINT=mini). To use files that you have, set GPT2_MIRROR to a folder or an http(s) "
    "address laid out as <base>/<size>/<file>."
)


def download_and_load_gpt2(model_size, models_dir):
    """Fetch a pretrained GPT-2, unless it is there already, and read it.

    Sources, in this order: files already in ``<models_dir>/<model_size>/``; ``GPT2_MIRROR``
    (an http(s) base or a folder); OpenAI's public storage; the book author's mirror. Where
    TensorFlow cannot be imported, ``model.safetensors`` from ``GPT2_MIRROR`` or Hugging Face.
    The embedded size "10M" is copied from ``assets/`` and needs no TensorFlow.

    Args:
        model_size (str): ``"10M"`` (embedded), ``"124M"``, ``"355M"``, ``"774M"`` or ``"1558M"``.
        models_dir (str or Path): folder that holds one folder for each size.

    Returns:
        tuple: ``(settings, params)``. ``settings`` is the dict of ``hparams.json``
        (``n_vocab n_ctx n_embd n_head n_layer``). ``params`` is a nested dict of float32
        NumPy arrays in OpenAI's [in, out] layout: ``wte`` (V, C), ``wpe`` (T, C), ``g`` and
        ``b`` (C,) of the final layer norm, and ``blocks``, a list of dicts ``attn mlp ln_1 ln_2``.
        Changing an array changes it in memory only, never a file.

    Raises:
        ValueError: for an unknown size, a damaged file, or tensors that do not fit ``hparams.json``.
        DownloadError: if no source gives a file.
    """
    if model_size not in MODEL_SIZES:
        raise ValueError(f"Unknown model size {model_size!r}. Choose one of: {', '.join(MODEL_SIZES)}.")
    folder = Path(models_dir) / model_size
    if not mapped_is_current(folder, model_size):
        if reason := files.why_not_writable(folder):
            print(f"{folder} cannot be written ({reason}). Each load reads the checkpoint into memory.")
            if model_size == EMBEDDED.size and not (folder / DATA_FILE).exists():
                folder = ASSETS / model_size
            tensors, settings = provide_tensors(model_size, folder), read_settings(folder / SETTINGS_FILE)
            return settings, nest(dict(tensors), settings)
        write_mapped(folder, provide_tensors(model_size, folder))
    settings = read_settings(folder / SETTINGS_FILE)
    return settings, nest(read_safetensors(folder / MAPPED_FILE, settings, mapped_name), settings)


def provide_tensors(model_size, folder):
    """Fetch what is missing; return pairs (variable name, float32 array) as :func:`expected_shapes`."""
    embedded = model_size == EMBEDDED.size
    if embedded or tensorflow_works():
        for name in FILES:
            provide_file(model_size, folder, name)
        if embedded and (has_shipped_index(folder) or not tensorflow_works()):
            return embedded_tensors(folder)
        return tensorflow_tensors(folder)

    was, now = metadata_of(folder / MAPPED_FILE).get(INDEX_FILE), origins_in(folder).get(INDEX_FILE)
    if was and now and was != now:
        raise ModuleNotFoundError(
            f"{folder / MAPPED_FILE} was made from another checkpoint than the one beside it. To read that, "
            "install TensorFlow (pip install tensorflow), or remove one of the two."
        )
    provide_file(model_size, folder, SETTINGS_FILE)
    provide_file(model_size, folder, SAFETENSORS_FILE)
    return read_safetensors(folder / SAFETENSORS_FILE, read_settings(folder / SETTINGS_FILE)).items()


# ---------------------------------------------------------------------------------
# Files: fetch and verify
# ---------------------------------------------------------------------------------


def provide_file(model_size, folder, name):
    """Verify one file that is there, or fetch it. A wrong file of the embedded checkpoint is replaced."""
    target, verify = folder / name, partial(verify_file, model_size, folder, name)
    if target.exists():
        try:
            verify(target)
            return
        except ValueError as error:
            if model_size != EMBEDDED.size:
                raise ValueError(
                    f"{target} is damaged or not the published file: {error}. Delete it and load again to "
                    "fetch it anew; GPT2_VERIFY=0 turns this check off."
                ) from error
    from downloads import fetch_file, on_mirror  # with requests, which most starts do without

    mirror = on_mirror("GPT2_MIRROR", model_size, name) if model_size != EMBEDDED.size else []
    fetch_file(target, mirror + sources_of(model_size, name), verify, WAY_ON)


def sources_of(model_size, name):
    """Where one file is published, best first."""
    if model_size == EMBEDDED.size:
        return [ASSETS / model_size / name]
    if name == SAFETENSORS_FILE:
        return [f"{HUGGING_FACE_URL}/{find_model(model_size).hugging_face_name}/resolve/main/{name}"]
    return [f"{base}/{model_size}/{name}" for base in (OPENAI_URL, BACKUP_URL)]


def known_hashes(model_size):
    """{file name: SHA-256} of one size, empty where none is published."""
    if model_size == EMBEDDED.size:
        return json.loads((ASSETS / EMBEDDED.size / SHA256_FILE).read_text())
    return find_model(model_size).sha256


def known_settings(model_size):
    """The content that ``hparams.json`` of one size must have."""
    from previous_chapters import model_config  # imports PyTorch: only for this check

    cfg = model_config(find_model(model_size).name)
    ours = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
    return {key: cfg[our_key] for key, our_key in zip(SETTINGS, ours)}


def verify_file(model_size, folder, name, path):
    """Raise ``ValueError`` if ``path`` is not the published file ``name``: by hash, else by its content."""
    if os.environ.get("GPT2_VERIFY") == "0":
        return
    if expected := known_hashes(model_size).get(name):
        if (found := files.sha256_of(path)) != expected:
            raise ValueError(f"its SHA-256 is {found} ({path.stat().st_size:,} bytes), expected {expected}")
    elif name == SETTINGS_FILE:
        found, expected = read_settings(path), known_settings(model_size)
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
        shapes = expected_shapes(read_settings(folder / SETTINGS_FILE)).values()
        size, expected = path.stat().st_size, 4 * sum(map(math.prod, shapes))
        if size != expected:
            raise ValueError(f"it has {size:,} bytes, expected {expected:,}, 4 for each parameter")
    elif name == SAFETENSORS_FILE:
        read_safetensors(path, read_settings(folder / SETTINGS_FILE))


# ---------------------------------------------------------------------------------
# Content: names, shapes and layouts
# ---------------------------------------------------------------------------------


def read_settings(path):
    """Read a ``hparams.json``, a dict with the keys ``SETTINGS``."""
    try:
        content = json.loads(path.read_bytes())
        return {key: int(content[key]) for key in SETTINGS}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a valid hparams.json ({error!r}). Where there is none, a load fetches it."
        ) from error


def expected_shapes(settings):
    """{variable name: shape} of a checkpoint, without the prefix ``model/``.

    Linear layers are [in, out]; ``c_attn`` holds query, key and value side by side.
    """
    C = settings["n_embd"]
    block = {"ln_1": (C,), "attn/c_attn": (C, 3 * C), "attn/c_proj": (C, C)}
    block |= {"ln_2": (C,), "mlp/c_fc": (C, 4 * C), "mlp/c_proj": (4 * C, C)}
    shapes = {"wte": (settings["n_vocab"], C), "wpe": (settings["n_ctx"], C), "ln_f/g": (C,), "ln_f/b": (C,)}
    for i in range(settings["n_layer"]):
        for layer, shape in block.items():
            kind = "w" if len(shape) == 2 else "g"
            shapes |= {f"h{i}/{layer}/{kind}": shape, f"h{i}/{layer}/b": shape[-1:]}
    return shapes


def safetensors_name(name):
    """Translate an OpenAI variable name to Hugging Face's: ``h0/ln_1/g`` -> ``h.0.ln_1.weight``."""
    *layer, last = name.split("/")
    if not layer:  # "wte" and "wpe"
        return f"{last}.weight"
    layer[0] = layer[0].replace("h", "h.")
    return ".".join([*layer, "bias" if last == "b" else "weight"])


def check_shapes(found, settings, path):
    """Raise ``ValueError`` unless every expected variable is there with its shape."""
    for name, shape in expected_shapes(settings).items():
        if name not in found:
            raise ValueError(f"{path} lacks the variable {name!r} that hparams.json implies.")
        if (other := tuple(found[name])) != shape:
            raise ValueError(f"{path}: {name!r} has shape {other}, hparams.json implies {shape}.")


def nest(flat, settings):
    """Turn {variable name: array} into the nested ``params`` of the book."""
    params = {"blocks": [{} for _ in range(settings["n_layer"])]}
    for name, array in flat.items():
        *keys, last = name.split("/")  # "wte", and "ln_f/g" -> params["g"]
        target = params
        if name.startswith("h"):  # "h0/attn/c_attn/w" -> params["blocks"][0]["attn"]["c_attn"]["w"]
            target = params["blocks"][int(keys[0].removeprefix("h"))]
            for key in keys[1:]:
                target = target.setdefault(key, {})
        target[last] = array
    return params


# ---------------------------------------------------------------------------------
# The published files: read them
# ---------------------------------------------------------------------------------


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


def has_shipped_index(folder):
    """Whether a folder has the index of the checkpoint in ``assets/``, whose content ``TENSORS_FILE`` is."""
    return (folder / INDEX_FILE).read_bytes() == (ASSETS / EMBEDDED.size / INDEX_FILE).read_bytes()


def tensorflow_tensors(folder):
    """Read OpenAI's checkpoint files one tensor at a time: memory holds one, not the checkpoint."""
    tf = import_tensorflow()
    settings = read_settings(folder / SETTINGS_FILE)
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
        raise ValueError(f"{path} cannot be read: {error}. Delete its files and load again.") from error


def embedded_tensors(folder):
    """Read the embedded checkpoint without TensorFlow.

    The data file holds nothing but the raw numbers of all tensors, one after the other. Where each
    begins (``offset``, in bytes), its shape and type (``"<f2"`` is little-endian float16) stand in the
    index file, in a format of TensorFlow's own, and in ``assets/10M/tensors.json``.
    """
    path, settings = folder / DATA_FILE, read_settings(folder / SETTINGS_FILE)
    data, table = path.read_bytes(), json.loads((ASSETS / EMBEDDED.size / TENSORS_FILE).read_text())
    check_shapes({name: tensor["shape"] for name, tensor in table.items()}, settings, path)
    length = sum(np.dtype(tensor["dtype"]).itemsize * math.prod(tensor["shape"]) for tensor in table.values())
    if len(data) != length:
        raise ValueError(f"{path} has {len(data):,} bytes, expected {length:,}. Delete it and load again.")
    for name, shape in expected_shapes(settings).items():
        values = np.frombuffer(data, table[name]["dtype"], math.prod(shape), table[name]["offset"])
        yield name, values.astype(np.float32).reshape(shape)


def read_safetensors(path, settings, name_in_file=safetensors_name):
    """Map Hugging Face's file: {OpenAI variable name: float32 array}; ``ValueError`` if it does not fit."""
    arrays = {}
    try:
        # PyTorch maps the file, so that a value is read when it is first used; NumPy would copy it
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            for name in expected_shapes(settings):
                if (other := name_in_file(name)) in stored:
                    array = file.get_tensor(other).float().numpy()
                    arrays[name] = array.T if other.endswith(".T") else array
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and load again.") from error
    check_shapes({name: array.shape for name, array in arrays.items()}, settings, path)
    return arrays


# ---------------------------------------------------------------------------------
# The mapped copy: write it, read it, and tell whether it is still right
# ---------------------------------------------------------------------------------


def mapped_name(name):
    """The matrices of linear layers stand transposed, [out, in], as ``nn.Linear`` holds them."""
    return f"{safetensors_name(name)}.T" if name.endswith("/w") else safetensors_name(name)


def write_mapped(folder, tensors):
    """Write the mapped copy, one tensor at a time; ``tensors`` as :func:`provide_tensors` gives them."""
    shapes = expected_shapes(read_settings(folder / SETTINGS_FILE))
    layout = {mapped_name(n): ("float32", s[::-1] if n.endswith("/w") else s) for n, s in shapes.items()}
    arrays = (np.ascontiguousarray(a.T if n.endswith("/w") else a, dtype="<f4") for n, a in tensors)
    files.require_space(folder, 4 * sum(map(math.prod, shapes.values())), MAPPED_FILE)
    with files.atomic_file(folder / MAPPED_FILE) as partial:
        files.write_tensors(partial, layout, arrays, {**origins_in(folder), "sha256": "0" * 32})


def origins_in(folder):
    """{file: hash} of what a copy can be made from. The small index holds a checksum of each tensor."""
    hashes = {INDEX_FILE: files.sha256_of, SAFETENSORS_FILE: files.sample_hash_of}
    return {name: hash_of(folder / name)[:32] for name, hash_of in hashes.items() if (folder / name).exists()}


def metadata_of(mapped):
    """What is noted in a mapped copy; an empty dict where there is none, or a damaged one."""
    try:
        with safe_open(mapped, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def mapped_is_current(folder, model_size):
    """Whether there is a mapped copy that fits the files beside it, with the values that were written."""
    mapped, noted = folder / MAPPED_FILE, metadata_of(folder / MAPPED_FILE)
    if not mapped.exists() or not (folder / SETTINGS_FILE).exists():
        return False
    if "sha256" in noted:
        if not origins_in(folder).items() <= noted.items():  # what it was made from may have been deleted
            return False
        if os.environ.get("GPT2_VERIFY") == "0":
            return True
        published = known_hashes(model_size).get(INDEX_FILE)
        if published and not published.startswith(noted.get(INDEX_FILE, "")):  # that of an earlier book
            return False
        if files.has_its_values(mapped, noted["sha256"], note=folder / VERIFIED_FILE):
            return True
    print(f"{mapped} was changed or damaged. Its values are read from the checkpoint again.")
    return False
