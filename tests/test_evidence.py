"""Statistics on answers: each against a formula, scikit-learn, or a case that is known."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from evidence import (
    accuracy_interval,
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
    ranking,
    verdict,
    weighted_log_loss,
    with_interval,
)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def even(labels):
    return np.full(len(labels), 1 / len(labels))


def test_interval_is_that_of_wilson():
    low, high = accuracy_interval(95, 100)  # Wilson (1927): (p + z²/2n ± z·sqrt(pq/n + z²/4n²)) / (1 + z²/n)
    assert (low, high) == pytest.approx((0.88825, 0.97846), abs=1e-5)


def test_mcnemar_counts_the_messages_that_one_alone_gets_right():
    correct, other = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool), np.array([0, 0, 0, 0, 0, 1, 1, 0], bool)
    b, c, p = mcnemar(correct, other)
    assert (b, c) == (5, 1)
    assert p == pytest.approx(2 * (1 + 6) / 2**6)  # 0 or 1 of 6, and the other side
    assert mcnemar(correct, correct) == (0, 0, 1.0)


def test_pairs_decide_what_two_intervals_cannot(rng):
    """The same two accuracies: clear where the errors are shared, not decided where they are not."""
    right = rng.random(400) < 0.85
    shared = right.copy()
    shared[np.flatnonzero(right)[:14]] = False  # 14 errors more, all others the same
    difference, low, high, p = paired_difference(right[None], shared[None])
    assert difference == pytest.approx(14 / 400) and low > 0 and p < 0.001
    difference, low, high, p = paired_difference(right[None], rng.permutation(shared)[None])
    assert difference == pytest.approx(14 / 400) and low < 0 < high and p > 0.05


def test_interval_of_a_difference_has_the_width_of_the_theory(rng):
    correct, other = rng.random((1, 2000)) < 0.9, rng.random((1, 2000)) < 0.8
    _, low, high, _ = paired_difference(correct, other)
    error = np.std(correct[0].astype(float) - other[0]) / np.sqrt(2000)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_seeds_that_differ_widen_the_interval():
    """Messages that all behave alike: what is left is the seeds, with their standard error s / sqrt(S)."""
    accuracies = np.array([0.6, 0.7, 0.8, 0.9])
    correct = np.repeat(accuracies[:, None] * 20, 20, axis=1) > np.arange(20) + 0.5
    mean, low, high = mean_accuracy(np.tile(correct, (1, 500)), draws=2000)
    assert mean == pytest.approx(0.75)
    assert (high - low) / 2 == pytest.approx(1.96 * accuracies.std(ddof=1) / 2, rel=0.15)


def test_holm_adjusts_stepwise():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(
    "difference, p, word", [(0.1, 0.049, "better"), (-0.1, 0.049, "worse"), (0.5, 0.05, "not decided")]
)
def test_verdict_follows_the_adjusted_p(difference, p, word):
    assert verdict(difference, p) == word


def test_ranking_is_that_of_scikit_learn_also_with_ties_and_weights(rng):
    labels = rng.integers(0, 2, 300)
    z = np.round(labels + rng.normal(size=300), 1)
    for weights in (even(labels), rng.random(300)):
        expected = [
            score(labels, z, sample_weight=weights) for score in (roc_auc_score, average_precision_score)
        ]
        assert ranking(z, labels, weights) == pytest.approx(expected)


def test_interval_holds_the_value_and_narrows_with_more_messages(rng):
    widths = []
    for n in (100, 1600):
        labels = np.arange(n) % 2
        ((value, low, high), _) = with_interval(
            ranking, labels + rng.normal(size=(3, n)), labels, even(labels)
        )
        assert low < value < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)


def test_precision_recall_and_cost_where_spam_is_rare():
    """Half of the spam found, a tenth of the ham flagged; 10 % of the stream is spam."""
    labels = np.repeat([1, 0], [10, 40])
    z = np.concatenate([np.repeat([1, -1], 5), np.repeat([1, -1], [4, 36])])
    precision, recall, flagged, cost = at_threshold(0)(z, labels, class_weights(labels, 0.1))
    assert (recall, flagged) == pytest.approx((0.5, 0.05 + 0.09))
    assert precision == pytest.approx(0.05 / 0.14)
    assert cost == pytest.approx(1000 * (10 * 0.09 + 0.05))
    nothing = at_threshold(2)(z, labels, class_weights(labels, 0.1))
    assert nothing == pytest.approx((1, 0, 0, 100))  # flagging nothing costs the share of spam


def test_threshold_is_the_best_of_all(rng):
    labels = rng.integers(0, 2, 60)
    z = np.round(labels + rng.normal(size=60), 1)
    accuracies = [((z > t) == labels).mean() for t in np.linspace(-5, 5, 1001)]
    assert ((z > best_threshold(z, labels)) == labels).mean() == pytest.approx(max(accuracies))
    cost = [at_threshold(t)(z, labels, class_weights(labels, 0.1))[3] for t in np.linspace(-5, 5, 1001)]
    found = at_threshold(best_threshold(z, labels, 0.1))(z, labels, class_weights(labels, 0.1))[3]
    assert found == pytest.approx(min(cost))


def test_calibration_finds_what_was_done_to_the_log_odds(rng):
    z = rng.normal(size=20_000) * 2
    labels = (rng.random(20_000) < expit(z)).astype(int)
    distorted = (z - 0.7) / 0.4  # too sure, and shifted
    assert fit_platt(distorted, labels) == pytest.approx((0.4, 0.7), abs=0.05)
    a, b = fit_platt(3 * z, labels, with_offset=False)
    assert (a, b) == (pytest.approx(1 / 3, rel=0.05), 0)
    assert (
        expected_calibration_error(z, labels, even(labels))
        < 0.02
        < 0.1
        < expected_calibration_error(distorted, labels, even(labels))
    )
    assert weighted_log_loss(z, labels, even(labels)) < weighted_log_loss(distorted, labels, even(labels))


def test_answers_that_are_all_right_are_not_made_surer_and_surer():
    labels = np.array([0] * 20 + [1] * 20)
    a, b = fit_platt(np.where(labels == 1, 3.0, -3.0), labels)
    assert a * 3 + b == pytest.approx(np.log(21), abs=0.01)  # Platt's target: 21 of 22


def test_threshold_in_a_gap_stands_in_its_middle():
    z, labels = np.array([-3.0, -2.0, -1.0, 5.0, 6.0]), np.array([0, 0, 0, 1, 1])
    assert best_threshold(z, labels) == 2
    flat = np.array([0, 1, 1, 0, 1, 1, 0, 1])
    best = best_threshold(np.arange(8.0), flat)
    assert ((np.arange(8) > best) == flat).mean() == 6 / 8


def test_prior_correction_calibrates_for_another_share(rng):
    labels = np.repeat([1, 0], 5000)
    z = 2 * rng.normal(
        labels - 0.5, 1
    )  # log of the ratio of the two normal densities, times 2: not calibrated
    z = z / 2
    weights = class_weights(labels, 0.1)
    assert expected_calibration_error(correct_prior(z, 0.5, 0.1), labels, weights) < 0.02
    assert expected_calibration_error(z, labels, weights) > 0.2
    assert correct_prior(0.0, 0.5, 0.1) == pytest.approx(np.log(1 / 9))


def test_loss_of_a_sure_mistake_is_finite():
    assert weighted_log_loss(np.array([1000.0]), np.array([0]), np.ones(1)) == pytest.approx(1000)
