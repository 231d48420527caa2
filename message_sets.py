"""Which messages a row learns from and answers: texts for a baseline, loaders for a model.

Texts are lists of str, labels lists of int (1 is spam).
"""

import csv
import random

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from downloads import DownloadError
from edition import ASSETS, PAD_TOKEN_ID, SET_NAMES, get_tokenizer
from fast_paths import real_tokens
from spam_data import WAY_ON, create_balanced_dataset, create_spam_loaders, find_spam_file, read_messages

OTHER_WAY_ON = (
    "The rows in USED_ROWS of experiments.py also answer the other collection, which is fetched once. "
    "Without a network choose another row, such as head-only."
)
DISGUISED_FILE = ASSETS / "disguised_spam.tsv"  # index variant text, of the sample


def read_sets(data_file, subset=None):
    """The three sets, {name: (texts, labels)}; ``subset`` as for :func:`create_loaders`."""
    tables = [loader.dataset.data for loader in create_spam_loaders(get_tokenizer(), data_file)]
    sets = {name: (df["Text"].tolist(), df["Label"].tolist()) for name, df in zip(SET_NAMES, tables)}
    if subset:
        texts, labels = sets["training"]
        chosen = choose_subset(len(texts), *subset)
        sets["training"] = [texts[i] for i in chosen], [labels[i] for i in chosen]
    return sets


def read_left_over_ham(data_file):
    """The ham that balancing leaves out (UCI: 4,078 messages), in the order of the file.

    It is never trained or chosen on: with it, a test has the share of spam that real messages have.
    """
    df = read_messages(data_file)
    texts = df.drop(create_balanced_dataset(df).index)["Text"].tolist()
    return texts, [0] * len(texts)


def read_other_sets(data):
    """The sets of daily use beside ``data``: left-over ham, the other collection, test spam in disguise."""
    data_file = find_spam_file(data)
    try:
        other = read_messages(find_spam_file({"uci": "sample", "sample": "uci"}[data]))
    except DownloadError as error:  # its advice, to use the sample, was followed already
        raise DownloadError(str(error).replace(WAY_ON, OTHER_WAY_ON)) from error
    texts, labels = read_sets(data_file)["test"]
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
# Loaders
# ---------------------------------------------------------------------------------


def pad(ids, padding, context_length):
    """Pad one message (T,) anew: ``"longest message"`` (as it is), ``"full context"`` or ``"none"``."""
    if padding == "full context":
        return F.pad(ids, (0, context_length - len(ids)), value=PAD_TOKEN_ID)
    if padding == "none":
        return ids[real_tokens(ids.unsqueeze(0))[0]]
    return ids


def create_loaders(data_file, padding="longest message", batch_size=8, context_length=1024, subset=None):
    """The loaders of notebook 01, with another padding, batch size or number of training messages.

    ``padding`` as for :func:`pad`, to ``context_length`` if full; ``"none"`` needs batches of one message.
    ``subset`` ``(n, seed)`` trains on n messages only, see :func:`choose_subset`. Returns training (shuffled,
    last incomplete batch dropped), validation and test loader; a batch is token IDs (B, T), labels (B,).
    """
    loaders = []
    for loader in create_spam_loaders(get_tokenizer(), data_file):
        examples = [(pad(ids, padding, context_length), label) for ids, label in loader.dataset]
        training = not loaders
        if training and subset:
            examples = [examples[i] for i in choose_subset(len(examples), *subset)]
        loaders.append(DataLoader(examples, batch_size=batch_size, shuffle=training, drop_last=training))
    return loaders


def choose_subset(total, n, seed):
    """Indices of n of ``total`` messages. With one seed, fewer messages are part of more messages."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].tolist()


def loader_of_texts(texts, labels, like, padding="longest message"):
    """A loader of other texts, cut and padded as the training messages of the loader ``like`` are."""
    encoded = [get_tokenizer().encode(text, disallowed_special=()) or [PAD_TOKEN_ID] for text in texts]
    longest = max(len(ids) for ids, _ in like.dataset)
    examples = []
    for ids, label in zip(encoded, labels):
        ids = torch.tensor(ids[:longest])
        filler = 0 if padding == "none" else longest - len(ids)
        examples.append((F.pad(ids, (0, filler), value=PAD_TOKEN_ID), torch.tensor(label)))
    return DataLoader(examples, batch_size=like.batch_size)


# ---------------------------------------------------------------------------------
# Disguised spam
# ---------------------------------------------------------------------------------

# the single letters are Cyrillic
LOOK_ALIKES = {
    "a": "4@а", "b": "8", "c": "сç", "e": "3еé", "g": "9", "i": "1!í", "l": "1|", "o": "0оö",
    "p": "р", "s": "5$", "t": "7+", "u": "üv", "x": "х", "y": "у", "z": "2",
}  # fmt: skip


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

    The columns are index (place among the spam messages of the test set, from 0), variant and text; else,
    or for an index that no message has, ``ValueError``.
    """
    if not path.exists():
        return {}
    df = pd.read_csv(path, sep="\t", keep_default_na=False, quoting=csv.QUOTE_NONE)
    if list(df.columns) != ["index", "variant", "text"]:
        raise ValueError(f"{path} has the columns {list(df.columns)}, not index, variant, text.")
    if not df["index"].isin(range(num_spam)).all():
        raise ValueError(f"{path}: an index is not between 0 and {num_spam - 1}, the spam of the test set.")
    return {variant: group["text"].tolist() for variant, group in df.groupby("variant")}
