"""Turn a pretrained GPT-2 into a classifier: head, freezing, accuracy, loss, training, use.

    python classification.py initial  --model "gpt2-mini (10M)" --data uci
    python classification.py finetune --model "gpt2-mini (10M)" --data uci
    python classification.py classify "You are a winner" "See you at eight"
    python classification.py classify --file messages.txt

``initial`` runs the whole chain of notebooks 01 to 07 and prints the accuracy and loss of the
three sets before any fine-tuning. ``finetune`` does what notebook 08 does and saves the
classifier; ``classify`` uses it. Under ``torchrun``, ``finetune`` shares the work among several
processes: see ``distributed.py``.

The steps and names follow Raschka (2024), chapter 6.
"""

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path

import tiktoken
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from distributed import (
    DistributedClassifier,
    is_first_process,
    num_processes,
    one_after_the_first,
    process_group,
)
from downloads import atomic_file
from edition import chosen_data, chosen_model
from fast_paths import LastBlockClassifier, cached_loader, load_mapped_model
from gpt_download import use_bundled_tokenizer_files
from previous_chapters import MODEL_CONFIGS, GPTModel, model_config
from spam_data import DATA_CHOICES, create_spam_loaders, find_spam_file

CLASS_NAMES = ("not spam", "spam")  # the names of the labels 0 and 1
SET_NAMES = ("Training", "Validation", "Test")
CLASSIFIERS = Path("classifiers")  # where the command line saves classifiers and looks for them

# ---------------------------------------------------------------------------------
# From language model to classifier
# ---------------------------------------------------------------------------------


def load_pretrained_model(name, models_dir="gpt2"):
    """Do what notebooks 02 and 03 do, configure a model and fill it with pretrained weights.

    It does so by :func:`fast_paths.load_mapped_model`: values are read when they are first used.

    Args:
        name (str): a key of ``MODEL_CONFIGS``, for example ``"gpt2-small (124M)"``.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        GPTModel: the language model, in evaluation mode, on the CPU.
    """
    return load_mapped_model(name, models_dir)


def freeze_all_layers(model):
    """Mark every parameter of the model as not trainable."""
    for param in model.parameters():
        param.requires_grad = False


def add_classification_head(model, num_classes=2, seed=123):
    """Replace the output layer by a new one with one logit for each class.

    Args:
        model (GPTModel): the language model; its ``out_head`` is replaced.
        num_classes (int): number of classes. Output of the model: (B, T, num_classes).
        seed (int): seed of the new random values; 123 throughout the book.
    """
    torch.manual_seed(seed)
    emb_dim = model.tok_emb.embedding_dim
    model.out_head = torch.nn.Linear(in_features=emb_dim, out_features=num_classes)


def unfreeze_last_block(model):
    """Mark the last transformer block and the final layer norm as trainable."""
    for param in model.trf_blocks[-1].parameters():
        param.requires_grad = True
    for param in model.final_norm.parameters():
        param.requires_grad = True


def build_classifier(name, models_dir="gpt2"):
    """Do what notebooks 02 to 06 do: pretrained weights, frozen, new head, last block unfrozen.

    Args:
        name (str): a key of ``MODEL_CONFIGS``.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        GPTModel: the classifier before fine-tuning, in evaluation mode, on the CPU.
    """
    model = load_pretrained_model(name, models_dir)
    freeze_all_layers(model)
    add_classification_head(model)
    unfreeze_last_block(model)
    return model


# ---------------------------------------------------------------------------------
# Accuracy and loss
# ---------------------------------------------------------------------------------


def calc_accuracy_loader(data_loader, model, device, num_batches=None):
    """Share of the messages that the model classifies correctly.

    Args:
        data_loader (DataLoader): gives token IDs (B, T) and labels (B,), both int64.
        model (GPTModel): the classifier; it is left in evaluation mode.
        device (torch.device): where to compute.
        num_batches (int): how many batches to read; default, and at most: all.

    Returns:
        float: between 0 and 1.

    Raises:
        ZeroDivisionError: if the loader has no batches.
    """
    model.eval()
    correct_predictions, num_examples = 0, 0

    if num_batches is None:
        num_batches = len(data_loader)
    else:
        num_batches = min(num_batches, len(data_loader))
    for i, (input_batch, target_batch) in enumerate(data_loader):
        if i < num_batches:
            input_batch, target_batch = input_batch.to(device), target_batch.to(device)

            with torch.no_grad():
                logits = model(input_batch)[:, -1, :]  # Logits of last output token
            predicted_labels = torch.argmax(logits, dim=-1)

            num_examples += predicted_labels.shape[0]
            correct_predictions += (predicted_labels == target_batch).sum().item()
        else:
            break
    return correct_predictions / num_examples


def calc_loss_batch(input_batch, target_batch, model, device):
    """Cross-entropy of one batch, from the logits of the last token.

    Args:
        input_batch (torch.Tensor): token IDs, int64, shape (B, T).
        target_batch (torch.Tensor): labels, int64, shape (B,).
        model (GPTModel): the classifier.
        device (torch.device): where to compute.

    Returns:
        torch.Tensor: mean loss in nats, a scalar that carries the gradient.
    """
    input_batch, target_batch = input_batch.to(device), target_batch.to(device)
    logits = model(input_batch)[:, -1, :]  # Logits of last output token
    loss = torch.nn.functional.cross_entropy(logits, target_batch)
    return loss


def calc_loss_loader(data_loader, model, device, num_batches=None):
    """Mean of the batch losses.

    Args:
        data_loader (DataLoader): gives token IDs (B, T) and labels (B,), both int64.
        model (GPTModel): the classifier, in the mode that the caller wants.
        device (torch.device): where to compute.
        num_batches (int): how many batches to read; default, and at most: all.

    Returns:
        float: mean loss in nats; NaN if the loader has no batches.
    """
    total_loss = 0.0
    if len(data_loader) == 0:
        return float("nan")
    elif num_batches is None:
        num_batches = len(data_loader)
    else:
        # Reduce the number of batches to match the total number of batches in the data loader
        # if num_batches exceeds the number of batches in the data loader
        num_batches = min(num_batches, len(data_loader))
    for i, (input_batch, target_batch) in enumerate(data_loader):
        if i < num_batches:
            loss = calc_loss_batch(input_batch, target_batch, model, device)
            total_loss += loss.item()
        else:
            break
    return total_loss / num_batches


# ---------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------


def evaluate_model(model, train_loader, val_loader, device, eval_iter):
    """Loss on ``eval_iter`` batches of the training and the validation set.

    Args:
        model (GPTModel): the classifier; it is left in training mode.
        train_loader, val_loader (DataLoader): give token IDs (B, T) and labels (B,).
        device (torch.device): where to compute.
        eval_iter (int): number of batches.

    Returns:
        tuple of two float: training loss and validation loss in nats.
    """
    model.eval()
    with torch.no_grad():
        train_loss = calc_loss_loader(train_loader, model, device, num_batches=eval_iter)
        val_loss = calc_loss_loader(val_loader, model, device, num_batches=eval_iter)
    model.train()
    return train_loss, val_loss


def train_classifier_simple(
    model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter
):
    """Fine-tune the classifier, print its progress and show it in a bar.

    The environment variable ``TQDM_DISABLE=1`` turns the bar off.

    Args:
        model (GPTModel): the classifier; parameters with ``requires_grad`` are trained.
        train_loader, val_loader (DataLoader): give token IDs (B, T) and labels (B,).
        optimizer (torch.optim.Optimizer): updates the parameters.
        device (torch.device): where to compute.
        num_epochs (int): passes over the training set.
        eval_freq (int): steps between two evaluations of the loss.
        eval_iter (int): batches in each evaluation.

    Returns:
        tuple: ``(train_losses, val_losses, train_accs, val_accs, examples_seen)``: lists of
        float, one loss an evaluation and one accuracy an epoch, and the number of examples.
    """
    train_losses, val_losses, train_accs, val_accs = [], [], [], []
    examples_seen, global_step = 0, -1

    for epoch in range(num_epochs):
        model.train()
        for input_batch, target_batch in tqdm(train_loader, desc=f"Epoch {epoch + 1}", leave=False):
            optimizer.zero_grad()  # Forget the gradients of the previous batch
            loss = calc_loss_batch(input_batch, target_batch, model, device)
            loss.backward()
            optimizer.step()
            examples_seen += input_batch.shape[0]
            global_step += 1

            if global_step % eval_freq == 0:
                train_loss, val_loss = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(train_loss)
                val_losses.append(val_loss)
                tqdm.write(  # prints above the progress bar
                    f"Ep {epoch + 1} (Step {global_step:06d}): "
                    f"Train loss {train_loss:.3f}, Val loss {val_loss:.3f}"
                )

        train_accuracy = calc_accuracy_loader(train_loader, model, device, num_batches=eval_iter)
        val_accuracy = calc_accuracy_loader(val_loader, model, device, num_batches=eval_iter)
        tqdm.write(f"Training accuracy: {train_accuracy * 100:.2f}% | ", end="")
        tqdm.write(f"Validation accuracy: {val_accuracy * 100:.2f}%")
        train_accs.append(train_accuracy)
        val_accs.append(val_accuracy)

    return train_losses, val_losses, train_accs, val_accs, examples_seen


LEARNING_RATE = 5e-5  # published for OpenAI's checkpoints
MINI_LEARNING_RATE = 1e-3  # notebook 08 shows why the embedded checkpoint needs its own
WEIGHT_DECAY = 0.1


def fine_tuning_settings(name):
    """The settings of AdamW that fit a checkpoint.

    Args:
        name (str): a key of ``MODEL_CONFIGS``.

    Returns:
        dict: ``lr`` and ``weight_decay``, as ``torch.optim.AdamW`` takes them.
    """
    learning_rate = MINI_LEARNING_RATE if name == "gpt2-mini (10M)" else LEARNING_RATE
    return {"lr": learning_rate, "weight_decay": WEIGHT_DECAY}


def fine_tune(name, data_choice, device, num_epochs=5, learning_rate=None, models_dir="gpt2", cached=False):
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


def load_messages(name, data_choice):
    """Make the tokenizer and the three data loaders, and check that the model reads the messages whole.

    Args:
        name (str): a key of ``MODEL_CONFIGS``.
        data_choice (str): ``"uci"`` or ``"sample"``.

    Returns:
        tuple: the tokenizer, and the tuple of training, validation and test loader.

    Raises:
        ValueError: if the longest message has more tokens than the model reads.
    """
    context_length = model_config(name)["context_length"]
    use_bundled_tokenizer_files()
    tokenizer = tiktoken.get_encoding("gpt2")
    loaders = create_spam_loaders(tokenizer, find_spam_file(data_choice))
    max_length = loaders[0].dataset.max_length
    if max_length > context_length:
        raise ValueError(
            f"The longest message has {max_length} tokens, the model reads at most {context_length}."
        )
    return tokenizer, loaders


# ---------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------


def save_classifier(path, model, name, data_choice, max_length, threshold=0.5, class_names=CLASS_NAMES):
    """Save a classifier and what its use needs in one safetensors file.

    The file appears whole or not at all; one that was there before is replaced.

    Args:
        path (str or Path): the file; its folder is created.
        model (GPTModel): the classifier.
        name (str): the key of ``MODEL_CONFIGS`` that it was built from.
        data_choice (str): the messages that it was fine-tuned on.
        max_length (int): the length in tokens that messages were padded to.
        threshold (float): probability from which on a message is called spam.
        class_names (sequence of str): the names of the labels 0, 1.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "model": name,
        "data": data_choice,
        "max_length": str(max_length),
        "threshold": str(threshold),
        "class_names": json.dumps(list(class_names)),
    }
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    with atomic_file(path) as partial:
        save_file(tensors, partial, metadata)


def load_classifier(path):
    """Load a classifier that :func:`save_classifier` saved.

    Args:
        path (str or Path): the file.

    Returns:
        tuple: ``(model, settings)``: the GPTModel in evaluation mode, frozen, on the CPU; and a
        dict with ``model``, ``data``, ``max_length``, ``threshold`` and ``class_names``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds no classifier of this book.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no classifier {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            settings = read_settings(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        with torch.device("meta"):  # shapes only: the values come from the file
            model = GPTModel(model_config(settings["model"]))
            model.out_head = torch.nn.Linear(model.tok_emb.embedding_dim, len(settings["class_names"]))
        model.load_state_dict(tensors, assign=True)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or was not saved by save_classifier: {error} "
            "Make it anew: python classification.py finetune"
        ) from error
    freeze_all_layers(model)
    return model.eval(), settings


def read_settings(metadata):
    """Turn the metadata of a classifier file, a dict of str, into checked values.

    Raises:
        ValueError: if a value is missing or impossible.
    """
    missing = {"model", "data", "max_length", "threshold", "class_names"} - metadata.keys()
    if missing:
        raise ValueError(f"its metadata lack {', '.join(sorted(missing))}.")
    settings = {
        "model": metadata["model"],
        "data": metadata["data"],
        "max_length": int(metadata["max_length"]),
        "threshold": float(metadata["threshold"]),
        "class_names": json.loads(metadata["class_names"]),
    }
    context_length = model_config(settings["model"])["context_length"]
    if not 1 <= settings["max_length"] <= context_length:
        raise ValueError(f"max_length is {settings['max_length']}, not between 1 and {context_length}.")
    if not 0 <= settings["threshold"] <= 1:
        raise ValueError(f"threshold is {settings['threshold']}, not between 0 and 1.")
    if not isinstance(settings["class_names"], list) or len(settings["class_names"]) != 2:
        raise ValueError(f"class_names is {metadata['class_names']}, not a list of two names.")
    return settings


# ---------------------------------------------------------------------------------
# Use
# ---------------------------------------------------------------------------------


def encode_message(text, model, tokenizer, max_length=None, pad_token_id=50256):
    """Turn a text into the token IDs that the classifier reads.

    Args: as for :func:`classify_review`.

    Returns:
        list of int: cut and padded to ``max_length``; without one, as long as the text, at
        least one token and at most the model's context.

    Raises:
        ValueError: if ``max_length`` exceeds the model's context length.
    """
    context_length = model.pos_emb.num_embeddings
    input_ids = tokenizer.encode(text, disallowed_special=())
    if max_length is None:
        max_length = min(max(len(input_ids), 1), context_length)
    if not 1 <= max_length <= context_length:
        raise ValueError(
            f"max_length is {max_length}; it must be between 1 and the context length {context_length}."
        )
    input_ids = input_ids[:max_length]
    return input_ids + [pad_token_id] * (max_length - len(input_ids))


def classify_review(text, model, tokenizer, device, max_length=None, pad_token_id=50256):
    """Classify one text.

    Args:
        text (str): the text; an empty one is read as a single padding token.
        model (GPTModel): the classifier; it is left in evaluation mode.
        tokenizer (tiktoken.Encoding): GPT-2's tokenizer.
        device (torch.device): where to compute.
        max_length (int): pad and cut to this length, usually the one used in training;
            at most the model's context length. Default: no padding.
        pad_token_id (int): the padding token.

    Returns:
        str: ``"spam"`` or ``"not spam"``.

    Raises:
        ValueError: if ``max_length`` exceeds the model's context length.
    """
    model.eval()
    input_ids = encode_message(text, model, tokenizer, max_length, pad_token_id)
    input_tensor = torch.tensor(input_ids, device=device).unsqueeze(0)  # (T,) -> (1, T)

    with torch.no_grad():
        logits = model(input_tensor)[:, -1, :]  # (1, T, 2) -> (1, 2)
    predicted_label = torch.argmax(logits, dim=-1).item()
    return "spam" if predicted_label == 1 else "not spam"


@torch.no_grad()
def spam_probabilities(texts, model, tokenizer, device, max_length=None, pad_token_id=50256, batch_size=32):
    """Probability of spam for many texts: what :func:`classify_review` computes, in batches.

    Without ``max_length`` nothing is padded, so a batch holds texts of one length.

    Args:
        texts (sequence of str): N texts.
        model, tokenizer, device, max_length, pad_token_id: as for :func:`classify_review`.
        batch_size (int): largest number of texts that the model reads at once.

    Returns:
        torch.Tensor: float32, shape (N,), on the CPU, in the order of the texts.

    Raises:
        ValueError: if ``max_length`` exceeds the model's context length.
    """
    model.eval()
    encoded = [encode_message(text, model, tokenizer, max_length, pad_token_id) for text in texts]
    probabilities = torch.empty(len(encoded))
    by_length = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    for _, same_length in groupby(by_length, key=lambda i: len(encoded[i])):
        same_length = list(same_length)
        for start in range(0, len(same_length), batch_size):
            indices = same_length[start : start + batch_size]
            input_batch = torch.tensor([encoded[i] for i in indices], device=device)  # (B, T)
            logits = model(input_batch)[:, -1, :]  # (B, T, 2) -> (B, 2)
            probabilities[indices] = torch.softmax(logits, dim=-1)[:, 1].float().cpu()
    return probabilities


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
# Command line
# ---------------------------------------------------------------------------------


def choose_device():
    """Return the best device of this machine: CUDA, Apple silicon (MPS) or CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


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
            print(f"{set_name} loss: {calc_loss_loader(loader, model, device, num_batches=5):.3f}")


def print_accuracies(model, loaders, device, num_batches=None):
    """Print the accuracy on the training, validation and test set, in percent."""
    for set_name, loader in zip(SET_NAMES, loaders):
        accuracy = calc_accuracy_loader(loader, model, device, num_batches)
        print(f"{set_name} accuracy: {accuracy * 100:.2f}%")


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
            'python classification.py finetune --model "gpt2-mini (10M)" --data sample'
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
    use_bundled_tokenizer_files()
    tokenizer = tiktoken.get_encoding("gpt2")
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


def device_named(text):
    """A type for argparse: a device of PyTorch."""
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a device such as cpu, cuda or mps") from error


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
        help=f"default: {LEARNING_RATE}, for gpt2-mini (10M) {MINI_LEARNING_RATE}",
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
