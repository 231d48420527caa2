"""Experiments: change one thing about the fine-tuning and measure what it does.

    python experiments.py --list                     # the rows, and what each one changes
    python experiments.py last-real-token            # run one row
    python experiments.py all --data sample uci      # everything that is not stored yet
    python experiments.py report                     # what the stored answers show

``all`` runs each row with several seeds, measures the cost of each, and draws the learning
curves. It goes on where it was stopped; started a second time beside the first, the two share
the work, one core each with OMP_NUM_THREADS=1. The results are kept in ``results/``: settings
and accuracies in ``rows.json`` and ``curve.json``, the answer to every validation and test
message in ``predictions/``. ``report`` computes ``findings.json`` from them, which notebook 10
discusses.

The set of rows follows Raschka (2024), chapter 6; LoRA follows Hu et al. (2021).

In this module ``settings`` is a dict from :func:`settings_of`, ``name`` a key of
``MODEL_CONFIGS``, ``data`` ``"uci"`` or ``"sample"``, and ``where`` a :class:`Place`.
"""

import argparse
import math
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import edition  # noqa: F401 - it sets what PyTorch reads when it starts

# isort: split
import numpy as np
import torch
from filelock import Timeout

import baselines
import findings
import findings_text
from devices import choose_device, device_named
from edition import (
    DATA_CHOICES,
    EMBEDDED,
    SET_NAMES,
    WEIGHT_DECAY,
    chosen_data,
    chosen_model,
    find_model,
    is_at_hand,
)
from message_sets import create_loaders, loader_of_texts, read_other_sets, read_sets
from previous_chapters import MODEL_CONFIGS, model_config
from records import RESULTS_DIR, Place, Record, changed, load_json, load_predictions, work_on
from spam_data import find_spam_file
from trials import answers_of, choose_learning_rate, clock, fine_tune_row, score, training_cost
from variants import build_model, count_trainable

SEEDS = (123, 124, 125, 126, 127)

# ---------------------------------------------------------------------------------
# The table of experiments
# ---------------------------------------------------------------------------------

# The setting of notebooks 05 to 08. Each row below states only what it changes.
BASE = {
    "method": "fine-tuning",
    "values": "pretrained",
    "layers": "last block",
    "token": "last",
    "padding": "longest message",
    "causal_mask": True,
    "batch_size": 8,
    "epochs": 5,
    "weight_decay": WEIGHT_DECAY,
}

EXPERIMENTS = {
    "last-token": {},
    # which token the head reads
    "first-token": {"token": "first"},
    "last-real-token": {"token": "last real"},
    "mean-token": {"token": "mean of real"},
    # which layers are trained
    "head-only": {"layers": "head"},
    "first-block": {"layers": "first block"},
    "last-two-blocks": {"layers": "last two blocks"},
    "lora": {"layers": "LoRA", "lora_rank": 8, "lora_alpha": 16, "lora_on": ["W_query", "W_value"]},
    "lora-wide": {"layers": "LoRA", "lora_rank": 16, "lora_alpha": 16, "lora_on": "every linear layer"},
    "all-layers": {"layers": "all"},
    # where training starts
    "random-last-block": {"values": "random"},
    "random-values": {"values": "random", "layers": "all"},
    # padding and mask
    "full-context": {"padding": "full context"},
    "no-padding": {"padding": "none", "batch_size": 1},
    "no-causal-mask": {"causal_mask": False},
    # model size
    "size-124M": {"model": "gpt2-small (124M)"},
    "size-355M": {"model": "gpt2-medium (355M)"},
    "size-774M": {"model": "gpt2-large (774M)"},
    "size-1558M": {"model": "gpt2-xl (1558M)"},
    # baselines
    "majority": {"method": "majority class"},
    "tf-idf": {"method": "TF-IDF and logistic regression", "features": "words"},
    "tf-idf-best": {"method": "TF-IDF and logistic regression", "features": "words and characters"},
    "frozen-states": {"method": "logistic regression on frozen states", "values": "pretrained"},
    "frozen-random": {"method": "logistic regression on frozen states", "values": "random"},
    "zero-shot": {"method": "zero-shot prompt"},
    "zero-shot-calibrated": {"method": "zero-shot prompt, calibrated"},
}

# Which rows are compared on the same messages: those on the right, each against the one on the left.
COMPARED = {
    "last-token": "first-token last-real-token mean-token head-only first-block last-two-blocks lora "
    "lora-wide all-layers random-last-block full-context no-causal-mask",
    "last-real-token": "no-padding",
    "all-layers": "random-values",
    "frozen-random": "frozen-states",
    "tf-idf-best": "last-token last-real-token all-layers random-values frozen-states tf-idf",
    "majority": "zero-shot",
    "zero-shot": "zero-shot-calibrated",
}
PAIRS = [(row, against) for against, rows in COMPARED.items() for row in rows.split()]

# Where reference_results.json has a published result for the same row with GPT-2 124M ...
PUBLISHED_KEYS = {
    "last-token": "last_token_last_block",
    "first-token": "first_token_last_block",
    "last-real-token": "last_real_token",
    "mean-token": "mean_pooled",
    "head-only": "last_token_last_layer_only",
    "last-two-blocks": "last_two_blocks",
    "lora-wide": "lora",
    "all-layers": "all_layers",
    "random-values": "random_weights_all_layers",
    "full-context": "padded_to_1024",
    "no-padding": "no_padding_batch_1",
    "no-causal-mask": "no_causal_mask",
    "size-124M": "last_token_last_block",
    "size-355M": "gpt2_medium_355M",
    "size-774M": "gpt2_large_774M",
    "size-1558M": "gpt2_xl_1558M",
}

# ... and what the published run did otherwise. All of them took the rate 5e-5 and one seed.
NOTES = {
    "mean-token": "the published mean takes in the padding",
    "lora-wide": "the published update is scaled by alpha (16), ours by alpha / rank (1)",
    "random-values": "published: from PyTorch's values; ours: from those of GPT-2 before its pretraining",
    "no-padding": "as published: one message in a batch, so eight times as many updates as the other rows",
    "size-355M": "the rate of 124M; a rate of its own was not searched",
    "size-774M": "the rate of 124M; a rate of its own was not searched",
    "size-1558M": "the rate of 124M; a rate of its own was not searched",
}

# Rows that also answer the messages of daily use: see ``message_sets.read_other_sets``.
USED_ROWS = ("last-token", "last-real-token", "tf-idf", "tf-idf-best")

# The learning curve: these rows with so many training messages, three subsets each. A point is
# the row "last-token@128#0": 128 messages, subset 0. With all messages it is the row itself.
CURVE_ROWS = (
    "tf-idf tf-idf-best frozen-states frozen-random last-token last-real-token all-layers random-values"
).split()
CURVE_SIZES, CURVE_SUBSETS = (32, 64, 128, 256, 512, 1024), (0, 1, 2)
CURVE_STEPS = 200  # at least so many optimizer steps: more epochs for few messages

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # learning rates: every row of the embedded model tries all of them
SEARCH_SEEDS = 2  # with so many seeds each


def settings_of(row):
    """All settings of a row: the base setting with what the row changes; ``ValueError`` for another name."""
    base, is_point, point = row.partition("@")
    if base not in EXPERIMENTS:
        raise ValueError(f"Unknown row {row!r}. Choose one of: {', '.join(EXPERIMENTS)}.")
    change = EXPERIMENTS[base]
    settings = dict(change) if "method" in change else {**BASE, **change}
    if is_point:
        n, subset = map(int, point.split("#"))
        settings |= {"messages": n, "subset": subset}
        if settings["method"] == "fine-tuning":
            settings["epochs"] = max(BASE["epochs"], math.ceil(CURVE_STEPS / (n // BASE["batch_size"])))
    return settings


# ---------------------------------------------------------------------------------
# Running a row
# ---------------------------------------------------------------------------------


def record_of(row, where, again=False):
    """What is stored of a row, as far as it belongs to the present settings and messages."""
    others = read_other_sets(where.data) if row in USED_ROWS else {}
    return Record(row, settings_of(row), where, find_spam_file(where.data), others, again)


def subset_of(settings):
    """The part of the training messages that a row learns from: (number, seed), or None for all."""
    return (settings["messages"], settings["subset"]) if "messages" in settings else None


def make_loaders(settings, where):
    """The three loaders of a fine-tuned row."""
    context_length = model_config(where.name)["context_length"]
    padding, batch_size = settings["padding"], settings["batch_size"]
    data_file = find_spam_file(where.data)
    return create_loaders(data_file, padding, batch_size, context_length, subset_of(settings))


def train_once(record, loaders, seed, learning_rate, other_sets):
    """One training: the run, and its answers to all sets."""
    where, settings = record.where, record.settings
    memory = where.memory_for(settings, seed)
    classifier, run = fine_tune_row(settings, where.name, loaders, seed, learning_rate, where.device, memory)
    answers = run.pop("answers")
    for set_name, (texts, labels) in other_sets.items():
        loader = loader_of_texts(texts, labels, loaders[0], settings["padding"])
        answers[set_name] = answers_of(classifier, loader, where.device)
    return run, answers


def rates_to_try(row, where):
    """The learning rates that a row tries, ascending, and with how many seeds each."""
    if where.name != EMBEDDED.name:  # OpenAI's sizes take the published rate alone
        return (find_model(where.name).learning_rate,), 1
    base, is_point, point = row.partition("@")
    if not is_point:
        return LADDER, SEARCH_SEEDS
    n, subset = point.split("#")
    if subset != "0":  # what subset 0 chose
        return (run_row(f"{base}@{n}#0", where)["learning_rate"],), 1
    i = LADDER.index(run_row(base, where, SEEDS[:SEARCH_SEEDS])["learning_rate"])
    return LADDER[max(i - 1, 0) : i + 2], 1  # the rate of the whole row and its neighbours


def run_fine_tuning(record, seeds):
    """Add what a row lacks: the runs of the search, the learning rate, a run for each seed."""
    entry, row, where = record.entry, record.row, record.where
    if all(record.has(seed) for seed in seeds):
        return
    loaders = make_loaders(record.settings, where)
    if "learning_rate" not in entry:
        entry["trainable_parameters"] = count_trainable(build_model(record.settings, where.name, seeds[0]))
        entry["messages"] = [len(loader.dataset) for loader in loaders]
        ladder, num_seeds = rates_to_try(row, where)
        tried = {(run["learning_rate"], run["seed"]): run for run in entry.get("tried", [])}
        for seed in seeds[:num_seeds]:
            for rate in ladder:
                failed = any(not run["converged"] for (r, _), run in tried.items() if r == rate)
                if (rate, seed) not in tried and not failed:
                    tried[rate, seed], answers = train_once(record, loaders, seed, rate, {})
                    record.keep(tried[rate, seed], answers, among="tried")
        entry["learning_rate"] = choose_learning_rate(list(tried.values()), len(loaders[1].dataset))
        entry["per_seed"] = [run for (rate, _), run in tried.items() if rate == entry["learning_rate"]]
        record.save()
    for seed in seeds:
        if not record.has(seed):
            record.keep(*train_once(record, loaders, seed, entry["learning_rate"], record.others))


def run_baseline(record, seed):
    """One run of a baseline; only random values have a seed."""
    where, settings, start = record.where, record.settings, clock(record.where.device)
    sets = read_sets(find_spam_file(where.data), subset_of(settings)) | record.others
    method, model = settings["method"], (where.name, where.device)
    if method == "majority class":
        choice, z = baselines.run_majority(sets)
    elif method.startswith("TF-IDF"):
        choice, z = baselines.run_tf_idf(sets, strong=settings["features"] != "words")
    elif method.endswith("frozen states"):
        choice, z = baselines.run_frozen_states(sets, settings["values"], seed, *model)
    else:
        choice, z = baselines.run_zero_shot(sets, method.endswith("calibrated"), *model)
    record.entry["trainable_parameters"] = choice.pop("trainable_parameters", 0)
    record.entry["messages"] = [len(sets[name][1]) for name in SET_NAMES]
    answers = {name: (z[name], np.array(labels)) for name, (_, labels) in sets.items()}
    right = {name: score(*answers[name])[0] for name in SET_NAMES}
    record.keep({"seed": seed, **choice, **right, "seconds": clock(where.device) - start}, answers)


def run_row(row, where, seeds=SEEDS, again=False):
    """Run a row, or a point of a curve, as far as it is not stored, or ``again`` as a whole; its entry."""
    settings = settings_of(row)
    where = replace(where, name=settings.get("model", where.name))
    if "subset" in settings:
        seeds = (SEEDS[settings["subset"]],)
    with work_on(row, where):  # waits where another process is at the same
        record = record_of(row, where, again)
        if settings["method"] == "fine-tuning":
            run_fine_tuning(record, seeds)
        else:
            for seed in seeds if settings.get("values") == "random" else [None]:
                if not record.has(seed):
                    run_baseline(record, seed)
    return record.entry


def measure_cost(row, where):
    """Add the cost of training to a row's entry, measured in a process of its own."""
    record = record_of(row, replace(where, name=settings_of(row).get("model", where.name)))
    if "cost" not in record.entry:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            train_loader = make_loaders(record.settings, record.where)[0]
            cost = pool.submit(training_cost, record.settings, record.where.name, train_loader)
            record.entry["cost"] = cost.result()
        record.save()


# ---------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------


def print_rows():
    """Print all rows and what each one changes."""
    print("Base setting: " + ", ".join(f"{key} = {value}" for key, value in BASE.items()))
    for row, change in EXPERIMENTS.items():
        changes = ", ".join(f"{key} = {value}" for key, value in change.items())
        print(f"  {row:21} {changes or 'the base setting'}")


def print_entry(row, entry):
    """Print one row's results: the accuracies are the mean over the seeds (lowest-highest)."""
    parts = []
    for name in SET_NAMES:
        values = [100 * run[name] for run in entry["per_seed"]]
        parts.append(f"{name} {statistics.mean(values):.2f}% ({min(values):.2f}-{max(values):.2f})")
    rate = f", learning rate {entry['learning_rate']:g}" if "learning_rate" in entry else ""
    failed = [str(run["seed"]) for run in entry["per_seed"] if not run.get("converged", True)]
    seconds = statistics.mean(run["seconds"] for run in entry["per_seed"])
    print(
        f"{row:21} {', '.join(parts)}; {len(entry['per_seed'])} run(s){rate}, "
        f"{entry['trainable_parameters']:,} trainable parameters, {seconds:.1f} s"
        + (f"; DID NOT CONVERGE: seed {', '.join(failed)}" if failed else ""),
        flush=True,
    )


def run_jobs(places, seeds):
    """Run whatever is not stored yet: all rows with their costs, then the learning curves."""
    torch.set_num_threads(1)  # small models: two processes do more than two threads
    jobs = []
    for where in places:
        for row, change in EXPERIMENTS.items():
            own_model = change.get("model")
            if own_model and not is_at_hand(find_model(own_model)):
                print(f"{row:21} not run: {own_model} is not on this machine (python experiments.py {row})")
            else:
                jobs.append((where, row))
    jobs += [(where, point) for where in places if where.name == EMBEDDED.name for point in curve_points()]

    for timeout in (0, -1):  # what another process is at is passed over, and looked at again at the end
        busy = []
        for where, row in jobs:
            try:
                with work_on(row, where, timeout):
                    entry = run_row(row, where, seeds)
                    if row in EXPERIMENTS and settings_of(row)["method"] == "fine-tuning":
                        measure_cost(row, where)
            except Timeout:
                busy.append((where, row))
            else:
                print(f"{where.data:7}", end="")
                print_entry(row, entry)
        jobs = busy


def positive_rate(text):
    """A type for argparse: a learning rate."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate: a finite number above 0")
    return rate


def print_with_rate(row, where, seeds, learning_rate):
    """Train a row at a rate of the user's choice; nothing is stored, as the table holds chosen rates."""
    settings = settings_of(row)
    if settings["method"] != "fine-tuning":
        raise ValueError(f"{row} trains no model: it has no learning rate.")
    where = replace(where, name=settings.get("model", where.name))
    loaders, runs = make_loaders(settings, where), []
    for seed in seeds:
        place = (where.device, where.memory_for(settings, seed))
        classifier, run = fine_tune_row(settings, where.name, loaders, seed, learning_rate, *place)
        runs.append(run)
    trainable = count_trainable(classifier.model)
    print_entry(row, {"learning_rate": learning_rate, "per_seed": runs, "trainable_parameters": trainable})
    print("Not stored: the table holds learning rates that were chosen on the validation set.")


def curve_points():
    """Names of all points of the learning curves."""
    return [f"{row}@{n}#{subset}" for row in CURVE_ROWS for n in CURVE_SIZES for subset in CURVE_SUBSETS]


def read_answers(where, rows):
    """The stored answers of rows, as far as they belong to the present settings and messages."""
    records = [record_of(row, where) for row in rows if "model" not in settings_of(row)]
    entries = {record.row: record.entry for record in records}
    return findings.Answers(entries, load_predictions(where.predictions_of(rows[0])))


def report(places):
    """Compute what the stored answers show, keep it in findings.json, and print it."""
    for where in places:
        answers, curve_answers = read_answers(where, list(EXPERIMENTS)), read_answers(where, curve_points())
        if not answers.entries:
            raise ValueError(
                f"{where.folder} has no rows of {where.name} for the present {where.data} data. "
                f"Make them: python experiments.py all --data {where.data}"
            )
        curve = (CURVE_ROWS, CURVE_SIZES, CURVE_SUBSETS)
        found = findings.find_all(answers, curve_answers, PAIRS, USED_ROWS, curve)
        with changed(Path(where.folder) / "findings.json", load_json) as stored:
            stored.setdefault(where.name, {})[where.data] = findings.rounded(found)
        print(f"{where.name}, {where.data} data")
        findings_text.print_findings(found, PUBLISHED_KEYS, NOTES)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", nargs="?", help="a row of --list, or all, or report")
    parser.add_argument("--list", action="store_true", help="list the rows and what each one changes")
    parser.add_argument("--model", choices=list(MODEL_CONFIGS), help="default: the variable CHOOSE_MODEL")
    parser.add_argument("--data", choices=DATA_CHOICES, nargs="+", help="default: CHOOSE_DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--device", default=choose_device())
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="folder of the results")
    parser.add_argument("--again", action="store_true", help="run also what is stored already (one row)")
    parser.add_argument(
        "--learning-rate", type=positive_rate, help="train one row at this rate, store nothing"
    )
    args = parser.parse_args()
    if args.list or args.row is None:
        return print_rows()
    if args.row not in (*EXPERIMENTS, "all", "report"):
        parser.error(f"unknown row {args.row!r}; choose one of: all, report, {', '.join(EXPERIMENTS)}")
    if args.row not in EXPERIMENTS and (args.again or args.learning_rate):
        parser.error(f"--again and --learning-rate are for one row, not for {args.row}")

    try:
        args.device = device_named(args.device)
        args.model, args.data = args.model or chosen_model(), args.data or [chosen_data()]
        places = [Place(args.model, data, str(args.device), args.results) for data in args.data]
        if args.row == "report":
            return report(places)
        print(
            f"{args.model} on {', '.join(args.data)}, {args.device}: mean accuracy (lowest-highest)",
            flush=True,
        )
        if args.row == "all":
            return run_jobs(places, args.seeds)
        for where in places:
            if args.learning_rate:
                print_with_rate(args.row, where, args.seeds, args.learning_rate)
            else:
                print_entry(args.row, run_row(args.row, where, args.seeds, args.again))
    except (OSError, ValueError) as error:  # no network, a damaged file, ...: the message says what to do
        sys.exit(f"experiments.py: {error}")


if __name__ == "__main__":
    main()
