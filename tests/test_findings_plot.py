"""The picture of the findings: each comparison has words, and stands in its group."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

from experiments import EXPERIMENTS, PAIRS, PUBLISHED_KEYS
from findings_plot import NAMES, name_of, plot_findings

matplotlib.use("Agg")


def line(row, verdict, difference=(-0.1, -0.2, 0.05)):
    return {"row": row, "against": "last-token", "difference": difference, "verdict": verdict}


@pytest.fixture
def found():
    """Clear, not decided though published as a difference, and a row without a published number."""
    lines = [
        line("first-token", "worse"),
        line("last-two-blocks", "not decided"),
        line("first-block", "not decided"),
    ]
    return {"sample": {"comparisons": lines}, "uci": {"comparisons": lines[:2]}}


def test_all_rows_and_comparisons_have_words():
    assert set(NAMES) == {row for row, change in EXPERIMENTS.items() if "model" not in change}
    names = [name_of({"row": row, "against": other}) for row, other in PAIRS]
    assert len(set(names)) == len(PAIRS)
    assert {"head alone", "everything, random start − everything"} <= set(names)


def dots(ax, marker):
    return sum(drawn.get_marker() == marker for drawn in ax.lines)


def signs(ax):
    return sum("≠" in drawn.get_text() for drawn in ax.texts)


def test_comparisons_stand_in_their_groups(found):
    fig = plot_findings(found, PUBLISHED_KEYS)
    clear, clear_uci, open_, open_uci = fig.axes
    labels = [[label.get_text() for label in ax.get_yticklabels()] for ax in (clear, open_)]
    assert labels == [["first token"], ["last two blocks", "first block"]]
    assert [dots(ax, "o") for ax in fig.axes] == [1, 1, 2, 1]  # what is not measured leaves a gap
    assert [dots(ax, "D") for ax in fig.axes] == [0, 1, 0, 1]  # the published, beside the UCI data
    plt.close(fig)


def test_what_differs_from_the_published_run_has_a_sign(found):
    found["uci"]["comparisons"] = [
        line("first-token", "worse", (-0.2, -0.25, -0.15)),
        line("last-two-blocks", "worse", (-0.1, -0.12, -0.08)),
    ]
    fig = plot_findings(found, PUBLISHED_KEYS)
    assert [signs(ax) for ax in fig.axes] == [0, 0, 0, 1]  # published: 20.0 points less, 3.3 more
    plt.close(fig)


def test_one_data_set_is_enough_and_shows_what_is_published(found):
    fig = plot_findings({"sample": found["sample"]}, PUBLISHED_KEYS)
    assert [dots(ax, "D") for ax in fig.axes] == [1, 1]
    plt.close(fig)
