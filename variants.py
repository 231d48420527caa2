"""What a row of the table of experiments can change about the model: mask, LoRA, layers, values.

The rows stand in ``experiments.py``; notebook 10 discusses them. Which token the head reads, a row says to
``fast_paths.TokenClassifier``. LoRA follows Hu et al. (2021).
Shapes in comments use the letters of ``previous_chapters.py``. ``settings`` is a dict from
``experiments.settings_of``, ``name`` a key of ``MODEL_CONFIGS``.
"""

import math

import torch
import torch.nn as nn

from classification import (
    add_classification_head,
    freeze_all_layers,
    load_pretrained_model,
    unfreeze_last_block,
)
from edition import MODELS_DIR
from previous_chapters import GPTModel, model_config


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of low rank: W x + b + (alpha / rank) B A x.

    A (rank, in) starts random, B (out, rank) at zero, so the layer starts as it was. Input: float (..., in).
    Output: (..., out). ``ValueError`` if the rank is below 1. Source: Hu et al. (2021).
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
    """Put a LoRA update beside linear layers of a frozen model; rank and alpha as in :class:`LoRALinear`.

    ``on`` lists names of layers, among ``W_query W_key W_value out_proj``, or is the str ``"every linear
    layer"``: those of attention and feed-forward part, and the head.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and (on == "every linear layer" or name in on):
                setattr(module, name, LoRALinear(child, rank, alpha))


def random_model(name, seed):
    """GPT-2 before its pretraining: matrices with standard deviation 0.02, as Radford et al. start it."""
    torch.manual_seed(seed)
    model = GPTModel(model_config(name))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    return model


def remove_causal_mask(model):
    """Let every token see every other in every block, also those after it; the weights stay as they are."""
    for block in model.trf_blocks:
        block.att.is_causal = False


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
    """The classifier of one row before its fine-tuning, on the CPU; the seed decides all that is random."""
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
