"""classification.py: head, freezing, accuracy, loss, training, saving, and use."""

import ast
import copy
import json
import math
import re
from pathlib import Path

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
    fine_tune,
    fine_tuning_settings,
    freeze_all_layers,
    load_classifier,
    load_pretrained_model,
    save_classifier,
    spam_probabilities,
    train_classifier_simple,
    unfreeze_last_block,
)
from devices import usable_devices
from files import atomic_file
from gpt_download import download_and_load_gpt2
from previous_chapters import MODEL_CONFIGS, GPTModel, load_weights_into_gpt, model_config

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


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


def test_pretrained_model_has_the_weights_that_loading_gives(embedded_load):
    name, models_dir = "gpt2-mini (10M)", embedded_load.models_dir
    state = torch.get_rng_state()
    model = load_pretrained_model(name, models_dir)
    assert torch.equal(torch.get_rng_state(), state)  # no random values first
    expected = GPTModel(model_config(name))
    load_weights_into_gpt(expected, download_and_load_gpt2("10M", models_dir)[1])
    assert not model.training and str(model) == str(expected)
    for (name, found), other in zip(model.named_parameters(), expected.parameters()):
        assert torch.equal(found, other) and found.is_contiguous() and found.requires_grad, name


def test_training_a_pretrained_model_changes_neither_its_file_nor_another_layer(embedded_load):
    model = load_pretrained_model("gpt2-mini (10M)", embedded_load.models_dir)
    with torch.no_grad():
        model.out_head.weight.zero_()
        model.trf_blocks[0].ff.layers[0].weight.zero_()
    assert model.tok_emb.weight.abs().sum() > 0
    again = load_pretrained_model("gpt2-mini (10M)", embedded_load.models_dir)
    assert again.out_head.weight.abs().sum() > 0
    assert again.trf_blocks[0].ff.layers[0].weight.abs().sum() > 0


def test_classifier_is_built_the_same_each_time(embedded_load):
    first = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    torch.rand(7)
    second = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    assert same_values(first, second)
    assert not first.training and trainable(first) == 309_922


def same_values(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


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


SOME_OR_ALL = pytest.mark.parametrize("num_batches, read", [(None, 3), (2, 2), (99, 3)])


@SOME_OR_ALL
@torch.no_grad()
def test_loader_loss_is_the_mean_of_the_batch_losses(model, loader, num_batches, read):
    losses = [calc_loss_batch(texts, labels, model, CPU).item() for texts, labels in loader][:read]
    assert calc_loss_loader(loader, model, CPU, num_batches) == pytest.approx(sum(losses) / read)


def test_loss_of_an_empty_loader_is_nan(model, empty_loader):
    assert math.isnan(calc_loss_loader(empty_loader, model, CPU))


@SOME_OR_ALL
def test_accuracy_is_the_share_of_right_answers(model, loader, num_batches, read):
    labels = torch.cat([labels for _, labels in list(loader)[:read]])
    found = calc_accuracy_loader(loader, always(model, 1), CPU, num_batches)
    assert found == labels.sum().item() / len(labels)


def test_accuracy_counts_an_incomplete_batch_by_its_examples(model):
    labels = [1, 1, 1, 1, 0]
    loader = DataLoader([(torch.tensor([5]), torch.tensor(label)) for label in labels], batch_size=4)
    assert calc_accuracy_loader(loader, always(model, 1), CPU) == 0.8


def test_accuracy_of_an_empty_loader_is_an_error(model, empty_loader):
    with pytest.raises(ZeroDivisionError):
        calc_accuracy_loader(empty_loader, model, CPU)


def test_accuracy_leaves_the_model_in_evaluation_mode_and_loss_in_its_own(model, loader):
    calc_loss_loader(loader, model.train(), CPU)
    assert model.training
    calc_accuracy_loader(loader, model, CPU)
    assert not model.training


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


# What a training of a lesson imports, and whether it shows its bar, can be seen in a process of its own only.
TRAIN = """
import sys
import torch
from torch.utils.data import DataLoader
from classification import train_classifier_simple

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Embedding(4, 2)

    def forward(self, ids):
        return self.scores(ids)

class Optimizer:  # one of PyTorch's would import its compiler, which takes a second
    def zero_grad(self):
        pass

    step = zero_grad

loader = DataLoader([(torch.tensor([1, 2]), torch.tensor(1))] * 3)
train_classifier_simple(Model(), loader, loader, Optimizer(), torch.device("cpu"), 2, 1, 1)
print(*[module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)], sep="\\n")
"""


def test_training_shows_a_progress_bar(run_python):
    process = run_python("-c", TRAIN, TQDM_DISABLE="")
    assert "Epoch 1: " in process.stderr and "Epoch 2: " in process.stderr


def test_training_without_a_bar_imports_neither_a_parser_of_commands_nor_distributed_code(run_python):
    process = run_python("-c", TRAIN, TQDM_DISABLE="1")
    assert process.stdout.count("Train loss") == 6 and process.stderr == ""
    ours = [path for path in map(Path, process.stdout.splitlines()) if path.parent == ROOT]
    assert {"classification.py", "edition.py", "previous_chapters.py"} <= {path.name for path in ours}
    for path in ours:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"argparse", "torch.distributed"} & set(names), path.name


@pytest.mark.parametrize("name", MODEL_CONFIGS)
def test_only_the_embedded_checkpoint_has_its_own_learning_rate(name):
    learning_rate = 1e-3 if name == "gpt2-mini (10M)" else 5e-5
    assert fine_tuning_settings(name) == {"lr": learning_rate, "weight_decay": 0.1, "fused": True}


@pytest.fixture
def fine_tune_tiny(model, loader, monkeypatch):
    """A function that runs ``fine_tune`` on the tiny model and ten shuffled examples."""
    before = copy.deepcopy(model)
    loaders = [DataLoader(loader.dataset, batch_size=4, shuffle=True) for _ in range(3)]
    monkeypatch.setattr(classification, "load_messages", lambda name, data: loaders)

    def run(**arguments):
        monkeypatch.setattr(classification, "build_classifier", lambda name, folder: copy.deepcopy(before))
        return fine_tune("gpt2-small (124M)", "sample", CPU, **arguments)

    return run


def test_fine_tuning_has_the_settings_and_draws_of_notebook_08(fine_tune_tiny, model):
    tuned, (train_loader, val_loader, _), history = fine_tune_tiny()
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1, fused=True)
    expected = train_classifier_simple(model, train_loader, val_loader, optimizer, CPU, 5, 50, 5)
    assert history == expected and same_values(tuned, model)


@pytest.mark.parametrize("device", usable_devices())
def test_settings_make_the_steps_of_the_published_optimizer(model, device):
    settings = fine_tuning_settings("gpt2-small (124M)")
    published, ours = model.to(device), copy.deepcopy(model).to(device)
    optimizers = (
        torch.optim.AdamW(published.parameters(), lr=5e-5, weight_decay=0.1),  # step by step
        torch.optim.AdamW(ours.parameters(), **settings),
    )
    ids, labels = torch.arange(8, device=device).reshape(2, 4), torch.tensor([0, 1], device=device)
    start = copy.deepcopy(published.state_dict())
    for _ in range(20):
        for network, optimizer in zip((published, ours), optimizers):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(ids)[:, -1, :], labels).backward()
            optimizer.step()
    assert not torch.equal(published.out_head.weight, start["out_head.weight"])
    for name, value in ours.state_dict().items():
        if "W_key.bias" not in name:  # its gradient is rounding error (notebook 11)
            assert torch.allclose(value, published.state_dict()[name], atol=1e-5), name


def test_fine_tuning_takes_other_settings(fine_tune_tiny):
    slow, _, history = fine_tune_tiny(num_epochs=1)
    fast, *_ = fine_tune_tiny(num_epochs=1, learning_rate=1e-2)
    assert history[-1] == 10 and not same_values(slow, fast)


def test_fine_tuning_refuses_messages_that_the_model_cannot_read(monkeypatch):
    monkeypatch.setattr(classification, "model_config", lambda name: {"context_length": 5})
    with pytest.raises(ValueError, match=r"has \d+ tokens, the model reads at most 5"):
        fine_tune("gpt2-mini (10M)", "sample", CPU)


# ---------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------


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

    def fail(path, *others):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(classification, "write_tensors", fail)
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
        ("class_names", '["spam"]', "not a list of 2 to 1000 names"),
        ("class_names", json.dumps(["x"] * 1001), "not a list of 2 to 1000 names"),
        ("class_names", '{"0": "ham", "1": "spam"}', "not a list"),
        ("class_names", "spam", "damaged or was not saved"),
        ("class_names", "[" * 100_000, "damaged or was not saved"),
        ("class_names", '["ham", 1]', "1 is no name"),
        ("class_names", '["ham", "  "]', "'  ' is no name"),
        ("class_names", r'["ham", "spam\t1.0000\thello\nham"]', r"'spam\\t1.0000\\thello\\nham' is no name"),
        ("data", "sms\x1b[2J", r"'sms\\x1b\[2J' is no name"),
        ("accuracies", "high", "damaged or was not saved"),
    ],
)
def test_impossible_metadata_are_named(saved, key, value, message):
    def settings(metadata):
        return {key: value for key, value in metadata.items() if value is not None}

    change_file(saved, lambda tensors, metadata: (tensors, settings(metadata | {key: value})))
    with pytest.raises(ValueError, match=message):
        load_classifier(saved)


def change_file(path, change):
    """Give a file the tensors and the metadata that ``change`` makes of its own."""
    with safe_open(path, framework="pt") as file:
        tensors, metadata = change(load_file(path), file.metadata())
    save_file(tensors, path, metadata)


BIAS, HEAD = "trf_blocks.0.norm1.shift", "out_head.weight"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"out_head.bias": None}, "missing or unknown tensors: out_head.bias"),
        ({BIAS: None}, f"missing or unknown tensors: {BIAS}"),
        ({"tok_emb.weight": None, "out_head.bias": None}, "missing or unknown tensors: out_head.bias"),
        ({"extra.weight": torch.zeros(3)}, "missing or unknown tensors: extra.weight"),
        ({"out_head.bias": torch.zeros(3)}, "size mismatch for out_head.bias"),
        ({HEAD: torch.full((2, 8), torch.nan)}, f"{HEAD} holds NaN or infinity.*Make it anew"),
        ({BIAS: torch.full((8,), -torch.inf)}, f"{BIAS} holds NaN or infinity"),
        ({BIAS: torch.zeros(8).half()}, r"\['float16', 'float32'\], not all float32 or all float16"),
        ({BIAS: torch.zeros(8, dtype=torch.int64)}, "'int64'"),
    ],
)
def test_wrong_tensors_are_named(saved, change, message):
    def changed(tensors, metadata):
        return {key: value for key, value in {**tensors, **change}.items() if value is not None}, metadata

    change_file(saved, changed)
    with pytest.raises(ValueError, match=f"(?s)tiny.safetensors is damaged or was not saved.*{message}"):
        load_classifier(saved)


def test_classifier_has_up_to_a_thousand_classes(saved, model):
    add_classification_head(model, num_classes=3)
    save_classifier(saved, model, "tiny", "mail.csv", 12, class_names=["ham", "Spam & Cie", "späm"])
    loaded, settings = load_classifier(saved)
    assert loaded.out_head.out_features == 3 and settings["class_names"] == ["ham", "Spam & Cie", "späm"]


def test_accuracies_are_kept(saved, model):
    save_classifier(saved, model, "tiny", "sample", 12, accuracies={"test": 0.95})
    assert load_classifier(saved)[1]["accuracies"] == {"test": 0.95}


@pytest.mark.parametrize(
    "value, max_length, message", [(1.0, 17, "max_length is 17"), (math.nan, 12, "out_head.bias holds NaN")]
)
def test_what_could_not_be_loaded_is_not_saved(saved, model, value, max_length, message):
    before = saved.read_bytes()
    with torch.no_grad():
        model.out_head.bias[0] = value
    with pytest.raises(ValueError, match=message):
        save_classifier(saved, model, "tiny", "sample", max_length)
    assert saved.read_bytes() == before


def test_file_that_is_protected_from_writing_stays(saved, model):
    before = saved.read_bytes()
    saved.chmod(0o400)
    with pytest.raises(PermissionError, match="tiny.safetensors is protected from writing"):
        save_classifier(saved, model, "tiny", "mail", max_length=12)
    assert saved.read_bytes() == before


KILLED = """
import os, signal, sys
import classification
from previous_chapters import MODEL_CONFIGS, GPTModel, model_config

def killed(path, *others):
    path.write_bytes(b"half")
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

classification.write_tensors = killed
MODEL_CONFIGS["tiny"] = {"emb_dim": 8, "n_heads": 2, "n_layers": 2}
classification.save_classifier(sys.argv[1], GPTModel(model_config("tiny")), "tiny", "sample", 12)
"""


def test_what_a_killed_save_leaves_goes_with_the_next_save(saved, model, run_python):
    before = saved.read_bytes()
    run_python("-c", KILLED, saved)
    (leftover,) = set(saved.parent.iterdir()) - {saved}
    assert leftover.read_bytes() == b"half" and saved.read_bytes() == before
    save_classifier(saved, model, "tiny", "mail", max_length=12)
    assert list(saved.parent.iterdir()) == [saved]


def test_two_that_write_one_file_leave_each_other_alone(tmp_path):
    with atomic_file(tmp_path / "file") as one:
        one.write_text("one")
        with atomic_file(tmp_path / "file") as other:
            other.write_text("other")
        assert (tmp_path / "file").read_text() == "other"
    assert (tmp_path / "file").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def only_trained(embedded_load, tmp_path):
    """A classifier on the embedded checkpoint, and a file with what of it is trainable."""
    model = build_classifier("gpt2-mini (10M)", embedded_load.models_dir)
    path = tmp_path / "small.safetensors"
    save_classifier(path, model, "gpt2-mini (10M)", "sample", 88, only_trained=True)
    return model, path


def test_only_what_was_trained_can_be_saved(only_trained, embedded_load):
    model, path = only_trained
    expected = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.rpartition(".")[0] for name in expected} >= {"trf_blocks.5.norm1", "final_norm", "out_head"}
    tensors = load_file(path)
    assert tensors.keys() == expected and {value.dtype for value in tensors.values()} == {torch.float16}
    assert path.stat().st_size < 2 * trainable(model) + 4096

    loaded, settings = load_classifier(path, embedded_load.models_dir)
    assert settings["max_length"] == 88 and trainable(loaded) == 0 and not loaded.training
    for (name, found), saved in zip(loaded.named_parameters(), model.parameters()):
        assert torch.equal(found, saved.half().float() if name in expected else saved), name


def test_head_that_is_frozen_is_not_left_out(only_trained, tmp_path):
    freeze_all_layers(only_trained[0])
    with pytest.raises(ValueError, match="The head is frozen"):
        save_classifier(tmp_path / "x", only_trained[0], "gpt2-mini (10M)", "sample", 88, only_trained=True)


def test_missing_checkpoint_of_a_small_file_is_not_blamed_on_it(only_trained, tmp_path, monkeypatch):
    def fail(name, models_dir):
        raise OSError(f"no checkpoint in {models_dir}")

    monkeypatch.setattr(classification, "load_pretrained_model", fail)
    with pytest.raises(OSError, match=f"no checkpoint in {tmp_path}"):
        load_classifier(only_trained[1], tmp_path)


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


@pytest.mark.parametrize(
    "text, arguments, ids",
    [
        ("Do you have time", {}, [5211, 345, 423, 640]),  # no padding
        ("Do you have time", {"max_length": 6}, [5211, 345, 423, 640, 50256, 50256]),
        ("Do you have time", {"max_length": 5, "pad_token_id": 0}, [5211, 345, 423, 640, 0]),
        ("Do you have time", {"max_length": 2}, [5211, 345]),  # cut
        (" time" * 100, {}, [640] * 16),  # cut to the context
        ("", {}, [50256]),
    ],
)
def test_text_is_padded_and_cut(read_by, text, arguments, ids):
    assert read_by(text, **arguments) == ids


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


def test_interface_of_the_notebook_answers_each_change(model, tokenizer):
    notebook = json.loads((ROOT / "notebooks" / "09_using_the_classifier.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = {"spam_probabilities": spam_probabilities}
    exec(next(source for source in sources if "def message_interface" in source), names)
    interface = names["message_interface"](model, tokenizer, CPU, max_length=6, threshold=0)
    text, slider, answer = interface.children
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


def test_notebook_imports_what_its_text_field_calls_before_it_shows_it():
    """The pages leave the text field out, so that no execution of theirs would find a missing name."""
    notebook = json.loads((ROOT / "notebooks" / "09_using_the_classifier.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    imported, shown = "from classification import spam_probabilities", "display(message_interface("
    assert 0 < code.find(imported) < code.find(shown)


def test_long_message_set_is_refused_by_a_model_with_a_short_context(model, tokenizer):
    loader = DataLoader([(torch.zeros(17, dtype=torch.int64), torch.tensor(0))])
    with pytest.raises(ValueError, match="17 tokens.*context length is 16"):
        calc_accuracy_loader(loader, model, CPU)
