"""fast_paths.py: each short cut gives what the plain formulation gives."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from classification import (
    add_classification_head,
    build_classifier,
    calc_accuracy_loader,
    calc_loss_batch,
    evaluate_model,
    freeze_all_layers,
    load_pretrained_model,
    train_classifier_simple,
    unfreeze_last_block,
)
from fast_paths import (
    KeyValueCache,
    PackedLinear,
    TokenClassifier,
    can_pack,
    generate_text_cached,
    last_token_logits,
    packed_for_inference,
    read_tokens,
)
from previous_chapters import (
    GPTModel,
    generate_text_simple,
    text_to_token_ids,
)

CPU = torch.device("cpu")
CONFIG = {
    "vocab_size": 100,
    "context_length": 16,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 3,
    "drop_rate": 0.0,
    "qkv_bias": True,
}


def random_model(**changes):
    """A tiny language model whose logits differ clearly from token to token."""
    torch.manual_seed(2)
    model = GPTModel({**CONFIG, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def random_ids(*shape, n_vocab=100, seed=123):
    return torch.randint(n_vocab, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model():
    return random_model()


def classifier_of(model):
    freeze_all_layers(model)
    add_classification_head(model)
    unfreeze_last_block(model)
    return model


@pytest.fixture
def classifier():
    """A tiny classifier whose last block, final norm and head are trainable."""
    return classifier_of(random_model())


@pytest.fixture
def loader():
    """Shuffled batches of 4 of 10 examples with 6 tokens; the last 2 are dropped."""
    labels = random_ids(10, n_vocab=2)
    return DataLoader(list(zip(random_ids(10, 6), labels)), batch_size=4, shuffle=True, drop_last=True)


@pytest.fixture(scope="module")
def pretrained(embedded_load):
    return load_pretrained_model("gpt2-mini (10M)", embedded_load.models_dir)


# ---------------------------------------------------------------------------------
# Logits of the last token
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 16), (4, 1), (3, 7)], ids=str)
@torch.no_grad()
def test_last_token_logits_equal_the_plain_ones(model, shape):
    ids = random_ids(*shape)
    expected = model(ids)[:, -1, :]
    assert expected.std() > 0.1
    torch.testing.assert_close(last_token_logits(model, ids), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"n_layers": 1}, {"qkv_bias": False}, {"num_classes": 2}], ids=str)
@torch.no_grad()
def test_last_token_logits_of_other_models(changes):
    model = classifier_of(random_model()) if "num_classes" in changes else random_model(**changes)
    ids = random_ids(2, 9)
    torch.testing.assert_close(last_token_logits(model, ids), model(ids)[:, -1, :])


@torch.no_grad()
def test_last_token_logits_of_the_embedded_checkpoint(pretrained, sample_loaders):
    ids, _ = next(iter(sample_loaders[1]))
    difference = last_token_logits(pretrained, ids) - pretrained(ids)[:, -1, :]
    assert difference.abs().max() <= 1e-4


def test_last_token_logits_have_the_plain_gradients(model):
    ids, plain = random_ids(3, 7), copy.deepcopy(model)
    plain(ids)[:, -1, :].square().mean().backward()
    last_token_logits(model, ids).square().mean().backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters()):
        assert other.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_last_token_logits_of_a_long_input_raise_the_plain_error(model):
    ids = random_ids(1, 17)
    with pytest.raises(ValueError) as plain:
        model(ids)
    with pytest.raises(ValueError) as fast:
        last_token_logits(model, ids)
    assert str(fast.value) == str(plain.value)


def test_last_token_logits_need_a_token(model):
    with pytest.raises(ValueError, match=r"no tokens \(shape \(2, 0\)\)"):
        last_token_logits(model, random_ids(2, 0))


# ---------------------------------------------------------------------------------
# Text generation
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("context_size", [1, 5, 12, 16, 0, 100])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (3, 4)], ids=str)
def test_cached_generation_gives_the_same_tokens(model, shape, context_size):
    """With 10 new tokens the sequence stays within the window, outgrows it, or begins beyond it."""
    ids = random_ids(*shape)
    expected = generate_text_simple(model, ids, 10, context_size)
    assert expected[:, shape[1] :].unique().numel() > 3  # tokens that differ
    assert torch.equal(generate_text_cached(model, ids, 10, context_size), expected)


def test_cached_generation_of_nothing_gives_the_prompt(model):
    assert torch.equal(generate_text_cached(model, random_ids(2, 3), 0, 16), random_ids(2, 3))


def test_cached_generation_reads_one_token_a_step(model):
    read = []
    model.tok_emb.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1]))
    generate_text_cached(model, random_ids(1, 4), 6, context_size=7)
    assert read == [4, 1, 1, 1, 7, 7]  # the prompt, the cache, then the window


def test_cached_generation_with_the_embedded_checkpoint(pretrained, tokenizer):
    ids = text_to_token_ids("Every effort moves you", tokenizer)
    expected = generate_text_simple(pretrained, ids, 40, context_size=1024)
    assert torch.equal(generate_text_cached(pretrained, ids, 40, context_size=1024), expected)


def test_empty_part_of_the_cache_is_not_read(model):
    cache = KeyValueCache(model, batch_size=1, max_tokens=8)
    for tensor in cache.keys + cache.values:
        tensor.fill_(torch.nan)
    ids = random_ids(1, 4)
    with torch.no_grad():
        read_tokens(model, ids[:, :3], cache)
        logits = read_tokens(model, ids[:, 3:], cache)
        torch.testing.assert_close(logits, model(ids)[:, -1, :], atol=1e-5, rtol=1e-5)


def test_cached_generation_carries_no_gradient(model):
    assert not generate_text_cached(model, random_ids(1, 2), 2, 16).requires_grad


@pytest.mark.parametrize(
    "num_tokens, max_new_tokens, message",
    [(0, 3, r"The prompt has no tokens"), (0, 0, "The prompt has no tokens"), (14, 9, "has 17 tokens")],
)
def test_cached_generation_raises_the_plain_errors(model, num_tokens, max_new_tokens, message):
    ids = random_ids(1, num_tokens)
    with pytest.raises(ValueError, match=message) as plain:
        generate_text_simple(model, ids, max_new_tokens, context_size=100)
    with pytest.raises(ValueError) as fast:
        generate_text_cached(model, ids, max_new_tokens, context_size=100)
    assert str(fast.value) == str(plain.value)


# ---------------------------------------------------------------------------------
# Remembered outputs of frozen blocks. More rows of the experiments: test_variants.py
# ---------------------------------------------------------------------------------


def test_token_classifier_draws_no_random_number(classifier, loader):
    torch.manual_seed(5)
    expected = [labels for _, labels in loader]
    state = torch.get_rng_state()
    torch.manual_seed(5)
    network = TokenClassifier(classifier)
    for (ids, labels), other in zip(loader, expected):
        network(ids)
        assert torch.equal(labels, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_holds_what_enters_the_last_block(classifier, loader):
    network = TokenClassifier(classifier)
    for ids, _ in DataLoader(loader.dataset, batch_size=4):  # the last batch is an incomplete one
        network(ids)
    assert len(network.memory) == 10
    for ids, _ in loader.dataset:
        found = network.memory[ids.numpy().tobytes()]
        expected = classifier.trf_blocks[:-1](classifier.embed(ids[None]))[0]
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad


def test_memory_can_be_shared(classifier, loader):
    first = TokenClassifier(classifier)
    ids, _ = next(iter(loader))
    expected = first(ids)
    classifier.tok_emb.weight.data.fill_(torch.nan)  # whoever reads the message again would notice
    assert torch.equal(TokenClassifier(classifier, "last", first.memory)(ids), expected)


def test_token_classifier_trains_the_parameters_of_the_model(classifier):
    network = TokenClassifier(classifier)
    assert {id(p) for p in network.parameters()} == {id(p) for p in classifier.parameters()}


def test_memory_filled_in_inference_mode_serves_training(classifier, loader):
    network, (ids, labels) = TokenClassifier(classifier), next(iter(loader))
    with torch.inference_mode():
        network(ids)
    calc_loss_batch(ids, labels, network, CPU).backward()
    assert classifier.out_head.weight.grad.abs().max() > 0


def fine_tune(model, network, loaders, num_epochs):
    """Train ``network`` (the model, or its trainable part) as the book does; return what it gives."""
    torch.manual_seed(123)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=5e-5, weight_decay=0.1)
    return train_classifier_simple(network, *loaders, optimizer, CPU, num_epochs, eval_freq=10, eval_iter=3)


def assert_same_logits_and_accuracy(plain, fast, loader):
    ids, _ = next(iter(loader))
    with torch.no_grad():
        assert (plain(ids) - fast(ids)).abs().max() <= 1e-4
    accuracies = [calc_accuracy_loader(loader, model, CPU, num_batches=5) for model in (plain, fast)]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_fine_tuning_with_a_memory_is_the_plain_fine_tuning(embedded_load, sample_loaders, capsys):
    """Several epochs on a part of the sample: same progress, same weights, same accuracy."""
    plain = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    fast, before = copy.deepcopy(plain), copy.deepcopy(plain)
    train_loader = DataLoader(
        Subset(sample_loaders[0].dataset, range(123)), batch_size=8, shuffle=True, drop_last=True
    )
    loaders = train_loader, sample_loaders[1]

    plain_result = fine_tune(plain, plain, loaders, num_epochs=3)
    plain_progress = capsys.readouterr().out
    fast_result = fine_tune(fast, TokenClassifier(fast), loaders, num_epochs=3)
    assert capsys.readouterr().out == plain_progress
    assert len(plain_progress.splitlines()) == 5 + 3  # steps 0 to 40, three epochs

    assert fast_result[2:] == plain_result[2:]  # accuracies and number of examples
    for losses, plain_losses in zip(fast_result[:2], plain_result[:2]):
        assert losses == pytest.approx(plain_losses, abs=1e-4)
    weights = zip(plain.named_parameters(), fast.parameters(), before.parameters())
    for (name, expected), found, start in weights:
        assert torch.equal(expected, start) != expected.requires_grad, name
        if name != "trf_blocks.5.att.W_key.bias":  # softmax does not see it: only rounding moves it
            assert (found - expected).abs().max() <= 1e-4, name
    assert_same_logits_and_accuracy(plain, fast, sample_loaders[2])


def test_losses_with_a_memory_are_the_plain_ones(classifier, loader):
    torch.manual_seed(5)
    expected = evaluate_model(classifier, loader, loader, CPU, eval_iter=2)
    torch.manual_seed(5)
    found = evaluate_model(TokenClassifier(classifier), loader, loader, CPU, eval_iter=2)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["tok_emb.weight", "pos_emb.weight", "trf_blocks.1.ff.layers.0.bias"])
def test_unfreezing_what_is_remembered_is_an_error(classifier, loader, name):
    network, (ids, _) = TokenClassifier(classifier), next(iter(loader))
    network(ids)
    classifier.get_parameter(name).requires_grad = True
    with pytest.raises(ValueError, match=r"Below block 2 something trains now.*Make a new TokenClassifier"):
        network(ids)
    anew = TokenClassifier(classifier)(ids)
    torch.testing.assert_close(anew[:, -1, :], classifier(ids)[:, -1, :])


@pytest.mark.parametrize("name", ["drop_emb", "trf_blocks.0.drop_resid", "trf_blocks.2.att.dropout"])
def test_dropout_is_named(classifier, name):
    classifier.get_submodule(name).p = 0.1
    with pytest.raises(ValueError, match=rf"{name} drops values at random in training \(p=0.1\)"):
        TokenClassifier(classifier)


# ---------------------------------------------------------------------------------
# Packed linear layers
# ---------------------------------------------------------------------------------

needs_onednn = pytest.mark.skipif(
    not can_pack(torch.nn.Linear(2, 2)), reason="oneDNN's linear layers are for x86 processors with AVX"
)


@needs_onednn
def test_every_linear_layer_is_packed(model):
    packed = packed_for_inference(model)
    kinds = [type(module) for module in packed.modules()]
    assert torch.nn.Linear not in kinds
    assert kinds.count(PackedLinear) == 6 * CONFIG["n_layers"] + 1


def test_packed_model_gives_the_same_logits(model):
    ids = random_ids(2, 7)
    with torch.no_grad():
        torch.testing.assert_close(packed_for_inference(model)(ids), model(ids), atol=1e-5, rtol=1e-5)


def test_packed_embedded_checkpoint_gives_the_same_logits(pretrained, sample_loaders):
    ids, _ = next(iter(sample_loaders[1]))
    with torch.no_grad():
        logits = last_token_logits(packed_for_inference(pretrained), ids)
        torch.testing.assert_close(logits, pretrained(ids)[:, -1, :], atol=1e-4, rtol=0)


def test_packing_leaves_the_model_as_it_is(model):
    before = copy.deepcopy(model.state_dict())
    structure, training = str(model), model.train().training
    packed_for_inference(model)
    assert str(model) == structure and model.training == training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@needs_onednn
def test_packed_layers_keep_the_weights_of_their_time(model):
    ids = random_ids(2, 7)
    packed = packed_for_inference(model)
    with torch.no_grad():
        expected = packed(ids)
        for block in model.trf_blocks:
            block.ff.layers[0].weight.mul_(2)
            block.ff.layers[0].bias.mul_(2)
        assert torch.equal(packed(ids), expected)
        assert not torch.allclose(packed_for_inference(model)(ids), expected)


@needs_onednn
def test_gradient_through_a_packed_layer_raises(model):
    with pytest.raises(RuntimeError, match=r"no gradient.*torch\.no_grad"):
        packed_for_inference(model)(random_ids(1, 3))


@pytest.mark.parametrize("shape", [(1, 1), (2, 5)])
def test_packed_model_generates_the_same_tokens(model, shape):
    ids = random_ids(*shape)
    expected = generate_text_simple(model, ids, 8, CONFIG["context_length"])
    packed = packed_for_inference(model)
    assert torch.equal(generate_text_cached(packed, ids, 8, CONFIG["context_length"]), expected)


def test_other_data_types_are_not_packed(model):
    model = model.double()
    packed = packed_for_inference(model)
    assert str(packed) == str(model)
    with torch.no_grad():
        assert torch.equal(packed(random_ids(1, 4)), model(random_ids(1, 4)))


def test_bfloat16_is_packed_where_the_processor_has_it(model):
    expected = model(random_ids(2, 4)).detach()
    model = model.bfloat16()
    packed = packed_for_inference(model)
    if can_pack(model.out_head):
        assert not any(type(module) is torch.nn.Linear for module in packed.modules())
    with torch.no_grad():
        torch.testing.assert_close(packed(random_ids(2, 4)).float(), expected, atol=0.05, rtol=0.05)


def test_bfloat16_is_not_packed_where_the_processor_lacks_it(model, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not can_pack(model.bfloat16().out_head)


def test_layers_of_another_class_keep_their_own_forward(model):
    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = Doubled(CONFIG["emb_dim"], CONFIG["emb_dim"])
    model.trf_blocks[0].att.out_proj = layer
    ids = random_ids(1, 5)
    with torch.no_grad():
        torch.testing.assert_close(packed_for_inference(model)(ids), model(ids), atol=1e-5, rtol=1e-5)
