"""One trial of an experiment: train a row with one seed, choose among trials, measure what it costs.

``experiments.py`` has the table of rows and runs them. ``settings`` is a dict from its
``settings_of``, ``name`` a key of ``MODEL_CONFIGS``.
"""

import contextlib
import io
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from classification import train_classifier_simple
from devices import finish_work
from edition import SET_NAMES
from fast_paths import TokenClassifier, pick_token
from variants import build_model


def clock(device):
    """Seconds of processor time on a CPU, which other programs do not disturb; else of wall time."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    finish_work(device)
    return time.perf_counter()


@torch.no_grad()
def answers_of(classifier, loader, device):
    """What a classifier answers: log P(spam) - log P(ham) of each message, and the labels; arrays (N,)."""
    classifier.eval()
    logits, labels = zip(*[(classifier(ids.to(device))[:, -1].cpu(), labels) for ids, labels in loader])
    logits = torch.cat(logits).float()  # (N, 2)
    return (logits[:, 1] - logits[:, 0]).numpy(), torch.cat(labels).numpy()


def score(z, labels):
    """Accuracy, and mean cross-entropy in nats, of log-odds z. A loss that is not finite is None."""
    with np.errstate(invalid="ignore"):
        loss = float(np.logaddexp(0, np.where(labels == 1, -z, z)).mean())
    return float(((z > 0) == (labels == 1)).mean()), loss if math.isfinite(loss) else None


def has_converged(accuracy, loss, labels):
    """Whether training beat the best constant answer, in accuracy and in loss, on its own messages."""
    share = np.mean(labels)
    constant_loss = -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
    return bool(loss is not None and loss < constant_loss and accuracy > max(share, 1 - share))


def fine_tune_row(settings, name, loaders, seed, learning_rate, device, memory=None):
    """Fine-tune one row with one seed: with the base setting, the recipe of notebook 08.

    Every pass over the training loader draws a random number, also those that only look at the
    loss. So the looks are those of notebook 08, and with them the order of the messages. The seed decides it,
    and the values of the new head; the loaders are those of the three sets; ``memory`` is that of
    :class:`TokenClassifier`.

    Returns:
        tuple: the TokenClassifier, and a dict with ``seed learning_rate seconds`` (of training
        alone), ``training validation test`` (accuracies, 0 to 1), ``training_loss
        validation_loss`` (nats; None where not finite), ``converged``, and ``answers``, {set
        name: (log-odds, labels)}.
    """
    model = build_model(settings, name, seed).to(device)
    classifier = TokenClassifier(model, settings["token"], memory)
    weight_decay = settings["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    train_loader, val_loader, _ = loaders
    looks = {"eval_freq": 50, "eval_iter": 5}
    torch.manual_seed(seed)  # the order of the messages
    start = clock(device)
    with contextlib.redirect_stdout(io.StringIO()):  # the progress lines
        train_classifier_simple(
            classifier, train_loader, val_loader, optimizer, device, num_epochs=settings["epochs"], **looks
        )
    result = {"seed": seed, "learning_rate": learning_rate, "seconds": clock(device) - start}
    answers = result["answers"] = {}
    for set_name, loader in zip(SET_NAMES, loaders):
        z, labels = answers[set_name] = answers_of(classifier, loader, device)
        result[set_name], loss = score(z, labels)
        if set_name == "training":
            result |= {"training_loss": loss, "converged": has_converged(result["training"], loss, labels)}
        elif set_name == "validation":
            result["validation_loss"] = loss
    return classifier, result


def best_on_validation(results, num_messages):
    """The lowest validation loss among the results whose accuracy is not worse than the best one's."""
    # The accuracy is what the table reports, but of some hundred messages it is coarse, so the loss decides
    # where the accuracy cannot. The test set has no say.
    top = max(result["validation"] for result in results)

    def is_not_worse(result):  # by at most one standard error of the difference of the two accuracies
        q = result["validation"]
        return top - q <= math.sqrt((top * (1 - top) + q * (1 - q)) / num_messages)

    return min(filter(is_not_worse, results), key=lambda result: result["validation_loss"])


def choose_learning_rate(tried, num_messages):
    """The rate with the best mean over its seeds on the validation set, if all its seeds converged."""
    means = []
    for rate in sorted({run["learning_rate"] for run in tried}):
        runs = [run for run in tried if run["learning_rate"] == rate]
        losses = [math.inf if run["validation_loss"] is None else run["validation_loss"] for run in runs]
        means.append(
            {
                "learning_rate": rate,
                "validation": statistics.mean(run["validation"] for run in runs),
                "validation_loss": statistics.mean(losses),
                "converged": all(run["converged"] for run in runs),
            }
        )
    accepted = [mean for mean in means if mean["converged"]] or means  # if no rate has, all take part
    return best_on_validation(accepted, num_messages)["learning_rate"]


def megabytes(kind):
    """Memory of this process on Linux: ``"VmRSS"`` what it holds, ``"VmHWM"`` the most it held; else None."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0]) / 1e3


def training_cost(settings, name, train_loader, steps=10):
    """Cost of plain training, one thread, without the short cuts of :class:`TokenClassifier`."""
    torch.set_num_threads(1)
    model = build_model(settings, name, 123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batches = iter(train_loader)
    before = megabytes("VmRSS")
    with contextlib.suppress(OSError):  # Linux: the most is counted from here on
        Path("/proc/self/clear_refs").write_text("5")

    def step():
        ids, labels = next(batches)
        optimizer.zero_grad()
        logits = pick_token(model(ids), ids, settings["token"])
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    step()  # the first one also sets memory up
    start = time.process_time()
    for _ in range(steps):
        step()
    seconds, most = time.process_time() - start, megabytes("VmHWM")
    # attention as matrix products, which can be counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    messages = steps * settings["batch_size"]
    return {
        "seconds": seconds / messages,  # of processor time, for one message
        "operations": counter.get_total_flops() / settings["batch_size"],  # floating-point, both ways
        "megabytes": most,  # of the process during training, on Linux
        "megabytes_before": before,
    }
