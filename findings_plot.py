"""The findings of the experiments as one picture: sorted by what they can carry, with their intervals.

``found`` is what ``findings.json`` holds for a model: {data: findings}. Words stand in
``book/figures/words_en.json``.
"""

import json

import matplotlib.pyplot as plt

from edition import ROOT
from findings_text import differs_from_published, published_difference, sort_comparisons

WORDS = json.loads((ROOT / "book" / "figures" / "words_en.json").read_text(encoding="utf-8"))["experiments"]
NAMES = WORDS["rows"]  # of rows, the same in all figures
BOOK = "last-token"  # the row of the lessons


def name_of(line):
    """A comparison in words: its row, and what is taken off it, unless that is the book's choice."""
    row, other = NAMES[line["row"]], NAMES[line["against"]]
    return row if line["against"] == BOOK else f"{row} − {other}"


def plot_line(ax, line, y):
    """One comparison: its difference in points and the 95 % interval; hollow where it is not decided."""
    difference, low, high = (100 * value for value in line["difference"])
    clear = line["verdict"] != "not decided"
    ax.plot([low, high], [y, y], color="C0" if clear else "C7", linewidth=2.5, alpha=0.6)
    ax.plot(difference, y, "o", color="C0" if clear else "C7", markersize=6, mfc=None if clear else "white")


def plot_published(ax, line, keys, y):
    """What the published run found, with twice its standard error; a sign where ours is another."""
    if published := published_difference(line["row"], line["against"], keys):
        difference, two_errors = (100 * value for value in published)
        ax.plot([difference - two_errors, difference + two_errors], [y - 0.28] * 2, color="C1", linewidth=1)
        ax.plot(difference, y - 0.28, "D", color="C1", markersize=4)
        if differs_from_published(line, keys):
            ax.text(difference + two_errors, y - 0.28, " ≠", color="C1", va="center", fontweight="bold")


def plot_findings(found, keys):
    """Draw all comparisons in two groups, clear and not decided; a column for each data set.

    Args:
        found (dict): {data: findings}; the first data set decides the group. What is published stands
            with the UCI data, on which it was measured, or with the only data set there is.
        keys (dict): {row: its key among the published results}.

    Returns:
        matplotlib.figure.Figure
    """
    first = next(iter(found.values()))
    with_published = "uci" if "uci" in found else next(iter(found))
    groups = sort_comparisons(first["comparisons"], keys)
    groups = {title: groups[title] for title in WORDS["groups"] if groups[title]}
    sizes = [len(group) for group in groups.values()]
    fig, grid = plt.subplots(
        len(groups),
        len(found),
        figsize=(7.6, 0.25 * sum(sizes) + 0.55 * len(groups) + 0.5),
        height_ratios=[size + 0.8 for size in sizes],
        sharex=True,
        squeeze=False,
        dpi=130,  # the page stays light
        layout="constrained",
    )
    for (title, group), axes in zip(groups.items(), grid):
        group = sorted(group, key=lambda line: line["difference"][0])
        for (data, findings), ax in zip(found.items(), axes):
            lines = {(line["row"], line["against"]): line for line in findings["comparisons"]}
            ax.axvline(0, color="C7", linewidth=1)
            for y, line in enumerate(group):
                pair = line["row"], line["against"]
                if pair in lines:
                    plot_line(ax, lines[pair], y)
                    if data == with_published:
                        plot_published(ax, lines[pair], keys, y)
            ax.set(ylim=(-0.7, len(group) - 0.3), yticks=range(len(group)), yticklabels=[])
            ax.tick_params(labelbottom=ax in grid[-1], length=0)
            if ax in grid[0]:
                ax.set_title(WORDS["data"][data], fontweight="normal")
        axes[0].set_yticklabels([name_of(line) for line in group])
        axes[0].annotate(
            WORDS["groups"][title],
            (0, 1),
            (-4, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontweight="bold",
        )
    fig.supxlabel(WORDS["difference"], fontsize=10)
    return fig
