"""reference_results.py: the published numbers, and the comparison of a run with them."""

import json
from pathlib import Path

import pytest

from reference_results import compare_with_published, is_published_setting, published, tolerance_of
from tools import note_full_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "key, value",
    [
        ("initial_accuracy_percent.train", 46.25),
        ("initial_accuracy_percent.validation", 45.00),
        ("initial_accuracy_percent.test", 48.75),
        ("initial_loss.train", 2.453),
        ("initial_loss.validation", 2.583),
        ("initial_loss.test", 2.322),
        ("head.token_ids", [5211, 345, 423, 640]),
        ("head.outputs", [[-1.5854, 0.9904], [-3.7235, 7.4548], [-2.2661, 6.6049], [-3.5983, 3.9902]]),
        ("head.outputs.3.1", 3.9902),
        ("head.class_label_of_last_token", 1),
        ("dataset_facts.first_balanced_row_labels", [4307, 4138, 4831, 4461, 5440]),
        ("dataset_facts.split_train_validation_test", [1045, 149, 300]),
        ("dataset_facts.train_max_length_tokens", 120),
        ("dataset_facts.batches_train_validation_test", [130, 19, 38]),
    ],
)
def test_published_value(key, value):
    assert published(key) == value


def test_published_texts_begin_with_their_prompts():
    generation = published("generation")
    assert len(generation) == 2
    assert all(entry["text"].startswith(entry["prompt"]) for entry in generation)


@pytest.mark.parametrize("function", [published, lambda key: compare_with_published({key: 1.0})])
@pytest.mark.parametrize("key", ["initial_loss.training", "no_such_key"])
def test_unknown_key_is_named(function, key):
    with pytest.raises(KeyError, match=key):
        function(key)


@pytest.mark.parametrize(
    "key, tolerance",
    [
        ("initial_loss.train", 0.005),
        ("initial_accuracy_percent.test", 0.01),
        ("head.outputs", 0.005),
        ("head.outputs.0", 0.005),
        ("head.token_ids", 0),
        ("dataset_facts.ham", 0),
        ("generation.0.text", 0),
    ],
)
def test_tolerance(key, tolerance):
    assert tolerance_of(key) == tolerance


@pytest.mark.parametrize(
    "model, data, same",
    [
        (None, None, True),
        ("gpt2-small (124M)", "uci", True),
        ("gpt2-small (124M)", "sample", False),
        ("gpt2-mini (10M)", "uci", False),
        ("gpt2-mini (10M)", "sample", False),
        ("gpt2-medium (355M)", "uci", False),
    ],
)
def test_published_setting_is_124m_on_the_uci_data(monkeypatch, model, data, same):
    for name, value in (("CHOOSE_MODEL", model), ("CHOOSE_DATA", data)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert is_published_setting() is same


# ---------------------------------------------------------------------------------
# A run in the published setting: the one that is chosen by no variable
# ---------------------------------------------------------------------------------

AGREEING = {
    "dataset_facts.split_train_validation_test": [1045, 149, 300],
    "head.outputs": [[-1.5853, 0.9905], [-3.7240, 7.4543], [-2.2661, 6.6049], [-3.5983, 3.9902]],
    "initial_accuracy_percent.train": 46.2500001,
    "initial_loss.train": 2.4579,
    "generation.0.text": published("generation.0.text"),
}


def printed_rows(capsys):
    return [[cell.strip() for cell in line.split(" | ")] for line in capsys.readouterr().out.splitlines()]


def test_run_within_the_tolerances_agrees(capsys):
    compare_with_published(AGREEING)
    assert [row[-1] for row in printed_rows(capsys)] == ["match"] + ["yes"] * 5


@pytest.mark.parametrize(
    "key, value",
    [
        ("initial_loss.train", 2.459),
        ("initial_loss.train", float("nan")),
        ("initial_accuracy_percent.train", 47.5),  # one message of 80 more
        ("initial_accuracy_percent.validation", 43.75),  # one less
        ("dataset_facts.ham", 4824),
        ("dataset_facts.split_train_validation_test", [1045, 149, 301]),
        ("dataset_facts.split_train_validation_test", [1045, 149]),
        ("head.outputs", [[-1.5854, 0.9904], [-3.7235, 7.4548], [-2.2661, 6.6049], [-3.5983, 3.9702]]),
        ("generation.0.text", "Every effort moves you backward."),
    ],
)
def test_run_beyond_the_tolerance_is_an_error_that_names_this_result_alone(key, value):
    with pytest.raises(AssertionError) as error:
        compare_with_published({**AGREEING, key: value})
    assert [line.split(": this run")[0] for line in str(error.value).splitlines()[1:]] == [key]


def test_table_is_printed_before_the_error(capsys):
    with pytest.raises(AssertionError):
        compare_with_published({"initial_loss.test": 2.4})
    assert printed_rows(capsys)[1] == ["initial_loss.test", "2.4000", "2.3220", "NO"]


def test_run_in_another_setting_never_fails_and_prints_nothing_but_needs_a_published_value(
    capsys, monkeypatch
):
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    compare_with_published({"initial_loss.test": 99.0, "dataset_facts.ham": 1})
    assert capsys.readouterr().out == ""
    with pytest.raises(KeyError, match="initial_loss.nothing"):
        compare_with_published({"initial_loss.nothing": 1.0})


def test_full_run_is_noted_in_the_published_setting_only(tmp_path, monkeypatch):
    path = tmp_path / "full_run.json"
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    note_full_run.note(path)
    assert not path.exists()
    monkeypatch.delenv("CHOOSE_DATA")
    note_full_run.note(path)
    assert json.loads(path.read_text()).keys() == {"date", "torch", "device"}


def test_each_check_on_the_page_is_one_that_runs():
    """Each test that ``book/checks.json`` names is a function of that file, each command a target."""
    for check in json.loads((ROOT / "book" / "checks.json").read_text("utf-8")):
        for name in check.get("tests", []):
            file, function = name.split("::")
            assert f"\ndef {function}(" in (ROOT / "tests" / file).read_text("utf-8"), name
        if "command" in check:
            assert f"\n{check['command'].removeprefix('make ')}: " in (ROOT / "Makefile").read_text("utf-8")
