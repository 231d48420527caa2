"""Does pretraining help? Fine-tune the embedded checkpoint and random values alike.

    python benchmarks/pretrained_against_random.py --data uci

Both models have the architecture of gpt2-mini (10M). In both, the last block, the final
layer norm and a new head are trained by the same recipe; the rest stays as it is. Prints
the accuracy on the full three sets for each seed, and the mean over the seeds.
"""

import argparse
import contextlib
import io
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiktoken  # noqa: E402
import torch  # noqa: E402

from classification import (  # noqa: E402
    add_classification_head,
    calc_accuracy_loader,
    choose_device,
    freeze_all_layers,
    load_pretrained_model,
    train_classifier_simple,
    unfreeze_last_block,
)
from gpt_download import use_bundled_tokenizer_files  # noqa: E402
from previous_chapters import GPTModel, model_config  # noqa: E402
from spam_data import DATA_CHOICES, create_spam_loaders, find_spam_file  # noqa: E402

MODEL = "gpt2-mini (10M)"


def random_model(seed):
    """The same architecture with random values: matrices with GPT-2's standard deviation of 0.02."""
    torch.manual_seed(seed)
    model = GPTModel(model_config(MODEL))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def fine_tune(model, loaders, seed, lr, epochs, device):
    """Train the last block and a new head; return the accuracy on the three full sets in percent."""
    freeze_all_layers(model)
    add_classification_head(model, seed=seed)
    unfreeze_last_block(model)
    model.to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.1)
    train_loader, val_loader, test_loader = loaders
    with contextlib.redirect_stdout(io.StringIO()):  # the progress lines
        train_classifier_simple(
            model,
            train_loader,
            val_loader,
            optimizer,
            device,
            num_epochs=epochs,
            eval_freq=10**9,
            eval_iter=1,
        )
    return [100 * calc_accuracy_loader(loader, model, device) for loader in loaders]


def print_row(values, seed, accuracies):
    train, validation, test = accuracies
    print(f"{values:10} | {seed:>4} | {train:7.2f}% | {validation:9.2f}% | {test:.2f}%", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=DATA_CHOICES, default="uci")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[123, 124, 125])
    parser.add_argument("--device", type=torch.device, default=choose_device())
    args = parser.parse_args()

    use_bundled_tokenizer_files()
    loaders = create_spam_loaders(tiktoken.get_encoding("gpt2"), find_spam_file(args.data))
    print(f"{args.data} data, AdamW lr {args.lr:g}, weight decay 0.1, {args.epochs} epochs, {args.device}")
    print("values     | seed | training | validation | test")
    for values in ("pretrained", "random"):
        results = []
        for seed in args.seeds:
            model = load_pretrained_model(MODEL) if values == "pretrained" else random_model(seed)
            results.append(fine_tune(model, loaders, seed, args.lr, args.epochs, args.device))
            print_row(values, seed, results[-1])
        mean = [statistics.mean(column) for column in zip(*results)]
        print_row(values, "mean", mean)


if __name__ == "__main__":
    main()
