"""What fine-tuning has to beat: majority class, TF-IDF, frozen states, a prompt.

Each baseline gets the sets of messages, ``{name: (texts, labels)}``, and returns what it chose
(a dict) and the log-odds of spam for each message, ``{name: float array (N,)}``: log P(spam) -
log P(ham), in nats, positive where it answers spam. Choices are made on the set "validation".
"""

import math
import statistics

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_union

from classification import load_pretrained_model
from edition import get_tokenizer
from fast_paths import packed_for_inference
from variants import random_model


def run_majority(sets):
    """Give every message the class shares of the training set."""
    share = statistics.mean(sets["training"][1])
    answer = math.log(share / (1 - share)) if 0 < share < 1 else math.copysign(math.inf, share - 0.5)
    return {}, {name: np.full(len(labels), answer) for name, (_, labels) in sets.items()}


STRENGTHS = (0.01, 0.1, 1, 10, 100)  # C of the logistic regression: the larger, the less regularised


def choose_regression(features, sets):
    """Fit a logistic regression for each kind of ``features``, {kind: {set: matrix}}, and C; the best one."""
    fitted = []
    labels, validation_labels = sets["training"][1], sets["validation"][1]
    for kind, matrices in features.items():
        for C in STRENGTHS:
            model = LogisticRegression(C=C, max_iter=2000).fit(matrices["training"], labels)
            right = model.score(matrices["validation"], validation_labels)
            loss = log_loss(validation_labels, model.predict_proba(matrices["validation"]), labels=[0, 1])
            fitted.append((right, -loss, kind, C, model))
    _, _, kind, C, model = max(fitted, key=lambda fit: fit[:2])
    choice = {"features": kind, "C": C, "trainable_parameters": model.coef_.size + 1}
    return choice, {name: model.decision_function(matrix) for name, matrix in features[kind].items()}


def run_tf_idf(sets, strong=False):
    """TF-IDF features and a logistic regression, both of scikit-learn.

    The weak form has single words; the strong one has one and two words, and two to five characters across
    words or within them, whichever is better, with the logarithm of the counts.
    """
    vectorizers = {"words": TfidfVectorizer()}
    if strong:
        vectorizers = {
            f"words and {analyzer}": make_union(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                TfidfVectorizer(analyzer=analyzer, ngram_range=(2, 5), sublinear_tf=True),
            )
            for analyzer in ("char", "char_wb")
        }
    features = {}
    for kind, vectorizer in vectorizers.items():
        vectorizer.fit(sets["training"][0])
        features[kind] = {name: vectorizer.transform(texts) for name, (texts, _) in sets.items()}
    return choose_regression(features, sets)


@torch.no_grad()
def hidden_states(text, model, device):
    """What the final norm gives for a text, without padding: at the last token, and the mean; (C,) each."""
    tokenizer, context_length = get_tokenizer(), model.pos_emb.num_embeddings
    ids = tokenizer.encode(text, disallowed_special=())[:context_length] or [tokenizer.eot_token]
    x = model.embed(torch.tensor([ids], device=device))  # (1, T, C)
    x = model.final_norm(model.trf_blocks(x))[0].cpu()  # (T, C)
    return {"last token": x[-1].numpy(), "mean of all tokens": x.mean(dim=0).numpy()}


def run_frozen_states(sets, values, seed, name, device):
    """A logistic regression on the frozen last hidden states, of the last token or their mean."""
    model = random_model(name, seed) if values == "random" else load_pretrained_model(name)
    model = packed_for_inference(model.to(device))
    features = {"last token": {}, "mean of all tokens": {}}
    for set_name, (texts, _) in sets.items():
        states = [hidden_states(text, model, device) for text in texts]
        for kind in features:
            features[kind][set_name] = np.stack([state[kind] for state in states])  # (N, C)
    return choose_regression(features, sets)


PROMPT = "Is this text message spam or ham?\n\n{text}\n\nAnswer:"
CONTENT_FREE = "N/A"  # a message that says nothing (Zhao et al. 2021)


@torch.no_grad()
def spam_margin(text, model, device):
    """Ask the language model: log P(" spam") - log P(" ham") after ``PROMPT`` with the text, in nats."""
    tokenizer = get_tokenizer()
    ids = torch.tensor([tokenizer.encode(PROMPT.format(text=text), disallowed_special=())], device=device)
    x = model.final_norm(model.trf_blocks(model.embed(ids)))  # (1, T, C)
    logits = model.out_head(x[:, -1])[0]  # (V,): the head is needed at one position only
    (spam,), (ham,) = tokenizer.encode(" spam"), tokenizer.encode(" ham")
    return (logits[spam] - logits[ham]).item()  # the softmax's denominator cancels


def run_zero_shot(sets, calibrated, name, device):
    """Classify by the prompt alone, with no label: :func:`spam_margin`, less that of ``CONTENT_FREE``."""
    model = packed_for_inference(load_pretrained_model(name).to(device))
    threshold = spam_margin(CONTENT_FREE, model, device) if calibrated else 0.0
    return {"threshold": threshold}, {
        set_name: np.array([spam_margin(text, model, device) - threshold for text in texts])
        for set_name, (texts, _) in sets.items()
    }
