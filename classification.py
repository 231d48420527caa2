"""Turn a pretrained GPT-2 into a classifier: head, freezing, accuracy, loss, training, use.

    python classification.py initial --model "gpt2-mini (10M)" --data uci

runs the whole chain of notebooks 01 to 07 and prints the accuracy and loss of the three
sets before any fine-tuning.

The steps and names follow Raschka (2024), chapter 6.
"""

import argparse

import tiktoken
import torch

from edition import chosen_data, chosen_model
from fast_paths import load_mapped_model
from gpt_download import use_bundled_tokenizer_files
from previous_chapters import MODEL_CONFIGS, model_config
from spam_data import DATA_CHOICES, create_spam_loaders, find_spam_file

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
    """Fine-tune the classifier and print its progress.

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
        for input_batch, target_batch in train_loader:
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
                print(
                    f"Ep {epoch + 1} (Step {global_step:06d}): "
                    f"Train loss {train_loss:.3f}, Val loss {val_loss:.3f}"
                )

        train_accuracy = calc_accuracy_loader(train_loader, model, device, num_batches=eval_iter)
        val_accuracy = calc_accuracy_loader(val_loader, model, device, num_batches=eval_iter)
        print(f"Training accuracy: {train_accuracy * 100:.2f}% | ", end="")
        print(f"Validation accuracy: {val_accuracy * 100:.2f}%")
        train_accs.append(train_accuracy)
        val_accs.append(val_accuracy)

    return train_losses, val_losses, train_accs, val_accs, examples_seen


# ---------------------------------------------------------------------------------
# Use
# ---------------------------------------------------------------------------------


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
    context_length = model.pos_emb.num_embeddings
    input_ids = tokenizer.encode(text, disallowed_special=())
    if max_length is None:
        max_length = min(max(len(input_ids), 1), context_length)
    if not 1 <= max_length <= context_length:
        raise ValueError(
            f"max_length is {max_length}; it must be between 1 and the context length {context_length}."
        )

    input_ids = input_ids[:max_length]
    input_ids += [pad_token_id] * (max_length - len(input_ids))
    input_tensor = torch.tensor(input_ids, device=device).unsqueeze(0)  # (T,) -> (1, T)

    with torch.no_grad():
        logits = model(input_tensor)[:, -1, :]  # (1, T, 2) -> (1, 2)
    predicted_label = torch.argmax(logits, dim=-1).item()
    return "spam" if predicted_label == 1 else "not spam"


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
    use_bundled_tokenizer_files()
    tokenizer = tiktoken.get_encoding("gpt2")
    loaders = create_spam_loaders(tokenizer, find_spam_file(data_choice))
    max_length = loaders[0].dataset.max_length
    context_length = model_config(name)["context_length"]
    if max_length > context_length:
        raise ValueError(
            f"The longest message has {max_length} tokens, the model reads at most {context_length}."
        )
    model = build_classifier(name).to(device)

    print(f"{name} on the {data_choice} data, {device}: messages padded to {max_length} tokens")
    sets = list(zip(("Training", "Validation", "Test"), loaders))
    torch.manual_seed(123)  # For reproducibility due to the shuffling in the training data loader
    for set_name, loader in sets:
        print(
            f"{set_name} accuracy: {calc_accuracy_loader(loader, model, device, num_batches=10) * 100:.2f}%"
        )
    with torch.no_grad():
        for set_name, loader in sets:
            print(f"{set_name} loss: {calc_loss_loader(loader, model, device, num_batches=5):.3f}")


def main():
    parser = argparse.ArgumentParser(description="Classify SMS messages with GPT-2.")
    commands = parser.add_subparsers(dest="command", required=True)
    initial = commands.add_parser("initial", help="accuracy and loss before fine-tuning")
    initial.add_argument(
        "--model",
        choices=list(MODEL_CONFIGS),
        default=chosen_model(),
        help="default: the variable CHOOSE_MODEL, else gpt2-small (124M)",
    )
    initial.add_argument(
        "--data",
        choices=DATA_CHOICES,
        default=chosen_data(),
        help="the UCI collection or the sample of this book; default: the variable CHOOSE_DATA, else uci",
    )
    initial.add_argument("--device", type=torch.device, default=choose_device())
    args = parser.parse_args()
    print_initial_results(args.model, args.data, args.device)


if __name__ == "__main__":
    main()
