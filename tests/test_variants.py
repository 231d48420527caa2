"""What a row of the experiments changes about the model: token, mask, LoRA, layers; the short cuts."""

import copy

import pytest
import torch

from classification import add_classification_head, calc_loss_batch, freeze_all_layers
from edition import PAD_TOKEN_ID
from experiments import EXPERIMENTS, settings_of
from fast_paths import TokenClassifier, count_frozen_blocks, pick_token
from message_sets import pad
from previous_chapters import GPTModel
from variants import (
    LoRALinear,
    build_model,
    count_trainable,
    random_model,
    remove_causal_mask,
    unfreeze,
)

CPU = torch.device("cpu")
EMBEDDED = "gpt2-mini (10M)"
CONFIG = {
    "vocab_size": 50257,
    "context_length": 16,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 3,
    "drop_rate": 0.0,
    "qkv_bias": True,
}
FINE_TUNED = [row for row in EXPERIMENTS if settings_of(row)["method"] == "fine-tuning"]
HERE = [row for row in FINE_TUNED if "model" not in EXPERIMENTS[row]]  # rows of the chosen model

IDS = torch.tensor([[5, 6, 7, 8, PAD_TOKEN_ID, PAD_TOKEN_ID], [9, 10, 11, 12, 13, 14], [PAD_TOKEN_ID] * 6])


def language_model(seed=1):
    """A tiny GPT-2 with random values that reads GPT-2's token IDs."""
    torch.manual_seed(seed)
    return GPTModel(CONFIG).eval()


def classifier_of(row):
    """The tiny model as a row changes it."""
    model, settings = language_model(), settings_of(row)
    if not settings["causal_mask"]:
        remove_causal_mask(model)
    freeze_all_layers(model)
    add_classification_head(model)
    unfreeze(model, settings)
    return model, settings["token"]


def trained_parts(model):
    """{"head", "norm", "embeddings", 0, 1, 2}: which parts of the tiny model have trainable parameters."""
    names = {"out_head": "head", "final_norm": "norm", "tok_emb": "embeddings", "pos_emb": "embeddings"}
    parts = [name.split(".") for name, value in model.named_parameters() if value.requires_grad]
    return {int(p[1]) if p[0] == "trf_blocks" else names[p[0]] for p in parts}


# ---------------------------------------------------------------------------------
# Which token
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token, expected", [("first", [0, 0, 0]), ("last", [5, 5, 5]), ("last real", [3, 5, 0])]
)
def test_token_is_taken_from_its_position(token, expected):
    outputs = torch.arange(6.0).repeat(3, 1).unsqueeze(-1)  # at each position its number
    assert pick_token(outputs, IDS, token).squeeze(-1).tolist() == expected


def test_mean_leaves_the_padding_out():
    outputs = torch.arange(6.0).repeat(3, 1).unsqueeze(-1)
    assert pick_token(outputs, IDS, "mean of real").squeeze(-1).tolist() == [1.5, 2.5, 0]


def test_each_message_keeps_its_own_outputs():
    outputs = torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pick_token(outputs, IDS, "last real")[1], outputs[1, 5])


# ---------------------------------------------------------------------------------
# Causal mask
# ---------------------------------------------------------------------------------


@torch.no_grad()
def first_output_changes_with_the_last_token(model):
    other = IDS.clone()
    other[:, -1] = 99
    return not torch.allclose(model(IDS)[:, 0], model(other)[:, 0], atol=1e-6)


def test_first_token_sees_the_future_only_without_the_mask():
    model = language_model()
    assert not first_output_changes_with_the_last_token(model)
    remove_causal_mask(model)
    assert first_output_changes_with_the_last_token(model)


def test_removing_the_mask_leaves_the_weights():
    model = language_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    remove_causal_mask(model)
    assert {name for name, _ in model.named_parameters()} == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


# ---------------------------------------------------------------------------------
# LoRA
# ---------------------------------------------------------------------------------


def with_lora(row="lora"):
    model, _ = classifier_of(row)
    return model


@torch.no_grad()
@pytest.mark.parametrize("row", ["lora", "lora-wide"])
def test_lora_starts_as_the_model_without_it(row):
    plain, _ = classifier_of("head-only")
    assert torch.equal(with_lora(row)(IDS), plain(IDS))


@pytest.mark.parametrize(
    "row, head", [("lora", {"out_head.weight", "out_head.bias"}), ("lora-wide", {"A", "B"})]
)
def test_lora_trains_its_two_matrices_and_the_head_alone(row, head):
    """Where every linear layer has an update, the head's own values are frozen, too."""
    model = with_lora(row)
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):  # A has a gradient once B has left zero
        optimizer.zero_grad()
        calc_loss_batch(IDS, torch.tensor([0, 1, 0]), model, CPU).backward()
        optimizer.step()
    changed = {
        name.split(".")[-1] if name.endswith((".A", ".B")) else name
        for (name, new), old in zip(model.named_parameters(), before.parameters())
        if not torch.equal(new, old)
    }
    assert changed == {"A", "B"} | head


def test_lora_has_two_thin_matrices_for_each_layer():
    """Rank 8 on two matrices of each block, beside a trained head; rank 16 on all six, and on the head."""
    C, blocks = CONFIG["emb_dim"], CONFIG["n_layers"]
    assert count_trainable(with_lora()) == blocks * 2 * 8 * (C + C) + 2 * C + 2
    in_block = 4 * 16 * (C + C) + 2 * 16 * (C + 4 * C)
    assert count_trainable(with_lora("lora-wide")) == blocks * in_block + 16 * (C + 2)


@torch.no_grad()
def test_merged_lora_is_one_layer_that_gives_the_same_outputs():
    layer, x = LoRALinear(torch.nn.Linear(6, 4), rank=2, alpha=4), torch.randn(3, 6)
    start = layer(x)
    layer.B.normal_(generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    assert (expected - start).abs().max() > 1e-3
    merged = layer.merged()
    assert type(merged) is torch.nn.Linear
    assert torch.allclose(merged(x), expected, atol=1e-5)


def test_rank_of_zero_is_named():
    with pytest.raises(ValueError, match="rank is 0"):
        LoRALinear(torch.nn.Linear(3, 4), rank=0, alpha=1)


# ---------------------------------------------------------------------------------
# Layers and starting values
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, parts, frozen",
    [
        ("head-only", {"head"}, 3),
        ("last-token", {"head", "norm", 2}, 2),
        ("first-block", {"head", "norm", 0}, 0),
        ("last-two-blocks", {"head", "norm", 2, 1}, 1),
        ("lora", {"head", 0, 1, 2}, 0),
        ("lora-wide", {"head", 0, 1, 2}, 0),
        ("all-layers", {"head", "norm", 0, 1, 2, "embeddings"}, 0),
    ],
)
def test_row_trains_its_layers(row, parts, frozen):
    model, _ = classifier_of(row)
    assert trained_parts(model) == parts
    assert count_frozen_blocks(model) == frozen


def test_random_values_depend_on_the_seed_alone():
    first, same, other = (random_model(EMBEDDED, seed) for seed in (1, 1, 2))
    assert torch.equal(first.tok_emb.weight, same.tok_emb.weight)
    assert not torch.equal(first.tok_emb.weight, other.tok_emb.weight)
    assert first.tok_emb.weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_seed_decides_the_head(embedded_load):
    first, other = (
        build_model(settings_of("last-token"), EMBEDDED, seed, embedded_load.models_dir) for seed in (1, 2)
    )
    assert not torch.equal(first.out_head.weight, other.out_head.weight)
    assert torch.equal(first.tok_emb.weight, other.tok_emb.weight)


# ---------------------------------------------------------------------------------
# The short cuts change nothing
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", HERE)
def test_short_cut_gives_the_logits_of_the_plain_model(row):
    model, token = classifier_of(row)
    with torch.no_grad():
        logits = TokenClassifier(model, token)(IDS)
        assert logits.shape == (3, 1, 2)
        assert torch.allclose(logits[:, 0], pick_token(model(IDS), IDS, token), atol=1e-6)


@pytest.mark.parametrize("token", ["first", "last real", "mean of real"])
def test_short_cut_lets_any_token_see_the_future_without_the_mask(token):
    model, _ = classifier_of("no-causal-mask")
    with torch.no_grad():
        logits = TokenClassifier(model, token)(IDS)[:, 0]
        assert torch.allclose(logits, pick_token(model(IDS), IDS, token), atol=1e-6)


@pytest.mark.parametrize("row", HERE)
def test_short_cut_gives_the_gradients_of_the_plain_model(row):
    plain, token = classifier_of(row)
    short, labels = copy.deepcopy(plain), torch.tensor([0, 1, 0])
    torch.nn.functional.cross_entropy(pick_token(plain(IDS), IDS, token), labels).backward()
    classifier = TokenClassifier(short, token)
    for _ in range(2):  # the second time from memory
        short.zero_grad()
        calc_loss_batch(IDS, labels, classifier, CPU).backward()
    for (name, a), b in zip(plain.named_parameters(), short.parameters()):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_frozen_blocks_read_each_message_once():
    model, token = classifier_of("last-token")
    read = []
    model.trf_blocks[0].register_forward_hook(lambda module, inputs, output: read.append(len(inputs[0])))
    classifier = TokenClassifier(model, token)
    for batch in (IDS[:2], IDS, IDS):
        classifier(batch)
    assert read == [2, 1]


@torch.no_grad()
def test_last_real_token_is_the_last_one_without_padding():
    """In a causal model the padding behind a message changes nothing before it."""
    model, _ = classifier_of("last-token")
    padded = pick_token(model(IDS), IDS, "last real")
    alone = [model(pad(ids, "none", 16).unsqueeze(0))[0, -1] for ids in IDS]
    assert torch.allclose(padded, torch.stack(alone), atol=1e-6)
