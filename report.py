"""What a classifier can do, measured on labelled texts: numbers, as text and as JSON.

The page with plots is made by ``report_page.py`` from the same numbers. N is the number of texts, K that
of classes.
"""

import json

import numpy as np

from own_data import require_known
from reading import predict
from streams import harmless

BINS = 10  # of the calibration
MOST_MISTAKES = 20
LARGE = 30  # classes: above, the matrix gives way to its largest entries

# ---------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------


def measure(names, labels, probabilities, texts, threshold=0.5):
    """All numbers of a report.

    Args:
        names (list of str): of the classes, (K,).
        labels (np.ndarray): the right classes, int, (N,), N at least 1.
        probabilities (np.ndarray): float, (N, K).
        texts (list of str): (N,).
        threshold (float): with two classes, the second is predicted from this probability on.

    Returns:
        dict: of what JSON can hold: ``texts accuracy interval baseline macro_f1 classes confusion calibration
        calibration_error mistakes``.
    """
    from evidence import accuracy_interval  # SciPy takes most of a second, and classify does without

    predicted = predict(probabilities, threshold)
    confidence = probabilities[np.arange(len(labels)), predicted]
    right = predicted == labels
    confusion = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    classes = [scores_of(name, *counts) for name, *counts in zip(names, *counts_of(confusion))]
    measured = [row["f1"] for row in classes if row["texts"]]
    calibration, error = calibration_of(confidence, right)
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    return {
        "texts": len(labels),
        "accuracy": float(right.mean()),
        "interval": list(accuracy_interval(int(right.sum()), len(labels))),
        "baseline": float(np.bincount(labels).max() / len(labels)),
        "macro_f1": float(np.mean(measured)),
        "classes": classes,
        "confusion": confusion.tolist(),
        "calibration": calibration,
        "calibration_error": error,
        "mistakes": [
            {
                "text": texts[i],
                "label": names[labels[i]],
                "predicted": names[predicted[i]],
                "probability": round(float(confidence[i]), 4),
            }
            for i in wrong
        ],
    }


def measure_table(reader, settings, table):
    """:func:`measure` for the rows of a table, a DataFrame with text and label, as a reader answers them."""
    texts, names = table["text"].tolist(), settings["class_names"]
    require_known(table, names)
    probabilities = reader.probabilities(texts, "Measure").numpy()
    labels = table["label"].map(names.index).to_numpy()
    return measure(names, labels, probabilities, texts, settings["threshold"])


def counts_of(confusion):
    """Right answers, answers and texts of each class, from a matrix with a row for each right class."""
    return np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)


def scores_of(name, right, answers, texts):
    """Precision, recall and F1 of a class; 0 where nothing was answered or there is no text."""
    return {
        "name": name,
        "texts": int(texts),
        "precision": float(right / answers) if answers else 0.0,
        "recall": float(right / texts) if texts else 0.0,
        "f1": float(2 * right / (answers + texts)) if answers + texts else 0.0,
    }


def calibration_of(confidence, right):
    """Bins of the probability of the answer, and the mean distance between it and the share of right ones."""
    bins, error = [], 0.0
    group = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for i in range(BINS):
        here = group == i
        if here.any():
            said, true = float(confidence[here].mean()), float(right[here].mean())
            bins.append({"texts": int(here.sum()), "probability": said, "accuracy": true})
            error += here.mean() * abs(said - true)
    return bins, float(error)


def confusions(report, most=15):
    """The most frequent mistakes: (right class, answer, how often)."""
    names = [row["name"] for row in report["classes"]]
    pairs = [
        (names[i], names[j], count)
        for i, row in enumerate(report["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


# ---------------------------------------------------------------------------------
# Text and JSON
# ---------------------------------------------------------------------------------


def table(rows, right=()):
    """Rows of cells as lines with aligned columns; the columns ``right`` are aligned on the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def accuracy_line(report, name="Accuracy"):
    low, high = report["interval"]
    interval = f"95 % interval {low:.2%} to {high:.2%}"
    return (
        f"{name}: {report['accuracy']:.2%} of {report['texts']:,} texts "
        f"({interval}; the largest class alone: {report['baseline']:.2%})"
    )


def as_text(report):
    """The report for a terminal, which no text can steer."""
    parts = [f"{report['data']}\n{accuracy_line(report)}"]
    rows = [("class", "texts", "precision", "recall", "F1")]
    for row in report["classes"]:
        scores = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append((row["name"], row["texts"], *scores))
    rows.append(("mean of the classes", "", "", "", f"{report['macro_f1']:.3f}"))
    parts.append(table(rows, right=(1, 2, 3, 4)))

    names = [row["name"] for row in report["classes"]]
    if len(names) <= LARGE:
        matrix = [("right class \\ answer", *names)]
        matrix += [(name, *row) for name, row in zip(names, report["confusion"])]
        parts.append(table(matrix, right=range(1, len(names) + 1)))
    elif confusions(report):
        rows = [("right class", "answer", "texts"), *confusions(report)]
        parts.append("Most frequent mistakes:\n" + table(rows, right=(2,)))

    rows = [("said", "right", "texts")]
    rows += [
        (f"{row['probability']:.1%}", f"{row['accuracy']:.1%}", row["texts"]) for row in report["calibration"]
    ]
    parts.append(
        f"Calibration: the probability is off by {report['calibration_error']:.1%} on average\n"
        + table(rows, right=(0, 1, 2))
    )
    if report["mistakes"]:
        rows = [("right class", "answer", "said", "text")]
        for row in report["mistakes"]:
            text = " ".join(row["text"].split())
            said = f"{row['probability']:.1%}"
            rows.append((row["label"], row["predicted"], said, text[:79] + "…" * (len(text) > 79)))
        parts.append("Most confident mistakes:\n" + table(rows, right=(2,)))
    return harmless("\n\n".join(parts))


def as_json(report):
    return json.dumps(report, ensure_ascii=False, indent=1)
