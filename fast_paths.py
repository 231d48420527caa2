"""The same results, sooner: what a model need not compute, or need not compute twice.

Four short cuts, none of which changes the model:

- A model that only answers needs no gradients: its linear layers can stand in memory as the processor
  reads them best (:func:`packed_for_inference`).
- One token's logits are all that counts. Then the last block, the final norm and the head have work for
  one position (:func:`block_at`, :func:`last_token_logits`).
- A text that grows by one token at its end leaves the keys and values of all earlier tokens as they were:
  keep them (:func:`generate_text_cached`).
- Frozen blocks give the same output for the same message in each epoch: compute it once
  (:class:`TokenClassifier`).

Each gives what the plain formulation gives, up to the rounding of float32; notebook 11 shows why the bias of
the keys, on which no output depends, is an exception in training. Shapes use the letters of
``previous_chapters.py``.

Sources: Pope et al. (2022), *Efficiently Scaling Transformer Inference*, for the cache of keys and values;
Donahue et al. (2014), *DeCAF*, for frozen layers that are computed beforehand; PyTorch's compiler
(``torch/_inductor/fx_passes/mkldnn_fusion.py``) for packed linear layers.
"""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

from edition import PAD_TOKEN_ID
from previous_chapters import FeedForward

# ---------------------------------------------------------------------------------
# Linear layers for inference
# ---------------------------------------------------------------------------------


def can_pack(linear):
    """Whether :class:`PackedLinear` can stand for this layer: float32, on an x86 processor with AVX.

    Also bfloat16, where the processor has what oneDNN needs for it.
    """
    return (
        type(linear) is nn.Linear
        and linear.weight.device.type == "cpu"
        and linear.weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and torch.backends.mkldnn.is_available()  # oneDNN's former name
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not in PyTorch's documented interface
        and (linear.weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class PackedLinear(nn.Module):
    """A linear layer that only answers: oneDNN's product, with a copy of the weight in oneDNN's layout.

    ``nn.Linear`` calls another library in float32, MKL. With ``gelu``, the same pass applies GELU.
    (..., in) -> (..., out)
    """

    def __init__(self, linear, gelu=False):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach().clone()
        self.activation = "gelu" if gelu else "none"

    def forward(self, x):
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "A packed linear layer has no gradient. Call the packed model under torch.no_grad(), "
                "or train the model that it was made from."
            )
        return torch.ops.mkldnn._linear_pointwise(
            x, self.packed_weight, self.bias, self.activation, [], "tanh"
        )


def packed_for_inference(model):
    """Make a model that gives the same logits sooner, for the weights as they are now, without training.

    Each linear layer becomes a :class:`PackedLinear`; where that is not possible, as on a GPU, it stays
    as it is. Packed layers take memory of their own (0.34 GB for the blocks of GPT-2 124M, 0.15 GB for
    its output layer); all else is shared with ``model``, which does not change.

    Text is generated one row at a time. For that, MKL used one core on the AMD EPYC that was measured:
    pack. On the Intel Xeon it used all, and the model is sooner as it is.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    packed = copy.deepcopy(model, shared).eval()  # deepcopy takes what is in ``shared`` as copied already
    for module in packed.modules():
        if type(module) is FeedForward and can_pack(module.layers[0]):
            first, _, second = module.layers  # the one between them is the GELU
            module.layers = nn.Sequential(PackedLinear(first, gelu=True), second)
    for module in list(packed.modules()):
        for name, child in list(module.named_children()):
            if can_pack(child):
                setattr(module, name, PackedLinear(child))
    return packed


# ---------------------------------------------------------------------------------
# A transformer block in three parts
# ---------------------------------------------------------------------------------


def keys_and_values(attention, x):
    """Keys and values of an attention layer: (B, T, C) -> two tensors (B, H, T, D)."""
    return attention.split_heads(attention.W_key(x)), attention.split_heads(attention.W_value(x))


def attend(attention, x, keys, values, mask=None, is_causal=False):
    """Attention of n positions x, (B, n, C), to keys and values, (B, H, T, D) each: (B, n, C).

    ``mask``, bool, (B, 1, n, T), is true where a position is seen; without one, all are. With
    ``is_causal``, n is T and each position sees itself and earlier ones only.
    """
    B, n, _ = x.shape
    queries = attention.split_heads(attention.W_query(x))  # (B, n, C) -> (B, H, n, D)
    context = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        dropout_p=attention.dropout.p if attention.training else 0.0,
        is_causal=is_causal,
    )  # (B, H, n, D)
    context = context.transpose(1, 2).reshape(B, n, attention.d_out)  # heads side by side: (B, n, C)
    return attention.out_proj(context)


def after_attention(block, x, attended):
    """The rest of a block: add what attention gave, then the feed-forward part; (B, n, C) -> (B, n, C)."""
    x = x + block.drop_resid(attended)
    return x + block.drop_resid(block.ff(block.norm2(x)))


def block_at(block, x, position):
    """What ``block(x)`` gives at one position of each message: (B, T, C), int64 (B,) -> (B, 1, C).

    The other positions give only their keys and values.
    """
    rows, places = (torch.arange(n, device=x.device) for n in x.shape[:2])
    normed = block.norm1(x)
    keys, values = keys_and_values(block.att, normed)
    seen = None
    if block.att.is_causal:
        seen = (places <= position[:, None])[:, None, None]  # (B, 1, 1, T)
    attended = attend(block.att, normed[rows, position, None], keys, values, seen)
    return after_attention(block, x[rows, position, None], attended)


# ---------------------------------------------------------------------------------
# Which token the head reads
# ---------------------------------------------------------------------------------


def real_tokens(ids):
    """Which tokens belong to the message: IDs (B, T) -> bool (B, T). An empty message counts as one token."""
    real = ids != PAD_TOKEN_ID
    real[:, 0] = True
    return real


def token_position(ids, token):
    """Position of the ``"first"``, ``"last"`` or ``"last real"`` token: IDs (B, T) -> int64 (B,)."""
    if token == "last real":
        return real_tokens(ids).sum(dim=1) - 1
    return torch.full((len(ids),), {"first": 0, "last": ids.shape[1] - 1}[token], device=ids.device)


def pick_token(outputs, ids, token):
    """Reduce the outputs at all tokens, (B, T, K), to one row for each message, (B, K).

    ``ids`` are the token IDs (B, T), ``token`` is that of :func:`token_position` or ``"mean of real"``.
    """
    if token == "mean of real":
        real = real_tokens(ids).unsqueeze(-1)  # (B, T, 1)
        return (outputs * real).sum(dim=1) / real.sum(dim=1)  # (B, T, K) -> (B, K)
    return outputs[torch.arange(len(ids), device=ids.device), token_position(ids, token)]


def before_last_block(model, input_ids):
    """What enters the last block: token IDs (B, T) -> (B, T, C)."""
    return model.trf_blocks[:-1](model.embed(input_ids))


def logits_at(model, input_ids, position):
    """Equal to ``model(input_ids)`` at one position of each text: (B, T), int64 (B,) -> (B, V)."""
    x = before_last_block(model, input_ids)  # (B, T) -> (B, T, C)
    x = block_at(model.trf_blocks[-1], x, position)  # (B, 1, C)
    return model.out_head(model.final_norm(x))[:, -1, :]  # (B, V)


def last_token_logits(model, input_ids):
    """Equal to ``model(input_ids)[:, -1, :]``, also in its gradients, without what this throws away.

    Input: integer token IDs, (B, T), T from 1 to the context length, else ``ValueError``. Output: logits,
    (B, V), or (B, num_classes) for a classifier. Dropout, in training mode, draws other random numbers.
    """
    if input_ids.shape[1] == 0:
        raise ValueError(f"The input has no tokens (shape {tuple(input_ids.shape)}). Give at least one.")
    return logits_at(model, input_ids, token_position(input_ids, "last"))


# ---------------------------------------------------------------------------------
# Text generation with a cache of keys and values
# ---------------------------------------------------------------------------------


class KeyValueCache:
    """Keys and values of the tokens that a model has read: two tensors (B, H, max_tokens, D) for each block.

    They have their full size from the start: a new token goes to its place and nothing else moves.
    ``num_tokens`` is how many positions are filled.
    """

    def __init__(self, model, batch_size, max_tokens):
        self.keys, self.values = [], []
        for block in model.trf_blocks:
            shape = (batch_size, block.att.num_heads, max_tokens, block.att.head_dim)
            self.keys.append(block.norm1.scale.new_empty(shape))
            self.values.append(block.norm1.scale.new_empty(shape))
        self.num_tokens = 0


def read_tokens(model, input_ids, cache):
    """Let the model read the next tokens, (B, n), and keep their keys and values; the last logits, (B, V).

    n is any number while the cache is empty, then 1.
    """
    start, end = cache.num_tokens, cache.num_tokens + input_ids.shape[1]
    x = model.embed(input_ids, first_position=start)  # (B, n) -> (B, n, C)
    for block, keys, values in zip(model.trf_blocks, cache.keys, cache.values):
        normed = block.norm1(x)
        keys[:, :, start:end], values[:, :, start:end] = keys_and_values(block.att, normed)
        # a whole prompt needs the mask; a single new token may see everything
        attended = attend(block.att, normed, keys[:, :, :end], values[:, :, :end], is_causal=start == 0)
        x = after_attention(block, x, attended)
    cache.num_tokens = end
    return model.out_head(model.final_norm(x[:, -1]))  # (B, C) -> (B, V)


def generate_text_cached(model, idx, max_new_tokens, context_size):
    """Extend token sequences as ``generate_text_simple`` does, with the same tokens, sooner.

    While the sequence fits into ``context_size``, each step reads one new token. Once it is longer, the
    model sees the last ``context_size`` tokens only, and each token moves to the position before: GPT-2
    adds a learned vector for the position to each token, so all cached keys and values are void. From
    there on each step reads the whole window.
    """
    if idx.shape[1] == 0:
        raise ValueError(f"The prompt has no tokens (shape {tuple(idx.shape)}). Give at least one.")
    context_length = model.pos_emb.num_embeddings
    cache = KeyValueCache(model, idx.shape[0], min(idx.shape[1] + max_new_tokens, context_length))
    for _ in range(max_new_tokens):
        idx_cond = idx[:, -context_size:]  # (B, at most context_size)
        with torch.no_grad():
            if idx_cond.shape[1] == idx.shape[1]:  # nothing is cut off: all positions as before
                logits = read_tokens(model, idx[:, cache.num_tokens :], cache)  # (B, V)
            else:
                logits = last_token_logits(model, idx_cond)
        idx_next = torch.argmax(logits, dim=-1, keepdim=True)  # (B, 1)
        idx = torch.cat((idx, idx_next), dim=1)  # (B, T + 1)
    return idx


# ---------------------------------------------------------------------------------
# Fine-tuning with frozen blocks that read each message once
# ---------------------------------------------------------------------------------


def count_frozen_blocks(model):
    """Number of blocks below the first trainable parameter: their outputs never change."""
    parts = [nn.ModuleList([model.tok_emb, model.pos_emb]), *model.trf_blocks]
    trained = [any(parameter.requires_grad for parameter in part.parameters()) for part in parts]
    return max(trained.index(True) - 1, 0) if True in trained else len(model.trf_blocks)


class TokenClassifier(nn.Module):
    """A classifier that reads one chosen token, and remembers what its frozen blocks gave.

    Same logits as ``pick_token(model(ids), ids, token)``, in less time: the frozen blocks read each
    message once, and the last block computes the chosen position only. In place of ``model`` it goes into
    the functions of ``classification.py``, with the same loaders; what it trains are ``model``'s own
    parameters.

    Args:
        model (GPTModel): the classifier, on its device, without dropout, else ``ValueError``.
        token (str): see :func:`pick_token`.
        memory (dict): filled with {message: output of the frozen blocks}, T x C numbers each: 385 MB for the
            1,045 training messages of 120 tokens with GPT-2 124M. Who shares it has the same frozen blocks.

    Input: token IDs, int64, shape (B, T). Output: logits, float, shape (B, 1, num_classes): one position,
    so that ``[:, -1, :]`` works unchanged.
    """

    def __init__(self, model, token="last", memory=None):
        super().__init__()
        check_no_dropout(model)
        self.model, self.token = model, token
        self.memory = {} if memory is None else memory
        num_frozen = count_frozen_blocks(model)
        self.frozen, self.trained = model.trf_blocks[:num_frozen], model.trf_blocks[num_frozen:]
        self.packed = packed_for_inference(self.frozen)
        below = model.tok_emb, model.pos_emb, self.frozen
        self.unchanging = [parameter for part in below for parameter in part.parameters()]

    def after_frozen_blocks(self, ids):
        if any(parameter.requires_grad for parameter in self.unchanging):
            raise ValueError(
                f"Below block {len(self.frozen)} something trains now: what is remembered would change with "
                "each step. Make a new TokenClassifier after unfreezing."
            )
        messages = [row.tobytes() for row in ids.cpu().numpy()]
        new = [i for i, message in enumerate(messages) if message not in self.memory]
        if new:
            with torch.no_grad():
                x = self.packed(self.model.embed(ids[new]))
            self.memory.update(zip([messages[i] for i in new], x))
        return torch.stack([self.memory[message] for message in messages])

    def forward(self, ids):
        x = self.after_frozen_blocks(ids) if len(self.frozen) else self.model.embed(ids)  # (B, T, C)
        if self.token == "mean of real" or len(self.trained) == 0:
            x = pick_token(self.model.final_norm(self.trained(x)), ids, self.token).unsqueeze(1)  # (B, 1, C)
        else:
            x = block_at(self.trained[-1], self.trained[:-1](x), token_position(ids, self.token))  # (B, 1, C)
            x = self.model.final_norm(x)
        return self.model.out_head(x)  # (B, 1, num_classes)


def check_no_dropout(model):
    """Raise ``ValueError`` if what the frozen blocks give changes from step to step."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            raise ValueError(
                f"{name} drops values at random in training (p={module.p}): what frozen blocks give would "
                "change with each step. Set drop_rate=0.0, or train the model without TokenClassifier."
            )
