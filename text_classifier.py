"""The command line: fine-tune a classifier, measure it, use it, hand it on.

    python text_classifier.py initial  --model "gpt2-mini (10M)" --data uci
    python text_classifier.py finetune --model "gpt2-mini (10M)" --data uci
    python text_classifier.py finetune --data my.csv
    python text_classifier.py evaluate --data my.csv --format html > report.html
    python text_classifier.py classify "You are a winner" "See you at eight"
    python text_classifier.py classify --file messages.txt
    python text_classifier.py export --to hf --output FOLDER

``initial`` runs the whole chain of notebooks 01 to 07 and prints the accuracy and loss of the three sets
before any fine-tuning. ``finetune`` does what notebook 08 does and saves the classifier, under ``torchrun``
in several processes; with a file of your own, what notebook 12 does. ``evaluate``, ``classify`` and
``export`` use the newest saved classifier, or before there is one that of the book. Results go to
the standard output, everything else to the standard error. Each command is one function.
"""

import argparse
import os
import sys
from pathlib import Path

# before PyTorch, for which it sets something
from edition import DATA_CHOICES, EMBEDDED, MODELS, SET_NAMES, chosen_data, chosen_model

# isort: split
import torch

import distributed
import export
import own_data
import report
import report_page
import streams
import tables
from classification import (
    CLASS_NAMES,
    END_OF_TEXT,
    build_classifier,
    calc_accuracy_loader,
    calc_loss_loader,
    load_messages,
    train_as_published,
)
from devices import choose_device, device_named
from fast_paths import TokenClassifier
from files import new_folder, sha256_of
from own_training import LAYERS, build_own_classifier, fine_tune, ladder
from previous_chapters import MODEL_CONFIGS, model_config
from reading import Reader, predict
from saved_classifiers import (
    CLASSIFIERS,
    chosen_classifier,
    default_output,
    reserve,
    round_as_saved,
    save_somewhere,
)
from streams import harmless, note

# ---------------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------------


def run_initial(args):
    """Print accuracy (10 batches) and loss (5 batches) of the three sets before fine-tuning."""
    loaders = load_messages(args.model, args.data)
    model = build_classifier(args.model).to(args.device)
    max_length = loaders[0].dataset.max_length
    print(f"{args.model} on the {args.data} data, {args.device}: messages padded to {max_length} tokens")
    torch.manual_seed(123)  # For reproducibility due to the shuffling in the training data loader
    print_accuracies(model, loaders, args.device, num_batches=10)
    with torch.no_grad():
        for set_name, loader in zip(SET_NAMES, loaders):
            loss = calc_loss_loader(loader, model, args.device, num_batches=5)
            print(f"{set_name.capitalize()} loss: {loss:.3f}")


def run_finetune(args):
    """Fine-tune, print the accuracy, and save the classifier; a file of your own is checked before."""
    if args.data in DATA_CHOICES:
        finetune_as_published(args)
    else:
        finetune_table(args)


def finetune_as_published(args):
    """Fine-tune as notebook 08 does, print the accuracies on the whole sets, and save the classifier."""
    if given := [name for name in TABLE_OPTIONS if getattr(args, name) is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{options}: for a file of your own. {args.data} is trained on as published.")
    epochs = args.epochs or 5
    output = Path(args.output or default_output(args.model, args.data))
    with distributed.process_group(args.device) as device:
        if args.cached and distributed.num_processes() > 1:
            raise ValueError("Cached activations are for one process. Leave out either --cached or torchrun.")
        if distributed.is_first_process():
            reserve(output)
        with distributed.one_after_the_first():
            loaders = load_messages(args.model, args.data)
            model = build_classifier(args.model).to(device)
        if distributed.is_first_process():
            reserve(output, model, args.only_trained)

        network = model
        if distributed.num_processes() > 1:
            network = distributed.DistributedClassifier(model)
        if args.cached:
            network = TokenClassifier(model)
        train_as_published(network, *loaders[:2], args.model, device, epochs, args.learning_rate)
        if not distributed.is_first_process():
            return
        if args.only_trained:
            round_as_saved(model)
        accuracies = {}
        try:
            print("Accuracy on the whole sets:")
            accuracies = print_accuracies(model, loaders, device)
        finally:  # also after Ctrl-C or an error: what was trained is kept
            settings = args.model, args.data, loaders[0].dataset.max_length
            options = {"accuracies": accuracies, "only_trained": args.only_trained}
            save_somewhere(output, model, *settings, **options)
            print(f"Saved as {output}")


def finetune_table(args):
    """Check a table, fine-tune on it as notebook 12 does, measure on its test set, save the classifier."""
    if distributed.started_processes() > 1:
        raise ValueError("A file of your own is for one process. Leave out torchrun.")
    if args.cached and args.layers == "all":
        raise ValueError("--cached needs frozen layers, and with --layers all there are none.")
    output = Path(args.output or default_output(args.model, Path(args.data).stem))
    reserve(output)
    max_length = args.max_length or model_config(args.model)["context_length"]
    sets, facts = checked_sets(args, max_length)
    names = own_data.class_names(sets["training"])
    model = build_own_classifier(args.model, len(names), args.layers, args.seed).to(args.device)
    reserve(output, model, args.only_trained)
    rates = [args.learning_rate] if args.learning_rate else ladder(args.model, args.layers)
    weighted = args.imbalance == "weights"
    options = {"weighted": weighted, "cached": args.cached, "seed": args.seed, "say": note}
    best, interrupted = fine_tune(model, names, sets, max_length, rates, args.epochs or 10, **options)

    if args.only_trained:
        round_as_saved(model)
    settings = {"max_length": max_length, "threshold": 0.5, "reads": END_OF_TEXT, "class_names": names}
    facts["best"], accuracies = best, {"validation": best["accuracy"]} if best else {}
    try:
        if not interrupted:
            print(f"Validation accuracy: {best['accuracy']:.2%}")
            measured = report.measure_table(Reader(model, settings, args.device), settings, sets["test"])
            accuracies["test"] = measured["accuracy"]
            facts["test"] = {key: measured[key] for key in measured.keys() - {"mistakes", "confusion"}}
            print(report.accuracy_line(measured, "Test accuracy"))
    finally:  # also after Ctrl-C or an error: what was trained is kept
        data = Path(args.data).name if Path(args.data).name.isprintable() else "table"
        options = {**settings, "accuracies": accuracies, "only_trained": args.only_trained, "training": facts}
        save_somewhere(output, model, args.model, data, **options)
        print(f"Saved as {output}")
    if interrupted:
        which = f"the best state so far, of epoch {best['epoch']}" if best else "the state of its first epoch"
        note(f"Interrupted. What was saved is {which}.")
        sys.exit(130)


def checked_sets(args, max_length):
    """Read and check the table, print what was found, stop at problems; returns the sets and what to keep."""
    columns = args.text_column, args.label_column
    sets, checks = own_data.prepare(args.data, args.test, columns, max_length, args.seed, note)
    stops = checks.problems and not args.force
    beaten = {} if stops else own_data.baseline_accuracies(sets["training"], sets["test"])
    for name, accuracy in beaten.items():
        checks.add(f"accuracy of {name}", f"{accuracy:.1%}", "on the test set: what there is to beat")
    print(report.table([("check", "found", ""), *checks.rows], right=(1,)))
    for problem in checks.problems:
        note(f"Problem: {problem}.")
    if stops:
        raise ValueError("Nothing was trained: such a result would be worthless. Use --force to go on.")
    facts = {
        "sha256": sha256_of(args.data),
        "columns": sets["training"].attrs["names"],
        "separate_test": bool(args.test),
        "seed": args.seed,
        "layers": args.layers,
        "checks": checks.rows,
        "baselines": beaten,
    }
    sets["training"], facts["imbalance"] = own_data.even_out(sets["training"], args.imbalance, args.seed)
    facts["classes"] = sets["training"]["label"].value_counts().to_dict()
    print(f"Imbalance: {facts['imbalance']}")
    return sets, facts


def run_evaluate(args):
    """Measure a classifier on labelled texts: accuracy, classes, confusion, calibration, worst mistakes."""
    path, model, settings = chosen_classifier(args.classifier)
    columns = args.text_column, args.label_column
    table, which = own_data.table_to_measure(args.data, columns, settings, note)
    measured = report.measure_table(Reader(model, settings, args.device), settings, table)
    about = {"classifier": str(path), "model": settings["model"], "trained_on": settings["data"]}
    streams.begin_results(args.format)
    print(WRITERS[args.format]({**about, "data": which, **measured}))


def run_export(args):
    """Write a classifier as a folder that Transformers or ONNX Runtime opens, and compare the logits."""
    if args.int8 and (args.to != "onnx" or not args.data):
        raise ValueError("--int8 is for --to onnx, and measures what it loses: name labelled texts, --data.")
    path, model, settings = chosen_classifier(args.classifier)
    note(f"{path}: {settings['model']}, fine-tuned on {settings['data']}")
    with new_folder(args.output) as folder:
        if args.to == "hf":
            difference = export.to_hugging_face(folder, model, settings)
        else:
            difference = export.to_onnx(folder, model, settings, args.int8)
        lines = [f"Largest difference of the logits: {difference:.1e}"]
        if args.int8:
            columns = args.text_column, args.label_column
            table, which = own_data.table_to_measure(args.data, columns, settings, note)
            for file_name in ("model.onnx", "model_int8.onnx"):
                reader = export.OnnxReader(folder, file_name)
                accuracy = report.measure_table(reader, settings, table)["accuracy"]
                size = (folder / file_name).stat().st_size / 1e6
                lines.append(f"{file_name}: {size:.1f} MB, accuracy {accuracy:.2%} on {which}")
    print(*lines, f"Saved as {args.output}", sep="\n")


def run_classify(args):
    """Print a line for each text, as they come: class, probability, text, with tabs between.

    The probability is that of the class, of a spam classifier always that of spam.
    """
    path, model, settings = chosen_classifier(args.classifier)
    names, max_length = settings["class_names"], settings["max_length"]
    if args.threshold is not None and len(names) != 2:
        raise ValueError(f"{path} knows {len(names)} classes; --threshold is for two.")
    threshold = settings["threshold"] if args.threshold is None else args.threshold
    about = f"; threshold {threshold}" if len(names) == 2 else f"; {len(names)} classes"
    note(f"{path}: {settings['model']}, fine-tuned on {settings['data']}{about}")
    batches = streams.in_batches(args.texts)
    if args.file is not None:
        batches = streams.read_messages(args.file, args.text_column)

    reader, number = Reader(model, settings, args.device), 0
    streams.begin_results(args.format)
    for texts in batches:
        probabilities = reader.probabilities(texts)
        for text, row, label in zip(texts, probabilities.tolist(), predict(probabilities.numpy(), threshold)):
            number += 1
            num_tokens = reader.num_tokens(text)
            if num_tokens > max_length:
                length = f"it has {num_tokens} tokens, the classifier reads {max_length}"
                note(f"Message {number} was cut: {length}.")
            shown = 1 if tuple(names) == CLASS_NAMES else label
            print(streams.result_line(names[label], row[shown], text, args.format))
        sys.stdout.flush()


def print_accuracies(model, loaders, device, num_batches=None):
    """Print the accuracy on the training, validation and test set in percent; return {name: accuracy}."""
    accuracies = {}
    for set_name, loader in zip(SET_NAMES, loaders):
        accuracies[set_name] = calc_accuracy_loader(loader, model, device, num_batches)
        print(f"{set_name.capitalize()} accuracy: {accuracies[set_name] * 100:.2f}%")
    return accuracies


# ---------------------------------------------------------------------------------
# Reading the command line
# ---------------------------------------------------------------------------------


def number(kind, low, high, description):
    """A type for argparse: a number of a kind (int or float) between low and high."""

    def read(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return read


def data_source(text):
    """A type for argparse: one of the book's data sets, or a file."""
    if text not in DATA_CHOICES and not Path(text).is_file():
        choices = ", ".join(DATA_CHOICES)
        raise argparse.ArgumentTypeError(f"{text!r} is no file, nor one of the book's data sets: {choices}")
    return text


WRITERS = {"text": report.as_text, "json": report.as_json, "html": report_page.as_html}
TABLE_OPTIONS = ("text_column", "label_column", "test", "imbalance", "layers", "max_length", "seed", "force")
COMMANDS = (
    ("initial", run_initial, "accuracy and loss before fine-tuning"),
    ("finetune", run_finetune, "fine-tune a classifier and save it"),
    ("evaluate", run_evaluate, "measure a saved classifier on labelled texts"),
    ("classify", run_classify, "classify texts with a saved classifier"),
    ("export", run_export, "write a saved classifier for Transformers or ONNX Runtime"),
)


def make_parser():
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(description="Classify texts with GPT-2.")
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {}
    for command, run, help in COMMANDS:
        parsers[command] = commands.add_parser(command, help=help, description=run.__doc__)
        parsers[command].set_defaults(run=run)
        parsers[command].add_argument("--device", default=choose_device(), help="cpu, cuda, mps, ...")
    own_file = f"a file of your own: {' '.join(tables.FORMATS)}"

    for command in ("initial", "finetune"):
        add = parsers[command].add_argument
        default = f"CHOOSE_MODEL, else gpt2-small (124M); for a file of your own {EMBEDDED.name}"
        add("--model", choices=list(MODEL_CONFIGS), help=f"default: {default}")
    add = parsers["initial"].add_argument
    add("--data", choices=DATA_CHOICES, help="default: CHOOSE_DATA, else uci, the SMS Spam Collection")

    count = number(int, 1, 1000, "a whole number from 1 to 1000")
    rate = number(float, 1e-12, 1, "a number above 0 and at most 1")
    length = number(int, 2, 1024, "a whole number from 2 to 1024")
    seed = number(int, 0, 2**32 - 1, "a whole number from 0 to 4294967295")
    rates = f"default: {MODELS[1].learning_rate}, for {EMBEDDED.name} {EMBEDDED.learning_rate}"
    add = parsers["finetune"].add_argument
    add("--data", type=data_source, help=f"uci, sample, or {own_file}. Default: CHOOSE_DATA, else uci")
    add("--epochs", type=count, help="default: 5; for a file of your own 10, or until it gets no better")
    add("--learning-rate", type=rate, help=f"{rates}; for a file of your own the best of three")
    add("--output", metavar="FILE", help=f"default: named after model and data, in {CLASSIFIERS}; replaced")
    add("--cached", action="store_true", help="the same sooner: compute the frozen blocks once (notebook 11)")
    add("--only-trained", action="store_true", help="a small file: what was trained, in float16")
    add = parsers["finetune"].add_argument_group("for a file of your own").add_argument
    add("--text-column", metavar="NAME", help="guessed where the file has two columns")
    add("--label-column", metavar="NAME", help="the classes: 2 to 1,000 labels of any kind")
    add("--test", metavar="FILE", help="a test set of its own; default: 20 %% of each class")
    add("--seed", type=seed, help="of the split, the new head and the order; default: 123")
    imbalance = "as it is (default), larger classes cut to the smallest, or weights in the loss"
    add("--imbalance", choices=own_data.IMBALANCE, help=imbalance)
    add("--layers", choices=LAYERS, help="what trains, the head always; default: last-block")
    add("--max-length", type=length, help="tokens that are read of a text; default: 1024")
    add("--force", action="store_true", default=None, help="go on where the checks stop")

    for command in ("evaluate", "classify", "export"):
        add = parsers[command].add_argument
        add("--classifier", metavar="FILE", help=f"default: newest in {CLASSIFIERS}, else that of the book")

    again = "of the file that it was trained on, its test set"
    for command in ("evaluate", "export"):
        add = parsers[command].add_argument
        add("--data", type=data_source, help=f"labelled texts: uci, sample, or {own_file}; {again}")
        add("--text-column", metavar="NAME", help="default: as in training; among two columns guessed")
        add("--label-column", metavar="NAME", help="the same")

    add = parsers["evaluate"].add_argument
    add("--format", choices=list(WRITERS), default="text", help="html: one page with plots")

    probability = number(float, 0, 1, "a number from 0 to 1")
    add = parsers["classify"].add_argument
    add("texts", nargs="*", metavar="TEXT", help="a message; one that begins with - stands behind --")
    add("--file", help="a UTF-8 file with one message a line, blank lines skipped; - is the standard input")
    add("--text-column", metavar="NAME", help=f"of the table --file: {' '.join(tables.FORMATS)}")
    formats = "lines that give each text back exactly; csv begins with a header. Default: lines to read"
    add("--format", choices=streams.FORMATS, help=formats)
    second = "the second of two classes, such as spam, from this probability on; default: that of the file"
    add("--threshold", type=probability, help=second)

    add = parsers["export"].add_argument
    add("--to", choices=("hf", "onnx"), required=True, help="for Transformers, or for ONNX Runtime")
    add("--output", metavar="FOLDER", required=True, help="a new folder")
    add("--int8", action="store_true", help="for ONNX: also with weights of 8 bits, measured on --data")
    return parser


def read_arguments():
    """What the command line says, with the device, the model and the data that it does not name."""
    parser = make_parser()
    args, unknown = parser.parse_known_args()
    if unknown:
        hint = " (a message that begins with - stands behind --)" if args.command == "classify" else ""
        parser.error(harmless(f"unrecognized arguments: {' '.join(unknown)}{hint}"))
    if args.command == "classify" and bool(args.texts) == (args.file is not None):
        parser.error("classify needs messages: either texts or --file, not both")
    if args.command == "classify" and args.text_column is not None and args.file in (None, "-"):
        parser.error("--text-column is for a table that --file names")
    args.device = device_named(args.device)
    if args.command in ("initial", "finetune"):
        args.data = args.data or chosen_data()
        own = args.data not in DATA_CHOICES and "CHOOSE_MODEL" not in os.environ
        if own and not args.model:
            note(f"Model: {EMBEDDED.name}, which ships with the book. --model names another one.")
        args.model = args.model or (EMBEDDED.name if own else chosen_model())
    if args.command == "finetune" and args.data not in DATA_CHOICES:
        args.layers, args.imbalance = args.layers or "last-block", args.imbalance or "keep"
        args.seed = 123 if args.seed is None else args.seed
    return args


def main():
    """Run the command line: exit status 0, 1 after an error, 2 if the command itself is wrong."""
    streams.prepare_streams()
    try:
        args = read_arguments()
        # Under torchrun, one process is enough for the other commands.
        if args.command == "finetune" or distributed.is_first_process():
            args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has seen enough, as in "... | head -1"
        for stream in (sys.stdout, sys.stderr):  # what is left to print goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except KeyboardInterrupt:
        note("Interrupted.")
        sys.exit(130)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {harmless(str(error))}")


if __name__ == "__main__":
    main()
