"""What the stored answers show: every number here is computed from ``results/predictions/``.

``python experiments.py report`` keeps them in ``results/findings.json`` and prints them, see
``findings_text.py``. Accuracies and shares are between 0 and 1; a triple is a value with its 95 %
interval, (value, low, high).
"""

import numpy as np

from evidence import (
    at_threshold,
    best_threshold,
    class_weights,
    correct_prior,
    expected_calibration_error,
    fit_platt,
    holm,
    mcnemar,
    mean_accuracy,
    paired_difference,
    precision_recall,
    ranking,
    verdict,
    weighted_log_loss,
    with_interval,
)
from records import key_of

NUM_NEW_LABELS = 200  # messages of the other collection that are labelled, for a threshold of its own
RANDOM_TWINS = (("frozen-states", "frozen-random"), ("all-layers", "random-values"))
RECALLS = np.linspace(0.05, 1, 20)  # points of the precision-recall curve


class Answers:
    """The stored answers of one model and data set: entries {row: entry}, and arrays of log-odds."""

    def __init__(self, entries, arrays):
        self.entries = {row: entry for row, entry in entries.items() if entry["per_seed"]}
        self.arrays = arrays

    def __contains__(self, row):
        return row in self.entries

    def z(self, row, set_name):
        """Log-odds of all runs: (S, N)."""
        runs = sorted(self.entries[row]["per_seed"], key=lambda run: run["seed"] or 0)
        return np.stack([self.arrays[key_of(row, run, set_name)] for run in runs]).astype(float)

    def labels(self, set_name):
        return self.arrays[f"labels/{set_name}"]

    def correct(self, row, set_name="test"):
        """Which messages each run got right: bool (S, N)."""
        return (self.z(row, set_name) > 0) == (self.labels(set_name) == 1)

    def has(self, row, set_name):
        return row in self and all(
            key_of(row, run, set_name) in self.arrays for run in self.entries[row]["per_seed"]
        )


def find_accuracies(answers):
    """Test accuracy of each row, seeds that did not converge, and whether a better rate may lie outside."""
    found = {}
    for row, entry in answers.entries.items():
        rates = {run["learning_rate"] for run in entry.get("tried", [])}
        at_end = len(rates) > 1 and entry["learning_rate"] in (min(rates), max(rates))
        found[row] = {
            "test": mean_accuracy(answers.correct(row)),
            "did not converge": [run["seed"] for run in entry["per_seed"] if not run.get("converged", True)],
            "rate at the end of the ladder": at_end,
        }
    return found


def compare_pairs(correct, pairs):
    """Verdicts on pairs of rows, Holm's correction over all of them; ``correct(row)`` is bool (S, N)."""
    found = []
    for row, other in pairs:
        first, second = correct(row), correct(other)
        difference, low, high, p = paired_difference(first, second)
        b, c, p_single = mcnemar(first[0], second[0])
        found.append(
            {"row": row, "against": other, "difference": (difference, low, high), "p": p}
            | {"mcnemar": {"only first right": b, "only second right": c, "p": p_single}}
        )
    for line, adjusted in zip(found, holm([line["p"] for line in found])):
        line |= {"adjusted p": adjusted, "verdict": verdict(line["difference"][0], adjusted)}
    return found


def find_curves(answers, whole, rows, sizes, subsets):
    """Test accuracy of each row for each number of training messages, and two questions about them.

    Is a row better than the strong baseline, and is the pretrained model better than its random twin? Each
    question has a table of its own.
    """
    curves = {}
    correct = {row: whole.correct(row) for row in rows if row in whole}
    for row in rows:
        for n in sizes:
            points = [f"{row}@{n}#{subset}" for subset in subsets]
            if all(point in answers for point in points):
                correct[f"{row}@{n}"] = np.concatenate([answers.correct(point) for point in points])
                curves.setdefault(row, {})[str(n)] = mean_accuracy(correct[f"{row}@{n}"])
        if row in curves and row in whole:
            curves[row]["all"] = mean_accuracy(correct[row])

    def compared(questions):
        pairs = [(f"{row}@{n}", f"{other}@{n}") for row, other in questions for n in sizes]
        return compare_pairs(correct.get, [pair for pair in pairs if set(pair) <= correct.keys()])

    against_baseline = [(row, "tf-idf-best") for row in curves if row != "tf-idf-best"]
    return {"test": curves, "comparisons": compared(against_baseline), "pretraining": compared(RANDOM_TWINS)}


def find_other_collection(answers, row):
    """How a row does on the whole other collection, and what moving the threshold mends."""
    z, labels = answers.z(row, "other collection"), answers.labels("other collection")
    share, even = float(labels.mean()), np.full(len(labels), 1 / len(labels))
    area, precision = with_interval(ranking, z, labels, even)
    chosen = np.random.default_rng(0).permutation(len(labels))[:NUM_NEW_LABELS]
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    own = np.array([[best_threshold(row_z[chosen], labels[chosen])] for row_z in z])
    trained_share = float(answers.labels("validation").mean())
    at_half = at_threshold(0)
    names = ("precision", "recall", "share flagged")

    def at(moved):
        return dict(zip(names, with_interval(at_half, moved[:, rest], labels[rest], even[rest])))

    return {
        "share of spam": share,
        "area under the ROC curve": area,
        "average precision": precision,
        "threshold 0.5": at(z),
        "prior corrected": at(correct_prior(z, trained_share, share)),
        f"threshold from {NUM_NEW_LABELS} labels": at(z - own),
    }


def find_disguised(answers, row, variants):
    """Share of spam found at the threshold that the validation set chose, plain and in each disguise."""
    thresholds = np.array(
        [[best_threshold(z, answers.labels("validation"))] for z in answers.z(row, "validation")]
    )
    spam = answers.labels("test") == 1
    found = {"plain": mean_accuracy(answers.z(row, "test")[:, spam] > thresholds)}
    for variant in variants:
        if answers.has(row, variant):
            found[variant] = mean_accuracy(answers.z(row, variant) > thresholds)
    return found


def real_stream(answers, row):
    """Test spam and left-over ham as one stream: log-odds (S, N), labels, weights, share of spam."""
    spam = answers.z(row, "test")[:, answers.labels("test") == 1]
    ham = answers.z(row, "left-over ham")
    num_spam = sum(answers.entries[row]["messages"]) / 2  # the three sets are balanced together
    share = num_spam / (2 * num_spam + ham.shape[1])
    z, labels = np.concatenate([spam, ham], axis=1), np.repeat([1, 0], [spam.shape[1], ham.shape[1]])
    return z, labels, class_weights(labels, share), share


def find_real_share(answers, row):
    """Precision, recall and cost where spam has its real share, at three thresholds.

    One half; the one that was cheapest on the validation messages; and the one that follows
    from the costs, once Platt scaling and the real share have made probabilities of the answers.
    """
    z, labels, weights, share = real_stream(answers, row)
    validation = answers.labels("validation")
    own = answers.z(row, "validation")
    cheapest = np.array([[best_threshold(v, validation, share)] for v in own])
    a, b = np.transpose([fit_platt(v, validation) for v in own])[:, :, None]  # (S, 1) each
    calibrated = correct_prior(a * z + b, float(validation.mean()), share)
    names = ("precision", "recall", "share flagged", "cost of 1,000")

    def at(moved):
        return dict(zip(names, with_interval(at_threshold(0), moved, labels, weights)))

    curves = []
    for run in z:
        precision, recall, _ = precision_recall(run, labels, weights)
        curves.append([precision[np.searchsorted(recall, level - 1e-9) :].max() for level in RECALLS])
    return {
        "share of spam": share,
        "threshold 0.5": at(z),
        "cheapest on validation": at(z - cheapest),
        "calibrated, threshold 10/11": at(calibrated - np.log(10)),  # flag where 10 (1 - p) < p
        "average precision": with_interval(ranking, z, labels, weights)[1],
        "precision at recall": {
            f"{level:.2f}": float(p) for level, p in zip(RECALLS, np.mean(curves, axis=0))
        },
    }


def find_calibration(answers, row):
    """Loss in nats and calibration error before and after what the validation set fitted."""
    z, labels, weights, share = real_stream(answers, row)
    test, test_labels = answers.z(row, "test"), answers.labels("test")
    validation, validation_labels = answers.z(row, "validation"), answers.labels("validation")
    fits = {
        "as trained": [(1.0, 0.0)] * len(z),
        "temperature": [fit_platt(v, validation_labels, with_offset=False) for v in validation],
        "Platt": [fit_platt(v, validation_labels) for v in validation],
    }
    even, found = np.full(len(test_labels), 1 / len(test_labels)), {"test": {}, "real share": {}}

    def measure(z, labels, weights):
        def both(z, labels, weights):
            return weighted_log_loss(z, labels, weights), expected_calibration_error(z, labels, weights)

        return dict(zip(("loss", "calibration error"), with_interval(both, z, labels, weights)))

    for name, fit in fits.items():
        a, b = (np.array(values)[:, None] for values in zip(*fit))
        found["test"][name] = measure(a * test + b, test_labels, even)
        found["real share"][name] = measure(a * z + b, labels, weights)
        corrected = correct_prior(a * z + b, float(validation_labels.mean()), share)
        found["real share"][f"{name}, prior corrected"] = measure(corrected, labels, weights)
    return found


def find_all(answers, curve_answers, pairs, used_rows, curve):
    """Everything that the answers of one model and data set show, as it stands in findings.json."""
    used = [row for row in used_rows if answers.has(row, "left-over ham")]
    present = [(row, other) for row, other in pairs if row in answers and other in answers]
    variants = ("look-alikes", "spaces", "polite")
    return {
        "accuracies": find_accuracies(answers),
        "comparisons": compare_pairs(answers.correct, present),
        "learning curves": find_curves(curve_answers, answers, *curve),
        "other collection": {row: find_other_collection(answers, row) for row in used},
        "disguised spam": {row: find_disguised(answers, row, variants) for row in used},
        "real share": {row: find_real_share(answers, row) for row in used},
        "calibration": {row: find_calibration(answers, row) for row in used},
    }


def rounded(value):
    """Numbers with six decimals, also nested ones."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
