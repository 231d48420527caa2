"""GPT-2 as the earlier chapters of the book built it.

In this order: the table of model sizes, the model from its smallest part to the whole, the mapping of
OpenAI's weights, and text generation.

Sources: Radford et al. (2019) for the architecture and the weights; Raschka (2024), *Build a Large
Language Model (From Scratch)*, for the structure and the names.

Shapes: B is the batch size, T the number of tokens, C the embedding width (``emb_dim``), H the number of
attention heads, D = C / H the width of one head, V the vocabulary size. ``cfg`` is a model's configuration,
a dict as :func:`model_config` gives it; ``tokenizer`` is ``tiktoken.get_encoding("gpt2")``.
"""

import edition  # noqa: F401 - it sets what PyTorch and tiktoken read when they start

# isort: split
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# ---------------------------------------------------------------------------------
# Model sizes
# ---------------------------------------------------------------------------------

BASE_CONFIG = {
    "vocab_size": 50257,  # Vocabulary size
    "context_length": 1024,  # Context length
    "drop_rate": 0.0,  # Dropout rate
    "qkv_bias": True,  # Query-key-value bias
}

MODEL_CONFIGS = {
    "gpt2-mini (10M)": {"emb_dim": 160, "n_layers": 6, "n_heads": 5},
    "gpt2-small (124M)": {"emb_dim": 768, "n_layers": 12, "n_heads": 12},
    "gpt2-medium (355M)": {"emb_dim": 1024, "n_layers": 24, "n_heads": 16},
    "gpt2-large (774M)": {"emb_dim": 1280, "n_layers": 36, "n_heads": 20},
    "gpt2-xl (1558M)": {"emb_dim": 1600, "n_layers": 48, "n_heads": 25},
}


def model_config(name):
    """The complete configuration of a model named in ``MODEL_CONFIGS``; ``ValueError`` for another name."""
    if name not in MODEL_CONFIGS:
        raise ValueError(f"Unknown model {name!r}. Choose one of: {', '.join(MODEL_CONFIGS)}.")
    return {**BASE_CONFIG, **MODEL_CONFIGS[name]}


# ---------------------------------------------------------------------------------
# The model, from its smallest part to the whole
# ---------------------------------------------------------------------------------


class LayerNorm(nn.Module):
    """Normalise each token's vector, (..., C), to mean 0 and variance 1, then scale and shift it."""

    def __init__(self, emb_dim):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        # scale * (x - mean) / sqrt(variance + eps) + shift, over the last axis
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class GELU(nn.Module):
    """The activation function of GPT-2: GELU in its tanh approximation (Hendrycks and Gimpel 2016).

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), element by element.
    """

    def forward(self, x):
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, applied to each token by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(cfg["emb_dim"], 4 * cfg["emb_dim"]),
            GELU(),
            nn.Linear(4 * cfg["emb_dim"], cfg["emb_dim"]),
        )

    def forward(self, x):
        return self.layers(x)


class MultiHeadAttention(nn.Module):
    """Causal self-attention with several heads: (B, T, d_in) -> (B, T, d_out).

    ``d_out`` is a multiple of ``num_heads``, else ``ValueError``. ``context_length`` is part of the
    published interface; attention itself needs no fixed length.
    """

    is_causal = True  # the mask: no token sees those after it

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        if d_out % num_heads != 0:
            raise ValueError(f"d_out ({d_out}) must be a multiple of num_heads ({num_heads}).")
        self.d_out = d_out
        self.context_length = context_length
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads

        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)

    def split_heads(self, x):
        B, T, _ = x.shape
        return x.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D)

    def forward(self, x):
        B, T, _ = x.shape
        queries = self.split_heads(self.W_query(x))  # (B, T, C) -> (B, H, T, D)
        keys = self.split_heads(self.W_key(x))
        values = self.split_heads(self.W_value(x))

        # softmax(queries @ keys^T / sqrt(D), future tokens masked out) @ values, in one call
        context = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.is_causal,
        )  # (B, H, T, D)

        context = context.transpose(1, 2).reshape(B, T, self.d_out)  # heads side by side: (B, T, C)
        return self.out_proj(context)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each within a residual connection: (B, T, C) -> (B, T, C)."""

    def __init__(self, cfg):
        super().__init__()
        self.att = MultiHeadAttention(
            d_in=cfg["emb_dim"],
            d_out=cfg["emb_dim"],
            context_length=cfg["context_length"],
            dropout=cfg["drop_rate"],
            num_heads=cfg["n_heads"],
            qkv_bias=cfg["qkv_bias"],
        )
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg["emb_dim"])
        self.norm2 = LayerNorm(cfg["emb_dim"])
        self.drop_resid = nn.Dropout(cfg["drop_rate"])

    def forward(self, x):
        x = x + self.drop_resid(self.att(self.norm1(x)))
        x = x + self.drop_resid(self.ff(self.norm2(x)))
        return x


class GPTModel(nn.Module):
    """GPT-2: token and position embeddings, a stack of transformer blocks, an output layer.

    Input: integer token IDs, (B, T), T at most ``context_length``, else ``ValueError``.
    Output: logits, (B, T, V).
    """

    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg["n_layers"])])
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def embed(self, in_idx, first_position=0):
        """Token plus position embeddings, (B, T) -> (B, T, C), for tokens from ``first_position`` on."""
        end = first_position + in_idx.shape[1]
        context_length = self.pos_emb.num_embeddings
        if end > context_length:
            raise ValueError(
                f"The input has {end} tokens, the model's context length is "
                f"{context_length}. Shorten the input to at most {context_length} tokens."
            )
        positions = torch.arange(first_position, end, device=in_idx.device)
        return self.drop_emb(self.tok_emb(in_idx) + self.pos_emb(positions))

    def forward(self, in_idx):
        x = self.embed(in_idx)  # (B, T) -> (B, T, C)
        x = self.trf_blocks(x)
        x = self.final_norm(x)
        return self.out_head(x)  # (B, T, C) -> (B, T, V)

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """As always in PyTorch. The published modules store the causal mask of each block; it is left out."""
        masks = {f"trf_blocks.{i}.att.mask" for i in range(len(self.trf_blocks))}
        weights = {name: value for name, value in state_dict.items() if name not in masks}
        return super().load_state_dict(weights, strict, assign)


# ---------------------------------------------------------------------------------
# OpenAI's weights
# ---------------------------------------------------------------------------------


def load_weights_into_gpt(gpt, params):
    """Copy pretrained weights, ``params`` as ``download_and_load_gpt2`` returns them, into a model.

    Where the number of blocks or a shape differs, it raises ``ValueError`` before it copies anything.
    """
    with torch.no_grad():
        for name, value in match_weights(gpt, params).items():
            gpt.get_parameter(name).copy_(torch.tensor(value))


class SkipRandomValues(TorchFunctionMode):
    """Context in which new layers get no random values: ``torch.nn.init`` does nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":  # some functions have no __module__
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def model_from_weights(cfg, params, out_head):
    """Make a model, on the CPU, whose parameters are pretrained weights: ``load_weights_into_gpt``, sooner.

    Arrays that have the layout of the parameter already are used as they are, without a copy: with the
    mapped file of ``download_and_load_gpt2``, loading reads next to nothing. The model can train its
    output layer apart from the embedding, so that gets values of its own: ``out_head``, (V, C).
    """
    with torch.device("meta"), SkipRandomValues():  # shapes without memory and without values
        gpt = GPTModel(cfg)
    weights = match_weights(gpt, params)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()}
    tensors["out_head.weight"] = torch.from_numpy(out_head)
    gpt.load_state_dict(tensors, assign=True)  # names an error if a parameter got no values
    return gpt


def match_weights(gpt, params):
    """The pretrained values of each parameter of a model: {its name: array of its shape}, views, no copies.

    OpenAI stores a linear layer as an [in, out] matrix and the query, key and value matrices as one;
    PyTorch's ``nn.Linear`` holds [out, in]. The checkpoint has no output layer of its own: it reuses
    the token embedding.
    """
    if len(params["blocks"]) != len(gpt.trf_blocks):
        raise ValueError(
            f"The checkpoint has {len(params['blocks'])} transformer blocks, the model has "
            f"{len(gpt.trf_blocks)}. Use the configuration that belongs to the checkpoint."
        )

    matches = [  # (name in the checkpoint, name of the parameter, value of the same shape)
        ("wte", "tok_emb.weight", params["wte"]),
        ("wpe", "pos_emb.weight", params["wpe"]),
        ("g", "final_norm.scale", params["g"]),
        ("b", "final_norm.shift", params["b"]),
        ("wte", "out_head.weight", params["wte"]),
    ]
    for i, values in enumerate(params["blocks"]):
        attn, mlp, block = values["attn"], values["mlp"], f"trf_blocks.{i}"
        # array_split also cuts what has no three equal parts; the check of the shapes names it
        query_w, key_w, value_w = np.array_split(attn["c_attn"]["w"], 3, axis=-1)  # (C, 3C) -> 3 x (C, C)
        query_b, key_b, value_b = np.array_split(attn["c_attn"]["b"], 3, axis=-1)  # (3C,) -> 3 x (C,)
        matches += [
            (f"h{i}/attn/c_attn/w (query)", f"{block}.att.W_query.weight", query_w.T),
            (f"h{i}/attn/c_attn/w (key)", f"{block}.att.W_key.weight", key_w.T),
            (f"h{i}/attn/c_attn/w (value)", f"{block}.att.W_value.weight", value_w.T),
            (f"h{i}/attn/c_attn/b (query)", f"{block}.att.W_query.bias", query_b),
            (f"h{i}/attn/c_attn/b (key)", f"{block}.att.W_key.bias", key_b),
            (f"h{i}/attn/c_attn/b (value)", f"{block}.att.W_value.bias", value_b),
            (f"h{i}/attn/c_proj/w", f"{block}.att.out_proj.weight", attn["c_proj"]["w"].T),
            (f"h{i}/attn/c_proj/b", f"{block}.att.out_proj.bias", attn["c_proj"]["b"]),
            (f"h{i}/mlp/c_fc/w", f"{block}.ff.layers.0.weight", mlp["c_fc"]["w"].T),
            (f"h{i}/mlp/c_fc/b", f"{block}.ff.layers.0.bias", mlp["c_fc"]["b"]),
            (f"h{i}/mlp/c_proj/w", f"{block}.ff.layers.2.weight", mlp["c_proj"]["w"].T),
            (f"h{i}/mlp/c_proj/b", f"{block}.ff.layers.2.bias", mlp["c_proj"]["b"]),
            (f"h{i}/ln_1/g", f"{block}.norm1.scale", values["ln_1"]["g"]),
            (f"h{i}/ln_1/b", f"{block}.norm1.shift", values["ln_1"]["b"]),
            (f"h{i}/ln_2/g", f"{block}.norm2.scale", values["ln_2"]["g"]),
            (f"h{i}/ln_2/b", f"{block}.norm2.shift", values["ln_2"]["b"]),
        ]

    shapes = {name: tuple(parameter.shape) for name, parameter in gpt.named_parameters()}
    for source, name, value in matches:
        if name not in shapes:
            raise ValueError(f"The checkpoint has {source!r}, the model has no such bias. Set qkv_bias=True.")
        if shapes[name] != value.shape:
            raise ValueError(
                f"Shape mismatch at {source!r}: the model has {shapes[name]}, the "
                f"checkpoint has {value.shape}. Use the configuration that belongs to the checkpoint."
            )
    return {name: value for _, name, value in matches}


# ---------------------------------------------------------------------------------
# Text generation
# ---------------------------------------------------------------------------------


def generate_text_simple(model, idx, max_new_tokens, context_size):
    """Extend token sequences greedily: append the most probable next token, again and again.

    Args:
        model (GPTModel): the model, in evaluation mode.
        idx (torch.Tensor): integer token IDs, (B, T), T at least 1, else ``ValueError``.
        max_new_tokens (int): how many tokens to append: the result is (B, T + max_new_tokens).
        context_size (int): how many of the last tokens the model sees.
    """
    if idx.shape[1] == 0:
        raise ValueError(f"The prompt has no tokens (shape {tuple(idx.shape)}). Give at least one.")
    for _ in range(max_new_tokens):
        idx_cond = idx[:, -context_size:]  # (B, at most context_size)
        with torch.no_grad():
            logits = model(idx_cond)
        logits = logits[:, -1, :]  # last position only: (B, T, V) -> (B, V)
        idx_next = torch.argmax(logits, dim=-1, keepdim=True)  # (B, 1)
        idx = torch.cat((idx, idx_next), dim=1)  # (B, T + 1)
    return idx


def text_to_token_ids(text, tokenizer):
    """Encode a text as int64 token IDs, (1, T); ``<|endoftext|>`` in it becomes the token of that name."""
    token_ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"})
    return torch.tensor(token_ids, dtype=torch.long).unsqueeze(0)  # (T,) -> (1, T)


def token_ids_to_text(token_ids, tokenizer):
    """Decode integer token IDs, (1, T), to a text."""
    return tokenizer.decode(token_ids.squeeze(0).tolist())  # (1, T) -> (T,)
