"""Turn a pretrained GPT-2 into a classifier: head, freezing, accuracy, loss, training, saving, use.

The steps and names follow Raschka (2024), chapter 6. ``text_classifier.py`` is the command line.

In all functions: ``name`` is a key of ``MODEL_CONFIGS``, for example ``"gpt2-small (124M)"``, and
``models_dir`` the folder for checkpoints; ``data_choice`` is ``"uci"`` or ``"sample"``; ``device`` is the
torch.device to compute on, and the model is there; a loader gives token IDs (B, T) and labels (B,), both
int64; a loss is in nats, an accuracy between 0 and 1.
"""

import json
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from edition import MODELS_DIR, PAD_TOKEN_ID, WEIGHT_DECAY, find_model, get_tokenizer
from files import atomic_file, require_replaceable, write_tensors
from gpt_download import download_and_load_gpt2
from previous_chapters import GPTModel, SkipRandomValues, model_config, model_from_weights

CLASS_NAMES = ("not spam", "spam")  # the names of the labels 0 and 1
# What a classifier file says of itself, and how it is read.
SETTINGS = {"model": str, "data": str, "max_length": int, "threshold": float, "class_names": json.loads}
# Not in every file: measured accuracies; where it reads (reading.py); how it was trained (own_training.py).
OPTIONAL = {"accuracies": json.loads, "reads": str, "training": json.loads}
END_OF_TEXT = "end of text"  # what ``reads`` says; a file without it reads at the last position
FILE_FORMAT = "1"  # of a file that does not say another one

# ---------------------------------------------------------------------------------
# From language model to classifier
# ---------------------------------------------------------------------------------


def load_pretrained_model(name, models_dir=MODELS_DIR):
    """Configure a model and fill it with pretrained weights, as notebooks 02 and 03 do; on the CPU.

    The weights are mapped from their file: values are read when they are first used, and training
    changes them in memory only. Raises what ``download_and_load_gpt2`` raises.
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
    """Replace the output layer by a new, random one: the model's output becomes (B, T, num_classes)."""
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
    """Do what notebooks 02 to 06 do: pretrained weights, frozen, a new head, the last block unfrozen."""
    model = load_pretrained_model(name, models_dir)
    freeze_all_layers(model)
    add_classification_head(model)
    unfreeze_last_block(model)
    return model


# ---------------------------------------------------------------------------------
# Accuracy and loss
# ---------------------------------------------------------------------------------


def calc_accuracy_loader(data_loader, model, device, num_batches=None):
    """Share of the messages that the model classifies correctly; ``ZeroDivisionError`` without a batch.

    Reads ``num_batches`` batches; by default, and at most, all. Leaves the model in evaluation mode.
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
    """Mean cross-entropy of a batch, (B, T) and (B,), from the logits of the last token: a scalar tensor."""
    input_batch, target_batch = input_batch.to(device), target_batch.to(device)
    logits = model(input_batch)[:, -1, :]  # Logits of last output token
    loss = torch.nn.functional.cross_entropy(logits, target_batch)
    return loss


def calc_loss_loader(data_loader, model, device, num_batches=None):
    """Mean of the losses of ``num_batches`` batches; by default, and at most, all. NaN without a batch."""
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
    """Loss on ``eval_iter`` batches of the training and of the validation set; back to training mode."""
    model.eval()
    with torch.no_grad():
        train_loss = calc_loss_loader(train_loader, model, device, num_batches=eval_iter)
        val_loss = calc_loss_loader(val_loader, model, device, num_batches=eval_iter)
    model.train()
    return train_loss, val_loss


def train_classifier_simple(
    model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter
):
    """Fine-tune the classifier, print its progress and show it in a bar (not with ``TQDM_DISABLE=1``).

    Every ``eval_freq`` steps it takes the loss of ``eval_iter`` batches, after each epoch the accuracy.

    Returns:
        tuple: ``(train_losses, val_losses, train_accs, val_accs, examples_seen)``: four lists of
        float, and the number of examples.
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
    """The settings of AdamW that fit a checkpoint: ``lr``, ``weight_decay``, and how it is computed.

    ``fused``: AdamW goes once over all that trains, in place of several times (notebook 11).
    """
    return {"lr": find_model(name).learning_rate, "weight_decay": WEIGHT_DECAY, "fused": True}


def load_messages(name, data_choice):
    """Training, validation and test loader; ``ValueError`` if the model cannot read the longest message."""
    from spam_data import create_spam_loaders, find_spam_file  # with pandas, which classify does without

    loaders = create_spam_loaders(get_tokenizer(), find_spam_file(data_choice))
    max_length, limit = loaders[0].dataset.max_length, model_config(name)["context_length"]
    if max_length > limit:
        raise ValueError(f"The longest message has {max_length} tokens, the model reads at most {limit}.")
    return loaders


def train_as_published(model, train_loader, val_loader, name, device, num_epochs=5, learning_rate=None):
    """Train with the seed and the settings of notebook 08; returns what train_classifier_simple returns."""
    settings = fine_tuning_settings(name)
    if learning_rate is not None:
        settings["lr"] = learning_rate
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    return train_classifier_simple(
        model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq=50, eval_iter=5
    )


def fine_tune(name, data_choice, device, num_epochs=5, learning_rate=None, models_dir=MODELS_DIR):
    """Do what notebooks 01 to 08 do, with the same random draws: data, classifier, fine-tuning.

    Returns:
        tuple: ``(model, loaders, history)``: the fine-tuned classifier on the device; the
        training, validation and test loader; what :func:`train_classifier_simple` returns.
    """
    loaders = load_messages(name, data_choice)
    model = build_classifier(name, models_dir).to(device)
    history = train_as_published(model, *loaders[:2], name, device, num_epochs, learning_rate)
    return model, loaders, history


# ---------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------


def save_classifier(
    path,
    model,
    name,
    data_choice,
    max_length,
    threshold=0.5,
    class_names=CLASS_NAMES,
    accuracies=None,
    only_trained=False,
    reads=None,
    training=None,
):
    """Save a classifier and what its use needs in one safetensors file, whole or not at all.

    Args:
        path (str or Path): the file; its folder is created, a former file replaced.
        model (GPTModel): the classifier, built from the checkpoint ``name``.
        max_length (int): the length in tokens that messages were padded to.
        threshold (float): probability from which on a message is called spam.
        class_names (sequence of str): the names of the labels 0, 1, ...
        accuracies (dict): {name of a set: accuracy}, where they were measured.
        only_trained (bool): save what has ``requires_grad`` alone, in float16; the rest is in the checkpoint.
        reads (str): ``END_OF_TEXT`` if the answer is read there, and not at the last position.
        training (dict): what is to be remembered of the training, for reports and the model card.

    Raises ``ValueError`` for an impossible setting or a value that is no finite number, else ``OSError``.
    """
    metadata = {
        "format": FILE_FORMAT,
        "model": name,
        "data": data_choice,
        "max_length": str(max_length),
        "threshold": str(threshold),
        "class_names": json.dumps(list(class_names)),
        **({"accuracies": json.dumps(accuracies)} if accuracies else {}),
        **({"reads": reads} if reads else {}),
        **({"training": json.dumps(training)} if training else {}),
    }
    read_settings(metadata)
    if only_trained and not model.out_head.weight.requires_grad:
        raise ValueError("The head is frozen, so it would be missing. Save the classifier as a whole.")
    tensors = {
        key: value.detach().to("cpu", torch.float16 if only_trained else torch.float32).contiguous()
        for key, value in model.named_parameters()
        if value.requires_grad or not only_trained
    }
    check_finite(tensors)
    arrays = {key: value.numpy() for key, value in tensors.items()}
    layout = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
    path = Path(path)
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        write_tensors(partial, layout, arrays.values(), metadata)


def load_classifier(path, models_dir=MODELS_DIR):
    """Load a classifier that :func:`save_classifier` saved.

    Returns:
        tuple: the GPTModel, in evaluation mode, frozen, on the CPU; and its settings, see ``SETTINGS``.

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
        check_finite(tensors)
        with torch.device("meta"), SkipRandomValues():  # shapes only: the values come from the file
            model = GPTModel(model_config(settings["model"]))
            model.out_head = torch.nn.Linear(model.tok_emb.embedding_dim, len(settings["class_names"]))
        missing, wrong = model.load_state_dict(tensors, strict=False, assign=True)
        # Without the embedding, the file holds what was trained: that includes the head.
        wrong += [key for key in missing if "tok_emb.weight" in tensors or key.startswith("out_head.")]
        if wrong:
            raise ValueError(f"missing or unknown tensors: {', '.join(wrong)}.")
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or was not saved by save_classifier: {error} "
            "Make it anew: python text_classifier.py finetune"
        ) from error
    if missing:
        pretrained = load_pretrained_model(settings["model"], models_dir).state_dict()
        model.load_state_dict({key: pretrained[key] for key in missing}, strict=False, assign=True)
    freeze_all_layers(model)
    return model.float().eval(), settings


def check_finite(tensors):
    """Raise ``ValueError`` unless all tensors are of one kind of float and hold finite numbers."""
    kinds = {str(value.dtype).removeprefix("torch.") for value in tensors.values()}
    if len(kinds) != 1 or not kinds <= {"float32", "float16", "bfloat16"}:
        raise ValueError(f"the values are of the types {sorted(kinds)}, not all float32 or all float16.")
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} holds NaN or infinity, as after a training that diverged.")


def read_settings(metadata):
    """Turn the metadata of a classifier file, a dict of str, into checked values, or raise ``ValueError``."""
    if metadata.get("format", FILE_FORMAT) != FILE_FORMAT:
        raise ValueError(f"its format has the version {metadata['format']}, this book reads {FILE_FORMAT}.")
    missing = SETTINGS.keys() - metadata.keys()
    if missing:
        raise ValueError(f"its metadata lack {', '.join(sorted(missing))}.")
    readers = SETTINGS | OPTIONAL
    settings = {key: read(metadata[key]) for key, read in readers.items() if key in metadata}
    if settings.get("reads", END_OF_TEXT) != END_OF_TEXT:
        raise ValueError(f"it reads at {settings['reads']!r}, which this book does not know.")
    context_length = model_config(settings["model"])["context_length"]
    if not 1 <= settings["max_length"] <= context_length:
        raise ValueError(f"max_length is {settings['max_length']}, not between 1 and {context_length}.")
    if not 0 <= settings["threshold"] <= 1:
        raise ValueError(f"threshold is {settings['threshold']}, not between 0 and 1.")
    names = settings["class_names"]
    if not isinstance(names, list) or not 2 <= len(names) <= 1000:
        raise ValueError(f"class_names is {metadata['class_names']!r}, not a list of 2 to 1000 names.")
    for text in (settings["data"], *names):
        if not (isinstance(text, str) and text.strip() and text.isprintable()):
            raise ValueError(f"{text!r} is no name: it is empty, or a tab or the like is in it.")
    return settings


# ---------------------------------------------------------------------------------
# Use
# ---------------------------------------------------------------------------------


def encode_message(text, model, tokenizer, max_length=None, pad_token_id=PAD_TOKEN_ID):
    """The token IDs that the classifier reads for a text, a list; see :func:`classify_review`."""
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
    """Classify one text: ``"spam"`` or ``"not spam"``.

    It is cut and padded to ``max_length`` tokens, usually the length used in training; ``ValueError``
    if that exceeds the model's context. Without one it is read as it is, as far as the context goes.
    """
    model.eval()
    input_ids = encode_message(text, model, tokenizer, max_length, pad_token_id)
    input_tensor = torch.tensor(input_ids, device=device).unsqueeze(0)  # (T,) -> (1, T)

    with torch.no_grad():
        logits = model(input_tensor)[:, -1, :]  # (1, T, 2) -> (1, 2)
    predicted_label = torch.argmax(logits, dim=-1).item()
    return "spam" if predicted_label == 1 else "not spam"


@torch.no_grad()
def spam_probabilities(texts, model, tokenizer, device, max_length=None, batch_size=32):
    """Probability of spam for N texts, as :func:`classify_review` computes it: float32, (N,), on the CPU.

    Without ``max_length`` nothing is padded, so a batch holds texts of one length.
    """
    model.eval()
    encoded = [encode_message(text, model, tokenizer, max_length) for text in texts]
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
