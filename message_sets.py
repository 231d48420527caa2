"""Which messages a row learns from and answers, as texts: {name of the set: (texts, labels)}.

Texts are lists of str, labels lists of int (1 is spam).
"""

import csv
import random

import pandas as pd

from edition import ASSETS, SET_NAMES, get_tokenizer
from spam_data import create_spam_loaders, find_spam_file, left_over_ham, read_messages
from variants import choose_subset

DISGUISED_FILE = ASSETS / "disguised_spam.tsv"  # index variant text, of the sample


def read_texts(data_file):
    """Return [(texts, labels)] of the three sets: lists of str, and of int (1 is spam)."""
    datasets = [loader.dataset for loader in create_spam_loaders(get_tokenizer(), data_file)]
    return [(dataset.data["Text"].tolist(), dataset.data["Label"].tolist()) for dataset in datasets]


def read_sets(data_file, subset=None):
    """The three sets by name; ``subset`` as for :func:`variants.create_loaders`."""
    sets = dict(zip(SET_NAMES, read_texts(data_file)))
    if subset:
        texts, labels = sets["training"]
        chosen = choose_subset(len(texts), *subset)
        sets["training"] = [texts[i] for i in chosen], [labels[i] for i in chosen]
    return sets


def read_left_over_ham(data_file):
    """The ham that balancing leaves out, in the order of the file: never trained or chosen on."""
    texts = left_over_ham(read_messages(data_file))["Text"].tolist()
    return texts, [0] * len(texts)


def read_other_sets(data):
    """The sets of daily use: left-over ham, the whole other collection, and spam of the test set in disguise.

    Args:
        data (str): ``"uci"`` or ``"sample"``, what was trained on.
    """
    data_file = find_spam_file(data)
    other = read_messages(find_spam_file({"uci": "sample", "sample": "uci"}[data]))
    texts, labels = read_texts(data_file)[2]
    spam = [text for text, label in zip(texts, labels) if label == 1]
    disguised = {variant: [disguise(text, variant) for text in spam] for variant in ("look-alikes", "spaces")}
    if data == "sample":
        disguised |= read_disguised(len(spam))
    return {
        "left-over ham": read_left_over_ham(data_file),
        "other collection": (other["Text"].tolist(), (other["Label"] == "spam").astype(int).tolist()),
        **{variant: (texts, [1] * len(texts)) for variant, texts in disguised.items()},
    }


# ---------------------------------------------------------------------------------
# Disguised spam
# ---------------------------------------------------------------------------------

LOOK_ALIKES = {
    "a": "4@а",
    "b": "8",
    "c": "сç",
    "e": "3еé",
    "g": "9",
    "i": "1!í",
    "l": "1|",
    "o": "0оö",
    "p": "р",
    "s": "5$",
    "t": "7+",
    "u": "üv",
    "x": "х",
    "y": "у",
    "z": "2",
}  # fmt: skip  (the single letters are Cyrillic)


def disguise(text, variant):
    """Write a message as a spammer may who knows the filter; the same text always in the same way.

    ``"look-alikes"``: a third of the letters become digits, signs or letters that look alike.
    ``"spaces"``: half of the words of four or more letters are spelled out, as in f r e e.
    """
    rng = random.Random(f"{variant}: {text}")
    if variant == "look-alikes":
        return "".join(
            rng.choice(LOOK_ALIKES[c.lower()]) if c.lower() in LOOK_ALIKES and rng.random() < 1 / 3 else c
            for c in text
        )
    words = text.split(" ")
    return " ".join(
        rng.choice((" ", ".")).join(word)
        if len(word) > 3 and word.isalpha() and rng.random() < 1 / 2
        else word
        for word in words
    )


def read_disguised(num_spam, path=DISGUISED_FILE):
    """The messages that were disguised by hand: {variant: texts}; empty where there is no such file.

    The columns are index (place among the spam messages of the test set, from 0), variant and text.

    Raises:
        ValueError: if the file has other columns, or an index that no message has.
    """
    if not path.exists():
        return {}
    df = pd.read_csv(path, sep="\t", keep_default_na=False, quoting=csv.QUOTE_NONE)
    if list(df.columns) != ["index", "variant", "text"]:
        raise ValueError(f"{path} has the columns {list(df.columns)}, not index, variant, text.")
    if not df["index"].isin(range(num_spam)).all():
        raise ValueError(f"{path}: an index is not between 0 and {num_spam - 1}, the spam of the test set.")
    return {variant: group["text"].tolist() for variant, group in df.groupby("variant")}
