"""Record what happens while the classifier is fine-tuned: a film of it, and what three habits change.

    python benchmarks/training_film.py              # both, some minutes
    python benchmarks/training_film.py film         # writes results/training_film.json
    python benchmarks/training_film.py habits       # writes results/training_habits.json, the seeds it lacks

The film is the run of notebook 08: same data, same seeds, same settings. Its file has ``texts`` and
``labels`` of the N validation messages; ``steps``, the numbers of the F steps after which it was looked
at (0: before the first); and ``margins``, F lists of N numbers, the logit of spam minus the logit of not
spam. The live figure of lesson 08 shows it.

The habits are warm-up, clipping and early stopping, each alone, with the seeds of the table of
experiments, whose row "last-token" is the run without any. For each seed: accuracies, validation loss,
and how many validation messages are called spam: ``called_at_start``, before the first step, and
``called``, the fewest and the most after one of the first 100 steps, the rise of the rate among them.
Clipping: ``clipped``, the share of steps whose gradient it shortened. Early stopping: ``step``, where it
stopped.
"""

import contextlib
import copy
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import edition  # noqa: E402, F401 - it sets what PyTorch reads when it starts

# isort: split
import tiktoken  # noqa: E402
import torch  # noqa: E402

from classification import build_classifier, fine_tuning_settings, train_classifier_simple  # noqa: E402
from edition import EMBEDDED  # noqa: E402
from experiments import SEEDS, settings_of  # noqa: E402
from fast_paths import TokenClassifier  # noqa: E402
from files import write_json  # noqa: E402
from records import load_json  # noqa: E402
from spam_data import SAMPLE_FILE, create_spam_loaders  # noqa: E402
from variants import build_model  # noqa: E402

NAME = EMBEDDED.name
EPOCHS = 5
WARM_UP = 0.1  # of all steps
LONGEST_GRADIENT = 1.0
FIRST_STEPS = 100  # warm-up ends at step 97
RESULTS = ROOT / "results"


def is_looked_at(step):
    """The first steps, where most happens, and every 15th: the choice of notebook 08."""
    return step <= 12 or step % 15 == 0


class Messages:
    """The messages of a loader, in their order."""

    def __init__(self, loader):
        self.ids = torch.tensor(loader.dataset.encoded_texts)  # (N, T)
        self.labels = torch.tensor(loader.dataset.data["Label"].to_numpy())  # (N,)

    @torch.no_grad()
    def margins(self, classifier):
        """Logit of spam minus logit of not spam of each message, (N,)."""
        logits = torch.cat([classifier(ids)[:, -1, :] for ids in self.ids.split(256)])  # (N, 2)
        return logits[:, 1] - logits[:, 0]

    def right(self, margins):
        return int(((margins > 0) == (self.labels == 1)).sum())

    def loss(self, margins):
        return torch.nn.functional.softplus(torch.where(self.labels == 1, -margins, margins)).mean().item()


def train(classifier, optimizer, loaders, seed):
    """Train with the looks of notebook 08: each pass over a loader draws a random number."""
    device = torch.device("cpu")
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train_classifier_simple(
            classifier, *loaders[:2], optimizer, device, EPOCHS, eval_freq=50, eval_iter=5
        )


def record_film(loaders, memory):
    classifier = TokenClassifier(build_classifier(NAME, ROOT / "gpt2"), "last", memory)
    optimizer = torch.optim.AdamW(classifier.parameters(), **fine_tuning_settings(NAME))
    validation, data = Messages(loaders[1]), loaders[1].dataset.data
    film = {"model": NAME, "texts": data["Text"].tolist(), "labels": data["Label"].tolist()}
    film |= {"steps": [], "margins": []}

    def look(step):
        film["steps"].append(step)
        film["margins"].append([round(margin, 3) for margin in validation.margins(classifier).tolist()])

    def after_step(*_):
        after_step.step += 1
        if is_looked_at(after_step.step):
            look(after_step.step)

    after_step.step = 0
    look(0)
    optimizer.register_step_post_hook(after_step)
    train(classifier, optimizer, loaders, SEEDS[0])
    return film


def measure(habit, seed, loaders, memory):
    """One run with one habit: {habit: what the head of this file says}. "none" gives early stopping, too."""
    model = build_model(settings_of("last-token"), NAME, seed, ROOT / "gpt2")
    classifier = TokenClassifier(model, "last", memory)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = fine_tuning_settings(NAME)
    optimizer = torch.optim.AdamW(trained, **settings)
    validation, test = Messages(loaders[1]), Messages(loaders[2])
    num_steps = EPOCHS * len(loaders[0])
    called_at_start = int((validation.margins(classifier) > 0).sum())
    called, lengths, step = [], [], 0
    best = {"loss": float("inf")}

    def before_step(*_):
        if habit == "warm-up":
            optimizer.param_groups[0]["lr"] = settings["lr"] * min(1, (step + 1) / (WARM_UP * num_steps))
        if habit == "clipping":
            lengths.append(torch.nn.utils.clip_grad_norm_(trained, LONGEST_GRADIENT).item())

    def after_step(*_):
        nonlocal step, best
        step += 1
        if step <= FIRST_STEPS:
            called.append(int((validation.margins(classifier) > 0).sum()))
        if habit == "none" and step > 60 and step % 15 == 0:
            margins = validation.margins(classifier)
            loss = validation.loss(margins)
            if loss < best["loss"]:
                best = {"loss": loss, "step": step, "state": copy.deepcopy(model.state_dict())}

    def result():
        margins, answers = validation.margins(classifier), test.margins(classifier)
        return {
            "seed": seed,
            "validation": round(validation.right(margins) / len(validation.labels), 4),
            "validation_loss": round(validation.loss(margins), 4),
            "test": round(test.right(answers) / len(test.labels), 4),
        }

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
    train(classifier, optimizer, loaders, seed)
    found = {habit: result() | {"called_at_start": called_at_start, "called": [min(called), max(called)]}}
    if habit == "clipping":
        found[habit]["clipped"] = round(sum(x > LONGEST_GRADIENT for x in lengths) / len(lengths), 4)
    if habit == "none":
        model.load_state_dict(best["state"])
        found["early stopping"] = result() | {"step": best["step"]}
    return found


def write(name, result):
    path = RESULTS / f"{name}.json"
    write_json(path, result, indent=1 if name == "training_habits" else None)
    print(f"wrote {path.relative_to(ROOT)}")


def main(wanted):
    loaders = create_spam_loaders(tiktoken.get_encoding("gpt2"), SAMPLE_FILE)
    memory = {}  # what the frozen blocks gave: the same in all runs
    if "film" in wanted:
        film = record_film(loaders, memory)
        validation = Messages(loaders[1])
        for i in (0, 1, 4, 8, -1):
            right = validation.right(torch.tensor(film["margins"][i]))
            print(f"step {film['steps'][i]}: {right} of {len(film['labels'])} right")
        write("training_film", film)
    if "habits" in wanted:
        runs = {"none": [], "warm-up": [], "clipping": [], "early stopping": []}
        runs = load_json(RESULTS / "training_habits.json").get("habits", runs)
        for seed in sorted(set(SEEDS) - {run["seed"] for run in runs["none"]}):
            for habit in ("none", "warm-up", "clipping"):
                for name, run in measure(habit, seed, loaders, memory).items():
                    runs[name].append(run)
                    print(name, run, flush=True)
            write("training_habits", {"model": NAME, "data": "sample", "habits": runs})


if __name__ == "__main__":
    main(sys.argv[1:] or ["film", "habits"])
