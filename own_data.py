"""A table of your own becomes training, validation and test set: checked, split, evened out.

The checks look for what makes the result of a training worthless. Tables are those of ``tables.py``.
"""

import contextlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from classification import CLASS_NAMES, load_messages
from edition import DATA_CHOICES, get_tokenizer
from files import sha256_of
from tables import read_table

MAX_CLASSES = 1000
IMBALANCE = ("keep", "balance", "weights")

# ---------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------


@dataclass
class Checks:
    """What was found in a table: rows for a reader, and the problems that make a result worthless."""

    rows: list = field(default_factory=list)  # (what, how much, which)
    problems: list = field(default_factory=list)

    def add(self, what, found, which="", problem=None):
        self.rows.append((what, str(found), which))
        if problem:
            self.problems.append(problem)


def lines_of(index, most=10):
    """The lines of rows for a message: "lines 3, 8, 12 and 5 more"."""
    shown = ", ".join(str(line) for line in list(index)[:most])
    more = f" and {len(index) - most:,} more" if len(index) > most else ""
    return f"line{'s' if len(index) > 1 else ''} {shown}{more}" if len(index) else ""


def same_text(texts):
    """Texts without what a reader does not see: case and the number of spaces."""
    return texts.map(lambda text: " ".join(text.casefold().split()))


def check_labels(table, checks):
    """Classes with their counts; empty, similar and single labels."""
    table_names = table.attrs["names"]
    empty = table.index[table["label"].str.strip() == ""]
    problem = f"rows without a label: {lines_of(empty)}" if len(empty) else None
    checks.add("without a label", len(empty), lines_of(empty), problem)

    counts = table.loc[table.index.difference(empty), "label"].value_counts()
    shown = ", ".join(f"{name} {count:,}" for name, count in counts[:20].items())
    checks.add("classes", len(counts), shown + (" …" if len(counts) > 20 else ""))
    if len(counts) < 2:
        raise ValueError(f"The column {table_names[1]!r} holds {len(counts)} class. Needed: at least two.")
    if len(counts) > MAX_CLASSES:
        raise ValueError(
            f"The column {table_names[1]!r} holds {len(counts):,} different labels for {len(table):,} rows. "
            f"At most {MAX_CLASSES:,} are possible. Is it the right column? See --label-column."
        )
    strange = [name for name in counts.index if not name.isprintable()]
    if strange:
        raise ValueError(f"The label {strange[0]!r} holds a tab, a line end or the like.")

    similar = counts.index.to_series().groupby(same_text(counts.index.to_series())).agg(list)
    similar = [group for group in similar if len(group) > 1]
    for group in similar:
        rare = min(group, key=lambda name: counts[name])
        where = lines_of(table.index[table["label"] == rare])
        checks.problems.append(f"labels that differ in case or spaces only: {group!r}; {rare!r} in {where}")
    checks.add("labels that look the same", len(similar), "; ".join(map(repr, similar[:5])))

    single = [name for name in counts.index if counts[name] == 1]
    where = lines_of(table.index[table["label"].isin(single)])
    problem = f"{len(single)} of {len(counts)} classes have one example: {where}" if single else None
    checks.add("classes with one example", len(single), where, problem)

    header = table_names[1]
    if header in set(counts.index) or len(table_names[0].split()) > 6:
        checks.problems.append(
            f"the first line, {table_names[0]!r:.60} and {header!r:.40}, looks like data. Put a line with "
            "the names of the columns above it: text,label"
        )


def check_texts(table, checks, max_length):
    """Empty texts, duplicates, contradictions, length; returns the table without what cannot be used."""
    empty = table.index[table["text"].str.strip() == ""]
    many = len(empty) > len(table) / 5
    checks.add("empty texts", len(empty), with_action(empty, "left out"))
    if many:
        checks.problems.append(
            f"{len(empty):,} of {len(table):,} texts are empty: {lines_of(empty)}. Is it the right column?"
        )
    table = table.drop(index=empty.union(table.index[table["label"].str.strip() == ""]))

    key = same_text(table["text"])
    labels = table["label"].groupby(key).transform("nunique")
    contradicted = table.index[labels > 1]
    checks.add("same text, two labels", len(contradicted), with_action(contradicted, "left out"))
    if len(contradicted) > len(table) / 20:
        checks.problems.append(
            f"{len(contradicted):,} of {len(table):,} rows have the text of a row with another label: "
            f"{lines_of(contradicted)}"
        )
    table, key = table.drop(index=contradicted), key.drop(index=contradicted)
    duplicates = table.index[key.duplicated()]
    checks.add("duplicates", len(duplicates), with_action(duplicates, "the first of each stays"))
    table = table.drop(index=duplicates)

    encode = get_tokenizer().encode_ordinary_batch
    lengths = np.array([len(ids) for ids in encode(table["text"].tolist(), num_threads=1)] or [0])
    spread = f"half have up to {np.median(lengths):.0f} tokens, the longest {lengths.max():,}"
    checks.add(f"cut at {max_length} tokens", f"{(lengths >= max_length).mean():.1%}", spread)
    return table


def with_action(index, action):
    return f"{action}: {lines_of(index)}" if len(index) else ""


def check_table(table, max_length):
    """Check a table for training; returns the rows that can be used and what was found, :class:`Checks`."""
    checks = Checks()
    checks.add("rows", f"{len(table):,}")
    check_labels(table, checks)
    return check_texts(table, checks, max_length), checks


def check_leak(table, test, checks):
    """Whether texts of the test stand in the training table too, and whether its labels are known."""
    shared = test.index[same_text(test["text"]).isin(set(same_text(table["text"])))]
    problem = f"texts of the test are in the training table too: {lines_of(shared)} of the test"
    checks.add("test texts in training too", len(shared), lines_of(shared), problem if len(shared) else None)
    require_known(test, set(table["label"]))


def require_known(table, names):
    """Raise ``ValueError`` if a table has labels beyond these."""
    unknown = table.index[~table["label"].isin(names)]
    if len(unknown):
        labels = ", ".join(map(repr, sorted(set(table.loc[unknown, "label"]))[:5]))
        known = ", ".join(map(repr, sorted(names)[:10]))
        raise ValueError(
            f"Labels that the classifier does not know: {labels}, {lines_of(unknown)}. It knows {known}."
        )


# ---------------------------------------------------------------------------------
# Splitting and balancing
# ---------------------------------------------------------------------------------


def prepare(path, test_path=None, columns=(None, None), max_length=1024, seed=123, say=print):
    """Read and check a table and split it: 70 % training, 10 % validation, 20 % test.

    With a file for the test, 10 % are for validation and the rest is for training.

    Returns:
        tuple: ``({set name: DataFrame}, Checks)``; each set has at least one row.
    """
    table, checks = check_table(read_table(path, *columns, say), max_length)
    if test_path is None:
        training, test, validation = stratified_split(table, (0.2, 0.1), seed)
    else:
        training, validation = stratified_split(table, (0.1,), seed)
        test = read_labelled(test_path, table.attrs["names"], say)
        check_leak(table, test, checks)
    sets = {"training": training, "validation": validation, "test": test}
    checks.add("split", " / ".join(f"{len(part):,}" for part in sets.values()), " / ".join(sets))
    for name, part in sets.items():
        if len(part) == 0:
            raise ValueError(f"{path} has too few rows for a {name} set. Each class needs three or more.")
    return sets, checks


def table_to_measure(data, columns, settings, say=print):
    """The rows that a classifier is measured on.

    Of a file that it was trained on these are the rows of its test set, of another one all that have a text
    and a label; of the book's data sets the published test set.

    Returns:
        tuple: the DataFrame, and a sentence that says what it is.
    """
    data = data or settings["data"]
    if data in DATA_CHOICES:
        frame = load_messages(settings["model"], data)[2].dataset.data
        labels = frame["Label"].map(dict(enumerate(CLASS_NAMES)))
        return frame.assign(text=frame["Text"], label=labels)[["text", "label"]], f"the test set of {data}"
    facts = settings.get("training", {})
    columns = [given or learned for given, learned in zip(columns, facts.get("columns", columns))]
    name = Path(data).name
    if Path(data).is_file() and sha256_of(data) == facts.get("sha256"):
        if not facts["separate_test"]:
            say(f"{name} is what the classifier was trained on. Measured is its test set, 20 % of it.")
            sets, _ = prepare(data, None, columns, settings["max_length"], facts["seed"], say)
            return sets["test"], f"the test set of {name}"
        say(f"The classifier was trained on {name}: what it can do with new texts, this does not tell.")
    return read_labelled(data, columns, say), f"all rows of {name}"


def read_labelled(path, columns, say):
    """The rows of a file that have a text and a label; ``ValueError`` if there is none."""
    table = read_table(path, *columns, say)
    table = table[(table["text"].str.strip() != "") & (table["label"].str.strip() != "")]
    if len(table) == 0:
        raise ValueError(f"{path} has no row with a text and a label.")
    return table


def class_names(table):
    """The classes of a table in order: of numbers by their value, else of letters."""
    names = sorted(set(table["label"]))
    with contextlib.suppress(ValueError):
        names.sort(key=float)
    return names


def stratified_split(table, shares, seed):
    """Split each class by the shares of the parts that come after the first, at random.

    ``shares`` are those of all parts but the first, which gets the rest. A class of few gives each of
    the later parts one row as long as the first keeps one. Returns a list of tables in file order.
    """
    import pandas as pd

    rng, part_of = np.random.default_rng(seed), pd.Series(0, index=table.index)
    for _, rows in table.groupby("label", sort=True):
        lines = rng.permutation(rows.index)
        for part, share in enumerate(shares, start=1):
            size = min(max(round(share * len(rows)), 1), len(lines) - 1)
            part_of[lines[:size]] = part
            lines = lines[size:]
    return [table[part_of == part] for part in range(len(shares) + 1)]


def even_out(table, imbalance, seed):
    """Do what was chosen about classes of unequal size; returns the table and a sentence that says it."""
    counts = table["label"].value_counts()
    ratio = f"the largest class has {counts.max():,} training texts, the smallest {counts.min():,}"
    if imbalance == "balance":
        table = table.groupby("label", sort=True).sample(counts.min(), random_state=seed).sort_index()
        return table, f"balanced by leaving out, {counts.min():,} training texts of each class; {ratio}"
    if imbalance == "weights":
        return table, f"weights in the loss, with which each class counts the same; {ratio}"
    return table, f"kept as it is; {ratio}"


def class_weights(labels, num_classes):
    """Weights with which each class counts the same in the loss; the mean over the rows is 1. (K,) float."""
    counts = np.bincount(labels, minlength=num_classes)
    return len(labels) / (num_classes * np.maximum(counts, 1))


# ---------------------------------------------------------------------------------
# What a classifier has to beat
# ---------------------------------------------------------------------------------


def baseline_accuracies(training, test, most_rows=20_000):
    """Accuracy on the test of the largest class, and of TF-IDF with a logistic regression: {name: float}.

    The regression learns from ``most_rows`` rows, at random, where the table is longer.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    largest = training["label"].value_counts().index[0]
    accuracies = {"largest class": float((test["label"] == largest).mean())}
    some = training.sample(min(len(training), most_rows), random_state=0)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=20_000)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough for a baseline
        try:
            model.fit(some["text"], some["label"])
        except ValueError:  # no text has a word of two letters
            return accuracies
    return accuracies | {"TF-IDF": float((model.predict(test["text"]) == test["label"]).mean())}
