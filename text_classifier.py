"""The command line: a classifier before fine-tuning, its fine-tuning, and its use.

    python text_classifier.py initial  --model "gpt2-mini (10M)" --data uci
    python text_classifier.py finetune --model "gpt2-mini (10M)" --data uci
    python text_classifier.py classify "You are a winner" "See you at eight"
    python text_classifier.py classify --file messages.txt

``initial`` runs the whole chain of notebooks 01 to 07 and prints the accuracy and loss of the
three sets before any fine-tuning. ``finetune`` does what notebook 08 does and saves the
classifier; ``classify`` uses it. Under ``torchrun``, ``finetune`` shares the work among several
processes: see ``distributed.py``.
"""

import argparse
import sys
from pathlib import Path

import torch

from classification import (
    CLASS_NAMES,
    build_classifier,
    calc_accuracy_loader,
    calc_loss_loader,
    fine_tuning_settings,
    load_classifier,
    load_messages,
    save_classifier,
    spam_probabilities,
    train_classifier_simple,
)
from devices import choose_device, device_named
from distributed import (
    DistributedClassifier,
    is_first_process,
    num_processes,
    one_after_the_first,
    process_group,
)
from edition import EMBEDDED, MODELS, MODELS_DIR, SET_NAMES, chosen_data, chosen_model, get_tokenizer
from fast_paths import LastBlockClassifier, cached_loader
from previous_chapters import MODEL_CONFIGS
from spam_data import DATA_CHOICES

CLASSIFIERS = Path("classifiers")  # where the command line saves classifiers and looks for them


def fine_tune(
    name, data_choice, device, num_epochs=5, learning_rate=None, models_dir=MODELS_DIR, cached=False
):
    """Do what notebooks 01 to 08 do, with the same random draws: data, classifier, fine-tuning.

    Args:
        name (str): a key of ``MODEL_CONFIGS``.
        data_choice (str): ``"uci"`` or ``"sample"``.
        device (torch.device): where to compute.
        num_epochs (int): passes over the training set.
        learning_rate (float): default: that of :func:`fine_tuning_settings`.
        models_dir (str or Path): folder for checkpoints.
        cached (bool): compute the frozen blocks once for each message and keep the result in
            memory, as notebook 11 does; the same weights up to rounding, sooner.

    Returns:
        tuple: ``(model, loaders, history)``: the fine-tuned classifier on the device; the
        training, validation and test loader; what :func:`train_classifier_simple` returns.

    Raises:
        ValueError: if the longest message has more tokens than the model reads, or if several
            processes shall train on cached activations.
    """
    if cached and num_processes() > 1:
        raise ValueError("Cached activations are for one process. Leave out either --cached or torchrun.")
    with one_after_the_first():
        _, loaders = load_messages(name, data_choice)
        model = build_classifier(name, models_dir).to(device)
    train_loader, val_loader, _ = loaders
    classifier = DistributedClassifier(model) if num_processes() > 1 else model
    if cached:
        train_loader, val_loader = (
            cached_loader(model, loader, device) for loader in (train_loader, val_loader)
        )
        classifier = LastBlockClassifier(model)
    settings = fine_tuning_settings(name)
    if learning_rate is not None:
        settings["lr"] = learning_rate

    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    history = train_classifier_simple(
        classifier, train_loader, val_loader, optimizer, device, num_epochs, eval_freq=50, eval_iter=5
    )
    return model, loaders, history


def print_initial_results(name, data_choice, device):
    """Print accuracy (10 batches) and loss (5 batches) of the three sets before fine-tuning."""
    _, loaders = load_messages(name, data_choice)
    model = build_classifier(name).to(device)

    print(
        f"{name} on the {data_choice} data, {device}: "
        f"messages padded to {loaders[0].dataset.max_length} tokens"
    )
    torch.manual_seed(123)  # For reproducibility due to the shuffling in the training data loader
    print_accuracies(model, loaders, device, num_batches=10)
    with torch.no_grad():
        for set_name, loader in zip(SET_NAMES, loaders):
            print(
                f"{set_name.capitalize()} loss: {calc_loss_loader(loader, model, device, num_batches=5):.3f}"
            )


def print_accuracies(model, loaders, device, num_batches=None):
    """Print the accuracy on the training, validation and test set, in percent."""
    for set_name, loader in zip(SET_NAMES, loaders):
        accuracy = calc_accuracy_loader(loader, model, device, num_batches)
        print(f"{set_name.capitalize()} accuracy: {accuracy * 100:.2f}%")


def fine_tune_and_save(name, data_choice, device, num_epochs, learning_rate, output, cached=False):
    """Fine-tune, print the accuracies on the three whole sets, and save the classifier."""
    output = Path(output or default_classifier_path(name, data_choice))
    if output.is_dir():
        raise ValueError(f"{output} is a folder; --output names a file.")
    output.parent.mkdir(parents=True, exist_ok=True)  # an impossible place shows before the training

    model, loaders, _ = fine_tune(name, data_choice, device, num_epochs, learning_rate, cached=cached)
    if not is_first_process():
        return
    print("Accuracy on the whole sets:")
    print_accuracies(model, loaders, device)
    save_classifier(output, model, name, data_choice, loaders[0].dataset.max_length)
    print(f"Saved as {output}")


def default_classifier_path(name, data_choice):
    """Where ``finetune`` saves, for example ``classifiers/gpt2-mini-10M-uci.safetensors``."""
    return CLASSIFIERS / f"{name.replace(' (', '-').rstrip(')')}-{data_choice}.safetensors"


def newest_classifier():
    """The path of the classifier that was saved last in the default folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = sorted(CLASSIFIERS.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise FileNotFoundError(
            f"There is no classifier in the folder {CLASSIFIERS} yet. Make one (without a network): "
            'python text_classifier.py finetune --model "gpt2-mini (10M)" --data sample'
        )
    return paths[-1]


def read_messages(file_name):
    """Read a file with one message a line, in UTF-8; blank lines are skipped.

    Args:
        file_name (str): the file; ``"-"`` is the standard input.

    Returns:
        list of str

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not UTF-8 or has no message.
    """
    content = sys.stdin.buffer.read() if file_name == "-" else Path(file_name).read_bytes()
    where = "The standard input" if file_name == "-" else file_name
    try:
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{where} is not a text in UTF-8: line {line} cannot be decoded.") from error
    messages = [line for line in lines if line.strip()]
    if not messages:
        raise ValueError(f"{where} has no messages.")
    return messages


def print_classes(texts, classifier, threshold, device):
    """Print a line for each text: class, probability of spam, text, with tabs between them.

    What is not a result goes to stderr: which classifier, and which texts were cut.

    Args:
        texts (list of str): the messages.
        classifier (str or Path): the file of the classifier; default: :func:`newest_classifier`.
        threshold (float): smallest probability that is called spam; default: that of the file.
        device (torch.device): where to compute.
    """
    path = classifier or newest_classifier()
    model, settings = load_classifier(path)
    threshold = settings["threshold"] if threshold is None else threshold
    max_length = settings["max_length"]
    print(
        f"{path}: {settings['model']}, fine-tuned on {settings['data']}; threshold {threshold}",
        file=sys.stderr,
    )
    tokenizer = get_tokenizer()
    for number, text in enumerate(texts, start=1):
        num_tokens = len(tokenizer.encode(text, disallowed_special=()))
        if num_tokens > max_length:
            print(
                f"Message {number} was cut: it has {num_tokens} tokens, the classifier reads {max_length}.",
                file=sys.stderr,
            )

    probabilities = spam_probabilities(texts, model.to(device), tokenizer, device, max_length)
    for text, probability in zip(texts, probabilities.tolist()):
        label = settings["class_names"][int(probability >= threshold)]
        print(f"{label}\t{probability:.4f}\t{' '.join(text.splitlines())}")


def message_interface(model, tokenizer, device, max_length=None, threshold=0.5):
    """A small interface for a live notebook: a text field, a slider, and the answer below them.

    Args:
        model, tokenizer, device, max_length: as for :func:`classify_review`.
        threshold (float): where the slider starts; from this probability on, the answer is spam.

    Returns:
        ipywidgets.VBox: its children are a Textarea, a FloatSlider and a Label.
    """
    import ipywidgets as widgets

    text = widgets.Textarea(value="You are a winner", description="Message")
    slider = widgets.FloatSlider(value=threshold, min=0, max=1, step=0.01, description="Threshold")
    answer = widgets.Label()

    def update(change=None):
        (probability,) = spam_probabilities([text.value], model, tokenizer, device, max_length).tolist()
        label = CLASS_NAMES[int(probability >= slider.value)]
        answer.value = f"{label} (probability of spam {probability:.2f})"

    text.observe(update, names="value")
    slider.observe(update, names="value")
    update()
    return widgets.VBox([text, slider, answer])


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
    initial = commands.add_parser("initial", help="accuracy and loss before fine-tuning")
    finetune = commands.add_parser("finetune", help="fine-tune a classifier and save it")
    classify = commands.add_parser(
        "classify",
        help="classify messages with a saved classifier",
        description="Print a line for each message: class, probability of spam, message, separated by tabs.",
    )

    for command in (initial, finetune):
        command.add_argument(
            "--model",
            choices=list(MODEL_CONFIGS),
            default=chosen_model(),
            help="default: the variable CHOOSE_MODEL, else gpt2-small (124M)",
        )
        command.add_argument(
            "--data",
            choices=DATA_CHOICES,
            default=chosen_data(),
            help="the UCI collection or the sample of this book; default: the variable CHOOSE_DATA, else uci",
        )

    finetune.add_argument(
        "--epochs", type=number(int, 1, 1000, "a whole number from 1 to 1000"), default=5, help="default: 5"
    )
    finetune.add_argument(
        "--learning-rate",
        type=number(float, 1e-12, 1, "a number above 0 and at most 1"),
        help=f"default: {MODELS[1].learning_rate}, for {EMBEDDED.name} {EMBEDDED.learning_rate}",
    )
    finetune.add_argument(
        "--output",
        metavar="FILE",
        help=f"default: a file in the folder {CLASSIFIERS}, named after model and data; it is replaced",
    )

    finetune.add_argument(
        "--cached",
        action="store_true",
        help="compute the frozen blocks once for each message and keep the result in memory (notebook 11): "
        "the same weights up to rounding, in less time",
    )

    classify.add_argument("texts", nargs="*", metavar="TEXT", help="a message")
    classify.add_argument(
        "--file", help="a UTF-8 file with one message a line, blank lines skipped; - is the standard input"
    )
    classify.add_argument(
        "--classifier",
        metavar="FILE",
        help=f"what finetune saved; default: the newest file in the folder {CLASSIFIERS}",
    )
    classify.add_argument(
        "--threshold",
        type=number(float, 0, 1, "a number from 0 to 1"),
        help="call a message spam from this probability on; default: as saved with the classifier",
    )
    for command in (initial, finetune, classify):
        command.add_argument("--device", type=device_named, default=choose_device())
    return parser


def main():
    """Run the command line: exit status 0, 1 after an error, 2 if the command itself is wrong."""
    parser = make_parser()
    args = parser.parse_args()
    if args.command == "classify" and bool(args.texts) == (args.file is not None):
        parser.error("classify needs messages: either texts or --file, not both")
    try:
        if args.command == "initial":
            print_initial_results(args.model, args.data, args.device)
        elif args.command == "finetune":
            with process_group(args.device) as device:
                fine_tune_and_save(
                    args.model, args.data, device, args.epochs, args.learning_rate, args.output, args.cached
                )
        else:
            texts = args.texts if args.file is None else read_messages(args.file)
            print_classes(texts, args.classifier, args.threshold, args.device)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
