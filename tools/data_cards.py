"""Measure the messages and headlines written for this book, for their cards: `python tools/data_cards.py`.

Writes results/sms_sample.json and results/headlines.json: how many, how long, which patterns and words
stand in which class, and how two blind readings (results/blind_*.tsv) agree with the labels.
"""

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402
from sklearn.metrics import cohen_kappa_score  # noqa: E402

from edition import get_tokenizer  # noqa: E402
from evidence import accuracy_interval  # noqa: E402
from files import sha256_of, write_json  # noqa: E402
from spam_data import SAMPLE_FILE, read_messages  # noqa: E402

RESULTS = ROOT / "results"
HEADLINES_FILE = ROOT / "assets" / "headlines.csv"
CLASSES = ("ham", "spam")
PATTERNS = {
    "three digits in a row": r"\d{3}",
    "a digit": r"\d",
    "a price": r"[£$€₹]|\b(?:Rs|pounds?|quid|dollars?|bucks)\b|\d ?p\b",
    "a link": r"\w\.(?:example|test|invalid)\b|example\.(?:com|org|net)\b",
    "a word in capitals": r"\b[A-Z]{4,}\b",
    "an exclamation mark": r"!",
    "more than 100 characters": r"(?s).{101}",
}


def words_of(text):
    """The different words of a message; the digits of a number do not count, its length does."""
    return set(re.findall(r"[a-z']+|[£$€₹]|\d+", re.sub(r"\d", "0", text.lower())))


def share_of_messages(df, has_it):
    """{class: percent of its messages for which ``has_it`` is true}."""
    return {
        name: round(100 * df.Text[df.Label == name].map(lambda text: bool(has_it(text))).mean(), 1)
        for name in CLASSES
    }


def strongest_words(df, number=12):
    """The words whose shares of messages differ most between the classes: {word: {class: percent}}."""
    counts = {
        name: Counter(word for text in df.Text[df.Label == name] for word in words_of(text))
        for name in CLASSES
    }
    totals = df.Label.value_counts()

    def share(word, name):
        return counts[name][word] / totals[name]

    words = sorted(
        counts["ham"] | counts["spam"], key=lambda word: -abs(share(word, "spam") - share(word, "ham"))
    )
    return {word: {name: round(100 * share(word, name), 1) for name in CLASSES} for word in words[:number]}


def agreement(labels, blind_file):
    """How two blind readings agree with the labels and with each other."""
    blind = pd.read_csv(blind_file, sep="\t")
    labels = labels[blind.row].tolist()
    result = {
        "messages": len(blind),
        "kappa between readers": cohen_kappa_score(blind.reader_a, blind.reader_b),
    }
    for reader in ("reader_a", "reader_b"):
        right = int((blind[reader] == labels).sum())
        result[reader] = {
            "right": right,
            "interval": [round(100 * bound, 1) for bound in accuracy_interval(right, len(blind))],
            "kappa with labels": cohen_kappa_score(blind[reader], labels),
            "not sure": int((blind[f"{reader}_sure"] != "sure").sum()),
        }
    return result


def lengths(texts, labels, tokenizer):
    """Quartiles of the characters of each class, and the most tokens of a text."""
    quartiles = texts.str.len().groupby(labels).quantile([0.25, 0.5, 0.75]).round().astype(int)
    return {
        "quartiles of characters": {name: quartiles[name].tolist() for name in sorted(set(labels))},
        "longest in tokens": max(len(tokenizer.encode(text)) for text in texts),
    }


def sms_sample():
    """The card of assets/sms_sample.tsv."""
    df = read_messages(SAMPLE_FILE)
    return {
        "sha256": sha256_of(SAMPLE_FILE),
        "messages": df.Label.value_counts().to_dict(),
        **lengths(df.Text, df.Label, get_tokenizer()),
        "patterns": {
            name: share_of_messages(df, re.compile(regex).search) for name, regex in PATTERNS.items()
        },
        "words": strongest_words(df),
        "blind readings": agreement(df.Label, RESULTS / "blind_messages.tsv"),
    }


def headlines():
    """The card of assets/headlines.csv."""
    df = pd.read_csv(HEADLINES_FILE)
    return {
        "sha256": sha256_of(HEADLINES_FILE),
        "headlines": df.label.value_counts().sort_index().to_dict(),
        **lengths(df.text, df.label, get_tokenizer()),
        "blind readings": agreement(df.label, RESULTS / "blind_headlines.tsv"),
    }


CARDS = {"sms_sample.json": sms_sample, "headlines.json": headlines}

if __name__ == "__main__":
    for name, facts in CARDS.items():
        write_json(RESULTS / name, facts())
        print(RESULTS / name)
