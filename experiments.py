"""Experiments: change one thing about the fine-tuning and measure what it does.

    python experiments.py --list                     # the rows, and what each one changes
    python experiments.py last-real-token            # run one row
    python experiments.py all --data sample          # run every row that is not there yet

Each row of the table fine-tunes with several seeds and reports the accuracy on the three
full sets. The results are kept in ``results/experiments.json``, row by row and seed by
seed: an interrupted run goes on where it stopped. Notebook 10 discusses them.

The set of rows follows Raschka (2024), chapter 6; LoRA follows Hu et al. (2021).
"""

import argparse
import contextlib
import io
import json
import math
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import edition  # noqa: F401 - it sets what PyTorch reads when it starts

# isort: split
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from classification import (
    calc_accuracy_loader,
    calc_loss_loader,
    fine_tuning_settings,
    load_pretrained_model,
    train_classifier_simple,
)
from devices import choose_device, describe_machine, device_named
from edition import EMBEDDED, MODELS_DIR, SET_NAMES, chosen_data, chosen_model, find_model, get_tokenizer
from files import atomic_file
from gpt_download import DATA_FILE, MAPPED_FILE, SAFETENSORS_FILE
from previous_chapters import MODEL_CONFIGS, model_config
from spam_data import DATA_CHOICES, create_spam_loaders, find_spam_file
from variants import TokenClassifier, build_model, count_trainable, create_loaders

RESULTS_FILE = Path(__file__).resolve().parent / "results" / "experiments.json"
SEEDS = (123, 124, 125)

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
    "weight_decay": 0.1,
}

EXPERIMENTS = {
    "last-token": {},
    # which token the head reads
    "first-token": {"token": "first"},
    "last-real-token": {"token": "last real"},
    "mean-token": {"token": "mean of real"},
    # which layers are trained
    "head-only": {"layers": "head"},
    "last-two-blocks": {"layers": "last two blocks"},
    "lora": {"layers": "LoRA", "lora_rank": 8, "lora_alpha": 16, "lora_on": ["W_query", "W_value"]},
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
    "tf-idf": {"method": "TF-IDF and logistic regression"},
    "zero-shot": {"method": "zero-shot prompt"},
    "zero-shot-calibrated": {"method": "zero-shot prompt, calibrated"},
}

# Where reference_results.json has a published result for the same row with GPT-2 124M.
PUBLISHED_KEYS = {
    "last-token": "last_token_last_block",
    "first-token": "first_token_last_block",
    "last-real-token": "last_real_token",
    "mean-token": "mean_pooled",
    "head-only": "last_token_last_layer_only",
    "last-two-blocks": "last_two_blocks",
    "lora": "lora",
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


def settings_of(row):
    """Return all settings of one row: the base setting with what the row changes.

    Raises:
        ValueError: if there is no such row.
    """
    if row not in EXPERIMENTS:
        raise ValueError(f"Unknown row {row!r}. Choose one of: {', '.join(EXPERIMENTS)}.")
    change = EXPERIMENTS[row]
    return dict(change) if "method" in change else {**BASE, **change}


def learning_rates(name):
    """The ladder of learning rates that a row may use, and the one where the search starts.

    The embedded checkpoint needs larger rates than the published 5e-5. For the official
    sizes the published rate is the only one, as in the published experiments.

    Returns:
        tuple: the rates, ascending, and the first one to try.
    """
    base = fine_tuning_settings(name)["lr"]
    if name == EMBEDDED.name:
        return (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), base
    return (base,), base


# ---------------------------------------------------------------------------------
# Fine-tuning one row
# ---------------------------------------------------------------------------------


def clock(device):
    """Seconds of processor time on a CPU, which other programs do not disturb; else of wall time."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def fine_tune_row(settings, name, loaders, seed, learning_rate, device, memory=None, models_dir=MODELS_DIR):
    """Fine-tune one row with one seed.

    Args:
        settings (dict): from :func:`settings_of`.
        name (str): a key of ``MODEL_CONFIGS``.
        loaders (list of DataLoader): training, validation, test.
        seed (int): decides the values of the new head and the order of the messages.
        learning_rate (float): of AdamW.
        device (torch.device): where to compute.
        memory (dict): see :class:`TokenClassifier`.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        tuple: the TokenClassifier, and a dict with ``seed learning_rate training validation
        test`` (accuracies, 0 to 1), ``validation_loss`` (nats), ``seconds`` (training alone).
    """
    model = build_model(settings, name, seed, models_dir).to(device)
    classifier = TokenClassifier(model, settings["token"], memory)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=learning_rate,
        weight_decay=settings["weight_decay"],
        fused=True,  # the same update in one pass over the values
    )
    train_loader, val_loader, _ = loaders
    torch.manual_seed(seed)  # the order of the messages
    start = clock(device)
    with contextlib.redirect_stdout(io.StringIO()):  # the progress lines
        train_classifier_simple(
            classifier,
            train_loader,
            val_loader,
            optimizer,
            device,
            num_epochs=settings["epochs"],
            eval_freq=10**9,
            eval_iter=1,
        )
    result = {"seed": seed, "learning_rate": learning_rate, "seconds": clock(device) - start}
    for set_name, loader in zip(SET_NAMES, loaders):
        result[set_name] = calc_accuracy_loader(loader, classifier, device)
    with torch.no_grad():
        result["validation_loss"] = calc_loss_loader(val_loader, classifier, device)
    return classifier, result


def best_on_validation(results, num_messages):
    """The lowest validation loss among the results whose accuracy is not worse than the best one's.

    Not worse: by at most one standard error of the difference between two accuracies. The
    accuracy is what the table reports, but of some hundred messages it is coarse, so the
    loss decides where the accuracy cannot. The test set has no say.

    Args:
        results (list of dict): from :func:`fine_tune_row`; ``validation`` and ``validation_loss``.
        num_messages (int): size of the validation set.
    """
    top = max(result["validation"] for result in results)

    def is_not_worse(result):
        q = result["validation"]
        return top - q <= math.sqrt((top * (1 - top) + q * (1 - q)) / num_messages)

    return min(filter(is_not_worse, results), key=lambda result: result["validation_loss"])


def choose_learning_rate(run, ladder, start, num_messages):
    """Climb the ladder, up or down, until both neighbours of the best rate have been tried.

    Args:
        run (callable): learning rate -> result of :func:`fine_tune_row`.
        ladder (sequence of float): learning rates, ascending.
        start (float): the first one to try.
        num_messages (int): size of the validation set; see :func:`best_on_validation`.

    Returns:
        tuple: the best result, and the list of all results, by learning rate.
    """
    results = {start: run(start)}
    while True:
        best = best_on_validation(list(results.values()), num_messages)
        i = ladder.index(best["learning_rate"])
        untried = [rate for rate in ladder[max(i - 1, 0) : i + 2] if rate not in results]
        if not untried:
            return best, [results[rate] for rate in sorted(results)]
        results |= {rate: run(rate) for rate in untried}


def run_fine_tuning(entry, settings, name, data_file, seeds, device, save, ladder, start, models_dir):
    """Add to an entry what it lacks: the learning rate, then one result for each seed.

    The learning rate is chosen on the validation set with the first seed; that run is then
    the row's result for this seed. ``save(entry)`` is called after each step.

    Args:
        entry (dict): what is stored of the row; changed in place.
        ladder, start: see :func:`choose_learning_rate`.
        The others are those of :func:`run_row` and :func:`fine_tune_row`.
    """
    context_length = model_config(name)["context_length"]
    loaders = create_loaders(data_file, settings["padding"], settings["batch_size"], context_length)
    memory = {} if settings["values"] == "pretrained" else None  # random frozen blocks differ by seed
    first = build_model(settings, name, seeds[0], models_dir).to(device)
    begin, classifier = clock(device), TokenClassifier(first, settings["token"], memory)
    if classifier.frozen:
        for loader in loaders:
            for ids, _ in loader:
                classifier.after_frozen_blocks(ids.to(device))
    entry["frozen_blocks_seconds"] = clock(device) - begin
    entry["trainable_parameters"] = count_trainable(first)

    def run(seed, learning_rate):
        return fine_tune_row(settings, name, loaders, seed, learning_rate, device, memory, models_dir)[1]

    if "learning_rate" not in entry:
        best, tried = choose_learning_rate(
            lambda rate: run(seeds[0], rate), ladder, start, num_messages=len(loaders[1].dataset)
        )
        keys = ("learning_rate", "validation", "validation_loss")
        entry["tried"] = [{key: result[key] for key in keys} for result in tried]
        entry |= {"learning_rate": best["learning_rate"], "per_seed": [best]}
        save(entry)
    for seed in seeds:
        if seed not in [result["seed"] for result in entry["per_seed"]]:
            entry["per_seed"].append(run(seed, entry["learning_rate"]))
            save(entry)


# ---------------------------------------------------------------------------------
# Baselines
# ---------------------------------------------------------------------------------


def read_texts(data_file):
    """Return [(texts, labels)] of the three sets: lists of str, and of int (1 is spam)."""
    datasets = [loader.dataset for loader in create_spam_loaders(get_tokenizer(), data_file)]
    return [(dataset.data["Text"].tolist(), dataset.data["Label"].tolist()) for dataset in datasets]


def accuracy(predicted, labels):
    """Share of equal elements in two lists."""
    return statistics.mean(float(p == label) for p, label in zip(predicted, labels))


def run_majority(sets):
    """Give every message the more frequent class of the training set.

    Args:
        sets (list): [(texts, labels)] of the three sets, from :func:`read_texts`.

    Returns:
        dict: ``training validation test``, accuracies between 0 and 1.
    """
    frequent = statistics.mode(sets[0][1])
    return {name: accuracy([frequent] * len(labels), labels) for name, (_, labels) in zip(SET_NAMES, sets)}


def run_tf_idf(sets):
    """TF-IDF features of single words and a logistic regression, both of scikit-learn.

    The strength C of the regularisation is chosen on the validation set; the smaller among equals.

    Args and returns as :func:`run_majority`; also ``C`` and ``trainable_parameters``.
    """
    (texts, labels), *_ = sets
    vectorizer = TfidfVectorizer().fit(texts)
    features = [vectorizer.transform(set_texts) for set_texts, _ in sets]  # (messages, words), sparse
    tried = []
    for C in (0.1, 1, 10, 100):
        model = LogisticRegression(C=C, max_iter=1000).fit(features[0], labels)
        result = {
            name: accuracy(model.predict(x), set_labels)
            for name, x, (_, set_labels) in zip(SET_NAMES, features, sets)
        }
        tried.append({"C": C, **result})
    best = max(tried, key=lambda result: result["validation"])
    return {**best, "trainable_parameters": features[0].shape[1] + 1}


PROMPT = "Is this text message spam or ham?\n\n{text}\n\nAnswer:"
CONTENT_FREE = "N/A"  # a message that says nothing (Zhao et al. 2021)


@torch.no_grad()
def spam_margin(text, model, device):
    """Ask the language model: log P(" spam") - log P(" ham") after the prompt, in nats.

    Args:
        text (str): the message; put into ``PROMPT``.
        model (GPTModel): the language model with its own head.
        device (torch.device): where to compute.
    """
    tokenizer = get_tokenizer()
    ids = torch.tensor([tokenizer.encode(PROMPT.format(text=text), disallowed_special=())], device=device)
    last = model.final_norm(model.trf_blocks(model.embed(ids)))[
        :, -1
    ]  # (1, C): the head is needed at one position only
    logits = model.out_head(last)[0]  # (V,)
    (spam,), (ham,) = tokenizer.encode(" spam"), tokenizer.encode(" ham")
    return (logits[spam] - logits[ham]).item()  # the softmax's denominator cancels


def run_zero_shot(sets, name, device, calibrated, models_dir=MODELS_DIR):
    """Classify by the prompt alone: spam where :func:`spam_margin` is positive.

    Calibrated: spam where it exceeds the margin of a message that says nothing. No label is
    used in either case (Zhao et al. 2021).

    Args:
        sets: see :func:`run_majority`.
        name (str): a key of ``MODEL_CONFIGS``.
        device (torch.device): where to compute.
        calibrated (bool): whether to subtract the margin of ``CONTENT_FREE``.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        dict: see :func:`run_majority`; also ``threshold`` (nats).
    """
    model = load_pretrained_model(name, models_dir).to(device)
    threshold = spam_margin(CONTENT_FREE, model, device) if calibrated else 0.0
    result = {"threshold": threshold}
    for set_name, (texts, labels) in zip(SET_NAMES, sets):
        predicted = [int(spam_margin(text, model, device) > threshold) for text in texts]
        result[set_name] = accuracy(predicted, labels)
    return result


def run_baseline(settings, name, data_file, device, models_dir=MODELS_DIR):
    """Run the baseline that ``settings["method"]`` names; its result has no seed."""
    sets, start = read_texts(data_file), clock(device)
    if settings["method"] == "majority class":
        result = run_majority(sets)
    elif settings["method"] == "TF-IDF and logistic regression":
        result = run_tf_idf(sets)
    else:
        calibrated = settings["method"].endswith("calibrated")
        result = run_zero_shot(sets, name, device, calibrated, models_dir)
    return {"seed": None, **result, "seconds": clock(device) - start}


# ---------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------


def load_results(path=RESULTS_FILE):
    """Return the stored results: {model: {data: {row: entry}}}; empty where there are none yet.

    Raises:
        ValueError: if the file is damaged.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}). Restore it, or delete it and run all rows anew."
        ) from error


def save_entry(entry, name, data, row, path=RESULTS_FILE):
    """Put one entry among the stored results; the other entries stay as they are."""
    results = load_results(path)
    results.setdefault(name, {}).setdefault(data, {})[row] = entry
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def run_row(
    row,
    name,
    data,
    seeds=SEEDS,
    device="cpu",
    path=RESULTS_FILE,
    again=False,
    learning_rate=None,
    models_dir=MODELS_DIR,
):
    """Run one row as far as its results are not stored yet.

    Args:
        row (str): a key of ``EXPERIMENTS``.
        name (str): a key of ``MODEL_CONFIGS``; a row that names its own model uses that.
        data (str): ``"uci"`` or ``"sample"``.
        seeds (sequence of int): what to run; a baseline uses none.
        device (torch.device or str): where to compute.
        path (str or Path): file of the results.
        again (bool): forget the stored results of this row first.
        learning_rate (float): take this one; default: choose it on the validation set.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        dict: the row's entry.

    Raises:
        ValueError: if there is no such row.
    """
    settings = settings_of(row)
    name = settings.get("model", name)
    stored = load_results(path).get(name, {}).get(data, {}).get(row)
    current = stored is not None and stored["settings"] == settings and not again
    entry = stored if current else {"settings": settings, "per_seed": []}
    data_file = find_spam_file(data)
    entry["messages"] = [len(labels) for _, labels in read_texts(data_file)]

    def save(entry):
        packages = {package: version(package) for package in ("torch", "scikit-learn")}
        entry["versions"] = {"python": platform.python_version(), **packages}
        entry["machine"] = describe_machine(device)
        save_entry(entry, name, data, row, path)

    if settings["method"] == "fine-tuning":
        if not set(seeds) <= {result["seed"] for result in entry["per_seed"]}:
            ladder, start = ((learning_rate,), learning_rate) if learning_rate else learning_rates(name)
            run_fine_tuning(entry, settings, name, data_file, seeds, device, save, ladder, start, models_dir)
    elif not current:
        result = run_baseline(settings, name, data_file, device, models_dir)
        entry["trainable_parameters"] = result.pop("trainable_parameters", 0)
        entry["per_seed"] = [result]
        save(entry)
    return entry


def summarise(entry):
    """Mean, lowest and highest value over the seeds, in percent.

    Returns:
        dict: {set name: (mean, lowest, highest)}.
    """
    values = {name: [100 * result[name] for result in entry["per_seed"]] for name in SET_NAMES}
    return {name: (statistics.mean(v), min(v), max(v)) for name, v in values.items()}


def seconds_of(entry):
    """Seconds for one training: the frozen blocks once, and the mean over the seeds of the rest."""
    trainings = statistics.mean(result["seconds"] for result in entry["per_seed"])
    return entry.get("frozen_blocks_seconds", 0) + trainings


def accuracy_interval(correct, total, confidence=0.95):
    """Wilson's interval for the accuracy of a classifier that got ``correct`` of ``total`` right.

    Returns:
        tuple of two float: lowest and highest plausible accuracy, 0 to 1.
    """
    interval = binomtest(correct, total).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def results_table(results, name, data):
    """The stored rows of one model and data set, in the order of ``EXPERIMENTS``.

    Rows that name their own model (the sizes) are taken from that model's results.

    Args:
        results (dict): from :func:`load_results`.
        name (str), data (str): which results.

    Returns:
        pandas.DataFrame: one line for each stored row, indexed by its name: the mean accuracy
        on the three sets in percent, ``lowest`` and ``highest`` test accuracy over the seeds,
        ``seeds``, ``learning rate``, ``trainable`` parameters, ``seconds``.
    """
    lines = {}
    for row, change in EXPERIMENTS.items():
        entry = results.get(change.get("model", name), {}).get(data, {}).get(row)
        if entry is None:
            continue
        summary = summarise(entry)
        lines[row] = {
            **{set_name: summary[set_name][0] for set_name in SET_NAMES},
            "lowest": summary["test"][1],
            "highest": summary["test"][2],
            "seeds": sum(result["seed"] is not None for result in entry["per_seed"]),
            "learning rate": entry.get("learning_rate"),
            "trainable": entry["trainable_parameters"],
            "seconds": seconds_of(entry),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


# ---------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------


def is_at_hand(name, models_dir=MODELS_DIR):
    """Whether the weights of a model are on this machine, so that a run needs no download."""
    folder = Path(models_dir) / find_model(name).size
    files = (DATA_FILE, SAFETENSORS_FILE, MAPPED_FILE)
    return name == EMBEDDED.name or any((folder / file).exists() for file in files)


def describe(row):
    """What a row changes, as text."""
    change = EXPERIMENTS[row]
    return ", ".join(f"{key} = {value}" for key, value in change.items()) or "the base setting"


def print_rows():
    """Print all rows and what each one changes."""
    print("Base setting: " + ", ".join(f"{key} = {value}" for key, value in BASE.items()))
    for row in EXPERIMENTS:
        print(f"  {row:21} {describe(row)}")


def print_entry(row, entry):
    """Print one row's results."""
    parts = [f"{n} {m:.2f}% ({low:.2f}-{high:.2f})" for n, (m, low, high) in summarise(entry).items()]
    rate = f", learning rate {entry['learning_rate']:g}" if "learning_rate" in entry else ""
    print(
        f"{row:21} {', '.join(parts)}; {len(entry['per_seed'])} run(s){rate}, "
        f"{entry['trainable_parameters']:,} trainable parameters, {seconds_of(entry):.1f} s",
        flush=True,
    )


def run_rows(args):
    """Run the rows that the command line names, and print each one's results."""
    print(f"{args.model} on the {args.data} data, {args.device}: mean accuracy (lowest-highest)", flush=True)
    for row in EXPERIMENTS if args.row == "all" else [args.row]:
        own_model = EXPERIMENTS[row].get("model")
        if args.row == "all" and own_model and not is_at_hand(own_model):
            print(f"{row:21} not run: {own_model} is not on this machine (python experiments.py {row})")
            continue
        options = {"path": args.results, "again": args.again, "learning_rate": args.learning_rate}
        print_entry(row, run_row(row, args.model, args.data, args.seeds, args.device, **options))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", nargs="?", help="a row of --list, or all")
    parser.add_argument("--list", action="store_true", help="list the rows and what each one changes")
    parser.add_argument("--model", choices=list(MODEL_CONFIGS), default=chosen_model())
    parser.add_argument("--data", choices=DATA_CHOICES, default=chosen_data())
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--device", default=choose_device())
    parser.add_argument("--results", type=Path, default=RESULTS_FILE, help="file of the results")
    parser.add_argument("--again", action="store_true", help="run also what is stored already")
    parser.add_argument(
        "--learning-rate", type=float, help="take this one; default: choose it on the validation set"
    )
    args = parser.parse_args()
    if args.list or args.row is None:
        return print_rows()
    if args.row != "all" and args.row not in EXPERIMENTS:
        parser.error(f"unknown row {args.row!r}; choose one of: all, {', '.join(EXPERIMENTS)}")

    try:
        args.device = device_named(args.device)
        run_rows(args)
    except (OSError, ValueError) as error:  # no network, a damaged file, ...: the message says what to do
        sys.exit(f"experiments.py: {error}")


if __name__ == "__main__":
    main()
