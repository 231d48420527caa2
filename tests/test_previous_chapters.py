"""previous_chapters.py: the model computes what GPT-2 computes, and says what does not fit."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_download import nest
from previous_chapters import (
    GELU,
    MODEL_CONFIGS,
    GPTModel,
    LayerNorm,
    MultiHeadAttention,
    SkipRandomValues,
    generate_text_simple,
    load_weights_into_gpt,
    model_config,
    model_from_weights,
    text_to_token_ids,
    token_ids_to_text,
)
from tools.checkpoints import SETTINGS_10M, SETTINGS_124M, TINY, random_values, settings_of


def config_of(settings):
    """The book's configuration for the content of ``hparams.json``."""
    return {
        "vocab_size": settings["n_vocab"],
        "context_length": settings["n_ctx"],
        "emb_dim": settings["n_embd"],
        "n_heads": settings["n_head"],
        "n_layers": settings["n_layer"],
        "drop_rate": 0.0,
        "qkv_bias": True,
    }


def loaded_model(config, params):
    with SkipRandomValues():
        model = GPTModel(config)
    load_weights_into_gpt(model, params)
    return model.eval()


@pytest.fixture(scope="module")
def tiny_params(tiny_values):
    return nest(tiny_values, TINY)


@pytest.fixture
def tiny_model(tiny_params):
    return loaded_model(config_of(TINY), tiny_params)


def random_ids(*shape, n_vocab=TINY["n_vocab"]):
    return torch.randint(n_vocab, shape, generator=torch.Generator().manual_seed(123))


# ---------------------------------------------------------------------------------
# Against the implementation of Hugging Face
# ---------------------------------------------------------------------------------


def hugging_face_model(settings, params):
    """transformers' GPT-2 with the values of ``params``; its linear layers are [in, out], too."""
    config = GPT2Config(
        vocab_size=settings["n_vocab"],
        n_positions=settings["n_ctx"],
        n_embd=settings["n_embd"],
        n_layer=settings["n_layer"],
        n_head=settings["n_head"],
    )
    with SkipRandomValues():
        model = GPT2LMHeadModel(config)

    def set_values(parameter, array):
        assert parameter.shape == array.shape
        parameter.data = torch.from_numpy(array)

    gpt2 = model.transformer
    set_values(gpt2.wte.weight, params["wte"])
    set_values(gpt2.wpe.weight, params["wpe"])
    set_values(gpt2.ln_f.weight, params["g"])
    set_values(gpt2.ln_f.bias, params["b"])
    for layer, block in zip(gpt2.h, params["blocks"]):
        for norm in ("ln_1", "ln_2"):
            set_values(getattr(layer, norm).weight, block[norm]["g"])
            set_values(getattr(layer, norm).bias, block[norm]["b"])
        for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            linear = getattr(getattr(layer, part), name)
            set_values(linear.weight, block[part][name]["w"])
            set_values(linear.bias, block[part][name]["b"])
    model.lm_head.weight = gpt2.wte.weight
    return model.eval()


@torch.no_grad()
def assert_same_logits(settings, params, ids):
    expected = hugging_face_model(settings, params)(ids).logits
    logits = loaded_model(config_of(settings), params)(ids)
    assert expected.std() > 0.1  # something to compare
    assert logits.dtype == expected.dtype == torch.float32
    assert (logits - expected).abs().max() <= 1e-4


@pytest.mark.slow
def test_logits_equal_those_of_transformers_at_124m(values_124m):
    params = nest(values_124m, SETTINGS_124M)
    assert_same_logits(SETTINGS_124M, params, random_ids(2, 24, n_vocab=50257))


def test_logits_equal_those_of_transformers_at_the_embedded_size():
    params = nest(random_values(SETTINGS_10M), SETTINGS_10M)
    assert_same_logits(SETTINGS_10M, params, random_ids(2, 64, n_vocab=50257))


def test_logits_equal_those_of_transformers_on_the_whole_context():
    settings = settings_of(32, 2, 4, n_vocab=500)
    params = nest(random_values(settings), settings)
    assert_same_logits(settings, params, random_ids(1, 1024, n_vocab=500))


# ---------------------------------------------------------------------------------
# Parts of the model
# ---------------------------------------------------------------------------------


@pytest.fixture
def attention():
    torch.manual_seed(123)
    return MultiHeadAttention(d_in=24, d_out=32, context_length=10, dropout=0.5, num_heads=4, qkv_bias=True)


@torch.no_grad()
def test_attention_equals_its_formula(attention):
    attention.eval()
    x = torch.randn(2, 7, 24)
    future = torch.triu(torch.ones(7, 7, dtype=torch.bool), diagonal=1)
    heads = []
    for head in range(4):
        columns = slice(8 * head, 8 * head + 8)
        q = attention.W_query(x)[..., columns]
        k = attention.W_key(x)[..., columns]
        v = attention.W_value(x)[..., columns]
        scores = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(future, -torch.inf)
        heads.append(torch.softmax(scores, dim=-1) @ v)
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x), expected)


@torch.no_grad()
def test_attention_does_not_look_ahead(attention):
    attention.eval()
    x = torch.randn(1, 7, 24)
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(attention(changed)[:, :4], attention(x)[:, :4])


@torch.no_grad()
def test_attention_drops_weights_only_in_training(attention):
    x = torch.randn(2, 7, 24)
    assert not torch.equal(attention.train()(x), attention(x))
    assert torch.equal(attention.eval()(x), attention(x))


def test_attention_refuses_a_width_that_the_heads_cannot_share():
    with pytest.raises(ValueError, match=r"d_out \(30\) must be a multiple of num_heads \(4\)"):
        MultiHeadAttention(d_in=30, d_out=30, context_length=10, dropout=0.0, num_heads=4)


@torch.no_grad()
def test_layer_norm_equals_its_formula():
    torch.manual_seed(123)
    norm, x = LayerNorm(16), torch.randn(2, 5, 16)
    norm.scale.copy_(torch.randn(16))
    norm.shift.copy_(torch.randn(16))
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    torch.testing.assert_close(norm(x), norm.scale * (x - mean) / torch.sqrt(variance + 1e-5) + norm.shift)


def test_gelu_equals_its_formula():
    x = torch.linspace(-4, 4, 101)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(GELU()(x), expected)


@torch.no_grad()
def test_dropout_rate_of_the_configuration_is_used():
    model = GPTModel({**config_of(TINY), "drop_rate": 0.5})
    ids = random_ids(1, 5)
    assert not torch.equal(model.train()(ids), model(ids))


# ---------------------------------------------------------------------------------
# Sizes and configurations
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, count",
    [
        ("gpt2-mini (10M)", 10_060_960),
        ("gpt2-small (124M)", 124_439_808),
        ("gpt2-medium (355M)", 354_823_168),
        ("gpt2-large (774M)", 774_030_080),
        ("gpt2-xl (1558M)", 1_557_611_200),
    ],
)
def test_number_of_parameters_with_the_output_layer_tied(name, count):
    with torch.device("meta"):
        model = GPTModel(model_config(name))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total - model.out_head.weight.numel() == count


@pytest.mark.parametrize("qkv_bias, count", [(True, 163_037_184), (False, 163_009_536)])
def test_number_of_parameters_of_124m_with_its_own_output_layer(qkv_bias, count):
    with torch.device("meta"):
        model = GPTModel({**model_config("gpt2-small (124M)"), "qkv_bias": qkv_bias})
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_table_of_models_names_each_size():
    assert [name.split(" ")[-1].lstrip("(").rstrip(")") for name in MODEL_CONFIGS] == [
        "10M",
        "124M",
        "355M",
        "774M",
        "1558M",
    ]


def test_model_config_does_not_change_the_table():
    before = copy.deepcopy(MODEL_CONFIGS)
    model_config("gpt2-mini (10M)")["n_layers"] = 99
    assert MODEL_CONFIGS == before


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match=r"'gpt2-tiny \(1M\)'.*gpt2-mini \(10M\), gpt2-small"):
        model_config("gpt2-tiny (1M)")


# ---------------------------------------------------------------------------------
# The whole model
# ---------------------------------------------------------------------------------


def test_logits_have_one_value_for_each_token_of_the_vocabulary(tiny_model):
    assert tiny_model(random_ids(3, 5)).shape == (3, 5, 100)


@torch.no_grad()
def test_later_tokens_do_not_change_earlier_logits(tiny_model):
    ids = random_ids(1, 8)
    torch.testing.assert_close(tiny_model(ids)[:, :5], tiny_model(ids[:, :5]))


def test_input_as_long_as_the_context_is_read(tiny_model):
    assert tiny_model(random_ids(1, 16)).shape == (1, 16, 100)


def test_longer_input_is_refused_with_both_lengths(tiny_model):
    with pytest.raises(ValueError, match="17 tokens.*context length is 16"):
        tiny_model(random_ids(1, 17))


# ---------------------------------------------------------------------------------
# A state dict saved with the published modules
# ---------------------------------------------------------------------------------


@pytest.fixture
def review_classifier(tiny_model, tmp_path):
    """What a reader saved: the published modules keep the causal mask of each block as a buffer."""
    state = dict(tiny_model.state_dict())
    for i in range(TINY["n_layer"]):
        state[f"trf_blocks.{i}.att.mask"] = torch.triu(torch.ones(16, 16), diagonal=1)
    torch.save(state, tmp_path / "review_classifier.pth")
    return torch.load(tmp_path / "review_classifier.pth", weights_only=True)


@pytest.mark.parametrize("assign", [False, True])
def test_masks_of_the_published_modules_are_left_out(review_classifier, tiny_model, assign):
    model = GPTModel(config_of(TINY))
    printed = str(model)
    assert str(model.load_state_dict(review_classifier, assign=assign)) == "<All keys matched successfully>"
    assert str(model) == printed and model.state_dict().keys() == tiny_model.state_dict().keys()
    assert torch.equal(model.eval()(random_ids(2, 5)), tiny_model(random_ids(2, 5)))


@pytest.mark.parametrize("name", ["trf_blocks.2.att.mask", "trf_blocks.0.mask", "att.mask", "mask"])
def test_no_other_unknown_tensor_is_left_out(review_classifier, name):
    with pytest.raises(RuntimeError, match=f'Unexpected key.*"{name}"'):
        GPTModel(config_of(TINY)).load_state_dict({**review_classifier, name: torch.zeros(1)})


# ---------------------------------------------------------------------------------
# Loading weights
# ---------------------------------------------------------------------------------


def test_output_layer_gets_the_token_embedding(tiny_model):
    assert torch.equal(tiny_model.out_head.weight, tiny_model.tok_emb.weight)


def test_output_layer_is_a_parameter_of_its_own(tiny_model):
    assert tiny_model.out_head.weight is not tiny_model.tok_emb.weight


def test_model_does_not_share_memory_with_the_checkpoint(tiny_params):
    params = copy.deepcopy(tiny_params)
    model = loaded_model(config_of(TINY), params)
    params["wte"][0, 0] = 99
    assert model.tok_emb.weight[0, 0] != 99


def with_wrong_last_bias(params):
    params = copy.deepcopy(params)
    params["blocks"][-1]["ln_2"]["b"] = params["blocks"][-1]["ln_2"]["b"][:-1]
    return params


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_layers": 3}, "The checkpoint has 2 transformer blocks, the model has 3"),
        ({"emb_dim": 16}, r"'wte': the model has \(100, 16\), the checkpoint has \(100, 8\)"),
        ({"vocab_size": 101}, r"'wte': the model has \(101, 8\), the checkpoint has \(100, 8\)"),
        ({"context_length": 32}, r"'wpe': the model has \(32, 8\), the checkpoint has \(16, 8\)"),
        ({"qkv_bias": False}, r"'h0/attn/c_attn/b \(query\)'.*Set qkv_bias=True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configuration_that_does_not_fit_is_refused(tiny_params, change, message):
    config = {**config_of(TINY), **change}
    with pytest.raises(ValueError, match=message):
        load_weights_into_gpt(GPTModel(config), tiny_params)
    with pytest.raises(ValueError, match=message):
        model_from_weights(config, tiny_params, tiny_params["wte"].copy())


def test_model_from_weights_has_the_weights_that_loading_gives(tiny_params):
    expected = GPTModel(config_of(TINY))
    model = model_from_weights(config_of(TINY), tiny_params, tiny_params["wte"].copy())
    load_weights_into_gpt(expected, tiny_params)
    assert str(model) == str(expected)
    assert model.state_dict().keys() == expected.state_dict().keys()
    for found, other in zip(model.parameters(), expected.parameters()):
        assert torch.equal(found, other)
        assert found.requires_grad and found.is_contiguous() and found.device.type == "cpu"


def test_model_from_weights_copies_nothing_and_has_an_output_layer_of_its_own(tiny_params):
    """The arrays of a mapped file have the layout of nn.Linear: transposed, they are [in, out]."""
    params = copy.deepcopy(tiny_params)
    for block in params["blocks"]:
        for layer in (*block["attn"].values(), *block["mlp"].values()):
            layer["w"] = np.asfortranarray(layer["w"])
    model = model_from_weights(config_of(TINY), params, params["wte"].copy())
    params["wte"][:], params["blocks"][1]["attn"]["c_attn"]["w"][:] = 7, 8
    assert (model.tok_emb.weight == 7).all() and (model.trf_blocks[1].att.W_key.weight == 8).all()
    assert not (model.out_head.weight == 7).any()


def test_model_from_weights_draws_no_random_number(tiny_params):
    state = torch.get_rng_state()
    model_from_weights(config_of(TINY), tiny_params, tiny_params["wte"].copy())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.nn.Linear(3, 3).weight.abs().sum() > 0  # new layers get random values again
    assert not torch.equal(torch.get_rng_state(), state)


def test_wrong_shape_in_the_last_block_is_named(tiny_params):
    with pytest.raises(ValueError, match=r"'h1/ln_2/b': the model has \(8,\), the checkpoint has \(7,\)"):
        load_weights_into_gpt(GPTModel(config_of(TINY)), with_wrong_last_bias(tiny_params))


def test_query_key_value_matrix_that_has_no_three_parts_is_named(tiny_params):
    params = copy.deepcopy(tiny_params)
    params["blocks"][1]["attn"]["c_attn"]["w"] = params["blocks"][1]["attn"]["c_attn"]["w"][:, :-1]
    with pytest.raises(ValueError, match="h1/attn/c_attn/w"):
        load_weights_into_gpt(GPTModel(config_of(TINY)), params)


def test_failed_load_changes_nothing(tiny_params):
    model = GPTModel(config_of(TINY))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError):
        load_weights_into_gpt(model, with_wrong_last_bias(tiny_params))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------


def test_generation_appends_the_most_probable_tokens(tiny_model):
    ids = random_ids(2, 3)
    expected = ids
    for _ in range(4):
        expected = torch.cat([expected, tiny_model(expected)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate_text_simple(tiny_model, ids, max_new_tokens=4, context_size=16), expected)


def test_generation_reads_only_the_last_tokens(tiny_model):
    ids = random_ids(1, 20)  # more than the model reads
    cropped = generate_text_simple(tiny_model, ids[:, -5:], max_new_tokens=1, context_size=16)
    longer = generate_text_simple(tiny_model, ids, max_new_tokens=1, context_size=5)
    assert torch.equal(longer, torch.cat([ids, cropped[:, -1:]], dim=1))


def test_generation_goes_on_beyond_the_context(tiny_model):
    ids = random_ids(1, 14)
    assert generate_text_simple(tiny_model, ids, max_new_tokens=6, context_size=16).shape == (1, 20)


def test_generation_with_a_context_size_above_the_models_is_refused(tiny_model):
    with pytest.raises(ValueError, match="17 tokens.*context length is 16"):
        generate_text_simple(tiny_model, random_ids(1, 14), max_new_tokens=6, context_size=1024)


def test_generation_of_no_tokens_gives_the_prompt(tiny_model):
    ids = random_ids(1, 5)
    assert torch.equal(generate_text_simple(tiny_model, ids, max_new_tokens=0, context_size=16), ids)


def test_generation_from_an_empty_text_is_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match=r"no tokens \(shape \(1, 0\)\)"):
        generate_text_simple(tiny_model, text_to_token_ids("", tokenizer), 5, context_size=16)


@pytest.mark.parametrize("text", ["Every effort moves you", "  two  spaces\n\n", "naïve 😂 £5", ""])
def test_encoded_text_decodes_to_itself(tokenizer, text):
    assert token_ids_to_text(text_to_token_ids(text, tokenizer), tokenizer) == text


def test_token_ids_of_a_text(tokenizer):
    assert text_to_token_ids("Do you have time", tokenizer).tolist() == [[5211, 345, 423, 640]]


def test_end_of_text_is_one_token(tokenizer):
    assert text_to_token_ids("a<|endoftext|>", tokenizer).tolist() == [[64, 50256]]


def test_empty_text_has_no_tokens(tokenizer):
    ids = text_to_token_ids("", tokenizer)
    assert ids.shape == (1, 0) and ids.dtype == torch.int64
