"""The command line on a table of one's own: finetune, evaluate, classify, export; and what stops it."""

import csv
import io
import json
import os
import shutil
import sys
import threading

import numpy as np
import pytest
import torch

import own_training
import streams
import text_classifier
from classification import END_OF_TEXT, load_classifier, save_classifier
from own_training import Texts, Training, build_own_classifier, loss_and_accuracy
from reading import EndOfTextClassifier, Reader, encode_texts
from streams import result_line

CPU = torch.device("cpu")
WORDS = {
    "politics": "parliament minister vote treaty",
    "sports": "goal team coach final",
    "technology": "phone chip robot update",
}


def news(count=20, names=WORDS):
    """Different short texts, each with two words of its class."""
    rows = []
    for name in names:
        words = WORDS.get(name, f"{name} {name}s").split()
        rows += [(f"{words[i % len(words)]} {words[i // 2 % len(words)]} {i}", name) for i in range(count)]
    return rows


@pytest.fixture
def finetune(command_line, tiny_pretrained, write_table, capsys):
    """A function that fine-tunes the tiny model on rows; returns (standard output, standard error)."""

    def run(rows, *options):
        path = rows if isinstance(rows, str) else write_table(rows)
        start = ["finetune", "--model", "tiny", "--data", path, "--device", "cpu", "--learning-rate", "0.01"]
        capsys.readouterr()
        command_line(*start, "--output", "x.safetensors", "--epochs", "2", *options)
        return capsys.readouterr()

    return run


# ---------------------------------------------------------------------------------
# finetune
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 20])
def test_any_number_of_classes_goes_all_the_way(finetune, command_line, capsys, num_classes):
    names = [*WORDS][:num_classes] if num_classes < 4 else [f"topic{i}" for i in range(num_classes)]
    printed, said = finetune(news(10, names))
    assert "Validation accuracy: " in printed and "95 % interval" in printed
    assert printed.endswith("Saved as x.safetensors\n") and f"{num_classes}  " in printed
    assert "Epoch 2: validation loss" in said and "guessed" in said

    model, settings = load_classifier("x.safetensors")
    assert settings["class_names"] == sorted(names) and settings["reads"] == END_OF_TEXT
    assert not model.out_head.bias.any()
    command_line("classify", "--classifier", "x.safetensors", "--device", "cpu", "goal vote chip")
    assert capsys.readouterr().out.split("\t")[0] in names


def test_evaluate_gives_the_same_accuracy_again(finetune, command_line, capsys):
    printed, _ = finetune(news())
    options = ["evaluate", "--classifier", "x.safetensors", "--device", "cpu", "--data", "my.csv"]
    command_line(*options, "--format", "json")
    report, said = capsys.readouterr()
    report = json.loads(report)
    assert f"Test accuracy: {report['accuracy']:.2%} of 12 texts" in printed and "is what the" in said
    assert load_classifier("x.safetensors")[1]["accuracies"]["test"] == report["accuracy"]
    command_line(*options)
    assert "right class \\ answer" in capsys.readouterr().out
    command_line(*options, "--format", "html")
    page = capsys.readouterr().out
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")


@pytest.mark.parametrize("layers", ["head", "last-block", "last-two"])
def test_cached_activations_give_the_same(finetune, layers):
    accuracies, values = [], []
    for option in ([], ["--cached"]):
        printed, _ = finetune(news(), "--layers", layers, *option)
        accuracies.append(printed.splitlines()[-3:-1])
        values.append(load_classifier("x.safetensors")[0].out_head.weight)
    assert accuracies[0] == accuracies[1]
    torch.testing.assert_close(*values, rtol=0, atol=1e-4)


def test_cached_needs_frozen_layers(finetune):
    with pytest.raises(SystemExit, match="--cached needs frozen layers"):
        finetune(news(), "--cached", "--layers", "all")


def test_imbalance_is_chosen_and_printed(finetune):
    rows = news(50, ["politics"]) + news(5, ["sports"])
    choices = {"keep": "kept as it is", "balance": "balanced by leaving out, 3", "weights": "weights in the"}
    for choice, sentence in choices.items():
        assert f"Imbalance: {sentence}" in finetune(rows, "--imbalance", choice).out


def test_learning_rate_is_chosen_on_the_validation_set(command_line, tiny_pretrained, write_table, capsys):
    options = ["--model", "tiny", "--device", "cpu", "--output", "x", "--epochs", "2"]
    command_line("finetune", "--data", write_table(news()), *options)
    said = capsys.readouterr().err
    losses = {
        line.split()[2].rstrip(":"): float(line.split()[-1])
        for line in said.splitlines()
        if line.startswith("Learning rate")
    }
    assert len(losses) == 3
    assert f"The best of 3 learning rates: {min(losses, key=losses.get)}" in said


def test_separate_test_set_is_measured(finetune, write_table):
    write_table([(f"goal goal {i} x", "sports") for i in range(7)], "test.csv")
    printed, _ = finetune(news(), "--test", "test.csv")
    assert "of 7 texts" in printed and "54 / 6 / 7" in printed


def test_only_what_was_trained_is_saved_and_measured(finetune, command_line, capsys, monkeypatch):
    printed, _ = finetune(news(), "--only-trained")
    monkeypatch.setattr("classification.load_pretrained_model", own_training.load_pretrained_model)
    command_line("evaluate", "--classifier", "x.safetensors", "--device", "cpu", "--data", "my.csv")
    assert capsys.readouterr().out.splitlines()[1].removeprefix("Accuracy: ").split(" ")[0] in printed


# ---------------------------------------------------------------------------------
# What stops it
# ---------------------------------------------------------------------------------


def test_problem_stops_before_training_and_force_goes_on(finetune, tmp_path, capsys):
    rows = [*news(), ("phone goal vote", "Sports")]
    with pytest.raises(SystemExit, match="Nothing was trained.*--force to go on"):
        finetune(rows)
    printed, said = capsys.readouterr()
    assert "classes with one example" in printed and "Problem: labels that differ in case" in said
    assert "Problem: 1 of 4 classes have one example: line 62" in said
    assert not (tmp_path / "x.safetensors").exists()
    assert "Saved as" in finetune(rows, "--force").out


def test_leak_stops(finetune, write_table):
    write_table(news(3), "test.csv")
    with pytest.raises(SystemExit, match="Nothing was trained"):
        finetune(news(), "--test", "test.csv")


OPTIONS = [["--layers", "all"], ["--force"], ["--seed", "0"], ["--text-column", "Text"]]


@pytest.mark.parametrize("option", OPTIONS)
def test_published_training_takes_no_options_of_tables(command_line, option):
    with pytest.raises(SystemExit, match=f"{option[0]}: for a file of your own. sample is trained"):
        command_line("finetune", "--model", "gpt2-mini (10M)", "--data", "sample", *option)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_several_processes_are_for_the_published_training(finetune, monkeypatch, rank):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)  # as torchrun does
    with pytest.raises(SystemExit, match="one process. Leave out torchrun"):
        finetune(news())


@pytest.mark.parametrize("output", [".", "my.csv/x"])
def test_unwritable_output_is_named_before_training(finetune, monkeypatch, output):
    monkeypatch.setattr(text_classifier, "checked_sets", lambda *args: pytest.fail("It went on."))
    with pytest.raises(SystemExit, match="Error: "):
        finetune(news(), "--output", output)


def test_full_disk_is_named_before_training(finetune, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    monkeypatch.setattr(text_classifier, "fine_tune", lambda *args, **options: pytest.fail("It trained."))
    with pytest.raises(SystemExit, match="x.safetensors needs .* only 1,000 bytes are free"):
        finetune(news())


def interrupt_at(monkeypatch, place, number):
    """Let the call ``number`` of a function be interrupted, as Ctrl-C does."""
    owner, name = place
    original, calls = getattr(owner, name), []

    def call(*args, **options):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    "place",
    [
        (text_classifier.own_data, "read_table"),
        (text_classifier.own_data, "baseline_accuracies"),
        (own_training.Texts, "keep_frozen"),
        (own_training.Training, "train_on"),
    ],
)
def test_interrupted_before_the_first_step_saves_nothing(finetune, monkeypatch, tmp_path, place, capsys):
    interrupt_at(monkeypatch, place, 1)
    with pytest.raises(SystemExit) as exit:
        finetune(news(), "--cached")
    assert exit.value.code == 130 and capsys.readouterr().err.endswith("Interrupted.\n")
    assert {path.name for path in tmp_path.iterdir()} == {"my.csv"}


def test_interrupted_training_keeps_the_best_state(finetune, monkeypatch, capsys):
    finetune(news(), "--epochs", "1")
    expected, _ = load_classifier("x.safetensors")
    interrupt_at(monkeypatch, (own_training.Training, "train_on"), 2)
    with pytest.raises(SystemExit) as exit:
        finetune(news(), "--epochs", "5")
    assert exit.value.code == 130
    assert "Interrupted. What was saved is the best state so far, of epoch 1." in capsys.readouterr().err
    model, settings = load_classifier("x.safetensors")
    torch.testing.assert_close(model.out_head.weight, expected.out_head.weight)
    assert settings["accuracies"].keys() == {"validation"}


def test_interrupted_first_epoch_keeps_what_there_is(finetune, monkeypatch, capsys):
    interrupt_at(monkeypatch, (own_training, "loss_and_accuracy"), 1)
    with pytest.raises(SystemExit) as exit:
        finetune(news())
    assert exit.value.code == 130 and "the state of its first epoch" in capsys.readouterr().err
    assert "accuracies" not in load_classifier("x.safetensors")[1]


def test_interrupted_while_measuring_keeps_what_was_trained(finetune, monkeypatch, capsys):
    interrupt_at(monkeypatch, (text_classifier.report, "measure_table"), 1)
    with pytest.raises(SystemExit) as exit:
        finetune(news())
    printed, said = capsys.readouterr()
    assert exit.value.code == 130 and printed.endswith("Saved as x.safetensors\n") and "Interrupted." in said
    _, settings = load_classifier("x.safetensors")
    assert settings["accuracies"].keys() == {"validation"} and "test" not in settings["training"]


def test_interrupted_while_saving_leaves_the_former_file(finetune, monkeypatch):
    finetune(news())
    before = open("x.safetensors", "rb").read()
    interrupt_at(monkeypatch, (os, "replace"), 1)
    with pytest.raises(SystemExit):
        finetune(news(), "--seed", "5")
    assert open("x.safetensors", "rb").read() == before


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(tiny_pretrained):
    model = build_own_classifier("tiny", 2, "all")
    texts = [Texts(encode_texts(["a b", "c d"] * 8, 16), labels, CPU) for labels in ([0, 1] * 8, [1, 0] * 8)]
    said = []
    training = Training(EndOfTextClassifier(model), *texts, say=said.append)  # it learns the opposite
    training.run([0.01], epochs=50)
    training.restore()
    assert len(said) == 3 and training.best["epoch"] == 1
    assert loss_and_accuracy(training.network, texts[1])[0] == pytest.approx(training.best["loss"])


def test_loss_that_is_no_number_is_an_error(finetune, monkeypatch, tmp_path):
    monkeypatch.setattr(own_training, "loss_and_accuracy", lambda *args: (float("nan"), 0.0))
    with pytest.raises(SystemExit, match="no finite number. Try a lower --learning-rate"):
        finetune(news())
    assert not (tmp_path / "x.safetensors").exists()


def test_two_runs_that_write_one_file_leave_one_of_both(tiny_pretrained, tmp_path):
    model = build_own_classifier("tiny", 2, "all")
    path, errors = tmp_path / "x.safetensors", []

    def save(name):
        try:
            for _ in range(5):
                save_classifier(path, model, "tiny", name, 16, reads=END_OF_TEXT)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in ("one", "other")]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    assert errors == [] and load_classifier(path)[1]["data"] in ("one", "other")
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


# ---------------------------------------------------------------------------------
# The file of a classifier
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ((b'"format": "1"', b'"format": "2"'), "its format has the version 2, this book reads 1"),
        ((b'"reads": "end of text"', b'"reads": "end of line"'), "reads at 'end of line'"),
        ((b'"max_length": "16"', b'"max_length": "17"'), "max_length is 17"),
        ((b"out_head.weight", b"out_head.height"), "missing or unknown tensors"),
    ],
)
def test_other_file_is_named(finetune, command_line, change, message):
    finetune(news())
    content = open("x.safetensors", "rb").read()
    assert change[0] in content
    with open("x.safetensors", "wb") as file:
        file.write(content.replace(*change))
    with pytest.raises(SystemExit, match=message):
        command_line("classify", "--classifier", "x.safetensors", "--device", "cpu", "text")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"PK\x03\x04" + b"\0" * 500])
def test_foreign_file_is_named_and_never_unpickled(command_line, tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    for command in (["classify", "text"], ["evaluate"], ["export", "--to", "hf", "--output", "folder"]):
        with pytest.raises(SystemExit, match="x is damaged or was not saved by save_classifier"):
            command_line(*command, "--classifier", "x", "--device", "cpu")
    assert not (tmp_path / "folder").exists()


# ---------------------------------------------------------------------------------
# classify
# ---------------------------------------------------------------------------------

NASTY = ["plain", "a\ttab", "two\nlines", 'a "mark"', "a, comma", "\r", " spaces ", "好", "\x1b[2J", "", '"']
NASTY += ["a\r\nb"]


def read_back(format, content):
    if format == "jsonl":
        return [tuple(json.loads(line).values()) for line in content.splitlines()]
    rows = list(csv.reader(io.StringIO(content, newline=""), delimiter="\t" if format == "tsv" else ","))
    if format == "csv":
        assert rows.pop(0) == ["label", "probability", "text"]
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl"])
def test_texts_survive_every_format(finetune, command_line, capsys, format):
    finetune(news())
    command_line("classify", "--classifier", "x.safetensors", "--device", "cpu", "--format", format, *NASTY)
    rows = read_back(format, capsys.readouterr().out)
    assert [row[2] for row in rows] == NASTY and {row[0] for row in rows} <= WORDS.keys()

    probabilities = Reader(*load_classifier("x.safetensors"), CPU).probabilities(NASTY).max(dim=1).values
    np.testing.assert_allclose([float(row[1]) for row in rows], probabilities, atol=1e-4)


@pytest.mark.parametrize("label", ["a\tb", 'a"b', "a,b"])
@pytest.mark.parametrize("format", ["tsv", "csv"])
def test_labels_survive_too(format, label):
    line = result_line(label, 0.5, "x", format)
    assert next(csv.reader([line], delimiter="\t" if format == "tsv" else ","))[0] == label


def test_texts_come_from_a_column_of_a_table(finetune, command_line, write_table, capsys):
    finetune(news())
    write_table([("a\nb", "1"), ("", "2"), ("c", "3")], "new.csv")
    options = ["--classifier", "x.safetensors", "--device", "cpu", "--file", "new.csv", "--format", "jsonl"]
    command_line("classify", *options, "--text-column", "text")
    texts = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert texts == ["a\nb", "", "c"]
    with pytest.raises(SystemExit, match="new.csv, line 2 has no 'body', only text, label"):
        command_line("classify", *options, "--text-column", "body")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_is_shown_where_results_go_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("hello\n" * 100)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for shown, stdout in ((True, io.StringIO()), (False, Terminal())):
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert sum(map(len, streams.read_messages(tmp_path / "file"))) == 100
        assert ("Classify" in sys.stderr.getvalue()) == shown


# ---------------------------------------------------------------------------------
# export
# ---------------------------------------------------------------------------------


def test_export_makes_a_folder_once_and_whole(finetune, command_line, tmp_path, capsys):
    finetune(news())
    export = ["export", "--classifier", "x.safetensors", "--to", "hf", "--output", "folder"]
    command_line(*export)
    printed = capsys.readouterr().out
    assert printed.startswith("Largest difference of the logits: ") and printed.endswith("Saved as folder\n")
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    assert "# 3 classes, from my.csv" in card and "| politics | 14 |" in card and "TF-IDF" in card
    with pytest.raises(SystemExit, match="folder is there already"):
        command_line(*export)
    with pytest.raises(SystemExit, match="Error: "):
        command_line(*export[:-1], "x.safetensors/folder")
    assert {path.name for path in tmp_path.iterdir()} == {"my.csv", "x.safetensors", "folder"}


def test_int8_is_measured(finetune, command_line, capsys):
    finetune(news())
    export = ["export", "--classifier", "x.safetensors", "--device", "cpu", "--output", "folder", "--int8"]
    with pytest.raises(SystemExit, match="--int8 is for --to onnx, and measures"):
        command_line(*export, "--to", "onnx")
    command_line(*export, "--to", "onnx", "--data", "my.csv")
    printed = capsys.readouterr().out
    assert printed.count("accuracy") == 2 and "model_int8.onnx: " in printed
