"""The rows of the experiments: what each one changes, trains and reads, and how results are kept."""

import copy
import json
import sys

import pytest
import torch

import experiments
from classification import add_classification_head, calc_loss_batch, freeze_all_layers
from edition import PAD_TOKEN_ID
from experiments import (
    BASE,
    EXPERIMENTS,
    PUBLISHED_KEYS,
    SEEDS,
    accuracy_interval,
    best_on_validation,
    choose_learning_rate,
    load_results,
    results_table,
    run_majority,
    run_row,
    run_tf_idf,
    save_entry,
    settings_of,
    spam_margin,
    summarise,
)
from previous_chapters import GPTModel
from reference_results import RESULTS
from spam_data import SAMPLE_FILE
from variants import (
    LoRALinear,
    TokenClassifier,
    build_model,
    count_frozen_blocks,
    count_trainable,
    create_loaders,
    merge_lora,
    pad,
    pick_token,
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
BASELINES = [row for row in EXPERIMENTS if row not in FINE_TUNED]

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


def with_lora():
    model, _ = classifier_of("lora")
    return model


def lora_layers(model):
    return [module for module in model.modules() if isinstance(module, LoRALinear)]


@torch.no_grad()
def test_lora_starts_as_the_model_without_it():
    plain, _ = classifier_of("head-only")
    assert torch.equal(with_lora()(IDS), plain(IDS))


def test_lora_trains_its_two_matrices_and_the_head_alone():
    model = with_lora()
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):  # A has a gradient once B has left zero
        optimizer.zero_grad()
        calc_loss_batch(IDS, torch.tensor([0, 1, 0]), model, CPU).backward()
        optimizer.step()
    changed = {
        name.split(".")[-1] if ".att." in name else name
        for (name, new), old in zip(model.named_parameters(), before.parameters())
        if not torch.equal(new, old)
    }
    assert changed == {"A", "B", "out_head.weight", "out_head.bias"}


def test_lora_has_two_thin_matrices_for_each_layer():
    rank, C = EXPERIMENTS["lora"]["lora_rank"], CONFIG["emb_dim"]
    layers = CONFIG["n_layers"] * len(EXPERIMENTS["lora"]["lora_on"])
    assert count_trainable(with_lora()) == layers * 2 * rank * C + 2 * C + 2


@torch.no_grad()
def test_merged_lora_gives_the_same_outputs_without_extra_layers():
    model = with_lora()
    start = model(IDS)
    for layer in lora_layers(model):
        layer.B.normal_(generator=torch.Generator().manual_seed(0))
    expected = model(IDS)
    assert (expected - start).abs().max() > 1e-3
    merge_lora(model)
    assert lora_layers(model) == []
    assert torch.allclose(model(IDS), expected, atol=1e-5)


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
        ("last-two-blocks", {"head", "norm", 2, 1}, 1),
        ("lora", {"head", 0, 1, 2}, 0),
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


# ---------------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "padding, expected",
    [
        ("longest message", IDS[0].tolist()),
        ("none", [5, 6, 7, 8]),
        ("full context", [5, 6, 7, 8] + 6 * [PAD_TOKEN_ID]),
    ],
)
def test_message_is_padded(padding, expected):
    assert pad(IDS[0], padding, context_length=10).tolist() == expected


def test_empty_message_without_padding_is_one_token():
    assert pad(IDS[2], "none", 10).tolist() == [PAD_TOKEN_ID]


def test_loaders_give_the_batches_of_notebook_01(tokenizer, sample_loaders):
    for ours, theirs in zip(create_loaders(SAMPLE_FILE), sample_loaders):
        for loader in (ours, theirs):
            torch.manual_seed(5)
            loader.batches = [(ids.tolist(), labels.tolist()) for ids, labels in loader]
        assert ours.batches == theirs.batches


@torch.no_grad()
def test_last_real_token_is_the_last_one_without_padding():
    """In a causal model the padding behind a message changes nothing before it."""
    model, _ = classifier_of("last-token")
    padded = pick_token(model(IDS), IDS, "last real")
    alone = [model(pad(ids, "none", 16).unsqueeze(0))[0, -1] for ids in IDS]
    assert torch.allclose(padded, torch.stack(alone), atol=1e-6)


# ---------------------------------------------------------------------------------
# Learning rate
# ---------------------------------------------------------------------------------


def result(rate, accuracy, loss):
    return {"learning_rate": rate, "validation": accuracy, "validation_loss": loss}


@pytest.mark.parametrize(
    "losses, expected, best",
    [
        ({1: 0.5, 2: 0.1, 3: 0.5}, [2, 1, 3], 2),
        ({1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2}, [2, 1, 3, 4], 4),
        ({1: 0.2, 2: 0.4, 3: 0.5}, [2, 1, 3], 1),
    ],
)
def test_learning_rate_is_searched_until_its_neighbours_are_worse(losses, expected, best):
    tried = []

    def run(rate):
        tried.append(rate)
        return result(rate, 0.9, losses[rate])

    chosen, results = choose_learning_rate(run, (1, 2, 3, 4), 2, num_messages=100)
    assert (tried, chosen["learning_rate"]) == (expected, best)
    assert [r["learning_rate"] for r in results] == sorted(tried)


@pytest.mark.parametrize("num_messages, best", [(50, 1), (5000, 2)])
def test_lower_loss_decides_only_where_the_accuracy_cannot(num_messages, best):
    """89% against 90%: one standard error of the difference is 6 points for 50 messages, 0.6 for 5000."""
    results = [result(1, 0.89, 0.2), result(2, 0.90, 0.4), result(3, 0.60, 0.1)]
    assert best_on_validation(results, num_messages)["learning_rate"] == best


# ---------------------------------------------------------------------------------
# Baselines
# ---------------------------------------------------------------------------------

SETS = [
    (10 * ["win a prize", "win money now", "see you soon", "lunch at one", "see you"], 10 * [1, 1, 0, 0, 0]),
    (["win money", "see you at lunch"], [1, 0]),
    (["a prize", "money", "soon", "win"], [1, 1, 0, 1]),
]


def test_majority_class_is_that_of_the_training_set():
    assert run_majority(SETS) == {"training": 0.6, "validation": 0.5, "test": 0.25}


def test_tf_idf_learns_words():
    result = run_tf_idf(SETS)
    assert (result["training"], result["validation"]) == (1, 1)
    words = {word for text in SETS[0][0] for word in text.split() if len(word) > 1}
    assert result["trainable_parameters"] == len(words) + 1


def test_margin_is_the_difference_of_two_log_probabilities(tokenizer):
    model = language_model()
    model.pos_emb = torch.nn.Embedding(64, CONFIG["emb_dim"])
    ids = torch.tensor([tokenizer.encode(experiments.PROMPT.format(text="win"))])
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model(ids)[0, -1], dim=-1)
    expected = log_probabilities[18084] - log_probabilities[8891]  # " spam", " ham"
    assert spam_margin("win", model, CPU) == pytest.approx(expected.item(), abs=1e-5)


# ---------------------------------------------------------------------------------
# Running a row and keeping its results
# ---------------------------------------------------------------------------------


@pytest.fixture
def tiny_data(monkeypatch, tmp_path, embedded_load, tokenizer):
    """A function that runs a row for one epoch on 24 messages; its results are kept in a folder of the test.

    Attributes: ``path``, the file of the results, and ``trainings``, the list of
    (seed, learning rate) of all trainings.
    """
    words = ["win", "prize", "cash", "free", "lunch", "home", "soon", "tea", "call", "mum", "text", "now"]
    lines = [f"spam\t{word} claim your reward" for word in words] + [f"ham\t{word} then" for word in words]
    (tmp_path / "messages.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(experiments, "find_spam_file", lambda data: tmp_path / "messages.tsv")
    monkeypatch.setattr(experiments, "learning_rates", lambda name: ((1e-3,), 1e-3))
    monkeypatch.setitem(BASE, "epochs", 1)

    def run(row, seeds=SEEDS, **arguments):
        return run_row(
            row, EMBEDDED, "sample", seeds, "cpu", run.path, models_dir=run.models_dir, **arguments
        )

    run.path, run.models_dir, run.trainings = tmp_path / "results.json", embedded_load.models_dir, []
    fine_tune = experiments.fine_tune_row

    def noted(settings, name, loaders, seed, learning_rate, *arguments):
        run.trainings.append((seed, learning_rate))
        return fine_tune(settings, name, loaders, seed, learning_rate, *arguments)

    monkeypatch.setattr(experiments, "fine_tune_row", noted)
    return run


@pytest.mark.parametrize("row", HERE + BASELINES)
def test_row_runs_and_is_stored(tiny_data, row):
    entry = tiny_data(row, seeds=[123])
    assert load_results(tiny_data.path)[EMBEDDED]["sample"][row] == json.loads(json.dumps(entry))
    assert entry["messages"] == [16, 2, 6]
    (result,) = entry["per_seed"]
    assert all(0 <= result[name] <= 1 for name in ("training", "validation", "test"))
    assert result["seed"] == (123 if row in HERE else None)


def test_what_is_stored_is_not_run_again(tiny_data):
    first = tiny_data("head-only")
    assert tiny_data.trainings == [(123, 1e-3), (124, 1e-3), (125, 1e-3)]
    assert tiny_data("head-only") == json.loads(json.dumps(first))
    assert len(tiny_data.trainings) == 3


def test_interrupted_run_goes_on_where_it_stopped(tiny_data, monkeypatch):
    noted = experiments.fine_tune_row

    def interrupted(*arguments):
        if len(tiny_data.trainings) == 2:
            raise KeyboardInterrupt
        return noted(*arguments)

    monkeypatch.setattr(experiments, "fine_tune_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_data("head-only")
    monkeypatch.setattr(experiments, "fine_tune_row", noted)
    entry = tiny_data("head-only")
    assert [seed for seed, _ in tiny_data.trainings] == [123, 124, 125]
    assert [result["seed"] for result in entry["per_seed"]] == [123, 124, 125]


def test_row_runs_again_when_asked_to_or_when_its_settings_changed(tiny_data, monkeypatch):
    tiny_data("head-only", seeds=[123])
    tiny_data("head-only", seeds=[123], again=True)
    monkeypatch.setitem(BASE, "weight_decay", 0.2)
    tiny_data("head-only", seeds=[123])
    assert len(tiny_data.trainings) == 3


def test_given_learning_rate_is_taken_without_a_search(tiny_data):
    entry = tiny_data("head-only", seeds=[123], learning_rate=0.5)
    assert tiny_data.trainings == [(123, 0.5)]
    assert entry["learning_rate"] == 0.5


def test_same_seed_gives_the_same_result(tiny_data):
    first, again = (tiny_data("last-token", seeds=[124], again=True)["per_seed"][0] for _ in range(2))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_saving_an_entry_keeps_the_others(tmp_path):
    path = tmp_path / "results" / "experiments.json"
    for key in [
        ("a", "uci", "x"),
        ("a", "uci", "y"),
        ("a", "sample", "x"),
        ("b", "uci", "x"),
        ("a", "uci", "x"),
    ]:
        save_entry({"is": "/".join(key)}, *key, path)
    assert load_results(path) == {
        "a": {"uci": {"x": {"is": "a/uci/x"}, "y": {"is": "a/uci/y"}}, "sample": {"x": {"is": "a/sample/x"}}},
        "b": {"uci": {"x": {"is": "b/uci/x"}}},
    }


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "results.json").write_text('{"gpt2')
    with pytest.raises(ValueError, match="results.json is not valid JSON.*delete it"):
        load_results(tmp_path / "results.json")


def test_unknown_row_is_named():
    with pytest.raises(
        ValueError, match="Unknown row 'middle-token'. Choose one of: last-token, first-token"
    ):
        settings_of("middle-token")


@pytest.fixture
def command_line(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["experiments.py", *arguments])
        experiments.main()

    return run


def test_command_line_names_an_unknown_row(command_line, capsys):
    with pytest.raises(SystemExit):
        command_line("middle-token")
    assert "unknown row 'middle-token'; choose one of: all, last-token" in capsys.readouterr().err


def test_command_line_says_what_is_wrong_with_the_results(command_line, tmp_path):
    (tmp_path / "results.json").write_text("")
    with pytest.raises(SystemExit, match="experiments.py: .*results.json is not valid JSON"):
        command_line(
            "head-only", "--model", EMBEDDED, "--data", "sample", "--results", f"{tmp_path}/results.json"
        )


def test_list_names_each_row_and_what_it_changes(command_line, capsys):
    command_line("--list")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert "padding = none, batch_size = 1" in lines[list(EXPERIMENTS).index("no-padding")]


def test_all_runs_every_row_but_models_that_are_not_here(command_line, capsys, monkeypatch, tmp_path):
    ran = []
    result = dict.fromkeys(("training", "validation", "test", "seconds"), 0.5)
    entry = {"per_seed": [result], "trainable_parameters": 7}
    monkeypatch.setattr(experiments, "run_row", lambda row, *_, **__: ran.append(row) or entry)
    monkeypatch.chdir(tmp_path)
    command_line("all", "--model", EMBEDDED, "--data", "sample")
    assert ran == HERE + BASELINES
    assert (
        "size-355M             not run: gpt2-medium (355M) is not on this machine" in capsys.readouterr().out
    )


# ---------------------------------------------------------------------------------
# Tables and intervals
# ---------------------------------------------------------------------------------


def test_interval_is_that_of_wilson():
    low, high = accuracy_interval(95, 100)  # Wilson (1927): (p + z²/2n ± z·sqrt(pq/n + z²/4n²)) / (1 + z²/n)
    assert (low, high) == pytest.approx((0.88825, 0.97846), abs=1e-5)


def test_summary_has_mean_and_range_in_percent():
    values = [{"training": 1.0, "validation": 0.5, "test": test} for test in (0.9, 0.8, 0.85)]
    assert summarise({"per_seed": values})["test"] == pytest.approx((85, 80, 90))


def test_table_has_the_stored_rows_in_their_order():
    result = {"seed": 123, "training": 1.0, "validation": 0.5, "test": 0.25, "seconds": 2.0}
    entry = {"per_seed": [result], "trainable_parameters": 7, "frozen_blocks_seconds": 3.0}
    results = {
        EMBEDDED: {"uci": {"tf-idf": entry, "last-token": entry}},
        "gpt2-medium (355M)": {"uci": {"size-355M": entry}},
    }
    table = results_table(results, EMBEDDED, "uci")
    assert list(table.index) == ["last-token", "size-355M", "tf-idf"]
    assert table.loc["last-token", ["test", "lowest", "highest", "seconds"]].tolist() == [25, 25, 25, 5]
    assert len(results_table(results, "gpt2-small (124M)", "uci")) == 1  # the size has its own model


def test_published_rows_exist():
    published = RESULTS["experiments_test_accuracy_percent"]
    assert set(PUBLISHED_KEYS) <= set(EXPERIMENTS)
    assert set(PUBLISHED_KEYS.values()) == set(published) - {"about"}


# ---------------------------------------------------------------------------------
# The stored results
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["sample", "uci"])
@pytest.mark.parametrize("row", HERE + BASELINES)
def test_row_of_the_embedded_checkpoint_is_stored_for_the_present_setting(row, data):
    entry = load_results()[EMBEDDED][data][row]
    assert entry["settings"] == settings_of(row)
    assert entry["messages"] == {"sample": [513, 73, 148], "uci": [1045, 149, 300]}[data]


@pytest.mark.parametrize("row", HERE)
def test_stored_number_of_trainable_parameters_is_that_of_the_code(row, embedded_load):
    model = build_model(settings_of(row), EMBEDDED, 123, embedded_load.models_dir)
    for data in ("sample", "uci"):
        assert load_results()[EMBEDDED][data][row]["trainable_parameters"] == count_trainable(model)


@pytest.mark.parametrize("data", ["sample", "uci"])
@pytest.mark.parametrize("row", HERE)
def test_stored_learning_rate_was_chosen_on_validation_data(row, data):
    entry = load_results()[EMBEDDED][data][row]
    assert {result["learning_rate"] for result in entry["per_seed"]} == {entry["learning_rate"]}
    assert [result["seed"] for result in entry["per_seed"]] == list(experiments.SEEDS)
    tried = {result["learning_rate"]: result for result in entry["tried"]}
    ladder, start = experiments.learning_rates(EMBEDDED)
    best, results = choose_learning_rate(tried.__getitem__, ladder, start, entry["messages"][1])
    assert (best["learning_rate"], results) == (entry["learning_rate"], entry["tried"])


def test_stored_result_can_be_reproduced(embedded_load, tokenizer):
    """The stored results belong to the present checkpoint, messages and code."""
    entry = load_results()[EMBEDDED]["sample"]["head-only"]
    settings, rate = settings_of("head-only"), entry["learning_rate"]
    loaders, models_dir = create_loaders(SAMPLE_FILE), embedded_load.models_dir
    _, result = experiments.fine_tune_row(settings, EMBEDDED, loaders, 123, rate, CPU, models_dir=models_dir)
    for name in ("training", "validation", "test"):
        assert result[name] == pytest.approx(entry["per_seed"][0][name], abs=0.02)
