"""text_classifier.py: its three commands, what they print, and what they say when something is wrong."""

import contextlib
import copy
import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from itertools import islice
from pathlib import Path

import pytest
import torch

import classification
import saved_classifiers
import spam_data
import text_classifier
from classification import (
    add_classification_head,
    calc_accuracy_loader,
    classify_review,
    load_classifier,
    save_classifier,
)
from devices import usable_devices
from edition import EMBEDDED
from previous_chapters import MODEL_CONFIGS
from saved_classifiers import SHIPPED, default_output
from spam_data import create_spam_loaders
from streams import messages_in

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "text_classifier.py"
CPU = torch.device("cpu")


# ---------------------------------------------------------------------------------
# The command itself
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, option, value",
    [
        ("initial", "--model", "gpt2-tiny"),
        ("initial", "--data", "mail"),
        ("finetune", "--model", "gpt2-tiny"),
        ("finetune", "--data", "mail"),
        ("finetune", "--epochs", "0"),
        ("finetune", "--epochs", "1.5"),
        ("finetune", "--learning-rate", "0"),
        ("finetune", "--learning-rate", "nan"),
        ("classify", "--threshold", "1.01"),
        ("classify", "--threshold", "-0.1"),
        ("classify", "--threshold", "high"),
    ],
)
def test_impossible_value_is_named(command_line, capsys, command, option, value):
    with pytest.raises(SystemExit) as exit:
        command_line(command, f"{option}={value}")
    error = capsys.readouterr().err
    assert exit.value.code == 2 and f"argument {option}" in error and f"'{value}'" in error


@pytest.mark.parametrize("command", [name for name, *_ in text_classifier.COMMANDS])
def test_help_describes_each_command(command_line, capsys, command):
    with pytest.raises(SystemExit) as exit:
        command_line(command, "--help")
    said = capsys.readouterr().out
    assert exit.value.code == 0 and "--device" in said
    assert command != "finetune" or "20 % of each class" in said


@pytest.mark.parametrize("command", ["initial", "finetune", "classify"])
@pytest.mark.parametrize("name", ["cuda", "cuda:99", "mps", "xla", "meta", "abacus", ""])
def test_device_that_this_machine_does_not_have_is_named(command_line, capsys, command, name):
    if name in usable_devices():
        pytest.skip(f"This machine has {name}.")
    texts = ["Do you have time"] if command == "classify" else []
    with pytest.raises(SystemExit, match=f"^Error: PyTorch finds no device '{name}' on this machine.*cpu"):
        command_line(command, *texts, "--device", name)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["initial", "finetune"])
@pytest.mark.parametrize("variable, value", [("CHOOSE_MODEL", "gpt2-tiny"), ("CHOOSE_DATA", "mail")])
def test_unknown_value_of_a_variable_is_named(command_line, monkeypatch, command, variable, value):
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"Error: .*'{value}'"):
        command_line(command)


# Tells what stands in the environment when the program comes to import PyTorch, and ends it.
AT_IMPORT = """
import os, runpy, sys
os.environ.pop("GOMP_SPINCOUNT", None)

class Watch:
    def find_spec(self, name, *others):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
runpy.run_path(sys.argv[1])
"""


@pytest.mark.parametrize(
    "program",
    [
        "text_classifier.py",
        "experiments.py",
        "previous_chapters.py",
        "benchmarks/attention.py",
        "benchmarks/scale.py",
        "benchmarks/speed.py",
        "benchmarks/training_film.py",
        "tests/conftest.py",
    ],
)
def test_threads_wait_briefly_for_busy_cores_in_every_program(run_python, program):
    assert run_python("-c", AT_IMPORT, ROOT / program).stdout == "1000\n"
    assert "GOMP_SPINCOUNT" not in (ROOT / "Makefile").read_text()  # said once


# ---------------------------------------------------------------------------------
# initial
# ---------------------------------------------------------------------------------

RESULTS = r"""{model} on the {data} data, cpu: messages padded to \d+ tokens
Training accuracy: \d+\.\d\d%
Validation accuracy: \d+\.\d\d%
Test accuracy: \d+\.\d\d%
Training loss: \d+\.\d\d\d
Validation loss: \d+\.\d\d\d
Test loss: \d+\.\d\d\d
"""


@pytest.fixture
def in_gpt2(embedded_load, tmp_path):
    """The checkpoint where the commands look for it."""
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)


ON_SAMPLE = ["--model", "gpt2-mini (10M)", "--data", "sample", "--device", "cpu"]


@pytest.fixture(scope="module")
def few_messages(write_beginning_of_sample, tmp_path_factory):
    return write_beginning_of_sample(tmp_path_factory.mktemp("few") / "messages.tsv", 1700)


@pytest.fixture(scope="module")
def run_on_few_messages(embedded_load, few_messages):
    """A function that runs a command in a folder, on few messages, and returns what it printed."""

    def run(folder, *arguments):
        (folder / "gpt2").symlink_to(embedded_load.models_dir)
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            patch.setattr(spam_data, "SAMPLE_FILE", few_messages)
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["text_classifier.py", *arguments])
            text_classifier.main()
        return output.getvalue()

    return run


def test_initial_prints_six_results_for_the_sample(run_on_few_messages, tmp_path):
    printed = run_on_few_messages(tmp_path, "initial", *ON_SAMPLE)
    assert re.fullmatch(RESULTS.format(model=r"gpt2-mini \(10M\)", data="sample"), printed)


def test_initial_prints_six_results_for_the_uci_messages(
    command_line, in_gpt2, uci_mirror, monkeypatch, capsys
):
    monkeypatch.setenv("SPAM_MIRROR", uci_mirror)
    command_line("initial", "--model", "gpt2-mini (10M)", "--data", "uci", "--device", "cpu")
    lines = capsys.readouterr().out.split("\n", 1)[1]  # the first one says where the messages were saved
    assert re.fullmatch(RESULTS.format(model=r"gpt2-mini \(10M\)", data="uci"), lines)


# ---------------------------------------------------------------------------------
# finetune
# ---------------------------------------------------------------------------------

FINETUNE = ["finetune", *ON_SAMPLE, "--epochs", "1"]


@pytest.fixture(scope="module")
def few_loaders(few_messages, tokenizer):
    return create_spam_loaders(tokenizer, few_messages)


@pytest.fixture(scope="module")
def finetuned(run_on_few_messages, tmp_path_factory):
    """What one epoch of ``finetune`` printed, and the folder where it ran."""
    folder = tmp_path_factory.mktemp("finetuned")
    return run_on_few_messages(folder, *FINETUNE), folder


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


def test_finetune_saves_the_classifier_that_it_measured(finetuned, few_loaders):
    output, folder = finetuned
    model, settings = load_classifier(folder / "classifiers" / "gpt2-mini-10M-sample.safetensors")
    accuracy = calc_accuracy_loader(few_loaders[2], model, CPU)
    assert f"Test accuracy: {accuracy * 100:.2f}%" in output
    assert settings["accuracies"]["test"] == accuracy and len(settings["accuracies"]) == 3
    assert (settings["model"], settings["data"]) == ("gpt2-mini (10M)", "sample")
    assert settings["max_length"] == few_loaders[0].dataset.max_length and settings["threshold"] == 0.5


def test_finetune_on_cached_activations_gives_the_same_in_less_work(
    finetuned, run_on_few_messages, few_loaders, tmp_path, monkeypatch
):
    batches_read, forward = [], classification.GPTModel.forward
    monkeypatch.setattr(
        classification.GPTModel, "forward", lambda *args: batches_read.append(args) or forward(*args)
    )
    printed = run_on_few_messages(tmp_path, *FINETUNE, "--cached")
    assert len(batches_read) == sum(map(len, few_loaders))  # at the end; no step of the training
    assert re.sub(r"\d\.\d{3}", "", printed) == re.sub(r"\d\.\d{3}", "", finetuned[0])
    losses, expected = (re.findall(r"\d\.\d{3}", text) for text in (printed, finetuned[0]))
    assert [float(loss) for loss in losses] == pytest.approx([float(loss) for loss in expected], abs=0.002)

    one, other = (
        load_classifier(folder / "classifiers" / "gpt2-mini-10M-sample.safetensors")[0].state_dict()
        for folder in (tmp_path, finetuned[1])
    )
    step = classification.fine_tuning_settings(EMBEDDED.name)["lr"]
    for name, value in one.items():
        if not name.endswith("W_key.bias"):  # no output depends on it: notebook 11
            difference = (value - other[name]).abs()
            # AdamW moves a number whose gradient is rounding noise by up to a step, on each processor another
            assert difference.max() < step / 2 and (difference > 1e-4).float().mean() < 1e-3, name


def test_cached_activations_are_for_one_process(command_line, monkeypatch):
    monkeypatch.setattr(text_classifier.distributed, "num_processes", lambda: 2)
    with pytest.raises(SystemExit, match="for one process. Leave out either --cached or torchrun"):
        command_line(*FINETUNE, "--cached")


def test_default_name_tells_model_and_data():
    paths = {default_output(name, data) for name in MODEL_CONFIGS for data in ("uci", "sample")}
    assert len(paths) == 2 * len(MODEL_CONFIGS)
    assert default_output("gpt2-small (124M)", "uci").name == "gpt2-small-124M-uci.safetensors"


@pytest.mark.parametrize(
    "output, message",
    [
        (".", "is a folder or a device. Name a file"),
        ("/dev/null", "is a folder or a device. Name a file"),
        ("file/x.safetensors", "file"),
        ("protected", "protected is protected from writing.*chmod"),
        ("x" * 250, "name too long"),  # with the ending of a temporary file
        pytest.param(
            "/proc/x.safetensors",
            "No such file|denied|not permitted",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="for Linux"),
        ),
    ],
)
def test_impossible_output_is_named_before_training(command_line, tmp_path, monkeypatch, output, message):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "protected").write_text("precious")
    (tmp_path / "protected").chmod(0o400)
    monkeypatch.setattr(text_classifier, "load_messages", lambda *args: pytest.fail("It went on."))
    with pytest.raises(SystemExit, match=f"(?i)Error: .*{message}"):
        command_line(*FINETUNE, "--output", output)
    assert (tmp_path / "protected").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "protected"}


@pytest.mark.parametrize("more, size", [([], 8_100_000), (["--only-trained"], 600_000)])
def test_full_disk_is_named_before_training(command_line, in_gpt2, monkeypatch, more, size):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=size))
    monkeypatch.setattr(text_classifier, "train_as_published", lambda *args: pytest.fail("It trained."))
    with pytest.raises(
        SystemExit, match=f"x.safetensors needs .* bytes more, but only {size:,} bytes are free"
    ):
        command_line(*FINETUNE, *more, "--output", "x.safetensors")


def test_quota_is_noticed_before_training(command_line, in_gpt2, monkeypatch):
    def full(*args):
        raise OSError(errno.EDQUOT, "the quota is used up")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(text_classifier, "train_as_published", lambda *args: pytest.fail("It trained."))
    with pytest.raises(SystemExit, match="no room for .* bytes in classifiers.*the quota is used up"):
        command_line(*FINETUNE)


def test_interrupted_training_saves_nothing_and_says_so(command_line, in_gpt2, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(text_classifier, "train_as_published", interrupt)
    with pytest.raises(SystemExit) as exit:
        command_line(*FINETUNE)
    assert exit.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"
    assert list((tmp_path / "classifiers").iterdir()) == []


def test_interrupted_while_measuring_saves_what_was_trained(command_line, in_gpt2, monkeypatch, few_loaders):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(text_classifier, "load_messages", lambda *args: few_loaders)
    monkeypatch.setattr(text_classifier, "train_as_published", lambda *args: None)
    monkeypatch.setattr(text_classifier, "calc_accuracy_loader", interrupt)
    with pytest.raises(SystemExit) as exit:
        command_line(*FINETUNE, "--output", "x.safetensors")
    assert exit.value.code == 130
    _, settings = load_classifier("x.safetensors")
    assert settings["data"] == "sample" and "accuracies" not in settings


def test_when_nothing_can_be_written_both_places_are_named(monkeypatch, tmp_path):
    def fail(path, *classifier):
        raise OSError(f"no {path.name}")

    monkeypatch.setattr(saved_classifiers, "save_classifier", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="x could not be written \\(no x\\), nor .*\\(no classifier.safe"):
        saved_classifiers.save_somewhere(tmp_path / "x")


def test_what_was_trained_survives_a_failed_save(command_line, in_gpt2, tmp_path, monkeypatch, few_loaders):
    def meanwhile(*args):
        (tmp_path / "x.safetensors").mkdir()  # the place was free before the training

    monkeypatch.setattr(text_classifier, "train_as_published", meanwhile)
    monkeypatch.setattr(text_classifier, "load_messages", lambda *args: [few_loaders[1]] * 3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit, match="x.safetensors could not be written.*The classifier is in") as exit:
        command_line(*FINETUNE, "--output", "x.safetensors")
    model, settings = load_classifier(str(exit.value).rsplit(" ", 1)[1])
    assert calc_accuracy_loader(few_loaders[1], model, CPU) == settings["accuracies"]["test"]


def test_classifier_that_ships_is_what_the_command_makes(sample_loaders, embedded_load):
    """``--only-trained``: the trained parameters in float16, with accuracies that can be measured again."""
    model, settings = load_classifier(SHIPPED, embedded_load.models_dir)
    assert (settings["model"], settings["data"]) == ("gpt2-mini (10M)", "sample")
    assert settings["max_length"] == sample_loaders[0].dataset.max_length
    measured = {
        name: calc_accuracy_loader(loader, model, CPU)
        for name, loader in zip(("validation", "test"), sample_loaders[1:])
    }
    # not again for the training set, which is large and whose loader leaves out a random few
    training = settings["accuracies"].pop("training")
    assert settings["accuracies"] == measured and 0.5 < training <= 1
    assert SHIPPED.stat().st_size < 700_000


def test_finetune_measures_and_saves_what_was_trained_alone(
    embedded_load, run_on_few_messages, few_loaders, tmp_path, monkeypatch
):
    measured, print_accuracies = {}, text_classifier.print_accuracies

    def note_what_is_measured(model, *more):
        measured.update(copy.deepcopy(model.state_dict()))
        return print_accuracies(model, *more)

    monkeypatch.setattr(text_classifier, "print_accuracies", note_what_is_measured)
    printed = run_on_few_messages(tmp_path, *FINETUNE, "--cached", "--only-trained", "--output", "small")
    model, settings = load_classifier(tmp_path / "small", embedded_load.models_dir)
    accuracy = calc_accuracy_loader(few_loaders[2], model, CPU)
    assert settings["accuracies"]["test"] == accuracy and f"Test accuracy: {accuracy * 100:.2f}%" in printed
    assert all(torch.equal(value, measured[name]) for name, value in model.state_dict().items())  # rounded
    assert (tmp_path / "small").stat().st_size < 700_000


# ---------------------------------------------------------------------------------
# classify
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


def spam_probability(text, model, tokenizer, max_length):
    """From the logits of ``classify_review``."""
    read = []
    hook = model.register_forward_hook(lambda _, inputs, output: read.append(output[0, -1]))
    classify_review(text, model, tokenizer, CPU, max_length)
    hook.remove()
    return torch.softmax(read[0], dim=-1)[1].item()


def expected_lines(texts, path, tokenizer, threshold=0.25):
    model, settings = load_classifier(path)
    probabilities = [spam_probability(text, model, tokenizer, settings["max_length"]) for text in texts]
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
    probability = spam_probability(MESSAGES[0], model, tokenizer, 12)
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes that are files")
def test_messages_come_from_a_pipe(classify, saved, tokenizer, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["\n".join(MESSAGES)])
    writer.start()  # it waits for the reader
    assert classify("--file", "pipe")["lines"] == expected_lines(MESSAGES, saved, tokenizer)
    writer.join()


def test_many_messages_stay_in_order(classify, saved, tokenizer):
    texts = [f"message {number}" for number in range(70)]  # three batches
    assert classify(*texts)["lines"] == expected_lines(texts, saved, tokenizer)


def test_a_line_for_each_text_with_several_lines(classify):
    assert [line.split("\t")[2] for line in classify("one\ntwo")["lines"]] == ["one two"]


def test_accents_and_other_scripts_are_text(classify, tmp_path):
    (tmp_path / "file").write_bytes("Grüße, 好 😀\n".encode())
    assert classify("--file", "file")["lines"][0].endswith("\tGrüße, 好 😀")


@pytest.mark.parametrize("arguments", [["-a b c"], ["-10", "%"], ["--", "-Winner", "--threshold"]], ids=str)
def test_messages_may_begin_with_a_minus(classify, arguments):
    expected = [argument for argument in arguments if argument != "--"]
    assert [line.split("\t")[2] for line in classify(*arguments)["lines"]] == expected


def test_error_about_a_message_that_begins_with_a_minus_says_what_to_do(classify, capsys):
    with pytest.raises(SystemExit) as exit:
        classify("-Winner", "now")
    error = capsys.readouterr().err
    assert exit.value.code == 2 and "-Winner (a message that begins with - stands behind --)" in error


def test_cut_message_is_reported(classify):
    result = classify("short", " time" * 12, " time" * 13)
    assert len(result["lines"]) == 3
    assert result["notes"].count("was cut") == 1
    assert "Message 3 was cut: it has 13 tokens, the classifier reads 12." in result["notes"]


def test_classifier_in_use_is_named(classify, saved):
    assert f"{saved}: tiny, fine-tuned on sample; threshold 0.25" in classify("time")["notes"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "file has no messages"),
        (b"\n \n", "file has no messages"),
        (b"fine\ncaf\xe9\n", "file is not a text in UTF-8: line 2"),
        ("one\ntwo\n".encode("utf-16"), "file is not a text in UTF-8: line 1"),
        (
            "one\ntwo\n".encode("utf-16-le"),
            "file is not a text in UTF-8: line 1 holds NULs, perhaps of UTF-16",
        ),
        (b"fine\n" + b"a" * 2_000_000, "file: line 2 is longer than 1,048,576 bytes"),
        (None, "No such file.*file"),
    ],
    ids=["empty", "blank", "Latin-1", "UTF-16", "UTF-16 without a mark", "one long line", "missing"],
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


@pytest.mark.parametrize("source", [["text"], ["--file", "-"]])
def test_text_column_is_for_a_table(classify, capsys, source):
    with pytest.raises(SystemExit) as exit:
        classify(*source, "--text-column", "text", stdin=b"text\n")
    error = capsys.readouterr().err
    assert exit.value.code == 2 and "--text-column is for a table that --file names" in error


def test_threshold_is_for_two_classes(classify, saved, model):
    add_classification_head(model, num_classes=3)
    save_classifier(saved, model, "tiny", "sample", 12, class_names=["a", "b", "c"])
    assert re.fullmatch(r"[abc]\t0\.\d{4}\ttime", classify("time")["lines"][0])
    with pytest.raises(SystemExit, match="tiny.safetensors knows 3 classes; --threshold is for two"):
        classify("time", "--threshold", "0.5")


# ---------------------------------------------------------------------------------
# Which classifier
# ---------------------------------------------------------------------------------


@pytest.fixture
def classifiers(tmp_path, saved):
    """The folder of classifiers with a good file, "good.safetensors", and a function that adds newer ones."""
    folder = tmp_path / "classifiers"
    folder.mkdir()
    shutil.copy(saved, folder / "good.safetensors")
    os.utime(folder / "good.safetensors", (1, 1))
    return folder


def test_newest_classifier_is_the_default(command_line, classifiers, saved, capsys):
    for number, name in enumerate(["b", "c", "a"], start=2):
        path = classifiers / f"{name}.safetensors"
        shutil.copy(saved, path)
        os.utime(path, (number, number))
    command_line("classify", "Do you have time", "--device", "cpu")
    assert "classifiers/a.safetensors: tiny" in capsys.readouterr().err.replace("\\", "/")


def test_what_is_no_good_classifier_is_passed_over_and_named(command_line, classifiers, saved, capsys):
    (classifiers / "folder.safetensors").mkdir()
    (classifiers / "dangling.safetensors").symlink_to("nowhere")
    (classifiers / "broken.safetensors").write_bytes(saved.read_bytes()[:-100])
    shutil.copy(saved, classifiers / ".hidden.safetensors")
    command_line("classify", "Do you have time", "--device", "cpu")
    *left_out, used = capsys.readouterr().err.splitlines()
    names = ("folder", "dangling", "broken", "hidden")
    assert len(left_out) == 4 and all(any(name in line for line in left_out) for name in names)
    assert all(line.startswith("Left out: ") for line in left_out) and "good.safetensors: tiny" in used


def test_before_there_is_a_classifier_the_one_that_ships_is_used(command_line, in_gpt2, capsys):
    command_line("classify", "Do you have time", "--device", "cpu")
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{SHIPPED}: gpt2-mini (10M), fine-tuned on sample")
    assert re.fullmatch(r"(not )?spam\t\d\.\d{4}\tDo you have time\n", printed.out)


# ---------------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------------


class Endless:
    """A file without an end that counts how often it is read."""

    num_reads = 0

    def read1(self, size):
        self.num_reads += 1
        return b"hello\n" * (size // 6)


def test_long_file_is_read_piece_by_piece():
    file = Endless()
    batches = list(islice(messages_in(file, "file"), 1000))
    assert [len(batch) for batch in batches] == [32] * 341 + [10] + [32] * 341 + [10] + [32] * 316
    assert file.num_reads == 3


class InPieces:
    """A file of which each time only so much has arrived."""

    def __init__(self, *pieces):
        self.pieces = [*pieces, b""]

    def read1(self, size):
        return self.pieces.pop(0)


def test_messages_are_answered_when_they_arrive():
    whole = "one\nGrüße\nthree\n".encode()
    middle = whole.index("ß".encode()) + 1  # within a character
    batches = messages_in(InPieces(whole[:middle], whole[middle:-2], whole[-2:], b"last"), "input")
    assert list(batches) == [["one"], ["Grüße"], ["three"], ["last"]]


HOSTILE = "win \x1b[2J\x1b]0;title\x07 \x9b1m \u202eevil\tnow"


def test_message_cannot_steer_the_terminal(classify, capsys, monkeypatch):
    plain = classify(HOSTILE)["lines"][0].split("\t", 2)[2]
    assert plain == HOSTILE  # other programs get the message itself
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    shown = classify(HOSTILE)["lines"][0].split("\t", 2)[2]
    assert shown == r"win \x1b[2J\x1b]0;title\x07 \x9b1m \u202eevil" + "\tnow"


def test_error_cannot_steer_the_terminal(classify):
    with pytest.raises(SystemExit, match=r"Error: .*no\\x1b\[2Jfile") as exit:
        classify("--file", "no\x1b[2Jfile")
    assert "\x1b" not in str(exit.value)


@pytest.fixture
def shell(finetuned, tmp_path):
    """A function that runs a line of shell in which $CLASSIFY is the command with a small classifier."""
    if os.name == "nt":
        pytest.skip("for a POSIX shell")
    path = finetuned[1] / "classifiers" / "gpt2-mini-10M-sample.safetensors"
    command = f'"{sys.executable}" "{COMMAND}" classify --device cpu --classifier "{path}"'
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}

    def run(line):
        line = f"set -o pipefail; {line.replace('$CLASSIFY', command)}"
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=variables, capture_output=True, timeout=300
        )

    return run


def test_reader_that_has_seen_enough_is_no_error(shell, tmp_path):
    (tmp_path / "many").write_text("hello\n" * 5000)
    process = shell("$CLASSIFY --file many | head -1")
    assert process.returncode == 0 and process.stdout.count(b"\n") == 1
    assert process.stderr.count(b"\n") == 1 and b"fine-tuned on sample" in process.stderr


def test_closed_streams_and_other_encodings_stop_nothing(shell):
    process = shell("$CLASSIFY 'Grüße' 2>&- <&-")
    assert re.fullmatch(rb"(not )?spam\t\d\.\d{4}\tGr\\xfc\\xdfe\n", process.stdout)
    assert process.returncode == 0


def test_closed_standard_input_has_no_messages(command_line, saved, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit, match="standard input has no messages"):
        command_line("classify", "--classifier", saved, "--file", "-")


def test_program_ends_with_its_error(run_script, monkeypatch, tmp_path, capsys):
    """With a text to exit with, Python writes it to the standard error and ends with the status 1."""
    monkeypatch.chdir(tmp_path)
    status = run_script(COMMAND, "classify", "Do you have time", "--classifier", "none")
    assert status == "Error: There is no classifier none."
    assert capsys.readouterr() == ("", "")


def test_result_is_there_before_the_input_ends(finetuned, tmp_path):
    path = finetuned[1] / "classifiers" / "gpt2-mini-10M-sample.safetensors"
    command = [sys.executable, COMMAND, "classify", "--device", "cpu", "--classifier", path, "--file", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as p:
        p.stdin.write(b"Do you have time\n")
        p.stdin.flush()
        assert p.stdout.readline().rstrip().endswith(b"\tDo you have time")
        p.stdin.close()
        assert p.stdout.read() == b"" and p.wait() == 0
