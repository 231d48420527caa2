"""Write checkpoints in the layouts in which GPT-2 is published: real values, or random ones for tests."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gpt_download import check_shapes, expected_shapes, import_tensorflow


def write_tensorflow_checkpoint(folder, settings, flat, dtype=np.float32):
    """Write a checkpoint in OpenAI's layout: what ``gpt_download.tensorflow_tensors`` reads.

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


def settings_of(n_embd, n_layer, n_head, n_vocab=50257, n_ctx=1024):
    """The content of ``hparams.json``."""
    return {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}


SETTINGS_124M = settings_of(768, 12, 12)
SETTINGS_10M = settings_of(160, 6, 5)
TINY = settings_of(8, 2, 2, n_vocab=100, n_ctx=16)


def random_values(settings, seed=123):
    """{variable name: float32 array}: deviation 0.02 around 0, the gains of layer norms around 1."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in expected_shapes(settings).items():
        values[name] = np.float32(0.02) * rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("/g"):
            values[name] += 1
    return values


def write_openai_folder(folder, settings, values, dtype=np.float32):
    """All files of one size as OpenAI publishes them; the two tokenizer files have no entries."""
    write_tensorflow_checkpoint(folder, settings, values, dtype)
    (folder / "encoder.json").write_text("{}")
    (folder / "vocab.bpe").write_text("#version: 0.2\n")


def hugging_face_names(settings):
    """{OpenAI's variable name: the name in Hugging Face's files}, written out."""
    names = {
        "wte": "wte.weight",
        "wpe": "wpe.weight",
        "ln_f/g": "ln_f.weight",
        "ln_f/b": "ln_f.bias",
    }
    for i in range(settings["n_layer"]):
        names |= {
            f"h{i}/ln_1/g": f"h.{i}.ln_1.weight",
            f"h{i}/ln_1/b": f"h.{i}.ln_1.bias",
            f"h{i}/attn/c_attn/w": f"h.{i}.attn.c_attn.weight",
            f"h{i}/attn/c_attn/b": f"h.{i}.attn.c_attn.bias",
            f"h{i}/attn/c_proj/w": f"h.{i}.attn.c_proj.weight",
            f"h{i}/attn/c_proj/b": f"h.{i}.attn.c_proj.bias",
            f"h{i}/ln_2/g": f"h.{i}.ln_2.weight",
            f"h{i}/ln_2/b": f"h.{i}.ln_2.bias",
            f"h{i}/mlp/c_fc/w": f"h.{i}.mlp.c_fc.weight",
            f"h{i}/mlp/c_fc/b": f"h.{i}.mlp.c_fc.bias",
            f"h{i}/mlp/c_proj/w": f"h.{i}.mlp.c_proj.weight",
            f"h{i}/mlp/c_proj/b": f"h.{i}.mlp.c_proj.bias",
        }
    return names


def write_hugging_face_file(path, settings, values):
    """``model.safetensors`` as Hugging Face publishes it, with the causal masks that it also holds."""
    tensors = {other: values[name] for name, other in hugging_face_names(settings).items()}
    mask = np.tril(np.ones((1, 1, settings["n_ctx"], settings["n_ctx"]), np.float32))
    tensors |= {f"h.{i}.attn.bias": mask.copy() for i in range(settings["n_layer"])}
    save_file(tensors, path, metadata={"format": "pt"})


def flatten(params):
    """Undo the nesting of ``params``: {variable name: array}."""
    values = {"wte": params["wte"], "wpe": params["wpe"], "ln_f/g": params["g"], "ln_f/b": params["b"]}
    for i, block in enumerate(params["blocks"]):
        for norm in ("ln_1", "ln_2"):
            for key in ("g", "b"):
                values[f"h{i}/{norm}/{key}"] = block[norm][key]
        for part, layer in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            for key in ("w", "b"):
                values[f"h{i}/{part}/{layer}/{key}"] = block[part][layer][key]
    return values
