"""Turn a pretrained GPT-2 into a classifier: head, freezing, accuracy, loss, training, use.

The steps and names follow Raschka (2024), chapter 6. ``text_classifier.py`` is the command line.
"""

import json
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from edition import MODELS_DIR, PAD_TOKEN_ID, WEIGHT_DECAY, find_model, get_tokenizer
from files import atomic_file
from gpt_download import download_and_load_gpt2
from previous_chapters import GPTModel, model_config, model_from_weights
from spam_data import create_spam_loaders, find_spam_file

CLASS_NAMES = ("not spam", "spam")  # the names of the labels 0 and 1

# ---------------------------------------------------------------------------------
# From language model to classifier
# ---------------------------------------------------------------------------------


def load_pretrained_model(name, models_dir=MODELS_DIR):
    """Do what notebooks 02 and 03 do: configure a model and fill it with pretrained weights.

    The weights are mapped from their file: values are read when they are first used, without
    random values before and without a copy. Training changes them in memory only.

    Args:
        name (str): a key of ``MODEL_CONFIGS``, for example ``"gpt2-small (124M)"``.
        models_dir (str or Path): folder for checkpoints.

    Returns:
        GPTModel: the language model, in evaluation mode, on the CPU.

    Raises:
        ValueError, DownloadError: for an unknown name, and as ``download_and_load_gpt2``.
    """
    config, model_size = model_config(name), find_model(name).size
    _, params = download_and_load_gpt2(model_size=model_size, models_dir=models_dir)
    # The output layer begins with the values of the embedding but is a parameter of its own:
    # the file is mapped a second time for it.
    _, params_again = download_and_load_gpt2(model_size=model_size, models_dir=models_dir)
    return model_from_weights(config, params, out_head=params_again["wte"]).eval()


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


def build_classifier(name, models_dir=MODELS_DIR):
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


def fine_tuning_settings(name):
    """The settings of AdamW that fit a checkpoint.

    Args:
        name (str): a key of ``MODEL_CONFIGS``.

    Returns:
        dict: ``lr`` and ``weight_decay``, as ``torch.optim.AdamW`` takes them.
    """
    return {"lr": find_model(name).learning_rate, "weight_decay": WEIGHT_DECAY}


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
    tokenizer = get_tokenizer()
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
            "Make it anew: python text_classifier.py finetune"
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


def encode_message(text, model, tokenizer, max_length=None, pad_token_id=PAD_TOKEN_ID):
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


def classify_review(text, model, tokenizer, device, max_length=None, pad_token_id=PAD_TOKEN_ID):
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
def spam_probabilities(
    texts, model, tokenizer, device, max_length=None, pad_token_id=PAD_TOKEN_ID, batch_size=32
):
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
