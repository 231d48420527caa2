"""What a row of the table of experiments can change about the model: token, mask, LoRA, layers.

The rows stand in ``experiments.py``; notebook 10 discusses them. LoRA follows Hu et al. (2021).
Shapes in comments use the letters of ``previous_chapters.py``. ``settings`` is a dict from
``experiments.settings_of``, ``name`` a key of ``MODEL_CONFIGS``.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from classification import (
    add_classification_head,
    freeze_all_layers,
    load_pretrained_model,
    unfreeze_last_block,
)
from edition import MODELS_DIR, PAD_TOKEN_ID
from fast_paths import after_attention, keys_and_values
from previous_chapters import GPTModel, MultiHeadAttention, model_config

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
    """Reduce the outputs at all tokens to one row for each message.

    Args:
        outputs (torch.Tensor): float, shape (B, T, K), for example logits.
        ids (torch.Tensor): token IDs, int64, shape (B, T).
        token (str): ``"first"``, ``"last"``, ``"last real"`` or ``"mean of real"``.

    Returns:
        torch.Tensor: float, shape (B, K).
    """
    if token == "mean of real":
        real = real_tokens(ids).unsqueeze(-1)  # (B, T, 1)
        return (outputs * real).sum(dim=1) / real.sum(dim=1)  # (B, T, K) -> (B, K)
    return outputs[torch.arange(len(ids), device=ids.device), token_position(ids, token)]


# ---------------------------------------------------------------------------------
# Attention without the causal mask
# ---------------------------------------------------------------------------------


class BidirectionalAttention(MultiHeadAttention):
    """Self-attention in which every token sees every other, also those after it."""

    def forward(self, x):
        B, T, _ = x.shape
        queries = self.split_heads(self.W_query(x))  # (B, T, C) -> (B, H, T, D)
        keys = self.split_heads(self.W_key(x))
        values = self.split_heads(self.W_value(x))
        context = F.scaled_dot_product_attention(queries, keys, values, is_causal=False)  # (B, H, T, D)
        return self.out_proj(context.transpose(1, 2).reshape(B, T, self.d_out))


def remove_causal_mask(model):
    """Let every block attend to all tokens; the weights stay as they are."""
    for block in model.trf_blocks:
        block.att.__class__ = BidirectionalAttention  # the same layer with another forward pass


# ---------------------------------------------------------------------------------
# LoRA
# ---------------------------------------------------------------------------------


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of low rank: W x + b + (alpha / rank) B A x.

    Args:
        linear (nn.Linear): the layer, weight (out, in); it is frozen.
        rank (int): rank r of the update, 1 or more.
        alpha (float): its scale; the update is multiplied by alpha / rank.

    A (rank, in) starts random, B (out, rank) at zero, so the layer starts as it was.
    Input: float (..., in). Output: (..., out). Source: Hu et al. (2021).

    Raises:
        ValueError: if the rank is below 1.
    """

    def __init__(self, linear, rank, alpha):
        super().__init__()
        if rank < 1:
            raise ValueError(f"The rank is {rank}; it must be at least 1.")
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as PyTorch starts a linear layer
        self.scale = alpha / rank

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T  # (..., in) -> (..., r) -> (..., out)

    def merged(self):
        """Return one ordinary linear layer with the weight W + (alpha / rank) B A."""
        with torch.no_grad():
            self.linear.weight += self.scale * self.B @ self.A  # (out, r) @ (r, in)
            self.B.zero_()  # the update is in the weight now
        return self.linear


def add_lora(model, rank, alpha, on):
    """Put a LoRA update beside linear layers of a frozen model.

    Args:
        model (GPTModel): the model, frozen.
        rank (int), alpha (float): see :class:`LoRALinear`.
        on (list of str): names of layers, among ``W_query W_key W_value out_proj``; or the
            str ``"every linear layer"``: those of attention and feed-forward part, and the head.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and (on == "every linear layer" or name in on):
                setattr(module, name, LoRALinear(child, rank, alpha))


# ---------------------------------------------------------------------------------
# The model of a row
# ---------------------------------------------------------------------------------


def random_model(name, seed):
    """GPT-2 before its pretraining: matrices with standard deviation 0.02, as Radford et al. start it."""
    torch.manual_seed(seed)
    model = GPTModel(model_config(name))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    return model


def unfreeze(model, settings):
    """Mark what the row trains; everything else in the model is frozen already, except the new head."""
    layers = settings["layers"]
    if layers in ("last block", "last two blocks"):
        unfreeze_last_block(model)
    if layers == "last two blocks":
        model.trf_blocks[-2].requires_grad_(True)
    if layers == "first block":
        model.trf_blocks[0].requires_grad_(True)
        model.final_norm.requires_grad_(True)
    if layers == "LoRA":
        add_lora(model, settings["lora_rank"], settings["lora_alpha"], settings["lora_on"])
    if layers == "all":
        model.requires_grad_(True)


def build_model(settings, name, seed, models_dir=MODELS_DIR):
    """Make the classifier of one row before its fine-tuning, on the CPU.

    ``seed`` decides everything random in it: head, LoRA, random values.
    """
    if settings["values"] == "random":
        model = random_model(name, seed)
    else:
        model = load_pretrained_model(name, models_dir)
    if not settings["causal_mask"]:
        remove_causal_mask(model)
    freeze_all_layers(model)
    add_classification_head(model, seed=seed)
    unfreeze(model, settings)
    return model


def count_trainable(model):
    """Number of parameters that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


# ---------------------------------------------------------------------------------
# The same model without the work that nobody needs
# ---------------------------------------------------------------------------------


def count_frozen_blocks(model):
    """Number of blocks below the first trainable parameter: their outputs never change."""
    embeddings = [*model.tok_emb.parameters(), *model.pos_emb.parameters()]
    if any(parameter.requires_grad for parameter in embeddings):
        return 0
    for i, block in enumerate(model.trf_blocks):
        if any(parameter.requires_grad for parameter in block.parameters()):
            return i
    return len(model.trf_blocks)


def block_at(block, x, position):
    """What ``block(x)`` gives at one position of each message: (B, T, C), int64 (B,) -> (B, 1, C).

    The other positions give only their keys and values.
    """
    (B, T, C), att = x.shape, block.att
    rows = torch.arange(B, device=x.device)
    normed = block.norm1(x)
    query = att.split_heads(att.W_query(normed[rows, position].unsqueeze(1)))  # (B, 1, C) -> (B, H, 1, D)
    keys, values = keys_and_values(att, normed)  # (B, H, T, D)
    seen = torch.arange(T, device=x.device) <= position.unsqueeze(1)  # (B, T), the causal mask at position
    if isinstance(att, BidirectionalAttention):
        seen = torch.ones_like(seen)
    context = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen[:, None, None, :])
    attended = att.out_proj(context.transpose(1, 2).reshape(B, 1, C))  # (B, H, 1, D) -> (B, 1, C)
    return after_attention(block, x[rows, position].unsqueeze(1), attended)


class TokenClassifier(nn.Module):
    """A classifier that reads one chosen token, and remembers what its frozen blocks gave.

    Same logits as ``pick_token(model(ids), ids, token)``, in less time: the frozen blocks
    read each message once, and the last block computes the chosen position only.
    Notebook 11 derives both.

    Args:
        model (GPTModel): the classifier.
        token (str): see :func:`pick_token`.
        memory (dict): filled with {message: output of the frozen blocks}. To share it, the
            frozen blocks must be the same; see :func:`frozen_part`.

    Input: token IDs, int64, shape (B, T). Output: logits, float, shape (B, 1, 2): one
    position, so that the functions of notebook 07, which read the last, work unchanged.
    """

    def __init__(self, model, token, memory=None):
        super().__init__()
        self.model, self.token = model, token
        self.memory = {} if memory is None else memory
        self.frozen = count_frozen_blocks(model)

    def after_frozen_blocks(self, ids):
        if self.frozen == 0:
            return self.model.embed(ids)
        messages = [row.tobytes() for row in ids.cpu().numpy()]
        new = [i for i, message in enumerate(messages) if message not in self.memory]
        if new:
            with torch.no_grad():
                hidden = self.model.trf_blocks[: self.frozen](self.model.embed(ids[new]))
            self.memory.update(zip([messages[i] for i in new], hidden))
        return torch.stack([self.memory[message] for message in messages])  # (B, T, C)

    def forward(self, ids):
        model = self.model
        x = self.after_frozen_blocks(ids)
        trained = model.trf_blocks[self.frozen :]
        if self.token == "mean of real" or len(trained) == 0:
            x = pick_token(model.final_norm(trained(x)), ids, self.token).unsqueeze(1)  # (B, 1, C)
        else:
            x = block_at(trained[-1], trained[:-1](x), token_position(ids, self.token))  # (B, 1, C)
            x = model.final_norm(x)
        return model.out_head(x)  # (B, 1, C) -> (B, 1, 2)
