"""Statistics on stored answers: intervals, paired tests, ranking, thresholds, calibration.

Pure functions. A classifier's answer to a message is its log-odds of spam z, in nats: P(spam) =
1 / (1 + exp(-z)). ``z`` has the shape (S, N): S trained models (seeds), N messages; ``labels``
(N,) are 1 for spam. ``share`` is the share of spam in the stream that a number is about.

Sources: Efron and Tibshirani (1993), *An Introduction to the Bootstrap*; McNemar (1947); Holm
(1979), *A simple sequentially rejective multiple test procedure*; Platt (1999); Saerens, Latinne
and Decaestecker (2002) for the correction of the prior; Guo et al. (2017) for temperature.
"""

import copy
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import binomtest

import edition  # noqa: F401 - tiktoken needs no network

DRAWS = 10_000  # of the bootstrap for accuracies
LEVEL = 0.05  # of all tests; the intervals are 95 % intervals

# ---------------------------------------------------------------------------------
# Accuracies and their differences
# ---------------------------------------------------------------------------------


def accuracy_interval(correct, total, confidence=0.95):
    """Wilson's interval for an accuracy, ``correct`` of ``total``: lowest and highest plausible, 0 to 1."""
    interval = binomtest(correct, total).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(correct, other):
    """McNemar's exact test for two trained models: bool (N,) each, whether they got a message right.

    Returns how many messages only the first got right, only the other, and the p-value.
    """
    b, c = int((correct & ~other).sum()), int((~correct & other).sum())
    return b, c, float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def seed_weights(num_seeds, rng, draws):
    """Bootstrap weights of the seeds, (draws, S), each row with the sum 1.

    S seeds drawn from S have a variance that is (S - 1) / S of the right one: the deviations
    from 1 / S are stretched accordingly.
    """
    weights = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=draws) / num_seeds
    stretch = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 0
    return 1 / num_seeds + stretch * (weights - 1 / num_seeds)


@lru_cache(maxsize=2)
def message_weights(n, draws):
    """Bootstrap weights of n messages, (draws, n), rows of sum 1; and the generator after them."""
    rng = np.random.default_rng(0)
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n, rng


def draw_messages(n, draws):
    """Weights of n messages as above, made once for all rows, and a generator for what is drawn next."""
    weights, rng = message_weights(n, draws)
    return weights, copy.deepcopy(rng)


def bootstrap_accuracy(correct, message_weights, rng):
    """Mean accuracy in each draw, (draws,): bool (S, N), weights of messages (draws, N)."""
    by_seed = message_weights @ correct.T  # (draws, N) @ (N, S) -> (draws, S)
    return (by_seed * seed_weights(len(correct), rng, len(by_seed))).sum(axis=1)


def mean_accuracy(correct, draws=DRAWS):
    """Mean accuracy over seeds with its interval, messages and seeds drawn anew: (mean, low, high)."""
    weights, rng = draw_messages(correct.shape[1], draws)
    return interval_around(correct.mean(), bootstrap_accuracy(correct, weights, rng).clip(0, 1))


def interval_around(value, drawn):
    """(value, low, high): a value and the middle 95 % of its bootstrap draws."""
    low, high = np.quantile(drawn, (LEVEL / 2, 1 - LEVEL / 2))
    return float(value), float(low), float(high)


def paired_difference(correct, other, draws=DRAWS):
    """Difference of two mean accuracies on the same messages: paired bootstrap over messages and seeds.

    ``correct`` and ``other`` are bool, (S, N) and (R, N). Returns (difference, low, high, p): positive where
    the first is better; p two-sided.
    """
    weights, rng = draw_messages(correct.shape[1], draws)
    drawn = bootstrap_accuracy(correct, weights, rng) - bootstrap_accuracy(other, weights, rng)
    drawn = drawn.round(9)  # equal is equal: the last bits depend on the processor
    # the share of draws on the other side of 0, twice; one draw is added, so that it is never 0
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (tail + 1) / (draws + 1))
    return *interval_around(correct.mean() - other.mean(), drawn), float(p)


def holm(p_values):
    """Holm's correction: p-values of several tests, adjusted so that 5 % is the chance of any false one."""
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def verdict(difference, adjusted_p):
    """ "better", "worse" or "not decided"."""
    if adjusted_p >= LEVEL:
        return "not decided"
    return "better" if difference > 0 else "worse"


# ---------------------------------------------------------------------------------
# Ranking and thresholds
# ---------------------------------------------------------------------------------


def class_weights(labels, share):
    """Weights of the messages, with which spam has the given share; their sum is 1."""
    labels = np.asarray(labels)
    return np.where(labels == 1, share / (labels == 1).sum(), (1 - share) / (labels == 0).sum())


def precision_recall(z, labels, weights):
    """Precision, recall and false-positive rate at each threshold, the highest first.

    z: (N,), weights: (..., N), with one row of results for each row of weights.
    """
    order = np.argsort(-z)
    last = np.append(z[order][1:] != z[order][:-1], True)  # equal answers stand or fall together
    spam = np.cumsum((weights * (labels == 1))[..., order], axis=-1)[..., last]
    ham = np.cumsum((weights * (labels == 0))[..., order], axis=-1)[..., last]
    return spam / np.maximum(spam + ham, 1e-300), spam / spam[..., -1:], ham / ham[..., -1:]


def ranking(z, labels, weights):
    """Area under the ROC curve, and average precision. z: (N,); weights: (..., N)."""
    precision, recall, false_positives = precision_recall(z, labels, weights)
    steps = np.diff(recall, prepend=0)
    widths = np.diff(false_positives, prepend=0)
    area = (widths * (recall - steps / 2)).sum(axis=-1)  # trapezoids
    return area, (steps * precision).sum(axis=-1)


@lru_cache(maxsize=2)
def draw_seeds_and_messages(num_seeds, labels, draws):
    """Weights of the seeds, (draws, S), and how often each message is drawn, (draws, N); labels as bytes."""
    rng, labels = np.random.default_rng(0), np.frombuffer(labels, np.int8)
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    seeds, counts = seed_weights(num_seeds, rng, draws), np.zeros((draws, len(labels)))
    for row in counts:
        for group in groups:
            row[group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)))
    return seeds, counts


def with_interval(statistic, z, labels, weights, draws=500):
    """Means over seeds of what a statistic gives, with intervals: spam, ham and seeds are drawn anew.

    ``statistic`` takes z (N,), labels (N,), weights (..., N), and gives a tuple of arrays (...): one number
    for each row of weights. Returns [(value, low, high)] of each.
    """
    labels = np.asarray(labels)
    seeds, counts = draw_seeds_and_messages(len(z), labels.astype(np.int8).tobytes(), draws)
    weights = np.concatenate([weights[None], weights * counts])  # (1 + draws, N): as they are, then drawn
    by_seed = np.array([statistic(row, labels, weights) for row in z])  # (S, K, 1 + draws)
    value = by_seed[:, :, 0].mean(axis=0)  # (K,)
    drawn = (by_seed[:, :, 1:] * seeds.T[:, None]).sum(axis=0)  # (K, draws)
    return [interval_around(v, d) for v, d in zip(value, drawn)]


def at_threshold(threshold):
    """A statistic: precision, recall, share flagged, and cost of 1,000 messages, at a threshold of z.

    A ham message that is flagged costs 10, a spam message that comes through costs 1.
    """

    def statistic(z, labels, weights):
        flagged, spam = z > threshold, labels == 1
        which = np.transpose([flagged & spam, flagged & ~spam, spam & ~flagged])  # (N, 3)
        hit, false, missed = np.moveaxis(weights @ which, -1, 0) / weights.sum(axis=-1)
        share = hit + false
        precision = np.where(share > 0, hit / np.maximum(share, 1e-300), 1.0)
        return precision, hit / (hit + missed), share, 1000 * (10 * false + missed)

    return statistic


def best_threshold(z, labels, share=None):
    """The threshold of z (N,) with the highest accuracy, or, with a share, with the lowest cost there.

    It lies half way between two answers; among equals it is the middle one.
    """
    values = np.unique(z)
    candidates = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    labels = np.asarray(labels)
    if share is None:
        scores = [-((z > t) == (labels == 1)).mean() for t in candidates]
    else:
        weights = class_weights(labels, share)
        scores = [at_threshold(t)(z, labels, weights)[3] for t in candidates]
    best = np.flatnonzero(np.isclose(scores, min(scores)))
    return float(candidates[best[len(best) // 2]])


# ---------------------------------------------------------------------------------
# Calibration
# ---------------------------------------------------------------------------------


def weighted_log_loss(z, labels, weights):
    """Mean loss in nats of the probabilities that the log-odds z (N,) give."""
    signed = np.where(np.asarray(labels) == 1, z, -z)
    return weights @ np.logaddexp(0, -signed) / weights.sum(axis=-1)


def expected_calibration_error(z, labels, weights, bins=10):
    """Mean distance between probability and share of spam, in bins of equal width (ECE)."""
    p = expit(z)
    group = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.zeros((len(z), bins))  # of each message, in the column of its bin
    gaps[np.arange(len(z)), group] = p - (np.asarray(labels) == 1)
    return np.abs(weights @ gaps).sum(axis=-1) / weights.sum(axis=-1)


def fit_platt(z, labels, with_offset=True):
    """Fit z -> a z + b by the lowest loss; without offset, b is 0 and 1 / a the temperature: (a, b).

    Platt's targets lie a little inside of 0 and 1: where all answers are right, the loss alone
    would make a as large as it can get.
    """
    spam, ham = (labels == 1).sum(), (labels == 0).sum()
    targets = np.where(labels == 1, (spam + 1) / (spam + 2), 1 / (ham + 2))

    def loss(v):  # a = exp(v[0]): the order of the answers stays
        scaled = np.exp(v[0]) * z + (v[1] if with_offset else 0)
        return (np.logaddexp(0, scaled) - targets * scaled).mean()

    a, b = minimize(loss, x0=[0.0, 0.0], method="Nelder-Mead").x
    return float(np.exp(a)), float(b) if with_offset else 0.0


def correct_prior(z, share_before, share_after):
    """Log-odds for a stream in which spam has another share than among the messages learned from."""
    return z + logit(share_after) - logit(share_before)
