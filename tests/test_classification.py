"""classification.py: head, freezing, accuracy, loss, training, use, and the command line."""

import contextlib
import copy
import io
import math
import os
import re
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

import classification
from classification import (
    add_classification_head,
    build_classifier,
    calc_accuracy_loader,
    calc_loss_batch,
    calc_loss_loader,
    classify_review,
    evaluate_model,
    fine_tuning_settings,
    freeze_all_layers,
    load_classifier,
    load_pretrained_model,
    save_classifier,
    spam_probabilities,
    train_classifier_simple,
    unfreeze_last_block,
)
from gpt_download import download_and_load_gpt2
from previous_chapters import MODEL_CONFIGS, GPTModel, model_config
from text_classifier import default_classifier_path, fine_tune, message_interface, newest_classifier

CPU = torch.device("cpu")
CONFIG = {
    "vocab_size": 50257,
    "context_length": 16,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": True,
}


@pytest.fixture
def model():
    """A tiny classifier with random values that reads GPT-2's token IDs, all of it trainable."""
    torch.manual_seed(1)
    model = GPTModel(CONFIG)
    add_classification_head(model)
    return model.eval()


@pytest.fixture
def loader():
    """Two batches of 4 examples and one of 2; in a text of class 1 each token is 1."""
    torch.manual_seed(1)
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 0, 1])
    texts = torch.randint(2, 100, (10, 6))
    texts[labels == 1] = 1
    return DataLoader(list(zip(texts, labels)), batch_size=4)


@pytest.fixture
def empty_loader():
    return DataLoader([], batch_size=4)


def always(model, label):
    """Make the model give one class, whatever it reads."""
    with torch.no_grad():
        model.out_head.weight.zero_()
        model.out_head.bias.copy_(torch.tensor([1.0 - label, float(label)]))
    return model


def trainable(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


# ---------------------------------------------------------------------------------
# From language model to classifier
# ---------------------------------------------------------------------------------


def test_new_head_is_a_seeded_linear_layer(model):
    add_classification_head(model)
    torch.manual_seed(123)
    expected = torch.nn.Linear(in_features=8, out_features=2)
    assert torch.equal(model.out_head.weight, expected.weight)
    assert torch.equal(model.out_head.bias, expected.bias)


def test_new_head_gives_one_logit_for_each_class(model):
    add_classification_head(model, num_classes=5)
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, 5)


def test_freezing_leaves_nothing_to_train(model):
    freeze_all_layers(model)
    assert trainable(model) == 0


@pytest.mark.parametrize(
    "name, count",
    [
        ("gpt2-mini (10M)", 309_280 + 320 + 322),  # last block, final layer norm, head
        ("gpt2-small (124M)", 7_087_872 + 1_536 + 1_538),
    ],
)
def test_number_of_trainable_parameters(name, count):
    with torch.device("meta"):
        model = GPTModel(model_config(name))
        freeze_all_layers(model)
        add_classification_head(model)
        unfreeze_last_block(model)
    assert trainable(model) == count


def test_last_block_final_norm_and_head_are_trainable(model):
    freeze_all_layers(model)
    add_classification_head(model)
    unfreeze_last_block(model)
    names = {name.rsplit(".", 1)[0] for name, value in model.named_parameters() if value.requires_grad}
    others = {name for name in names if not name.startswith("trf_blocks.1.")}
    assert others == {"final_norm", "out_head"} and others < names


def test_pretrained_model_has_the_values_of_the_checkpoint(embedded_load):
    model = load_pretrained_model("gpt2-mini (10M)", embedded_load.models_dir)
    _, params = download_and_load_gpt2("10M", embedded_load.models_dir)
    assert torch.equal(model.tok_emb.weight, torch.from_numpy(params["wte"]))


def test_classifier_is_built_in_evaluation_mode(embedded_load):
    assert not build_classifier("gpt2-mini (10M)", embedded_load.models_dir).training


def test_classifier_is_built_the_same_each_time(embedded_load):
    first = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    torch.rand(7)
    second = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_classifier_is_built_with_the_trainable_parameters(embedded_load):
    assert trainable(build_classifier("gpt2-mini (10M)", embedded_load.models_dir)) == 309_922


def test_unknown_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="Unknown model 'gpt2-tiny'"):
        build_classifier("gpt2-tiny", tmp_path)


# ---------------------------------------------------------------------------------
# Accuracy and loss
# ---------------------------------------------------------------------------------


@torch.no_grad()
def test_batch_loss_equals_its_formula(model, loader):
    texts, labels = next(iter(loader))
    logits = model(texts)[:, -1, :]
    expected = -sum(math.log(torch.softmax(row, -1)[label]) for row, label in zip(logits, labels)) / 4
    assert calc_loss_batch(texts, labels, model, CPU).item() == pytest.approx(expected, abs=1e-6)


def test_batch_loss_carries_the_gradient(model, loader):
    calc_loss_batch(*next(iter(loader)), model, CPU).backward()
    assert model.out_head.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_loader_loss_is_the_mean_of_the_batch_losses(model, loader):
    losses = [calc_loss_batch(texts, labels, model, CPU).item() for texts, labels in loader]
    assert calc_loss_loader(loader, model, CPU) == pytest.approx(sum(losses) / 3)


@torch.no_grad()
def test_loader_loss_of_some_batches(model, loader):
    losses = [calc_loss_batch(texts, labels, model, CPU).item() for texts, labels in loader]
    assert calc_loss_loader(loader, model, CPU, num_batches=2) == pytest.approx(sum(losses[:2]) / 2)


@torch.no_grad()
def test_loss_of_more_batches_than_there_are_is_that_of_all(model, loader):
    assert calc_loss_loader(loader, model, CPU, num_batches=99) == calc_loss_loader(loader, model, CPU)


def test_loss_of_an_empty_loader_is_nan(model, empty_loader):
    assert math.isnan(calc_loss_loader(empty_loader, model, CPU))


def test_accuracy_is_the_share_of_right_answers(model, loader):
    assert calc_accuracy_loader(loader, always(model, 1), CPU) == 0.5


def test_accuracy_of_some_batches(model, loader):
    batches = [DataLoader(loader.dataset[i : i + 4], batch_size=4) for i in (0, 4)]
    expected = sum(calc_accuracy_loader(batch, model, CPU) for batch in batches) / 2
    assert calc_accuracy_loader(loader, model, CPU, num_batches=2) == expected


def test_accuracy_of_more_batches_than_there_are_is_that_of_all(model, loader):
    expected = calc_accuracy_loader(loader, model, CPU)
    assert calc_accuracy_loader(loader, model, CPU, num_batches=99) == expected


def test_accuracy_counts_an_incomplete_batch_by_its_examples(model):
    labels = [1, 1, 1, 1, 0]
    loader = DataLoader([(torch.tensor([5]), torch.tensor(label)) for label in labels], batch_size=4)
    assert calc_accuracy_loader(loader, always(model, 1), CPU) == 0.8


def test_accuracy_of_an_empty_loader_is_an_error(model, empty_loader):
    with pytest.raises(ZeroDivisionError):
        calc_accuracy_loader(empty_loader, model, CPU)


def test_accuracy_leaves_the_model_in_evaluation_mode(model, loader):
    calc_accuracy_loader(loader, model.train(), CPU)
    assert not model.training


def test_loss_leaves_the_mode_of_the_model(model, loader):
    calc_loss_loader(loader, model.train(), CPU)
    assert model.training


# ---------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------


def test_evaluation_gives_both_losses_and_goes_back_to_training(model, loader):
    train_loss, val_loss = evaluate_model(model, loader, loader, CPU, eval_iter=2)
    with torch.no_grad():
        assert train_loss == val_loss == calc_loss_loader(loader, model.eval(), CPU, num_batches=2)
    evaluate_model(model, loader, loader, CPU, eval_iter=2)
    assert model.training


@pytest.fixture
def training(model, loader, capsys):
    """The result of a short training, what it printed, and the model before and after."""
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    result = train_classifier_simple(
        model, loader, loader, optimizer, CPU, num_epochs=10, eval_freq=10, eval_iter=3
    )
    return result, capsys.readouterr().out, before, model


def test_training_learns_a_toy_problem(training, loader):
    _, _, before, after = training
    assert calc_accuracy_loader(loader, before, CPU) < calc_accuracy_loader(loader, after, CPU) == 1


def test_training_lowers_the_loss(training):
    train_losses, val_losses, *_ = training[0]
    assert train_losses[-1] < 0.5 * train_losses[0] and val_losses[-1] < 0.5 * val_losses[0]


def test_training_evaluates_each_tenth_step_and_each_epoch(training):
    train_losses, val_losses, train_accs, val_accs, _ = training[0]
    assert [len(values) for values in (train_losses, val_losses, train_accs, val_accs)] == [3, 3, 10, 10]


def test_training_counts_the_examples(training):
    assert training[0][-1] == 100


def test_training_prints_the_published_lines(training):
    result, output, *_ = training
    lines = output.splitlines()
    evaluation = r"Ep (\d+) \(Step (\d{6})\): Train loss \d\.\d{3}, Val loss \d\.\d{3}"
    steps = [match.groups() for match in (re.fullmatch(evaluation, line) for line in lines) if match]
    accuracy = r"Training accuracy: \d+\.\d\d% \| Validation accuracy: \d+\.\d\d%"
    assert steps == [("1", "000000"), ("4", "000010"), ("7", "000020")]
    assert sum(bool(re.fullmatch(accuracy, line)) for line in lines) == len(lines) - 3 == 10


def test_training_changes_only_what_is_trainable(model, loader):
    freeze_all_layers(model)
    unfreeze_last_block(model)
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    train_classifier_simple(model, loader, loader, optimizer, CPU, num_epochs=1, eval_freq=10, eval_iter=1)
    changed = {
        name.split(".")[0] + name.split(".")[1] * name.startswith("trf_blocks")
        for (name, a), b in zip(model.named_parameters(), before.parameters())
        if not torch.equal(a, b)
    }
    assert changed == {"trf_blocks1", "final_norm"}


TRAIN = """
import torch
from torch.utils.data import DataLoader
from classification import train_classifier_simple

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Embedding(4, 2)

    def forward(self, ids):
        return self.scores(ids)

model = Model()
loader = DataLoader([(torch.tensor([1, 2]), torch.tensor(1))] * 3)
optimizer = torch.optim.AdamW(model.parameters())
train_classifier_simple(model, loader, loader, optimizer, torch.device("cpu"), 2, 1, 1)
"""


def test_training_shows_a_progress_bar(run_python):
    process = run_python("-c", TRAIN, TQDM_DISABLE="")
    assert "Epoch 1: " in process.stderr and "Epoch 2: " in process.stderr


def test_progress_bar_can_be_turned_off(run_python):
    process = run_python("-c", TRAIN, TQDM_DISABLE="1")
    assert process.stdout.count("Train loss") == 6 and process.stderr == ""


@pytest.mark.parametrize("name", MODEL_CONFIGS)
def test_only_the_embedded_checkpoint_has_its_own_learning_rate(name):
    learning_rate = 1e-3 if name == "gpt2-mini (10M)" else 5e-5
    assert fine_tuning_settings(name) == {"lr": learning_rate, "weight_decay": 0.1}


@pytest.fixture
def fine_tune_tiny(model, loader, monkeypatch):
    """A function that runs ``fine_tune`` on the tiny model and ten shuffled examples."""
    before = copy.deepcopy(model)
    loaders = [DataLoader(loader.dataset, batch_size=4, shuffle=True) for _ in range(3)]
    monkeypatch.setattr(classification, "load_messages", lambda name, data: (None, loaders))

    def run(**arguments):
        monkeypatch.setattr(classification, "build_classifier", lambda name, folder: copy.deepcopy(before))
        return fine_tune("gpt2-small (124M)", "sample", CPU, **arguments)

    return run


def same_values(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_fine_tuning_has_the_published_settings_and_draws(fine_tune_tiny, model):
    tuned, (train_loader, val_loader, _), history = fine_tune_tiny()
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    expected = train_classifier_simple(model, train_loader, val_loader, optimizer, CPU, 5, 50, 5)
    assert history == expected and same_values(tuned, model)


def test_fine_tuning_takes_other_settings(fine_tune_tiny):
    slow, _, history = fine_tune_tiny(num_epochs=1)
    fast, *_ = fine_tune_tiny(num_epochs=1, learning_rate=1e-2)
    assert history[-1] == 10 and not same_values(slow, fast)


def test_fine_tuning_refuses_messages_that_the_model_cannot_read(monkeypatch):
    monkeypatch.setattr(classification, "model_config", lambda name: {"context_length": 5})
    with pytest.raises(ValueError, match="has 88 tokens, the model reads at most 5"):
        fine_tune("gpt2-mini (10M)", "sample", CPU)


# ---------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------


@pytest.fixture
def saved(model, tmp_path, monkeypatch):
    """The file of the tiny classifier."""
    monkeypatch.setitem(MODEL_CONFIGS, "tiny", CONFIG)
    path = tmp_path / "made" / "tiny.safetensors"
    save_classifier(path, model, "tiny", "sample", max_length=12, threshold=0.25)
    return path


def test_loaded_classifier_is_the_saved_one(saved, model):
    loaded, settings = load_classifier(saved)
    assert same_values(loaded, model) and len(list(loaded.parameters())) == len(list(model.parameters()))
    assert settings == {
        "model": "tiny",
        "data": "sample",
        "max_length": 12,
        "threshold": 0.25,
        "class_names": ["not spam", "spam"],
    }


def test_loaded_classifier_is_frozen_and_in_evaluation_mode(saved):
    loaded, _ = load_classifier(saved)
    assert not loaded.training and trainable(loaded) == 0


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    load_classifier(saved)
    assert torch.equal(torch.rand(1), expected)


def test_failed_saving_leaves_the_former_file(saved, model, monkeypatch):
    before = saved.read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(classification, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_classifier(saved, model, "tiny", "sample", max_length=12)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


def test_missing_classifier_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no classifier .*none.safetensors"):
        load_classifier(tmp_path / "none.safetensors")


def test_cut_classifier_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ValueError, match="tiny.safetensors is damaged.*Make it anew"):
        load_classifier(saved)


def test_file_that_is_no_safetensors_file_is_refused(saved):
    saved.write_text("SUBJECT: you won")
    with pytest.raises(ValueError, match="tiny.safetensors is damaged"):
        load_classifier(saved)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("model", None, "metadata lack model"),
        ("model", "gpt2-huge", "Unknown model 'gpt2-huge'"),
        ("max_length", "17", "max_length is 17, not between 1 and 16"),
        ("max_length", "long", "'long'"),
        ("threshold", "1.5", "threshold is 1.5, not between 0 and 1"),
        ("threshold", "nan", "threshold is nan"),
        ("class_names", '["spam"]', "not a list of two names"),
        ("class_names", "spam", "damaged or was not saved"),
    ],
)
def test_impossible_metadata_are_named(saved, key, value, message):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata() | {key: value}
    tensors = load_file(saved)
    save_file(tensors, saved, {key: value for key, value in metadata.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        load_classifier(saved)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_wrong_tensors_are_named(saved, change):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    if change == "missing":
        del tensors["out_head.bias"]
    else:
        tensors["out_head.bias"] = torch.zeros(3)
    save_file(tensors, saved, metadata)
    with pytest.raises(ValueError, match="(?s)damaged or was not saved.*out_head.bias"):
        load_classifier(saved)


# ---------------------------------------------------------------------------------
# Classifying a text
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("label, name", [(0, "not spam"), (1, "spam")])
def test_labels_have_names(model, tokenizer, label, name):
    assert classify_review("You are a winner", always(model, label), tokenizer, CPU) == name


@pytest.fixture
def read_by(model, tokenizer):
    """A function that gives the token IDs that the model reads for a text."""

    def run(text, **arguments):
        read = []
        hook = model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].tolist()))
        classify_review(text, model, tokenizer, CPU, **arguments)
        hook.remove()
        (ids,) = read[0]
        return ids

    return run


def test_text_is_read_without_padding(read_by):
    assert read_by("Do you have time") == [5211, 345, 423, 640]


def test_text_is_padded_to_the_length_asked_for(read_by):
    assert read_by("Do you have time", max_length=6) == [5211, 345, 423, 640, 50256, 50256]


def test_padding_token_can_be_chosen(read_by):
    assert read_by("Do you have time", max_length=5, pad_token_id=0) == [5211, 345, 423, 640, 0]


def test_text_is_cut_to_the_length_asked_for(read_by):
    assert read_by("Do you have time", max_length=2) == [5211, 345]


def test_text_beyond_the_context_is_cut(read_by):
    assert len(read_by("time " * 100)) == 16


def test_empty_text_is_read_as_one_padding_token(read_by):
    assert read_by("") == [50256]


def test_end_of_text_is_ordinary_text(read_by, tokenizer):
    ids = read_by("a<|endoftext|>")
    assert 50256 not in ids and tokenizer.decode(ids) == "a<|endoftext|>"


@pytest.mark.parametrize("max_length", [17, 0, -1])
def test_impossible_length_is_named(model, tokenizer, max_length):
    with pytest.raises(ValueError, match=f"max_length is {max_length};.*context length 16"):
        classify_review("Do you have time", model, tokenizer, CPU, max_length=max_length)


def test_classifying_leaves_the_model_in_evaluation_mode(model, tokenizer):
    classify_review("Do you have time", model.train(), tokenizer, CPU)
    assert not model.training


TEXTS = ["Do you have time", "", "You are a winner", "time " * 100, "a<|endoftext|>", "Do you have time"]


def one_by_one(texts, model, tokenizer, max_length=None):
    """Probability of spam of each text, from the token IDs that ``classify_review`` reads."""
    read = []
    hook = model.register_forward_hook(lambda _, inputs, output: read.append(output[0, -1]))
    for text in texts:
        classify_review(text, model, tokenizer, CPU, max_length)
    hook.remove()
    return torch.softmax(torch.stack(read), dim=-1)[:, 1]


@pytest.mark.parametrize("max_length", [None, 6])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batched_probabilities_are_those_one_by_one(model, tokenizer, max_length, batch_size):
    expected = one_by_one(TEXTS, model, tokenizer, max_length)
    found = spam_probabilities(TEXTS, model, tokenizer, CPU, max_length, batch_size=batch_size)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert expected[:4].unique().numel() == 4  # a mixed-up order would show


def test_no_batch_is_larger_than_asked_for(model, tokenizer):
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    spam_probabilities(TEXTS, model, tokenizer, CPU, max_length=6, batch_size=4)
    assert sizes == [(4, 6), (2, 6)]


def test_no_texts_have_no_probabilities(model, tokenizer):
    assert spam_probabilities([], model, tokenizer, CPU).shape == (0,)


def test_probabilities_leave_the_model_in_evaluation_mode(model, tokenizer):
    spam_probabilities(["time"], model.train(), tokenizer, CPU)
    assert not model.training


def test_interface_answers_each_change(model, tokenizer):
    text, slider, answer = message_interface(model, tokenizer, CPU, max_length=6, threshold=0).children
    answers = [answer.value]
    text.value = "Do you have time"
    answers.append(answer.value)
    slider.value = 1
    answers.append(answer.value)
    first, second = one_by_one(["You are a winner", "Do you have time"], model, tokenizer, 6).tolist()
    assert answers == [
        f"{name} (probability of spam {probability:.2f})"
        for name, probability in [("spam", first), ("spam", second), ("not spam", second)]
    ]


def test_long_message_set_is_refused_by_a_model_with_a_short_context(model, tokenizer):
    loader = DataLoader([(torch.zeros(17, dtype=torch.int64), torch.tensor(0))])
    with pytest.raises(ValueError, match="17 tokens.*context length is 16"):
        calc_accuracy_loader(loader, model, CPU)


# ---------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------

RESULTS = r"""{model} on the {data} data, cpu: messages padded to \d+ tokens
Training accuracy: \d+\.\d\d%
Validation accuracy: \d+\.\d\d%
Test accuracy: \d+\.\d\d%
Training loss: \d+\.\d\d\d
Validation loss: \d+\.\d\d\d
Test loss: \d+\.\d\d\d
"""


def test_command_line_prints_six_results_for_the_sample(run_python, embedded_load, tmp_path):
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)
    arguments = ["initial", "--model", "gpt2-mini (10M)", "--data", "sample", "--device", "cpu"]
    process = run_python(classification.__file__, *arguments)
    assert re.fullmatch(RESULTS.format(model=r"gpt2-mini \(10M\)", data="sample"), process.stdout)


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """A function that does what ``python text_classifier.py ...`` does, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["text_classifier.py", *map(str, arguments)])
        classification.main()

    return run


def test_command_line_prints_six_results_for_the_uci_messages(
    command_line, embedded_load, uci_mirror, tmp_path, monkeypatch, capsys
):
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)
    monkeypatch.setenv("SPAM_MIRROR", uci_mirror)
    command_line("initial", "--model", "gpt2-mini (10M)", "--data", "uci", "--device", "cpu")
    lines = capsys.readouterr().out.split("\n", 1)[1]  # the first one says where the messages were saved
    assert re.fullmatch(RESULTS.format(model=r"gpt2-mini \(10M\)", data="uci"), lines)


@pytest.mark.parametrize(
    "command, option, value",
    [
        ("initial", "--model", "gpt2-tiny"),
        ("initial", "--data", "mail"),
        ("initial", "--device", "abacus"),
        ("finetune", "--model", "gpt2-tiny"),
        ("finetune", "--data", "mail"),
        ("finetune", "--epochs", "0"),
        ("finetune", "--epochs", "1.5"),
        ("finetune", "--learning-rate", "0"),
        ("finetune", "--learning-rate", "nan"),
        ("classify", "--threshold", "1.01"),
        ("classify", "--threshold", "-0.1"),
        ("classify", "--threshold", "high"),
        ("classify", "--device", "abacus"),
    ],
)
def test_command_line_names_an_impossible_value(command_line, capsys, command, option, value):
    with pytest.raises(SystemExit) as exit:
        command_line(command, f"{option}={value}")
    error = capsys.readouterr().err
    assert exit.value.code == 2 and f"argument {option}" in error and f"'{value}'" in error


@pytest.mark.parametrize("command", ["initial", "finetune"])
@pytest.mark.parametrize("variable, value", [("CHOOSE_MODEL", "gpt2-tiny"), ("CHOOSE_DATA", "mail")])
def test_command_line_names_an_unknown_value_of_a_variable(
    command_line, monkeypatch, command, variable, value
):
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"Error: .*'{value}'"):
        command_line(command)


# ---------------------------------------------------------------------------------
# Command line: fine-tuning
# ---------------------------------------------------------------------------------


def run_finetune(folder, models_dir, *more):
    """Run one epoch of ``finetune`` in a folder; returns what it printed."""
    (folder / "gpt2").symlink_to(models_dir)
    arguments = ["--model", "gpt2-mini (10M)", "--data", "sample", "--device", "cpu", "--epochs", "1", *more]
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["text_classifier.py", "finetune", *arguments])
        classification.main()
    return output.getvalue()


@pytest.fixture(scope="module")
def finetuned(embedded_load, tmp_path_factory):
    """What one epoch of ``finetune`` printed, and the folder where it ran."""
    folder = tmp_path_factory.mktemp("finetuned")
    return run_finetune(folder, embedded_load.models_dir), folder


FINETUNED = r"""Ep 1 \(Step 000000\): Train loss .*, Val loss .*
Ep 1 \(Step 000050\): Train loss .*, Val loss .*
Training accuracy: .*% \| Validation accuracy: .*%
Accuracy on the whole sets:
Training accuracy: \d+\.\d\d%
Validation accuracy: \d+\.\d\d%
Test accuracy: \d+\.\d\d%
Saved as classifiers/gpt2-mini-10M-sample.safetensors
"""


def test_finetune_prints_its_results(finetuned):
    assert re.fullmatch(FINETUNED, finetuned[0])


def test_finetune_saves_the_classifier_that_it_measured(finetuned, sample_loaders):
    output, folder = finetuned
    model, settings = load_classifier(folder / "classifiers" / "gpt2-mini-10M-sample.safetensors")
    accuracy = calc_accuracy_loader(sample_loaders[2], model, CPU)
    assert f"Test accuracy: {accuracy * 100:.2f}%" in output
    assert (settings["model"], settings["data"]) == ("gpt2-mini (10M)", "sample")
    assert settings["max_length"] == sample_loaders[0].dataset.max_length and settings["threshold"] == 0.5


def test_finetune_on_cached_activations_gives_the_same_in_less_work(
    finetuned, embedded_load, sample_loaders, tmp_path, monkeypatch
):
    batches_read = []
    monkeypatch.setattr(
        classification.GPTModel, "forward", counted(classification.GPTModel.forward, batches_read)
    )
    printed = run_finetune(tmp_path, embedded_load.models_dir, "--cached")
    assert len(batches_read) == sum(map(len, sample_loaders))  # at the end; no step of the training
    assert re.sub(r"\d\.\d{3}", "", printed) == re.sub(r"\d\.\d{3}", "", finetuned[0])
    losses, expected = (re.findall(r"\d\.\d{3}", text) for text in (printed, finetuned[0]))
    assert [float(loss) for loss in losses] == pytest.approx([float(loss) for loss in expected], abs=0.002)

    one, other = (
        load_classifier(folder / "classifiers" / "gpt2-mini-10M-sample.safetensors")[0].state_dict()
        for folder in (tmp_path, finetuned[1])
    )
    for name, value in one.items():
        if not name.endswith("W_key.bias"):  # no output depends on it: notebook 11
            torch.testing.assert_close(value, other[name], rtol=0, atol=1e-4)


def counted(function, calls):
    """The function, noting its calls."""

    def run(*args):
        calls.append(args)
        return function(*args)

    return run


def test_cached_activations_are_for_one_process(monkeypatch):
    monkeypatch.setattr(classification, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match="for one process. Leave out either --cached or torchrun"):
        fine_tune("gpt2-mini (10M)", "sample", CPU, cached=True)


def test_default_name_tells_model_and_data():
    paths = {default_classifier_path(name, data) for name in MODEL_CONFIGS for data in ("uci", "sample")}
    assert len(paths) == 2 * len(MODEL_CONFIGS)
    assert str(default_classifier_path("gpt2-small (124M)", "uci").name) == "gpt2-small-124M-uci.safetensors"


@pytest.mark.parametrize("output, message", [(".", "is a folder"), ("file/x.safetensors", "Error: .*file")])
def test_impossible_output_is_named_before_training(command_line, tmp_path, monkeypatch, output, message):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(classification, "fine_tune", lambda *args, **more: pytest.fail("It trained first."))
    with pytest.raises(SystemExit, match=message):
        command_line(
            "finetune", "--model", "gpt2-mini (10M)", "--data", "sample", "--output", tmp_path / output
        )


# ---------------------------------------------------------------------------------
# Command line: classifying
# ---------------------------------------------------------------------------------


@pytest.fixture
def classify(command_line, saved, capsys, monkeypatch):
    """A function that runs ``classify`` with the tiny classifier: {"lines": ..., "notes": ...}."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        command_line("classify", "--classifier", saved, "--device", "cpu", *arguments)
        printed = capsys.readouterr()
        return {"lines": printed.out.splitlines(), "notes": printed.err}

    return run


def expected_lines(texts, path, tokenizer, threshold=0.25):
    model, settings = load_classifier(path)
    probabilities = one_by_one(texts, model, tokenizer, settings["max_length"]).tolist()
    names = ["spam" if p >= threshold else "not spam" for p in probabilities]
    return [f"{name}\t{p:.4f}\t{text}" for name, p, text in zip(names, probabilities, texts)]


MESSAGES = ["Do you have time", "You are a winner", "See you at eight"]


def test_classify_prints_class_probability_and_text(classify, saved, tokenizer):
    assert classify(*MESSAGES)["lines"] == expected_lines(MESSAGES, saved, tokenizer)


@pytest.mark.parametrize("threshold, name", [("0", "spam"), ("1", "not spam")])
def test_threshold_can_be_chosen(classify, threshold, name):
    lines = classify(*MESSAGES, "--threshold", threshold)["lines"]
    assert [line.split("\t")[0] for line in lines] == [name] * 3


def test_threshold_of_the_file_is_the_default(classify, saved, tokenizer, model):
    (probability,) = one_by_one(MESSAGES[:1], model, tokenizer, 12).tolist()
    names = []
    for threshold in (probability - 0.01, probability + 0.01):
        save_classifier(saved, model, "tiny", "sample", max_length=12, threshold=threshold)
        names.append(classify(MESSAGES[0])["lines"][0].split("\t")[0])
    assert names == ["spam", "not spam"]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(MESSAGES),
        "\n".join(MESSAGES) + "\n",
        "\r\n".join(MESSAGES) + "\r\n",
        "\ufeff" + "\n\n  \n".join(MESSAGES) + "\n\n",
    ],
    ids=["no last line end", "Linux", "Windows", "byte-order mark and blank lines"],
)
@pytest.mark.parametrize("source", ["file", "-"])
def test_messages_come_from_a_file_or_the_standard_input(
    classify, saved, tokenizer, tmp_path, content, source
):
    (tmp_path / "file").write_bytes(content.encode())
    result = classify("--file", source, stdin=content.encode() if source == "-" else b"")
    assert result["lines"] == expected_lines(MESSAGES, saved, tokenizer)


def test_a_line_for_each_text_with_several_lines(classify):
    assert [line.split("\t")[2] for line in classify("one\ntwo")["lines"]] == ["one two"]


def test_accents_and_other_scripts_are_text(classify, tmp_path):
    (tmp_path / "file").write_bytes("Grüße, 好 😀\n".encode())
    assert classify("--file", "file")["lines"][0].endswith("\tGrüße, 好 😀")


def test_cut_message_is_reported(classify):
    result = classify("short", " time" * 12, " time" * 13)
    assert len(result["lines"]) == 3
    assert result["notes"].count("was cut") == 1
    assert re.search(r"Message 3 was cut: it has 13 tokens, the classifier reads 12\.", result["notes"])


def test_classifier_in_use_is_named(classify, saved):
    assert f"{saved}: tiny, fine-tuned on sample; threshold 0.25" in classify("time")["notes"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "file has no messages"),
        (b"\n \n", "file has no messages"),
        (b"fine\ncaf\xe9\n", "file is not a text in UTF-8: line 2"),
        (None, "No such file.*file"),
    ],
)
def test_unusable_file_is_named(classify, tmp_path, content, message):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(SystemExit, match=f"Error: .*{message}"):
        classify("--file", "file")


def test_empty_standard_input_is_named(classify):
    with pytest.raises(SystemExit, match="standard input has no messages"):
        classify("--file", "-")


@pytest.mark.parametrize("arguments", [[], ["text", "--file", "file"]])
def test_either_texts_or_a_file(classify, capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        classify(*arguments)
    assert exit.value.code == 2 and "either texts or --file, not both" in capsys.readouterr().err


def test_without_a_classifier_the_command_that_makes_one_is_named(command_line):
    with pytest.raises(SystemExit, match="no classifier .*python text_classifier.py finetune"):
        command_line("classify", "Do you have time")


def test_newest_classifier_is_the_default(command_line, saved, tmp_path, capsys, model):
    (tmp_path / "classifiers").mkdir()
    for number, name in enumerate(["b", "c", "a"]):
        path = tmp_path / "classifiers" / f"{name}.safetensors"
        path.write_bytes(saved.read_bytes())
        os.utime(path, (number, number))
    assert newest_classifier().name == "a.safetensors"
    command_line("classify", "Do you have time", "--device", "cpu")
    assert "classifiers/a.safetensors" in capsys.readouterr().err


def test_exit_status_of_the_process(run_python, tmp_path):
    process = run_python(classification.__file__, "classify", "Do you have time")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr.startswith("Error: There is no classifier")
    assert "Traceback" not in process.stderr
