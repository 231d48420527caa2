"""GPT-2's forward pass in NumPy, on a checkpoint's arrays as they are: lesson 02 goes through it.

Nothing here is shared with the PyTorch model of ``previous_chapters.py`` or with ``book/live/gpt2.js``:
``tests/test_live.py`` keeps the three equal.

Shapes: T tokens, C the width, H the attention heads, D = C / H the width of a head, V the vocabulary.
``params`` is the nested dict of ``gpt_download``; matrices are [in, out].
"""

import numpy as np

import edition  # noqa: F401 - tiktoken finds its files


def attention_weights(query, key):
    """How each row divides its attention among itself and the rows before it: (..., T, D) -> (..., T, T)."""
    T, D = query.shape[-2:]
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(D)
    scores[..., np.triu(np.ones((T, T), dtype=bool), k=1)] = -np.inf  # the mask: nothing that lies ahead
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))  # softmax, along each row
    return weights / weights.sum(axis=-1, keepdims=True)


def look_back(x, c_attn, c_proj, n_head):
    """Attention: each row takes in what it looks for from the rows up to itself, (T, C) -> (T, C)."""
    T, C = x.shape
    three = np.split(x @ c_attn["w"] + c_attn["b"], 3, axis=-1)  # (T, C) -> (T, 3C) -> 3 times (T, C)
    query, key, value = [part.reshape(T, n_head, C // n_head).swapaxes(0, 1) for part in three]  # (H, T, D)
    mixed = attention_weights(query, key) @ value  # (H, T, T) @ (H, T, D) -> (H, T, D)
    return mixed.swapaxes(0, 1).reshape(T, C) @ c_proj["w"] + c_proj["b"]


def feed_forward(x, c_fc, c_proj):
    """Each row by itself, through 4C numbers and a bend, GELU, (T, C) -> (T, C)."""
    wide = x @ c_fc["w"] + c_fc["b"]  # (T, 4C)
    bent = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return bent @ c_proj["w"] + c_proj["b"]


def norm(x, g, b):
    """Each row to mean 0 and variance 1, then scaled and shifted by learned numbers."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return g * (x - mean) / np.sqrt(variance + 1e-5) + b


def gpt2(token_ids, params, n_head):
    """Logits of the next token at each position, (T,) -> (T, V)."""
    x = params["wte"][token_ids] + params["wpe"][: len(token_ids)]  # (T, C)
    for block in params["blocks"]:
        x = x + look_back(norm(x, **block["ln_1"]), **block["attn"], n_head=n_head)
        x = x + feed_forward(norm(x, **block["ln_2"]), **block["mlp"])
    return norm(x, params["g"], params["b"]) @ params["wte"].T
