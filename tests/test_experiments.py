"""Running the rows: the search for a rate, resuming, and how results are kept, shown and tested."""

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Subset

import experiments
import findings
import message_sets
import trials
from classification import (
    build_classifier,
    calc_accuracy_loader,
    fine_tuning_settings,
    train_classifier_simple,
)
from experiments import (
    BASE,
    CURVE_ROWS,
    EXPERIMENTS,
    NOTES,
    PAIRS,
    PUBLISHED_KEYS,
    SEEDS,
    Place,
    run_row,
    settings_of,
)
from message_sets import choose_subset, create_loaders
from records import key_of, load_predictions, load_results, save_entry
from reference_results import RESULTS
from spam_data import create_spam_loaders
from trials import best_on_validation, choose_learning_rate, fine_tune_row, has_converged, training_cost

CPU = torch.device("cpu")
EMBEDDED = "gpt2-mini (10M)"
FINE_TUNED = [row for row in EXPERIMENTS if settings_of(row)["method"] == "fine-tuning"]
HERE = [row for row in FINE_TUNED if "model" not in EXPERIMENTS[row]]  # rows of the chosen model
BASELINES = [row for row in EXPERIMENTS if row not in FINE_TUNED]


# ---------------------------------------------------------------------------------
# One training
# ---------------------------------------------------------------------------------


def test_base_row_is_the_recipe_of_notebook_08(
    embedded_load, tokenizer, write_beginning_of_sample, monkeypatch, tmp_path
):
    """One recipe, one number: the row's short cuts and looks change neither order nor result."""
    data_file = write_beginning_of_sample(tmp_path / "messages.tsv", 1200)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(embedded_load.models_dir.parent)
    loaders = create_spam_loaders(tokenizer, data_file)
    few = Subset(loaders[0].dataset, choose_subset(len(loaders[0].dataset), 208, 0))
    loaders = [DataLoader(few, batch_size=8, shuffle=True, drop_last=True), *loaders[1:]]
    model = build_classifier(EMBEDDED)
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), **fine_tuning_settings(EMBEDDED))
    train_classifier_simple(model, *loaders[:2], optimizer, CPU, num_epochs=2, eval_freq=50, eval_iter=5)
    expected = [calc_accuracy_loader(loader, model, CPU) for loader in loaders[:2]]
    settings, ours = {**settings_of("last-token"), "epochs": 2}, create_loaders(data_file, subset=(208, 0))
    _, run = fine_tune_row(settings, EMBEDDED, ours, 123, 1e-3, CPU)
    assert [run[name] for name in ("training", "validation")] == expected
    z, labels = run["answers"]["test"]
    with torch.no_grad():
        logits = torch.cat([model(ids)[:, -1] for ids, _ in loaders[2]])
    assert np.allclose(z, logits[:, 1] - logits[:, 0], atol=1e-3)
    assert run["test"] == ((logits[:, 1] > logits[:, 0]).numpy() == labels).mean()


@pytest.mark.parametrize(
    "accuracy, loss, converged",
    [(0.9, 0.3, True), (0.5, 0.3, False), (0.9, 0.7, False), (0.9, None, False)],
)
def test_training_has_converged_when_it_beats_the_constant_answer(accuracy, loss, converged):
    assert has_converged(accuracy, loss, [0, 1, 0, 1]) is converged  # constant: 50 %, loss log 2 = 0.693


def test_all_spam_or_all_ham_has_nothing_to_beat():
    assert has_converged(1.0, 0.0, [1, 1]) is False


def test_loss_that_is_not_finite_is_none():
    assert trials.score(np.array([math.nan, 1]), np.array([1, 1]))[1] is None
    assert trials.score(np.array([2.0, -1]), np.array([1, 1])) == (
        0.5,
        pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2),
    )


# ---------------------------------------------------------------------------------
# Learning rate
# ---------------------------------------------------------------------------------


def result(rate, accuracy, loss, seed=1, converged=True):
    return {
        "learning_rate": rate,
        "validation": accuracy,
        "validation_loss": loss,
        "seed": seed,
        "converged": converged,
    }


@pytest.mark.parametrize("num_messages, best", [(50, 1), (5000, 2)])
def test_lower_loss_decides_only_where_the_accuracy_cannot(num_messages, best):
    """89% against 90%: one standard error of the difference is 6 points for 50 messages, 0.6 for 5000."""
    results = [result(1, 0.89, 0.2), result(2, 0.90, 0.4), result(3, 0.60, 0.1)]
    assert best_on_validation(results, num_messages)["learning_rate"] == best


def test_rate_is_accepted_only_if_its_seeds_converge():
    tried = [result(1, 0.8, 0.5), result(1, 0.8, 0.5, 2), result(2, 0.9, 0.1), result(2, 0.9, None, 2, False)]
    assert choose_learning_rate(tried, 100) == 1
    assert choose_learning_rate(tried[2:], 100) == 2  # no rate has: the choice is made all the same


def test_rate_is_chosen_by_the_mean_over_its_seeds():
    tried = [result(1, 0.9, 0.1), result(1, 0.5, 0.9, 2), result(2, 0.8, 0.3), result(2, 0.8, 0.3, 2)]
    assert choose_learning_rate(tried, 1000) == 2


# ---------------------------------------------------------------------------------
# Running a row and keeping its results
# ---------------------------------------------------------------------------------


@pytest.fixture
def tiny_data(monkeypatch, tmp_path, embedded_load, tokenizer):
    """A function that runs a row for one epoch on 40 messages; its results are kept in a folder of the test.

    Attributes: ``where``, the Place, and ``trainings``, the list of (seed, learning rate) of all trainings.
    """
    words = "win prize cash free lunch home soon tea call mum text now key book bus cat rain shop door sun"
    lines = [f"spam\t{word} claim your reward" for word in words.split()]
    lines += [f"ham\t{word} then" for word in words.split()] + ["ham\tleft over"]
    (tmp_path / "messages.tsv").write_text("\n".join(lines) + "\n")
    for module in (experiments, message_sets):
        monkeypatch.setattr(module, "find_spam_file", lambda data: tmp_path / "messages.tsv")
    monkeypatch.setattr(message_sets, "read_disguised", lambda num_spam: {})
    monkeypatch.setattr(experiments, "LADDER", (1e-4, 1e-3))
    monkeypatch.setitem(BASE, "epochs", 1)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(embedded_load.models_dir.parent)

    def run(row, seeds=(123,), again=False):
        return run_row(row, run.where, seeds, again)

    run.where = Place(EMBEDDED, "sample", "cpu", tmp_path / "results")
    run.rows, run.trainings = tmp_path / "results" / "rows.json", []
    run.answers = tmp_path / "results" / "predictions" / "10M-sample.npz"
    fine_tune = experiments.fine_tune_row

    def noted(settings, name, loaders, seed, learning_rate, *arguments):
        run.trainings.append((seed, learning_rate))
        return fine_tune(settings, name, loaders, seed, learning_rate, *arguments)

    monkeypatch.setattr(experiments, "fine_tune_row", noted)
    return run


def test_full_context_is_that_of_the_model(tiny_data):
    train_loader, *_ = experiments.make_loaders(settings_of("full-context"), tiny_data.where)
    assert train_loader.dataset[0][0].shape == (1024,)


@pytest.mark.parametrize("row", HERE + BASELINES)
def test_row_runs_and_is_stored_with_its_answers(tiny_data, monkeypatch, row):
    monkeypatch.setattr(experiments, "model_config", lambda name: {"context_length": 64})  # 1024 take seconds
    entry = tiny_data(row)
    assert load_results(tiny_data.rows)[EMBEDDED]["sample"][row] == json.loads(json.dumps(entry))
    assert entry["messages"] == [28, 4, 8]
    (run,) = entry["per_seed"]
    assert all(0 <= run[name] <= 1 for name in ("training", "validation", "test"))
    assert run["seed"] == (123 if row in [*HERE, "frozen-random"] else None)
    arrays = load_predictions(tiny_data.answers)
    for name in ("validation", "test"):
        z, labels = arrays[key_of(row, run, name)], arrays[f"labels/{name}"]
        assert (z.dtype, labels.dtype) == (np.float16, np.uint8)
        assert np.mean((z > 0) == labels) == pytest.approx(run[name])
    for name in ("left-over ham", "other collection", "look-alikes", "spaces"):
        assert (key_of(row, run, name) in arrays) == (row in experiments.USED_ROWS)


def test_every_rate_is_tried_with_two_seeds_then_every_seed_runs(tiny_data):
    entry = tiny_data("head-only", SEEDS)
    search = [(seed, rate) for seed in SEEDS[:2] for rate in (1e-4, 1e-3)]
    tried = [(run["seed"], run["learning_rate"]) for run in entry["tried"]]
    failed = {run["learning_rate"] for run in entry["tried"] if not run["converged"] and run["seed"] == 123}
    assert tried == [(seed, rate) for seed, rate in search if seed == 123 or rate not in failed]
    assert {run["seed"] for run in entry["per_seed"]} == set(SEEDS)
    assert {run["learning_rate"] for run in entry["per_seed"]} == {entry["learning_rate"]}
    assert len(tiny_data.trainings) == len(set(tiny_data.trainings))  # none twice


def test_what_is_stored_is_not_run_again(tiny_data):
    first = tiny_data("head-only")
    count = len(tiny_data.trainings)
    assert tiny_data("head-only") == json.loads(json.dumps(first))
    assert len(tiny_data.trainings) == count


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_interrupted_run_goes_on_where_it_stopped(tiny_data, monkeypatch, stop):
    monkeypatch.setattr(experiments, "has_converged", lambda *_: True, raising=False)
    whole = tiny_data("head-only", (123, 124, 125), again=True)
    expected, tiny_data.trainings[:] = list(tiny_data.trainings), []
    noted = experiments.fine_tune_row

    def interrupted(*arguments):
        if len(tiny_data.trainings) == stop:
            raise KeyboardInterrupt
        return noted(*arguments)

    if stop < len(expected):
        monkeypatch.setattr(experiments, "fine_tune_row", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_data("head-only", (123, 124, 125), again=True)
        monkeypatch.setattr(experiments, "fine_tune_row", noted)
        entry = tiny_data("head-only", (123, 124, 125))
        assert tiny_data.trainings == expected
        assert [run["test"] for run in entry["per_seed"]] == [run["test"] for run in whole["per_seed"]]


def test_row_runs_again_when_asked_to_or_when_settings_or_messages_changed(tiny_data, monkeypatch, tmp_path):
    tiny_data("majority")
    before = load_predictions(tiny_data.answers)
    counts = []
    run_baseline = experiments.run_baseline
    monkeypatch.setattr(experiments, "run_baseline", lambda *a: counts.append(1) or run_baseline(*a))
    tiny_data("majority")
    assert len(counts) == 0
    tiny_data("majority", again=True)
    assert load_predictions(tiny_data.answers).keys() == before.keys()
    monkeypatch.setitem(EXPERIMENTS, "majority", {"method": "majority class", "new": 1})
    tiny_data("majority")
    with open(tmp_path / "messages.tsv", "a") as file:
        file.write("ham\tone more\n")
    tiny_data("majority")
    assert len(counts) == 3


def test_new_messages_of_the_other_collection_are_answered(tiny_data, monkeypatch):
    tiny_data("tf-idf")
    sets = message_sets.read_other_sets("sample")
    monkeypatch.setattr(experiments, "read_other_sets", lambda data: {**sets, "polite": (["dear you"], [1])})
    entry = tiny_data("tf-idf")
    assert key_of("tf-idf", entry["per_seed"][0], "polite") in load_predictions(tiny_data.answers)


def test_lost_answers_are_made_again(tiny_data):
    tiny_data("tf-idf")
    tiny_data.answers.unlink()
    tiny_data("tf-idf")
    assert "tf-idf/-/-/test" in load_predictions(tiny_data.answers)


def test_point_of_a_curve_tries_the_neighbours_of_the_rows_rate(tiny_data, monkeypatch):
    monkeypatch.setattr(experiments, "LADDER", (1e-5, 1e-4, 1e-3, 1e-2))
    monkeypatch.setattr(experiments, "CURVE_STEPS", 3)
    chosen = tiny_data("head-only", SEEDS[:2])["learning_rate"]
    tiny_data.trainings.clear()
    first, second = tiny_data("head-only@8#0"), tiny_data("head-only@8#1")
    i = experiments.LADDER.index(chosen)
    neighbours = experiments.LADDER[max(i - 1, 0) : i + 2]
    assert tiny_data.trainings == [(123, rate) for rate in neighbours] + [(124, first["learning_rate"])]
    assert first["messages"] == [8, 4, 8] and first["settings"]["epochs"] == 3
    assert second["learning_rate"] == first["learning_rate"]
    folder = tiny_data.where.folder
    assert set(load_results(folder / "curve.json")[EMBEDDED]["sample"]) == {"head-only@8#0", "head-only@8#1"}
    arrays = load_predictions(folder / "predictions" / "10M-sample-curve.npz")
    assert key_of("head-only@8#1", second["per_seed"][0], "test") in arrays


def test_few_messages_get_as_many_steps():
    for n, epochs in ((32, 50), (64, 25), (128, 13), (256, 7), (512, 5), (1024, 5)):
        assert settings_of(f"last-token@{n}#2")["epochs"] == epochs
    assert settings_of("tf-idf@32#0")["messages"] == 32


def test_rows_share_what_the_same_frozen_blocks_gave():
    where = Place(EMBEDDED, "sample")
    memory = where.memory_for(settings_of("last-token"), 123)
    for row, same in (("last-real-token", True), ("head-only", False), ("last-token@32#0", False)):
        assert (where.memory_for(settings_of(row), 124) is memory) == same
    random_blocks = where.memory_for(settings_of("random-last-block"), 123)
    assert where.memory_for(settings_of("random-last-block"), 124) is not random_blocks


def test_cost_grows_with_the_trained_layers_and_is_of_the_plain_model(
    embedded_load, sample_loaders, monkeypatch
):
    monkeypatch.chdir(embedded_load.models_dir.parent)
    costs = {
        row: training_cost(settings_of(row), EMBEDDED, sample_loaders[0], steps=1)
        for row in ("head-only", "last-token", "all-layers")
    }
    operations = [cost["operations"] for cost in costs.values()]
    T = sample_loaders[0].dataset.max_length
    forward = 6 * (2 * T * 12 * 160**2 + 4 * T * T * 160) + 2 * T * 160 * 2  # blocks, attention, head
    assert operations[0] == pytest.approx(forward, rel=0.02)
    assert forward < operations[1] < operations[2]
    assert operations[2] == pytest.approx(3 * forward, rel=0.05)
    assert all(cost["seconds"] > 0 for cost in costs.values())
    if sys.platform == "linux":
        assert all(cost["megabytes"] >= cost["megabytes_before"] > 10 for cost in costs.values())


# ---------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------


def test_saving_an_entry_keeps_the_others(tmp_path):
    path = tmp_path / "results" / "rows.json"
    for key in [
        ("a", "uci", "x"),
        ("a", "uci", "y"),
        ("a", "sample", "x"),
        ("b", "uci", "x"),
        ("a", "uci", "x"),
    ]:
        save_entry({"settings": "/".join(key), "per_seed": []}, *key, path)
    stored = load_results(path)
    assert {
        (m, d, r): e["settings"] for m, ds in stored.items() for d, rs in ds.items() for r, e in rs.items()
    } == {("a", "uci", "x"): "a/uci/x", ("a", "uci", "y"): "a/uci/y"} | {
        ("a", "sample", "x"): "a/sample/x",
        ("b", "uci", "x"): "b/uci/x",
    }


WRITE_ENTRIES = """
import sys
from pathlib import Path
from records import save_entry, save_predictions
path, name = Path(sys.argv[1]), sys.argv[2]
for i in range(40):
    save_entry({"settings": {}, "per_seed": []}, name, "uci", f"row {i}", path)
    save_predictions({f"{name}/{i}": [0, 0, 0]}, path.with_suffix(".npz"))
"""


def test_two_writers_lose_nothing(run_python, tmp_path):
    path = tmp_path / "rows.json"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: run_python("-c", WRITE_ENTRIES, path, name), "ab"))
    assert [len(load_results(path)[name]["uci"]) for name in "ab"] == [40, 40]
    assert len(load_predictions(path.with_suffix(".npz"))) == 80


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"gpt2', "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[1, 2]", "holds no results"),
        ('{"a": 1}', "holds no results"),
        ('{"a": {"uci": {"row": {"accuracy": 1}}}}', "holds no results"),
        ('{"a": {"uci": {"row": [1]}}}', "holds no results"),
    ],
)
def test_damaged_or_foreign_results_are_named(tmp_path, content, words):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ValueError, match=f"rows.json {words}.*delete it"):
        load_results(tmp_path / "rows.json")
    with pytest.raises(ValueError, match=f"rows.json {words}"):
        save_entry({"settings": {}, "per_seed": []}, "a", "uci", "row", tmp_path / "rows.json")
    assert (tmp_path / "rows.json").read_text() == content


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_damaged_answers_are_named(tmp_path, content):
    (tmp_path / "10M-uci.npz").write_bytes(content)
    with pytest.raises(ValueError, match="10M-uci.npz is damaged"):
        load_predictions(tmp_path / "10M-uci.npz")


def test_result_that_is_no_json_is_refused_and_nothing_is_lost(tmp_path):
    save_entry({"settings": {}, "per_seed": []}, "a", "uci", "row", tmp_path / "rows.json")
    before = (tmp_path / "rows.json").read_text()
    with pytest.raises(ValueError):
        save_entry({"settings": {}, "per_seed": [math.inf]}, "a", "uci", "row", tmp_path / "rows.json")
    assert (tmp_path / "rows.json").read_text() == before


# ---------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------


def test_unknown_row_is_named():
    with pytest.raises(
        ValueError, match="Unknown row 'middle-token'. Choose one of: last-token, first-token"
    ):
        settings_of("middle-token")


@pytest.fixture
def command_line(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["experiments.py", *map(str, arguments)])
        experiments.main()

    return run


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["middle-token"], "unknown row 'middle-token'; choose one of: all, report, last-token"),
        (["all", "--again"], "for one row, not for all"),
        (["report", "--learning-rate", "0.1"], "for one row, not for report"),
        *[
            (["head-only", f"--learning-rate={rate}"], f"'{rate}' is not a learning rate")
            for rate in ("inf", "nan", "0", "-1e-3", "fast")
        ],
    ],
)
def test_command_line_says_what_is_wrong_with_an_argument(command_line, capsys, arguments, words):
    with pytest.raises(SystemExit):
        command_line(*arguments)
    assert words in capsys.readouterr().err


def test_command_line_says_what_is_wrong_with_the_results(command_line, tmp_path):
    (tmp_path / "rows.json").write_text("")
    with pytest.raises(SystemExit, match="experiments.py: .*rows.json is not valid JSON"):
        command_line("head-only", "--model", EMBEDDED, "--data", "sample", "--results", tmp_path)


@pytest.mark.parametrize(
    "variable, words",
    [
        ("CHOOSE_MODEL", "Unknown model 'nonsense'. Choose one of: gpt2-mini"),
        ("CHOOSE_DATA", "Unknown data set 'nonsense'. Choose one of: uci"),
    ],
)
def test_unknown_choice_in_the_environment_is_named_and_not_stored(
    command_line, monkeypatch, tmp_path, variable, words
):
    monkeypatch.setenv("CHOOSE_MODEL", EMBEDDED)
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(SystemExit, match=f"experiments.py: {words}"):
        command_line("majority", "--results", tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_report_without_rows_says_how_to_make_them(command_line, tiny_data):
    with pytest.raises(SystemExit, match="no rows of gpt2-mini.*python experiments.py all --data sample"):
        command_line("report", "--model", EMBEDDED, "--data", "sample", "--results", tiny_data.where.folder)


def test_report_keeps_and_prints_what_the_stored_answers_show(command_line, tiny_data, capsys, monkeypatch):
    monkeypatch.setattr(findings, "NUM_NEW_LABELS", 5)
    for row in ("majority", "tf-idf", "tf-idf-best"):
        tiny_data(row)
    capsys.readouterr()
    command_line("report", "--model", EMBEDDED, "--data", "sample", "--results", tiny_data.where.folder)
    assert "tf-idf                against tf-idf-best" in capsys.readouterr().out
    found = json.loads((tiny_data.where.folder / "findings.json").read_text())[EMBEDDED]["sample"]
    assert set(found["accuracies"]) == {"majority", "tf-idf", "tf-idf-best"}
    assert set(found["real share"]) == {"tf-idf", "tf-idf-best"}


def test_given_rate_is_trained_and_not_stored(command_line, tiny_data, capsys):
    arguments = [
        "--model",
        EMBEDDED,
        "--data",
        "sample",
        "--device",
        "cpu",
        "--results",
        tiny_data.where.folder,
    ]
    stored = tiny_data("head-only")
    tiny_data.trainings.clear()
    command_line("head-only", "--seeds", 123, "--learning-rate", "0.5", *arguments)
    out = capsys.readouterr().out
    assert tiny_data.trainings == [(123, 0.5)]
    assert "learning rate 0.5" in out and "Not stored" in out
    assert load_results(tiny_data.rows)[EMBEDDED]["sample"]["head-only"] == json.loads(json.dumps(stored))
    with pytest.raises(SystemExit, match="majority trains no model"):
        command_line("majority", "--learning-rate", "0.5", *arguments)


def test_list_names_each_row_and_what_it_changes(command_line, capsys):
    command_line("--list")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert "padding = none, batch_size = 1" in lines[list(EXPERIMENTS).index("no-padding")]


def test_all_runs_rows_costs_and_curves_but_models_that_are_not_here(
    command_line, capsys, monkeypatch, tmp_path
):
    ran, measured = [], []
    run = dict.fromkeys(("training", "validation", "test", "seconds"), 0.5) | {"seed": 1, "converged": False}
    entry = {"per_seed": [run], "trainable_parameters": 7}
    monkeypatch.setattr(experiments, "run_row", lambda row, *_, **__: ran.append(row) or entry)
    monkeypatch.setattr(experiments, "measure_cost", lambda row, _: measured.append(row))
    monkeypatch.chdir(tmp_path)
    command_line("all", "--model", EMBEDDED, "--data", "sample", "--results", tmp_path)
    assert ran[: len(HERE + BASELINES)] == HERE + BASELINES
    assert ran[len(HERE + BASELINES) :] == [
        f"{row}@{n}#{k}" for row in CURVE_ROWS for n in (32, 64, 128, 256, 512, 1024) for k in (0, 1, 2)
    ]
    assert measured == HERE
    out = capsys.readouterr().out
    assert "size-355M             not run: gpt2-medium (355M) is not on this machine" in out
    assert "DID NOT CONVERGE: seed 1" in out


def test_two_runs_share_the_work(monkeypatch, tmp_path):
    """What another process is at is done by that one; here it finishes while this one does the rest."""
    ran = []
    (tmp_path / "running").mkdir()
    lock = FileLock(tmp_path / "running" / ".10M-sample-majority.lock")  # as another process would
    lock.acquire()

    def run(row, *_):
        ran.append(row)
        if row == "tf-idf":
            lock.release()
        result = dict.fromkeys(("training", "validation", "test", "seconds"), 0.5)
        return {"per_seed": [result], "trainable_parameters": 7, "settings": {}}

    monkeypatch.setattr(experiments, "run_row", run)
    monkeypatch.setattr(experiments, "EXPERIMENTS", {row: EXPERIMENTS[row] for row in ("majority", "tf-idf")})
    monkeypatch.setattr(experiments, "CURVE_ROWS", ())
    experiments.run_jobs([Place(EMBEDDED, "sample", folder=tmp_path)], SEEDS)
    assert ran == ["tf-idf", "majority"]


# ---------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------


def test_summary_has_mean_and_range_in_percent(capsys):
    runs = [{"training": 1.0, "validation": 0.5, "test": test, "seconds": 1} for test in (0.9, 0.8, 0.85)]
    experiments.print_entry("last-token", {"per_seed": runs, "trainable_parameters": 7})
    assert "validation 50.00% (50.00-50.00), test 85.00% (80.00-90.00); 3 run(s)" in capsys.readouterr().out


def test_rows_of_the_other_tables_exist():
    published = RESULTS["experiments_test_accuracy_percent"]
    assert set(PUBLISHED_KEYS.values()) == set(published) - {"about"}
    for rows in (
        PUBLISHED_KEYS,
        NOTES,
        experiments.USED_ROWS,
        CURVE_ROWS,
        {row for pair in PAIRS for row in pair},
    ):
        assert set(rows) <= set(EXPERIMENTS)
    compared = {row for row, _ in PAIRS}
    assert set(HERE) - {"last-token"} <= compared


def test_published_settings_that_differ_are_noted():
    assert set(NOTES) >= {"lora-wide", "mean-token", "random-values", "size-355M"}
    assert EXPERIMENTS["lora-wide"] == {
        "layers": "LoRA",
        "lora_rank": 16,
        "lora_alpha": 16,
        "lora_on": "every linear layer",
    }
