"""classification.py: head, freezing, accuracy, loss, training, use, and the command line."""

import copy
import math
import re
import sys

import pytest
import torch
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
    freeze_all_layers,
    load_pretrained_model,
    train_classifier_simple,
    unfreeze_last_block,
)
from gpt_download import download_and_load_gpt2
from previous_chapters import GPTModel, model_config

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
    """A function that does what ``python classification.py initial ...`` does, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["classification.py", "initial", *arguments])
        classification.main()

    return run


def test_command_line_prints_six_results_for_the_uci_messages(
    command_line, embedded_load, uci_mirror, tmp_path, monkeypatch, capsys
):
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)
    monkeypatch.setenv("SPAM_MIRROR", uci_mirror)
    command_line("--model", "gpt2-mini (10M)", "--data", "uci", "--device", "cpu")
    lines = capsys.readouterr().out.split("\n", 1)[1]  # the first one says where the messages were saved
    assert re.fullmatch(RESULTS.format(model=r"gpt2-mini \(10M\)", data="uci"), lines)


@pytest.mark.parametrize("option, value", [("--model", "gpt2-tiny"), ("--data", "mail")])
def test_command_line_names_an_unknown_value(command_line, capsys, option, value):
    with pytest.raises(SystemExit):
        command_line(option, value)
    assert f"invalid choice: '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize("variable, value", [("CHOOSE_MODEL", "gpt2-tiny"), ("CHOOSE_DATA", "mail")])
def test_command_line_names_an_unknown_value_of_a_variable(command_line, monkeypatch, variable, value):
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"'{value}'"):
        command_line()
