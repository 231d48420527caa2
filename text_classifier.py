"""The command line: a classifier before fine-tuning, its fine-tuning, and its use.

    python text_classifier.py initial  --model "gpt2-mini (10M)" --data uci
    python text_classifier.py finetune --model "gpt2-mini (10M)" --data uci
    python text_classifier.py classify "You are a winner" "See you at eight"
    python text_classifier.py classify --file messages.txt

``initial`` runs the whole chain of notebooks 01 to 07 and prints the accuracy and loss of the three sets
before any fine-tuning. ``finetune`` does what notebook 08 does and saves the classifier, under ``torchrun``
in several processes; ``classify`` uses it, or before that the one that ships with the book. Results go to
the standard output, everything else to the standard error. Each command is one function.
"""

import argparse
import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

# before PyTorch, for which it sets something
from edition import ASSETS, EMBEDDED, MODELS, SET_NAMES, chosen_data, chosen_model, get_tokenizer

# isort: split
import torch

from classification import (
    build_classifier,
    calc_accuracy_loader,
    calc_loss_loader,
    load_classifier,
    load_messages,
    save_classifier,
    spam_probabilities,
    train_as_published,
)
from devices import choose_device, device_named
from distributed import (
    DistributedClassifier,
    is_first_process,
    num_processes,
    one_after_the_first,
    process_group,
)
from fast_paths import TokenClassifier
from files import is_disk_full, require_replaceable, require_space
from previous_chapters import MODEL_CONFIGS
from spam_data import DATA_CHOICES

CLASSIFIERS = Path("classifiers")  # where finetune saves and classify looks
SHIPPED = ASSETS / "classifier.safetensors"  # used before there is one
BATCH_SIZE = 32  # messages that are classified at once
READ_SIZE, MAX_LINE = 1 << 16, 1 << 20  # bytes of a file of messages: read at once, and of one message

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
    """Fine-tune, print the accuracies on the three whole sets, and save the classifier."""
    output = Path(args.output or default_output(args.model, args.data))
    with process_group(args.device) as device:
        if args.cached and num_processes() > 1:
            raise ValueError("Cached activations are for one process. Leave out either --cached or torchrun.")
        if is_first_process():
            reserve(output)
        with one_after_the_first():
            loaders = load_messages(args.model, args.data)
            model = build_classifier(args.model).to(device)
        saved = [p for p in model.parameters() if p.requires_grad or not args.only_trained]
        if is_first_process():
            reserve(output, sum(p.numel() for p in saved) * (2 if args.only_trained else 4))

        network = model
        if num_processes() > 1:
            network = DistributedClassifier(model)
        if args.cached:
            network = TokenClassifier(model)
        train_as_published(network, *loaders[:2], args.model, device, args.epochs, args.learning_rate)
        if not is_first_process():
            return
        if args.only_trained:  # measured as it is saved
            for parameter in saved:
                parameter.data = parameter.data.half().float()
        print("Accuracy on the whole sets:")
        accuracies = print_accuracies(model, loaders, device)
        settings = args.model, args.data, loaders[0].dataset.max_length
        options = {"accuracies": accuracies, "only_trained": args.only_trained}
        save_somewhere(output, model, *settings, **options)
        print(f"Saved as {output}")


def run_classify(args):
    """Print a line for each message, as they come: class, probability of spam, message, with tabs between."""
    batches = in_batches(args.texts) if args.file is None else read_messages(args.file)
    if args.classifier:
        path, (model, settings) = args.classifier, load_classifier(args.classifier)
    else:
        path, model, settings = find_classifier()
    names, max_length = settings["class_names"], settings["max_length"]
    if len(names) != 2:
        raise ValueError(
            f"{path} knows {len(names)} classes. This command is for two, the second being spam."
        )
    threshold = settings["threshold"] if args.threshold is None else args.threshold
    note(f"{path}: {settings['model']}, fine-tuned on {settings['data']}; threshold {threshold}")

    model, tokenizer, number = model.to(args.device), get_tokenizer(), 0
    for texts in batches:
        probabilities = spam_probabilities(texts, model, tokenizer, args.device, max_length)
        for text, probability in zip(texts, probabilities.tolist()):
            number += 1
            num_tokens = len(tokenizer.encode(text, disallowed_special=()))
            if num_tokens > max_length:
                length = f"it has {num_tokens} tokens, the classifier reads {max_length}"
                note(f"Message {number} was cut: {length}.")
            label, line = names[int(probability >= threshold)], " ".join(text.splitlines())
            print(f"{label}\t{probability:.4f}\t{harmless(line) if sys.stdout.isatty() else line}")
        sys.stdout.flush()


def print_accuracies(model, loaders, device, num_batches=None):
    """Print the accuracy on the training, validation and test set in percent; return {name: accuracy}."""
    accuracies = {}
    for set_name, loader in zip(SET_NAMES, loaders):
        accuracies[set_name] = calc_accuracy_loader(loader, model, device, num_batches)
        print(f"{set_name.capitalize()} accuracy: {accuracies[set_name] * 100:.2f}%")
    return accuracies


# ---------------------------------------------------------------------------------
# Files of classifiers
# ---------------------------------------------------------------------------------


def default_output(name, data_choice):
    """Where ``finetune`` saves, for example ``classifiers/gpt2-mini-10M-uci.safetensors``."""
    return CLASSIFIERS / f"{name.replace(' (', '-').rstrip(')')}-{data_choice}.safetensors"


def reserve(path, num_bytes=0):
    """Raise ``OSError`` unless a file of this size can be made at ``path``: one is made, for a moment."""
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, num_bytes, path.name)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))  # notices a quota
        except (OSError, AttributeError) as error:  # not every system has it
            if is_disk_full(error):
                raise OSError(f"There is no room for {num_bytes:,} bytes in {path} ({error})") from error


def save_somewhere(output, *classifier, **options):
    """Save a classifier. Where that fails, save it among the temporary files: training takes long."""
    try:
        save_classifier(output, *classifier, **options)
    except OSError as error:
        failed = f"{output} could not be written ({error})"
        try:
            rescued = Path(tempfile.mkdtemp(prefix="classifier-")) / "classifier.safetensors"
            save_classifier(rescued, *classifier, **options)
        except OSError as again:
            raise OSError(f"{failed}, nor a copy among the temporary files ({again})") from error
        raise OSError(f"{failed}. The classifier is in {rescued}") from error


def find_classifier():
    """Path, model and settings of the newest good classifier, else of the one that ships with the book."""
    paths = CLASSIFIERS.glob("*.safetensors")
    for path in sorted(paths, key=lambda path: path.lstat().st_mtime, reverse=True):
        try:
            if path.name.startswith("."):
                raise ValueError(f"{path} is a hidden file.")
            return path, *load_classifier(path)
        except (OSError, ValueError) as error:
            note(f"Left out: {error}")
    return SHIPPED, *load_classifier(SHIPPED)


# ---------------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------------


def in_batches(texts):
    for start in range(0, len(texts), BATCH_SIZE):
        yield texts[start : start + BATCH_SIZE]


def read_messages(file_name):
    """Open a file (``"-"``: the standard input) and return a generator of lists of its messages."""
    if file_name == "-":
        return messages_in(sys.stdin.buffer, "The standard input")
    return messages_in(open(file_name, "rb"), file_name)


def messages_in(file, where):
    """Yield lists of messages, one a line in UTF-8, as they arrive; blank lines are skipped.

    A file may be long, and the standard input slow: what was classified does not stay in memory.
    """
    number, rest, found, chunk = 0, b"", False, None
    while chunk != b"":
        chunk = file.read1(READ_SIZE)  # waits for some bytes, not for so many
        *lines, rest = (rest + chunk).split(b"\n")
        if chunk == b"":
            lines = [rest]
        elif len(rest) > MAX_LINE:
            raise ValueError(f"{where}: line {number + len(lines) + 1} is longer than {MAX_LINE:,} bytes.")
        texts = []
        for line in lines:
            number += 1
            text = decode(line, number, where)
            if text.strip():
                texts.append(text)
        found = found or bool(texts)
        yield from in_batches(texts)
    if not found:
        raise ValueError(f"{where} has no messages.")


def decode(line, number, where):
    """A line of bytes as text, without its end and without a byte-order mark."""
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not a text in UTF-8: line {number} cannot be decoded.") from error
    if "\0" in text:
        raise ValueError(f"{where} is not a text in UTF-8: line {number} holds NULs, perhaps of UTF-16.")
    return text


# ---------------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------------

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text):
    """Control characters by their codes, so that a message cannot steer the terminal."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text):
    print(harmless(text), file=sys.stderr)


def prepare_streams():
    """Let no character stop the output, and open what is closed: its number must not go to another file."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replacement for the stream, as in tests
            stream.reconfigure(errors="backslashreplace")


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


def make_parser():
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(description="Classify SMS messages with GPT-2.")
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {}
    for command, run, help in (
        ("initial", run_initial, "accuracy and loss before fine-tuning"),
        ("finetune", run_finetune, "fine-tune a classifier and save it"),
        ("classify", run_classify, "classify messages with a saved classifier"),
    ):
        parsers[command] = commands.add_parser(command, help=help, description=run.__doc__)
        parsers[command].set_defaults(run=run)
        parsers[command].add_argument("--device", default=choose_device(), help="cpu, cuda, mps, ...")

    for command in ("initial", "finetune"):
        add = parsers[command].add_argument
        add("--model", choices=list(MODEL_CONFIGS), help="default: CHOOSE_MODEL, else gpt2-small (124M)")
        add("--data", choices=DATA_CHOICES, help="default: CHOOSE_DATA, else uci, the SMS Spam Collection")

    epochs = number(int, 1, 1000, "a whole number from 1 to 1000")
    rate = number(float, 1e-12, 1, "a number above 0 and at most 1")
    rates = f"default: {MODELS[1].learning_rate}, for {EMBEDDED.name} {EMBEDDED.learning_rate}"
    add = parsers["finetune"].add_argument
    add("--epochs", type=epochs, default=5, help="default: 5")
    add("--learning-rate", type=rate, help=rates)
    add("--output", metavar="FILE", help=f"default: named after model and data, in {CLASSIFIERS}; replaced")
    add("--cached", action="store_true", help="the same sooner: compute the frozen blocks once (notebook 11)")
    add("--only-trained", action="store_true", help="a small file: what was trained, in float16")

    probability = number(float, 0, 1, "a number from 0 to 1")
    add = parsers["classify"].add_argument
    add("texts", nargs="*", metavar="TEXT", help="a message; one that begins with - stands behind --")
    add("--file", help="a UTF-8 file with one message a line, blank lines skipped; - is the standard input")
    add("--classifier", metavar="FILE", help=f"default: the newest in {CLASSIFIERS}, else that of the book")
    add("--threshold", type=probability, help="spam from this probability on; default: that of the file")
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
    args.device = device_named(args.device)
    if args.command != "classify":
        args.model, args.data = args.model or chosen_model(), args.data or chosen_data()
    return args


def main():
    """Run the command line: exit status 0, 1 after an error, 2 if the command itself is wrong."""
    prepare_streams()
    try:
        args = read_arguments()
        if args.command == "finetune" or is_first_process():  # under torchrun, one is enough for the others
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
