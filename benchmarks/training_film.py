"""Record the training film: the margin of every validation message while the classifier is fine-tuned.

    python benchmarks/training_film.py        # writes results/training_film.json

The run is that of notebook 08: same data, same seeds, same settings. The file
has ``texts`` and ``labels`` of the N validation messages; ``steps``, the numbers of the F steps after
which it was looked at (0: before the first); and ``margins``, F lists of N numbers, the logit of spam
minus the logit of not spam. The live figure of lesson 08 shows it.
"""

import json
import sys
from pathlib import Path

import tiktoken
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from classification import build_classifier, calc_loss_batch, fine_tuning_settings  # noqa: E402
from fast_paths import TokenClassifier  # noqa: E402
from spam_data import SAMPLE_FILE, create_spam_loaders  # noqa: E402

NAME = "gpt2-mini (10M)"
EPOCHS = 5
FRAMES = 60  # about as many; the first steps, where most happens, are all looked at
TARGET = ROOT / "results" / "training_film.json"


@torch.no_grad()
def validation_margins(classifier, loader):
    """Logit of spam minus logit of not spam of each validation message, a list of N float."""
    logits = torch.cat([classifier(ids)[:, -1, :] for ids, _ in loader])  # (N, 2)
    return [round(margin, 3) for margin in (logits[:, 1] - logits[:, 0]).tolist()]


def main():
    device = torch.device("cpu")
    train_loader, val_loader, _ = create_spam_loaders(tiktoken.get_encoding("gpt2"), SAMPLE_FILE)
    data = val_loader.dataset.data
    model = build_classifier(NAME, ROOT / "gpt2")
    classifier = TokenClassifier(model)
    last = EPOCHS * len(train_loader)
    wanted = {*range(9), *range(0, last, max(1, last // FRAMES)), last}

    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), **fine_tuning_settings(NAME))
    steps, margins = [0], [validation_margins(classifier, val_loader)]
    step = 0
    for _ in range(EPOCHS):
        for input_batch, target_batch in train_loader:
            optimizer.zero_grad()
            calc_loss_batch(input_batch, target_batch, classifier, device).backward()
            optimizer.step()
            step += 1
            if step in wanted:
                steps.append(step)
                margins.append(validation_margins(classifier, val_loader))

    film = {
        "model": NAME,
        "texts": data["Text"].tolist(),
        "labels": data["Label"].tolist(),
        "steps": steps,
        "margins": margins,
    }
    TARGET.write_text(json.dumps(film, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(steps)} frames of {len(film['labels'])} messages: {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
